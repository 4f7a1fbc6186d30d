"""Every reader with every encoder: what is stored, that a pair is what it says, and what is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import safetensors
import torch

from models.levels import expectation
from models.quality_lmm import QualityLMM
from models.rewards import Score, read_answer
from models.teaching import question
from models.vision_encoder import save_encoder, swap_encoder
from tasks.errors import StageError
from tasks.evaluation import cross_swap
from tasks.evaluation.choices import Resampling
from tasks.pool import load_candidates, read_media
from tasks.prepared import decode_medium, prepare_medium
from tasks.records import SWAPS
from tasks.shards import read_table, write_json
from tasks.stage import Place

CONFIG = cross_swap.Config(
    max_media=None,
    most_tokens=12,
    batch=4,
    threads=1,
    device="cpu",
    max_reject_share=0.0,
    sampling=Resampling(n_bootstrap=30, seed=1, confidence=0.9, min_contents=2),
)
SETS = [
    {"name": "blurred", "distortions": ["original", "gaussian_blur"], "modality": None, "sources": []},
    {"name": "noisy", "distortions": ["white_noise"], "modality": "image", "sources": []},
]


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    artifacts = line / "artifacts"
    torch.manual_seed(7)
    for name in ("teach/model", "ract/model", "ract/teachers/blurred/model", "ract/teachers/noisy/model"):
        model = QualityLMM.from_pretrained(artifacts / "pretrain" / "model")
        moved = [model.language_model, model.projector]
        moved += [] if name in ("teach/model", "ract/teachers/noisy/model") else [model.image_encoder]
        with torch.no_grad():
            for parameter in (parameter for part in moved for parameter in part.parameters()):
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(artifacts / name)
    told = {"data_sets": SETS, "reader": "noisy", "question": "short", "tags": "free"}
    write_json(artifacts / "ract" / "ract.json", told)
    return place_for(line, "cross_swap")


def swaps(place: Place) -> pd.DataFrame:
    return read_table(place.out / "swaps.parquet", SWAPS)


def test_all_readers_read_all_encoders_about_the_same_held_out_media(place: Place):
    report = cross_swap.run(CONFIG, place)
    rows, pool = swaps(place), load_candidates(place).set_index("id")
    pool = pool[pool["split"] == "held_out"]
    kinds = pool["distortion"].where(pool["severity"] > 0, "original")
    wanted = set(pool[kinds.isin(["original", "gaussian_blur", "white_noise"])].index)
    pairs = {
        (reader, encoder) for reader in ("blurred", "noisy") for encoder in ("blurred", "noisy", "pretrained", "ract")
    }
    assert {(row["reader"], row["encoder"]) for row in rows.to_dict("records")} == pairs | {("mixed", "mixed")}
    assert all(set(mine["id"]) == wanted for _, mine in rows.groupby(["reader", "encoder"]))
    assert report.media == len(wanted)
    assert report.data_sets == {"blurred": int((kinds.isin(["original", "gaussian_blur"])).sum()),
                                "noisy": int((kinds == "white_noise").sum())}  # fmt: skip
    for row in rows.to_dict("records"):
        assert list(row["data_sets"]) == (["noisy"] if kinds[row["id"]] == "white_noise" else ["blurred"])
        said = read_answer(row["said"], "score").said
        assert (said.quality if isinstance(said, Score) else None) == row["rating"] or row["rating"] != row["rating"]
    figures = json.loads((place.out / "figures.json").read_text())
    assert {row["data_set"] for row in figures["pairs"]} == {"all", "blurred", "noisy"}
    assert (place.out / "swaps.md").read_text().startswith("SRCC / PLCC by the expectation")
    assert report.srcc["mixed"].keys() == {"mixed"}
    assert report.unread == {"blurred": 1.0, "mixed": 1.0, "noisy": 1.0}


def test_a_pair_is_the_reader_with_the_other_encoder_in_it(place: Place, tmp_path: Path):
    cross_swap.run(CONFIG, place)
    teachers = place.artifacts("ract") / "teachers"
    reader, other = (QualityLMM.from_pretrained(teachers / name / "model") for name in ("noisy", "blurred"))
    save_encoder(other, tmp_path / "encoder")
    swap_encoder(reader, tmp_path / "encoder")
    pool, rows = load_candidates(place).set_index("id", drop=False), swaps(place)
    rows = rows[(rows["reader"] == "noisy") & (rows["encoder"] == "blurred")]
    for row in rows.to_dict("records"):
        medium = pool.loc[row["id"]]
        data = read_media(place, medium)
        timing = (int(medium["frames"]), float(medium["fps"])) if medium["modality"] == "video" else None
        seen = prepare_medium(decode_medium(data, medium["modality"], reader.spec, timing), reader.spec)
        quality = float(expectation(reader.level_probabilities([seen]).numpy())[0])
        assert quality == pytest.approx(row["expectation"], abs=1e-4)
        asked = question("score", "short", is_video=seen.is_video)
        assert reader.generate([seen], asked, max_new_tokens=12) == [row["said"]]


def test_equal_encoders_say_the_same_and_look_once(place: Place):
    cross_swap.run(CONFIG, place)
    rows = swaps(place).set_index(["reader", "encoder", "id"])
    for reader in ("blurred", "noisy"):  # the teacher of noisy has left its encoder as it was
        both = rows.loc[reader].loc["noisy"], rows.loc[reader].loc["pretrained"]
        assert both[0]["expectation"].equals(both[1]["expectation"])
        assert not both[0]["expectation"].equals(rows.loc[reader].loc["ract"]["expectation"])
    part = next((place.work / "features").glob("*.safetensors"))
    with safetensors.safe_open(part, framework="np") as file:
        looked = {name.split("/")[1] for name in file.keys()}  # noqa: SIM118 - no mapping
    assert looked == {"blurred", "noisy", "ract"}


def test_a_second_run_asks_nobody_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    first = cross_swap.run(CONFIG, place)
    table = (place.out / "swaps.parquet").read_bytes()
    monkeypatch.setattr(QualityLMM, "generate", lambda *_, **__: pytest.fail("asked again"))
    assert cross_swap.run(CONFIG, place) == first
    assert (place.out / "swaps.parquet").read_bytes() == table


def test_fewer_media_are_some_of_more(place: Place):
    whole = set(swaps_of(place, CONFIG, "whole")["id"])
    some = set(swaps_of(place, dataclasses.replace(CONFIG, max_media=4), "some")["id"])
    assert len(some) == 4
    assert some < whole


def swaps_of(place: Place, config: cross_swap.Config, name: str) -> pd.DataFrame:
    own = Place(place.root, place.work / name, place.work / name / "out")
    own.out.mkdir(parents=True)
    cross_swap.run(config, own)
    return swaps(own)


def test_a_rating_off_the_scale_or_unsaid_is_none():
    said = '<think>Edges are soft.</think><answer>{"rating": %s}</answer>'
    assert cross_swap.rating_in(said % 3.0, "free") == pytest.approx(0.5)
    assert cross_swap.rating_in(said % 5.2, "free") is None
    assert cross_swap.rating_in("Edges are soft.", "free") is None


def test_missing_artifacts_and_wrong_sizes_are_told(place: Place):
    with pytest.raises(ValueError, match="at least 1"):
        dataclasses.replace(CONFIG, batch=0)
    (place.root / "artifacts" / "ract").rename(place.root / "elsewhere")
    with pytest.raises(StageError, match="artifacts/ract is missing"):
        cross_swap.run(CONFIG, place)
