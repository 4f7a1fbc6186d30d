"""Tables of opinions of every kind that people have, and one line for each that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plant
import pytest

from tasks.errors import StageError
from tasks.evaluation.opinion_tables import Columns, Scale, load_opinions
from tasks.records import CANDIDATES, OPINIONS
from tasks.shards import read_table, write_table


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    plant.build_plant(root, videos=False)
    return root


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    frame = {"name": ["a_1.png", "b_1.png", "a_2.png", "b_2.png"], "one": [0.1, 0.4, 0.4, 0.9]}
    frame |= {"two": [5, 2, 1, 9], "three": [0.3, 0.2, 0.5, 0.6], "same": [0.5] * 4, "note": ["x", "y", "z", "w"]}
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


def test_a_workspace_knows_contents_and_distortions(planted: Path):
    found, frame = load_opinions(planted, Columns())
    opinions = read_table(planted / "artifacts/score/opinions.parquet", OPINIONS)
    candidates = read_table(planted / "artifacts/collect/candidates.parquet", CANDIDATES)
    assert found.ids == list(opinions["id"]) == list(frame["id"])
    assert found.scorers == list(plant.SCORERS)
    assert found.scores_NS.tolist() == [list(row) for row in opinions["scores"]]
    assert found.contents_known
    assert set(found.content_N) == set(candidates["content_id"])
    assert set(found.distortion_N or []) == {"undistorted", *plant.TYPES}


def test_a_table_of_the_stage_alone_has_no_contents(planted: Path, tmp_path: Path):
    opinions = read_table(planted / "artifacts/score/opinions.parquet", OPINIONS)
    write_table(tmp_path / "opinions.parquet", OPINIONS, opinions)
    found, _ = load_opinions(tmp_path / "opinions.parquet", Columns(scorers="ranking,fragments"))
    assert found.scorers == ["ranking", "fragments"]
    assert found.scores_NS[0].tolist() == [opinions["scores"][0][5], opinions["scores"][0][0]]
    assert (found.contents_known, found.distortion_N, found.content_N) == (False, None, found.ids)


def test_a_label_file_by_ranks_groups_and_declared_direction(labels: Path):
    columns = Columns(scorers="one:two,three", lower=("two",), scale=Scale.RANK)
    columns = Columns(
        **vars(columns) | {"content": r"name:^(\w)_", "distortion": r"name:_(\d)"},
    )
    found, _ = load_opinions(labels, columns)
    assert found.ids == ["a_1.png", "b_1.png", "a_2.png", "b_2.png"]
    assert found.scorers == ["one", "two", "three"]
    assert found.scores_NS.tolist() == [[0.25, 0.5, 0.5], [0.625, 0.75, 0.25], [0.625, 1.0, 0.75], [1.0, 0.25, 1.0]]
    assert found.content_N == ["a", "b", "a", "b"]
    assert found.distortion_N == ["1", "1", "2", "2"]


def test_scores_on_the_unit_scale_stay_as_they_are(labels: Path):
    found, _ = load_opinions(labels, Columns(scorers="one,three", lower=("three",)))
    assert found.scores_NS.tolist() == [[0.1, 0.7], [0.4, 0.8], [0.4, 0.5], [0.9, 0.4]]


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_other_files_hold_the_same(labels: Path, kind: str):
    frame, path = pd.read_csv(labels), labels.with_suffix(f".{kind}")
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, sep="\t", index=False)
    one, two = (load_opinions(file, Columns(scorers="one,three"))[0] for file in (labels, path))
    assert (one.ids, one.scorers, one.scores_NS.tolist()) == (two.ids, two.scorers, two.scores_NS.tolist())


def test_what_vital_score_printed_counts_its_errors(tmp_path: Path):
    path = tmp_path / "scores.jsonl"
    rows = [{"path": f"{i}.png", "scores": {"x": i / 5, "y": (i * 3 % 5) / 5}, "mu": 0.5} for i in range(4)]
    rows.append({"path": "torn.png", "error": "the image data is broken"})
    path.write_text("\n".join(map(json.dumps, rows)))
    found, frame = load_opinions(path, Columns())
    assert found.ids == ["0.png", "1.png", "2.png", "3.png"] == list(frame["path"])
    assert found.scorers == ["x", "y"]
    assert found.scores_NS[2].tolist() == pytest.approx([0.4, 0.2])
    assert found.skipped == 1


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (Columns(), "does not say which columns are scorers"),
        (Columns(scorers="one,four"), "has no column 'four'; it has name, one, two"),
        (Columns(scorers="three:one"), "comes before 'three': write one:three"),
        (Columns(scorers="one,one"), "'one' is named twice"),
        (Columns(scorers="one,two"), r"two has scores from 1 to 9, outside \[0, 1\]"),
        (Columns(scorers="one,note"), "'note' is not numeric"),
        (Columns(scorers="one,same"), "same: the same score for every sample"),
        (Columns(scorers="one"), "one scorer has nobody to agree with"),
        (Columns(scorers="one,three", lower=("two",)), "'two' is no scorer"),
        (Columns(scorers="one,three", id="key"), "has no column 'key'"),
        (Columns(scorers="one,three", id="same"), "'0.5' occurs more than once"),
        (
            Columns(scorers="one,three", content="name:q(.)"),
            "does not fit 4 of 4 values of name, for example 'a_1.png'",
        ),
        (Columns(scorers="one,three", content="name:("), "is no pattern with one group"),
        (Columns(scorers="one,three", content="name:a|b"), "is no pattern with one group"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(labels: Path, columns: Columns, told: str):
    with pytest.raises(StageError, match=told):
        load_opinions(labels, columns)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.csv", None, "is missing"),
        ("image.png", b"x", "of no known kind"),
        ("torn.parquet", b"PAR1", "cannot be read"),
        ("empty.csv", b"", "cannot be read"),
        ("head.csv", b"id,a,b\n", "holds no rows"),
        ("torn.jsonl", b"{", "cannot be read"),
        ("odd.jsonl", b"[1]\n", "name the columns of scores by --scorers"),
        ("errors.jsonl", b'{"path": "a", "error": "x"}\n{"path": "b", "error": "x", "scores": null}\n', "errors alone"),
        ("binary.csv", b"\xff\xfe\x00", "cannot be read"),
        ("few.csv", b"id,a,b\n1,.1,.2\n2,.3,.4\n", "2 samples are too few"),
        ("hole.csv", b"id,a,b\n1,.1,.2\n2,,.4\n3,.5,.6\n", "a has no score for 1 of 3 samples"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, content: bytes | None, told: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    columns = Columns(scorers=None if name.endswith("jsonl") else "a,b")
    with pytest.raises(StageError, match=told):
        load_opinions(tmp_path / name, columns)


def test_rows_with_different_scorers_are_told(planted: Path, tmp_path: Path):
    opinions = read_table(planted / "artifacts/score/opinions.parquet", OPINIONS)
    opinions["scorers"] = [list(plant.SCORERS[:: -1 if i else 1]) for i in range(len(opinions))]
    write_table(tmp_path / "opinions.parquet", OPINIONS, opinions)
    with pytest.raises(StageError, match="rows have different scorers"):
        load_opinions(tmp_path / "opinions.parquet", Columns())


def test_candidates_of_another_run_and_columns_beside_them_are_told(planted: Path, tmp_path: Path):
    opinions = read_table(planted / "artifacts/score/opinions.parquet", OPINIONS)
    for stage in ("collect", "distort"):
        table = read_table(planted / f"artifacts/{stage}/candidates.parquet", CANDIDATES)
        write_table(tmp_path / f"artifacts/{stage}/candidates.parquet", CANDIDATES, table)
    path = tmp_path / "artifacts/score/opinions.parquet"
    write_table(path, OPINIONS, opinions.assign(id=np.arange(len(opinions)).astype(str)))
    with pytest.raises(StageError, match="have no candidate in collect or distort"):
        load_opinions(tmp_path, Columns())
    write_table(path, OPINIONS, opinions)
    with pytest.raises(StageError, match="leave --content and --distortion away"):
        load_opinions(tmp_path, Columns(content="id"))
