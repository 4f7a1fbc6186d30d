import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.levels import CENTRES
from models.niqe import niqe
from models.probe_head import QualityProbe
from models.quality_lmm import QualityLMM
from models.rali.student import RaliStudent
from models.vision_encoder import prepare_image
from tasks import prepared
from tasks.errors import ConfigError, StageError
from tasks.evaluation import predict
from tasks.evaluation.baselines import ProbeConfig
from tasks.media import decode_image
from tasks.pool import load_candidates, read_media
from tasks.records import CANDIDATES, OPINIONS, PREDICTIONS, REJECTS
from tasks.shards import frame_of, read_table, write_table
from tasks.stage import Place, build_config

CONFIG = predict.Config(
    batch=4,
    in_flight=1024,
    threads=1,
    device="cpu",
    max_reject_share=0.05,
    probe=ProbeConfig(penalties=(0.01, 1.0), folds=2, max_media=None),
    niqe_frames=2,
)


@pytest.fixture
def place(
    line: Path,
    place_for: Callable[[Path, str], Place],
    write_pretrained: Callable[[Path], None],
    write_student: Callable[[Path], RaliStudent],
) -> Place:
    write_pretrained(line)
    base, pretrained = line / "artifacts" / "base", line / "artifacts" / "pretrain"
    from models.vision_encoder import swap_encoder

    for decoder in ("small", "large"):
        model = QualityLMM.from_pretrained(base / decoder)
        model.save_pretrained(line / "artifacts" / "warm_up" / decoder / "control")
        swap_encoder(model, pretrained / "encoder")
        for variant in ("zero", "warm"):
            model.save_pretrained(line / "artifacts" / "warm_up" / decoder / variant)
    assistant = QualityLMM.from_pretrained(pretrained / "model")
    with torch.no_grad():
        for parameter in assistant.parameters():
            parameter.mul_(1.02)
    assistant.save_pretrained(line / "artifacts" / "assistant" / "model")
    for number, (folder, source) in enumerate({"model": pretrained / "model", "control": base / "small"}.items()):
        model = QualityLMM.from_pretrained(source)
        probe = QualityProbe(model.image_encoder, model.motion_extractor, model.spec, (1, 2), 16)
        probe.head.start_anew(torch.Generator().manual_seed(number))
        torch.nn.init.normal_(probe.head.outer.bias, generator=torch.Generator().manual_seed(number))
        probe.save_pretrained(line / "artifacts" / "linear_probe" / folder)
    write_student(line)
    return place_for(line, "predict")


def _by_model(place: Place) -> dict[str, pd.DataFrame]:
    table = read_table(place.out / "predictions.parquet", PREDICTIONS)
    return {str(name): rows.set_index("id") for name, rows in table.groupby("model")}


def test_every_model_of_the_zoo_predicts_every_held_out_medium(place: Place):
    report = predict.run(CONFIG, place)
    predictions = _by_model(place)
    zoo = {f"{kind}-{d}" for kind in ("vital-zero", "vital-warm-up", "base-warm-up") for d in ("small", "large")}
    alone = {"base-small", "vital-base-small", "vital-assistant-small", "linear-probe", "niqe"}
    alone |= {"vital-probe", "base-probe", "vital-rali"}
    assert set(predictions) == zoo | alone
    pool = load_candidates(place)
    held_out = pool[pool["split"] == "held_out"]
    opinions = read_table(place.root / "artifacts" / "score" / "opinions.parquet", OPINIONS).set_index("id")
    for name, rows in predictions.items():
        assert set(rows.index) <= set(held_out["id"])
        assert len(held_out) - len(rows) == report.unscored[name]
        assert np.allclose(rows["target"], opinions.loc[rows.index, "mu"])
        assert set(rows["target_kind"]) == {"machine_opinion"}
    assert report.held_out_media == len(held_out) == 11
    assert {name: count for name, count in report.unscored.items() if count} == {"niqe": 1}  # a flat synthetic picture
    assert read_table(place.out / "rejects.parquet", REJECTS).empty


@pytest.mark.parametrize(("name", "folder"), [("vital-base-small", "pretrain"), ("vital-assistant-small", "assistant")])
def test_a_score_is_the_expectation_of_the_models_own_levels(place: Place, name: str, folder: str):
    predict.run(CONFIG, place)
    rows = _by_model(place)[name]
    model = QualityLMM.from_pretrained(place.root / "artifacts" / folder / "model")
    pool = load_candidates(place)
    for _, row in pool[(pool["split"] == "held_out") & (pool["modality"] == "image")].iterrows():
        medium = prepare_image(decode_image(read_media(place, row)), model.spec)
        probs = model.level_probabilities([medium])[0].double().numpy()
        found = rows.loc[row["id"]]
        assert np.allclose(found["level_probs"], probs, atol=1e-5)
        assert found["score"] == pytest.approx(float(probs @ CENTRES), abs=1e-5)
        assert found["readout"] == "expectation"


