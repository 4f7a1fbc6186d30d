import importlib.util
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from datasets import load_from_disk

from models.distortions import words
from models.levels import CENTRES
from tasks.annotation import assemble
from tasks.annotation.exports import instructions
from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Options, import_file, import_records
from tasks.exchange.json_text import cut, joined, rendered
from tasks.pool import load_candidates
from tasks.records import EXAMPLES, OPINIONS, REJECTS, REVIEWED, Split, Task
from tasks.shards import Placed, digest, frame_of, read_placed, read_table, write_table
from tasks.stage import Place, build_config

CHECKOUT = Path(__file__).resolve().parents[3]


def load_small_pool() -> Any:
    spec = importlib.util.spec_from_file_location("small_pool", Path(__file__).with_name("small_pool.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config() -> assemble.Config:
    section = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["assemble"]
    return build_config(assemble.Config, "assemble", section)


def reviews(pool: pd.DataFrame) -> list[dict[str, Any]]:
    """For each candidate: one kept and one refused assertion of the describer, and one kept planted one."""
    rows = []
    for key in pool["id"]:
        for position, (text, origin, kept) in enumerate(
            (
                ("Noise is strong", "describer", True),
                ("The image is dark", "describer", False),
                ("Edges are crisp", "planted", True),
            )
        ):
            record = {
                "assertion_id": digest(key, text),
                "id": key,
                "position": position,
                "attribute": "x",
                "text": text,
            }
            truth = True if origin == "planted" else None
            reason = "unanimous" if kept else "severe_deviation"
            rows.append(record | {"origin": origin, "planted_truth": truth, "kept": kept, "reason": reason})
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assemble")
    small_pool = load_small_pool()
    small_pool.build(folder)
    small_pool.give_opinions(folder)
    pool = load_candidates(Place(folder, folder, folder))
    table = frame_of(REVIEWED, reviews(pool))
    write_table(folder / "artifacts" / "review" / "reviewed.parquet", REVIEWED, table)
    return folder


@pytest.fixture(scope="module")
def outcome(root: Path) -> tuple[assemble.Report, Path]:
    where = root / ".work" / "assemble"
    return assemble.run(config(), Place(root, where, where / "out")), where / "out"


@pytest.fixture(scope="module")
def examples(outcome: Any) -> pd.DataFrame:
    return read_table(outcome[1] / "examples.parquet", EXAMPLES)


def test_each_task_has_the_examples_it_should_have(root: Path, outcome: Any, examples: pd.DataFrame):
    pool = load_candidates(Place(root, root, root))
    children = int(pool["distortion"].notna().sum())
    counts = examples["task"].value_counts()
    assert counts[Task.SINGLE] == len(pool) - 1
    assert counts[Task.DESCRIPTION] == len(pool) - 1
    assert counts[Task.DISTORTION] in (children, children - 1)
    assert sum(sum(splits.values()) for splits in outcome[0].by_task.values()) == outcome[0].examples == len(examples)


def test_targets_are_distributions_that_keep_the_opinion(root: Path, examples: pd.DataFrame):
    opinions = read_table(root / "artifacts" / "score" / "opinions.parquet", OPINIONS).set_index("id")
    told = examples[examples["task"].isin([Task.SINGLE, Task.PAIR])]
    for row in told.to_dict("records"):
        assert len(row["targets"]) == len(row["ids"]) == len(row["answers"]) == (2 if row["task"] == Task.PAIR else 1)
        for key, target in zip(row["ids"], row["targets"], strict=True):
            assert np.sum(target) == pytest.approx(1, abs=1e-9)
            assert target @ CENTRES == pytest.approx(np.clip(opinions.loc[key, "mu"], 0.1, 0.9), abs=1e-6)
    texts = examples[examples["task"].isin([Task.DISTORTION, Task.DESCRIPTION])]
    assert all(len(target) == 0 for target in texts["targets"])


def test_answers_are_the_papers_sentences(root: Path, examples: pd.DataFrame):
    pool = load_candidates(Place(root, root, root)).set_index("id")
    levels = ("high", "good", "fair", "poor", "low")
    for row in examples[examples["task"] == Task.SINGLE].to_dict("records"):
        assert row["answers"][0] in {f"The quality of the {row['modality']} is {level}" for level in levels}
    for row in examples[examples["task"] == Task.DISTORTION].to_dict("records"):
        child = pool.loc[row["ids"][0]]
        assert row["answers"][0] == words(child["distortion"], int(child["severity"]))


def test_pairs_are_4_4_2_within_one_split_and_modality(root: Path, outcome: Any, examples: pd.DataFrame):
    pool = load_candidates(Place(root, root, root)).set_index("id")
    paired = examples[examples["task"] == Task.PAIR]
    assert len(paired) >= 20
    for _, group in paired.groupby(["split", "modality"]):
        counts = group["preference"].value_counts()
        assert counts[1.0] == counts[0.0] == 2 * counts[0.5]
    for row in paired.to_dict("records"):
        for name in ("split", "modality"):
            assert {pool.loc[key, name] for key in row["ids"]} == {row[name]}
    told = outcome[0].pairs["image"]
    assert told["better"] == told["worse"] == 2 * told["tie"]


def test_only_kept_assertions_of_the_describer_become_text(outcome: Any, examples: pd.DataFrame):
    told = examples.loc[examples["task"] == Task.DESCRIPTION, "answers"]
    assert {answers[0] for answers in told} == {"Noise is strong"}
    rejects = read_table(outcome[1] / "rejects.parquet", REJECTS)
    assert set(rejects["reason"]) == {"planted", "no_opinion"}
    assert outcome[0].rejected["no_opinion"] == 1


def test_lengths_of_descriptions_stand_beside_the_papers(outcome: Any):
    found = outcome[0].description_lengths
    alike = dict.fromkeys(("shortest", "median", "p90", "longest"), 3)
    assert found == alike | {"mean": outcome[0].description_tokens, "sd": 0, "paper_mean": 14.83}
    assert assemble.lengths([4, 8, 12, 20])["sd"] == pytest.approx(5.9161, abs=1e-4)
    assert assemble.lengths([]) == {}


def test_splits_are_those_of_the_contents(root: Path, examples: pd.DataFrame):
    split = load_candidates(Place(root, root, root)).set_index("id")["split"]
    assert all({split[key] for key in row["ids"]} == {row["split"]} for row in examples.to_dict("records"))
    assert set(examples["split"]) <= set(Split)


def test_the_hugging_face_copy_loads_and_its_references_hold(root: Path, outcome: Any, examples: pd.DataFrame):
    loaded = load_from_disk(str(outcome[1] / "hf"))
    assert {name: len(part) for name, part in loaded.items()} == {
        str(key): int(count) for key, count in examples["split"].value_counts().items()
    }
    row = loaded[next(iter(loaded))][0]
    place = row["media"][0]
    folder = root / "artifacts" / place["stage"] / "media"
    data = read_placed(folder, Placed(place["shard"], place["offset"], place["length"]))
    assert data[:4] in (b"\x89PNG", b"RIFF") or data[4:8] == b"ftyp"


def test_exports_come_back_as_they_were(root: Path, outcome: Any, examples: pd.DataFrame):
    made = outcome[1]
    back = import_file(made / "hf", Options())
    assert back.table is EXAMPLES
    assert back.left_out == ["media"]
    assert EXAMPLES.to_arrow(back.frame).equals(EXAMPLES.to_arrow(examples))
    authors = import_file(made / "authors.json", Options())
    assert authors.problems == []
    assert export_text(authors.table, authors.frame) == ((made / "authors.json").read_text(), 0)
    train = examples[examples["split"] == Split.TRAIN]
    told = authors.frame["task"].value_counts()
    assert told["pair"] == 2 * (train["task"] == Task.PAIR).sum()
    assert told["distortion"] == (train["task"] == Task.DISTORTION).sum()
    media = {row["id"]: row for row in load_candidates(Place(root, root, root)).to_dict("records")}
    records = instructions(EXAMPLES.to_arrow(examples).to_pylist(), media, Split.TRAIN)
    assert len(records) == (train["task"] == Task.DESCRIPTION).sum()
    described = import_records(cut(joined(rendered(records)), "x"), "x", Options()).frame
    assert {tuple(texts) for texts in described["assertions"]} == {("Noise is strong",)}


def test_paths_in_the_authors_format_are_members_of_the_archives(root: Path, outcome: Any):
    names = set()
    for stage in ("collect", "distort"):
        for path in (root / "artifacts" / stage / "media").glob("*.tar"):
            with tarfile.open(path) as archive:
                names |= {f"{stage}/{member}" for member in archive.getnames()}
    groups = json.loads((outcome[1] / "authors.json").read_text())
    told = {member.get("image") or member.get("video") for group in groups for member in group}
    assert told
    assert told <= names
    assert outcome[0].authors_groups == len(groups)


def test_equal_inputs_give_equal_bytes(root: Path, outcome: Any):
    where = root / ".work" / "again"
    assemble.run(config(), Place(root, where, where / "out"))
    first = sorted(path for path in outcome[1].rglob("*") if path.is_file())
    assert len(first) >= 7
    for path in first:
        assert (where / "out" / path.relative_to(outcome[1])).read_bytes() == path.read_bytes(), path.name


def test_a_pool_without_opinions_is_an_error(root: Path, tmp_path: Path):
    (tmp_path / "artifacts").mkdir()
    for stage in ("collect", "distort", "review"):
        (tmp_path / "artifacts" / stage).symlink_to(root / "artifacts" / stage)
    write_table(tmp_path / "artifacts" / "score" / "opinions.parquet", OPINIONS, frame_of(OPINIONS, []))
    with pytest.raises(StageError, match="no candidate has an opinion"):
        assemble.run(config(), Place(tmp_path, tmp_path / "w", tmp_path / "w" / "out"))
