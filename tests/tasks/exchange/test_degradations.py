"""Tables of degradations: what is declared is what comes out, and what is not is a reject with a reason."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rewards import CLASSES, SEVERITIES
from tasks.errors import StageError
from tasks.exchange.degradations import Declared, import_degradations
from tasks.exchange.tables import DEGRADATIONS
from tasks.shards import read_table, write_table

CLASS_OF = {"gblur": "blur", "awgn": "noise", "jpeg": "compression", "dark": "darken", "": "null"}
LEVEL_OF = {str(number): word for number, word in enumerate(SEVERITIES, start=1)}
DECLARED = Declared("image", "type", "level", CLASS_OF, LEVEL_OF)
RECORDS: list[Mapping[str, Any]] = [
    {"image": "a/1.png", "type": "gblur", "level": 1, "dmos": 0.1},
    {"image": "a/2.png", "type": "awgn", "level": 5.0, "dmos": 0.9},
    {"image": "a/3.png", "type": "", "level": "", "dmos": 0.0},
    {"image": "a/4.png", "type": "contrast", "level": 2, "dmos": 0.3},
    {"image": "a/5.png", "type": "jpeg", "level": 6, "dmos": 0.3},
    {"image": "a/1.png", "type": "jpeg", "level": 2, "dmos": 0.3},
    {"image": "../6.png", "type": "jpeg", "level": 2, "dmos": 0.3},
    {"image": "7.xyz", "type": "jpeg", "level": 2, "dmos": 0.3},
    {"image": "", "type": "jpeg", "level": 2, "dmos": 0.3},
]
WANTED = [("a/1.png", "blur", "slight"), ("a/2.png", "noise", "catastrophic"), ("a/3.png", None, None)]
REASONS = ["unknown_class", "unknown_level", "duplicate", "outside_root", "unknown_modality", "no_path"]


def told(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = ["path", "distortion_class", "severity"]
    return [tuple(None if pd.isna(cell) else cell for cell in row) for row in frame[columns].itertuples(index=False)]


def write_csv(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(RECORDS[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(dict(record, level=str(record["level"]).removesuffix(".0")) for record in RECORDS)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
def test_a_table_of_any_layout_becomes_the_same_rows_and_rejects(tmp_path: Path, name: str):
    path = tmp_path / name
    if name in ("t.csv", "t.tsv"):
        write_csv(path)
    else:
        lines = [json.dumps(record) for record in RECORDS]
        path.write_text("\n".join(lines) if name == "t.jsonl" else f"[{','.join(lines)}]")
    found = import_degradations(path, DECLARED, None)
    assert told(found.frame) == WANTED
    assert set(found.frame["modality"]) == {"image"}
    assert found.rejects["reason"].tolist() == REASONS
    assert found.rejects["id"].tolist() == ["3", "4", "5", "6", "7", "8"]
    write_table(tmp_path / "out.parquet", DEGRADATIONS, found.frame)
    assert told(read_table(tmp_path / "out.parquet", DEGRADATIONS)) == WANTED


def test_media_that_are_not_there_are_rejects(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "2.png").write_bytes(b"x")
    found = import_degradations(write_csv(tmp_path / "t.csv"), DECLARED, tmp_path)
    assert [row[0] for row in told(found.frame)] == ["a/2.png"]
    assert found.rejects["reason"].tolist().count("missing_medium") == 6


def test_what_cannot_be_declared_is_refused(tmp_path: Path):
    with pytest.raises(
        StageError, match="'fog' is declared as 'haze'; there are noise, compression, blur, darken, null"
    ):
        Declared("image", "type", "level", {"fog": "haze"}, {})
    with pytest.raises(StageError, match="'1' is declared as 'mild'; there are slight,"):
        Declared("image", "type", "level", {}, {"1": "mild"})
    path = write_csv(tmp_path / "t.csv")
    with pytest.raises(StageError, match="no column 'kind'; its first record has image, type, level, dmos"):
        import_degradations(path, Declared("image", "kind", "level", CLASS_OF, LEVEL_OF), None)
    with pytest.raises(StageError, match="none of 9 records can be used; the first is rejected as unknown_class"):
        import_degradations(path, Declared("image", "type", "level", {"fog": "blur"}, LEVEL_OF), None)
    (tmp_path / "empty.csv").write_text("image,type,level\n")
    with pytest.raises(StageError, match="holds no records"):
        import_degradations(tmp_path / "empty.csv", DECLARED, None)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["x", "y", "z", ""]), st.integers(0, 6)), min_size=1, max_size=12))
def test_every_record_is_a_row_or_a_reject(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, int]]):
    declared = Declared("path", "kind", "step", {"x": CLASSES[0], "y": CLASSES[2], "": "null"}, LEVEL_OF)
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    records = [{"path": f"{n}.png", "kind": kind, "step": step} for n, (kind, step) in enumerate(cells)]
    path.write_text("\n".join(map(json.dumps, records)))
    usable = [not kind or (kind in "xy" and 1 <= step <= 5) for kind, step in cells]
    if not any(usable):
        with pytest.raises(StageError, match="can be used"):
            import_degradations(path, declared, None)
        return
    found = import_degradations(path, declared, None)
    assert found.frame["path"].tolist() == [f"{n}.png" for n, one in enumerate(usable) if one]
    assert len(found.frame) + len(found.rejects) == len(cells)
