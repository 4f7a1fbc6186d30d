"""The whole pool as every later stage sees it: originals of ``collect`` and children of ``distort`` in one frame."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from tasks.media import ADMITTED, Clip, Pixels, decode_image, decode_video
from tasks.records import CANDIDATES, Modality
from tasks.shards import Placed, read_placed, read_table
from tasks.stage import Place

STAGES: Final = ("collect", "distort")


def load_candidates(place: Place) -> pd.DataFrame:
    """Return originals and children, sorted by id, with the columns of CANDIDATES and ``stage``.

    Raises:
        StageError: one of the two stages has not been run.
    """
    frames = [
        read_table(place.artifacts(stage) / "candidates.parquet", CANDIDATES).assign(stage=stage) for stage in STAGES
    ]
    return pd.concat(frames, ignore_index=True).sort_values("id", kind="stable", ignore_index=True)


def read_media(place: Place, row: Any) -> bytes:
    """Return the bytes of one candidate: a row of :func:`load_candidates` as Series, mapping or named tuple.

    Raises:
        StageError: the archive is missing or short.
    """
    stage, shard, offset, length = (_field(row, name) for name in ("stage", "shard", "offset", "length"))
    return read_placed(place.artifacts(str(stage)) / "media", Placed(str(shard), int(offset), int(length)))


def decoded(place: Place, row: Any, frames: int) -> Pixels | Clip:
    """Decode one candidate: ``[H, W, 3]`` pixels of an image, or ``frames`` evenly spread frames of a video.

    Raises:
        MediaError: the bytes are not what the table says.
    """
    data = read_media(place, row)
    if _field(row, "modality") == Modality.VIDEO:
        return decode_video(data, frames, ADMITTED)
    return decode_image(data, ADMITTED)


def _field(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, Mapping | pd.Series) else getattr(row, name)
