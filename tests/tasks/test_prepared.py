import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from models.quality_lmm import QualityLMM
from models.vision_encoder import prepare_image
from tasks import prepared
from tasks.errors import MediaError, StageError
from tasks.media import decode_image
from tasks.pool import load_candidates, read_media
from tasks.prepared import (
    Preparation,
    PreparedMedia,
    Views,
    decode_medium,
    encode_media,
    prepare_media,
    prepare_medium,
)
from tasks.stage import Place

PREPARATION = Preparation("test", 2, 0.2)


@pytest.fixture
def model(line: Path) -> QualityLMM:
    return QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")


@pytest.fixture
def pool(line: Path) -> tuple[pd.DataFrame, Callable[[Any], bytes]]:
    place = Place(line, line / "w", line / "w" / "out")
    rows = load_candidates(place)
    return rows[rows["split"] == "held_out"], lambda row: read_media(place, row)


def test_the_first_view_is_that_of_evaluation_and_others_differ(model: QualityLMM, pool: tuple, tmp_path: Path):
    rows, read = pool
    media = prepare_media(tmp_path, rows, read, Views(model.spec, 3, 7), PREPARATION)
    assert media.ids == set(rows["id"])
    row = rows[rows["modality"] == "image"].iloc[0]
    exact = prepare_image(decode_image(read(row)), model.spec).tiles_TCHW
    first, second, third, again = (media.read(row["id"], epoch).tiles_TCHW for epoch in range(4))
    assert first.dtype == torch.float32
    assert (first - exact).abs().max() < 2e-3  # a ninth of an 8-bit step
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_prepared_media_do_not_depend_on_the_number_of_threads(model: QualityLMM, pool: tuple, tmp_path: Path):
    rows, read = pool
    one = prepare_media(tmp_path / "a", rows, read, Views(model.spec, 2, 7), Preparation("test", 1, 0.2))
    many = prepare_media(
        tmp_path / "b", rows.sample(frac=1), read, Views(model.spec, 2, 7), Preparation("test", 4, 0.2)
    )
    for medium in one.ids:
        assert torch.equal(one.read(medium, 1).tiles_TCHW, many.read(medium, 1).tiles_TCHW)


def test_nothing_is_decoded_twice(model: QualityLMM, pool: tuple, tmp_path: Path):
    rows, read = pool
    asked: list[str] = []

    def counting(row: Any) -> bytes:
        asked.append(row.id)
        return read(row)

    for _ in range(2):
        encode_media(tmp_path, rows, counting, {"a": model, "b": model}, PREPARATION)
    assert sorted(asked) == sorted(rows["id"])


def test_cached_features_are_what_the_encoder_says_of_the_medium_alone(model: QualityLMM, pool: tuple, tmp_path: Path):
    rows, read = pool
    features = encode_media(tmp_path, rows, read, {"a": model}, PREPARATION)["a"]
    for _, row in rows.iterrows():
        medium = prepare_medium(decode_medium(read(row), row["modality"], model.spec), model.spec)
        with torch.no_grad():
            (alone,) = model.visual_features([medium])
        cached = features.read(row["id"])
        assert torch.allclose(cached.tiles_PSC, alone.tiles_PSC, atol=1e-5)
        assert cached.is_video == (row["modality"] == "video")
        if alone.motion_TM is not None:
            assert cached.motion_TM is not None
            assert torch.allclose(cached.motion_TM, alone.motion_TM, atol=1e-5)


def test_a_broken_medium_is_a_reject_with_its_reason_until_there_are_too_many(
    model: QualityLMM, pool: tuple, tmp_path: Path
):
    rows, read = pool
    bad = set(rows["id"].iloc[:1])

    def broken(row: Any) -> bytes:
        return b"not an image" if row.id in bad else read(row)

    media = prepare_media(tmp_path / "a", rows, broken, Views(model.spec, 1, 7), PREPARATION)
    assert media.ids == set(rows["id"]) - bad
    assert media.rejects.to_dict("records")[0]["reason"] == "unknown_format"
    with pytest.raises(StageError, match=f"1 of {len(rows)} media do not decode"):
        prepare_media(tmp_path / "b", rows, broken, Views(model.spec, 1, 7), Preparation("test", 1, 0.01))


def test_bytes_that_are_no_medium_are_refused(model: QualityLMM):
    with pytest.raises(MediaError):
        decode_medium(b"", "image", model.spec)


def test_processes_share_the_work_and_each_gets_all_of_it(
    model: QualityLMM, pool: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows, read = pool
    monkeypatch.setattr(prepared, "_TOGETHER", 2)
    meeting, here, asked = threading.Barrier(2, timeout=120), threading.local(), [list[str](), list[str]()]

    def who() -> SimpleNamespace:
        return SimpleNamespace(rank=here.rank, size=2, leads=here.rank == 0, gather=lambda _: meeting.wait())

    monkeypatch.setattr(prepared.group, "current", who)

    def member(rank: int) -> PreparedMedia:
        def watched(row: Any) -> bytes:
            asked[rank].append(row.id)
            return read(row)

        here.rank = rank
        return prepare_media(tmp_path / "shared", rows, watched, Views(model.spec, 1, 7), Preparation("test", 1, 0.2))

    with ThreadPoolExecutor(2) as members:
        found = list(members.map(member, range(2)))
    ids = sorted(rows["id"])
    parts = [ids[start : start + 2] for start in range(0, len(ids), 2)]
    assert asked == [sum(parts[0::2], []), sum(parts[1::2], [])]  # noqa: RUF017 - a handful
    monkeypatch.undo()
    monkeypatch.setattr(prepared, "_TOGETHER", 2)
    alone = prepare_media(tmp_path / "alone", rows, read, Views(model.spec, 1, 7), PREPARATION)
    for medium in ids:
        assert all(torch.equal(one.read(medium, 0).tiles_TCHW, alone.read(medium, 0).tiles_TCHW) for one in found)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("shared", "alone")]
    assert files[0] == files[1]


def test_machines_that_share_no_folder_make_all_files_themselves(
    model: QualityLMM, pool: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows, read = pool
    monkeypatch.setattr(prepared, "_TOGETHER", 4)
    second = SimpleNamespace(rank=1, size=2, leads=False, gather=lambda _: None)
    monkeypatch.setattr(prepared.group, "current", lambda: second)
    media = prepare_media(tmp_path, rows, read, Views(model.spec, 1, 7), PREPARATION)
    assert media.ids == set(rows["id"])