@pytest.mark.parametrize(("style", "user"), [("asked", "How would you rate the quality of this image?"), ("empty", "")])
def test_the_pretrained_model_is_rated_after_the_conversation_it_was_trained_with(
    pretrain_asked: Callable[[str], tuple[Path, dict[str, set[str]]]],
    place_for: Callable[[Path, str], Place],
    rated: dict[str, set[str]],
    write_student: Callable[[Path], RaliStudent],
    style: str,
    user: str,
):
    root, trained = pretrain_asked(style)
    write_student(root)
    place, artifacts = place_for(root, "predict"), root / "artifacts"
    shutil.copytree(artifacts / "pretrain" / "model", artifacts / "assistant" / "model")
    for stage in ("warm_up", "linear_probe"):
        (artifacts / stage).mkdir()
    (base,) = (entry for entry in predict.list_zoo(place) if entry.encoder == predict.BASE)
    predict.run(CONFIG, place)
    sentence = "The quality of the image is"
    before = f"<img></img>\n{user}<|im_end|>\n<|im_start|>assistant\n"
    assert {conversation.partition("user\n")[2] for conversation in trained[sentence]} == {before}
    untrained = QualityLMM.from_pretrained(base.folder)  # it knows no question, and is asked none
    assert untrained.question == "empty"
    assert {conversation.partition("user\n")[2] for conversation in rated[sentence]} == {
        before, before.replace(user, ""),
    }  # fmt: skip
    assert trained[sentence] <= rated[sentence]


@pytest.mark.parametrize(("name", "folder"), [("vital-probe", "model"), ("base-probe", "control")])
def test_a_probe_is_read_out_by_its_own_head_on_its_own_encoder(place: Place, name: str, folder: str):
    predict.run(CONFIG, place)
    rows = _by_model(place)[name]
    probe = QualityProbe.from_pretrained(place.root / "artifacts" / "linear_probe" / folder)
    pool = load_candidates(place)
    for _, row in pool[(pool["split"] == "held_out") & (pool["modality"] == "image")].iterrows():
        medium = prepare_image(decode_image(read_media(place, row)), probe.spec)
        probs = probe.level_probabilities([medium])[0].double().numpy()
        assert np.allclose(rows.loc[row["id"]]["level_probs"], probs, atol=1e-5)
        assert rows.loc[row["id"]]["score"] == pytest.approx(float(probs @ CENTRES), abs=1e-5)
    assert set(rows["readout"]) == {"expectation"}


def test_the_released_readout_is_declared_as_one_of_another_scale(place: Place):
    layout = place.root / "artifacts" / "linear_probe" / "model" / "quality_probe.json"
    layout.write_text(layout.read_text().replace('"centres"', '"released"'))
    predict.run(CONFIG, place)
    rows = _by_model(place)["vital-probe"]
    wanted = np.stack(list(rows["level_probs"])) @ np.array([1.0, 0.8, 0.6, 0.4, 0.2])
    assert np.allclose(rows["score"], wanted)
    assert set(rows["readout"]) == {"probe_released"}


def test_baselines_are_what_they_say(place: Place):
    predict.run(CONFIG, place)
    predictions = _by_model(place)
    pool = load_candidates(place)
    row = pool[(pool["split"] == "held_out") & (pool["modality"] == "image")].iloc[0]
    found = predictions["niqe"].loc[row["id"]]
    assert found["score"] == pytest.approx(niqe(decode_image(read_media(place, row))))
    assert len(found["level_probs"]) == 0
    assert predictions["linear-probe"]["score"].between(0, 1).all()
    assert set(predictions["linear-probe"]["readout"]) == {"linear_probe"}


def test_a_stage_that_is_run_again_loads_no_finished_model(place: Place, monkeypatch: pytest.MonkeyPatch):
    first = predict.run(CONFIG, place)
    before = (place.out / "predictions.parquet").read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("predicted again")

    for name in ("encode_media", "encode_rows", "level_rows", "_level_probs", "train_probe", "niqe_scores"):
        monkeypatch.setattr(predict, name, never)
    assert predict.run(CONFIG, place) == first
    assert (place.out / "predictions.parquet").read_bytes() == before


