"""Data sets within the line: media whose opinions belong together, told by what was done to them."""

from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from models.distortions import IMAGE_TYPES, VIDEO_TYPES
from tasks.instructions import ImportedSource

ORIGINAL: Final = "original"
"""As a distortion, the name of media to which nothing was done."""


@dataclass(frozen=True)
class DataSet:
    """Media whose opinions belong together.

    Attributes:
        name: letters, digits and ``_``; of the teacher's folder, too.
        distortions: types of the line's media, ``original`` for those to which nothing was done; empty takes all, None
            none of them.
        modality: of the line's media; None takes both.
        sources: imported tables of media with their quality, see ``tasks.training.teaching_tasks``.
    """

    name: str
    distortions: tuple[str, ...] | None
    modality: Literal["image", "video"] | None
    sources: tuple[ImportedSource, ...]

    def __post_init__(self) -> None:
        """Check the names."""
        if not self.name.replace("_", "a").isalnum() or not self.name.isascii():
            msg = f"the name of a data set holds letters, digits and _, not {self.name!r}"
            raise ValueError(msg)
        known = {ORIGINAL, *IMAGE_TYPES, *VIDEO_TYPES}
        if unknown := [kind for kind in self.distortions or () if kind not in known]:
            msg = f"data set {self.name}: there is no distortion {unknown[0]!r}; docs/distortions.md names them"
            raise ValueError(msg)

    def of(self, pool: pd.DataFrame) -> pd.DataFrame:
        """Its rows of the pool (CANDIDATES)."""
        if self.distortions is None:
            return pool.iloc[:0]
        kinds = pool["distortion"].where(pool["severity"] > 0, ORIGINAL)
        named = kinds.isin(self.distortions) if self.distortions else pd.Series(data=True, index=pool.index)
        return pd.DataFrame(pool[named & (True if self.modality is None else pool["modality"] == self.modality)])
