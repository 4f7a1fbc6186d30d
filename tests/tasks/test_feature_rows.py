"""Vectors of media in files: what they are, that little of them is held, and that a stopped run goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.probe_head import QualityProbe
from models.quality_lmm import QualityLMM
from tasks import feature_rows, prepared
from tasks.errors import StageError
from tasks.feature_rows import encode_rows
from tasks.pool import load_candidates, read_media
from tasks.prepared import Preparation, decode_medium, prepare_medium
from tasks.stage import Place

PREPARATION = Preparation("test", 2, 0.2)
Pool = tuple[pd.DataFrame, Callable[[Any], bytes]]


@pytest.fixture
def probe(line: Path) -> QualityProbe:
    model = QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")
    return QualityProbe(model.image_encoder, model.motion_extractor, model.spec, (1, 2), 8).eval()


@pytest.fixture
def pool(line: Path) -> Pool:
    place = Place(line, line / "w", line / "w" / "out")
    rows = load_candidates(place)
    return rows[rows["split"] == "held_out"], lambda row: read_media(place, row)


@pytest.fixture
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of four media, decoded two at a time; one file is open at a time."""
    monkeypatch.setattr(feature_rows, "_MEDIA", 4)
    monkeypatch.setattr(feature_rows, "_OPEN", 1)
    monkeypatch.setattr(prepared, "_TOGETHER", 2)


def wanted(rows: pd.DataFrame, read: Callable[[Any], bytes], probe: QualityProbe) -> torch.Tensor:
    """Vectors of media that are looked at one by one, in the order of their ids."""
    media = [
        prepare_medium(decode_medium(read(row), row["modality"], probe.spec), probe.spec)
        for _, row in rows.sort_values("id").iterrows()
    ]
    return torch.cat([probe.gathered(probe.visual_features([medium])) for medium in media])


@pytest.mark.usefixtures("_small_files")
@pytest.mark.parametrize(("kept", "room"), [("float32", 4), ("float16", 2)])
def test_rows_are_the_vectors_of_their_media(
    pool: Pool, probe: QualityProbe, tmp_path: Path, kept: feature_rows.Kept, room: int
):
    rows, read = pool
    mixed = rows.sample(frac=1, random_state=0)
    found = encode_rows(tmp_path / "rows", mixed, read, {"a": probe}, PREPARATION, kept)["a"]
    exact_NF = wanted(rows, read, probe)
    assert found.ids == sorted(rows["id"])
    assert len(found) == len(rows) == 11
    assert [len(part) for part in found.parts()] == [4, 4, 3]
    assert np.array_equal(np.concatenate(list(found.parts())), found.rows(range(11)).numpy())
    some = [10, 0, 7, 7, 3]
    assert found.rows(some).dtype == torch.float32
    tolerance = {"rtol": 2**-11, "atol": 1e-5} if kept == "float16" else {"atol": 1e-5}
    assert torch.allclose(found.rows(some), exact_NF[some], **tolerance)
    files = sorted(path.stat().st_size for path in (tmp_path / "rows").iterdir())
    assert len(files) == 3
    assert 11 * exact_NF.shape[1] * room < sum(files) < 11 * exact_NF.shape[1] * room + 3 * 1024


@pytest.mark.usefixtures("_small_files")
def test_no_more_than_a_few_media_are_looked_at_together_and_no_file_twice(
    pool: Pool, probe: QualityProbe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows, read = pool
    looks: list[int] = []
    own = QualityProbe.visual_features

    def counted(self: QualityProbe, inputs: Any) -> Any:
        looks.append(len(inputs))
        if len(looks) == 5:  # in the third file
            raise KeyboardInterrupt
        return own(self, inputs)

    monkeypatch.setattr(QualityProbe, "visual_features", counted)
    asked: list[str] = []

    def watched(row: Any) -> bytes:
        asked.append(row.id)
        return read(row)

    with pytest.raises(KeyboardInterrupt):
        encode_rows(tmp_path / "rows", rows, watched, {"a": probe}, PREPARATION, "float32")
    assert len(list((tmp_path / "rows").iterdir())) == 2
    asked.clear()
    found = encode_rows(tmp_path / "rows", rows, watched, {"a": probe}, PREPARATION, "float32")["a"]
    assert asked == sorted(rows["id"])[8:]
    assert looks == [2, 2, 2, 2, 2, 2, 1]
    assert torch.allclose(found.rows(range(11)), wanted(rows, read, probe), atol=1e-5)


@pytest.mark.usefixtures("_small_files")
def test_broken_media_have_no_row_and_too_many_of_them_fail(pool: Pool, probe: QualityProbe, tmp_path: Path):
    rows, read = pool
    ids = sorted(rows["id"])

    def broken(count: int) -> Callable[[Any], bytes]:
        return lambda row: b"no picture" if row.id in ids[:count] else read(row)

    few = encode_rows(tmp_path / "a", rows, broken(1), {"a": probe}, PREPARATION, "float32")["a"]
    assert few.ids == ids[1:]
    assert few.rejects["reason"].tolist() == ["unknown_format"]
    assert torch.allclose(few.rows(range(10)), wanted(rows, read, probe)[1:], atol=1e-5)
    lenient = Preparation("test", 1, 0.5)
    more = encode_rows(tmp_path / "b", rows, broken(5), {"a": probe}, lenient, "float32")["a"]
    assert more.ids == ids[5:]
    assert [len(part) for part in more.parts()] == [3, 3]  # the first file holds nothing
    assert torch.allclose(more.rows([5, 0]), wanted(rows, read, probe)[[10, 5]], atol=1e-5)
    with pytest.raises(StageError, match="5 of 11 media do not decode"):
        encode_rows(tmp_path / "b", rows, broken(5), {"a": probe}, PREPARATION, "float32")