@pytest.fixture
def _fours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four media are looked at together, as many as are judged together."""
    monkeypatch.setattr(prepared, "_TOGETHER", 4)


FOURS = dataclasses.replace(CONFIG, in_flight=4)


def _apart(place: Place, name: str) -> Place:
    return Place(place.root, place.work / name, place.work / name / "out")


@pytest.mark.usefixtures("_fours")
def test_groups_change_no_byte_and_their_features_are_gone_when_they_are_judged(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    whole = predict.run(CONFIG, _apart(place, "whole"))
    own, kept = predict.encode_media, list[int]()

    def watched(folder: Path, *arguments: Any) -> dict[str, prepared.CachedFeatures]:
        found = own(folder, *arguments)
        media = set[str]()
        for path in folder.iterdir():
            media.update(prepared.open_part(path)[1])
        kept.append(len(media))
        return found

    monkeypatch.setattr(predict, "encode_media", watched)
    assert predict.run(FOURS, place) == whole
    assert kept == [4, 4, 3]
    assert not list(place.work.glob("**/*features*"))
    for file in ("predictions.parquet", "rejects.parquet"):
        assert (place.out / file).read_bytes() == (place.work / "whole" / "out" / file).read_bytes()


@pytest.mark.usefixtures("_fours")
def test_a_run_that_stops_goes_on_where_it_was(place: Place, monkeypatch: pytest.MonkeyPatch):
    whole = predict.run(FOURS, _apart(place, "whole"))
    own, groups, asked = predict.niqe_scores, list[int](), list[str]()

    def stopped_once(where: Place, media: pd.DataFrame, frames: int) -> Any:
        groups.append(len(media))
        if len(groups) == 2:
            raise KeyboardInterrupt
        return own(where, media, frames)

    def watched(name: str, *arguments: Any) -> pd.DataFrame:
        asked.append(name)
        return level_rows(name, *arguments)

    level_rows = predict.level_rows
    monkeypatch.setattr(predict, "niqe_scores", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        predict.run(FOURS, place)
    monkeypatch.setattr(predict, "level_rows", watched)
    assert predict.run(FOURS, place) == whole
    assert groups == [4, 4, 4, 3]
    assert len(asked) == len(set(asked)) == 9  # of the last group alone
    assert (place.out / "predictions.parquet").read_bytes() == (
        place.work / "whole" / "out" / "predictions.parquet"
    ).read_bytes()


def _break(place: Place, count: int) -> set[str]:
    """Make held-out children unreadable: their first bytes are gone."""
    table = read_table(place.root / "artifacts" / "distort" / "candidates.parquet", CANDIDATES)
    chosen = table[table["split"] == "held_out"][:count]
    for row in chosen.itertuples():
        with (place.root / "artifacts" / "distort" / "media" / str(row.shard)).open("r+b") as archive:
            archive.seek(int(str(row.offset)))
            archive.write(b"broken!")
    return set(chosen["id"])


def test_broken_media_are_counted_over_all_groups(place: Place):
    broken = _break(place, 1)
    config = dataclasses.replace(FOURS, max_reject_share=0.1)  # of eleven; it would be too much of four
    report = predict.run(config, place)
    assert report.rejected == 1
    assert set(read_table(place.out / "rejects.parquet", REJECTS)["id"]) == broken
    predictions = read_table(place.out / "predictions.parquet", PREDICTIONS)
    assert not broken & set(predictions["id"])
    assert report.unscored["vital-base-small"] == 0
    _break(place, 2)
    with pytest.raises(StageError, match="2 of 11 media do not decode"):
        predict.run(config, _apart(place, "more"))


def test_the_ridge_regression_is_fitted_to_no_more_media_than_it_may_be(place: Place, monkeypatch: pytest.MonkeyPatch):
    sizes: list[tuple[int, int]] = []
    own = predict.train_probe

    def watched(rows: pd.DataFrame, pooled_NF: Any, config: ProbeConfig) -> Any:
        sizes.append((len(rows), len(pooled_NF)))
        return own(rows, pooled_NF, config)

    monkeypatch.setattr(predict, "train_probe", watched)
    predict.run(dataclasses.replace(CONFIG, probe=dataclasses.replace(CONFIG.probe, max_media=12)), place)
    assert sizes == [(12, 12)]


def test_without_held_out_opinions_there_is_nothing_to_predict(place: Place):
    write_table(place.root / "artifacts" / "score" / "opinions.parquet", OPINIONS, frame_of(OPINIONS, []))
    with pytest.raises(StageError, match="no medium of the split held_out has an opinion"):
        predict.run(CONFIG, place)


@pytest.mark.parametrize("change", [{"in_flight": 0}, {"probe": {"penalties": [1.0], "folds": 2, "max_media": 0}}])
def test_groups_and_fits_of_nothing_are_refused(change: dict[str, Any]):
    with pytest.raises(ConfigError, match="must be at least 1"):
        build_config(predict.Config, "predict", dataclasses.asdict(CONFIG) | change)


def test_a_model_on_another_encoder_is_refused(place: Place):
    folder = place.root / "artifacts" / "warm_up" / "large" / "warm"
    model = QualityLMM.from_pretrained(folder)
    with torch.no_grad():
        next(model.image_encoder.parameters()).view(-1)[0].add_(1.0)
    model.save_pretrained(folder)
    with pytest.raises(StageError, match="vital-warm-up-large does not stand on the vital encoder"):
        predict.run(CONFIG, place)
