"""What human scores mean: which way they run, and on which scale; declared by whoever has them, never guessed."""

import math
from dataclasses import dataclass
from enum import StrEnum

from tasks.errors import StageError


class Polarity(StrEnum):
    """Which way the numbers of a file run."""

    MOS = "mos"
    DMOS = "dmos"
    NEGATED_DMOS = "negated_dmos"


@dataclass(frozen=True)
class Meaning:
    """Polarity and scale of the numbers as they stand in the file.

    Attributes:
        polarity: ``mos`` (higher is better), ``dmos`` (lower is better), ``negated_dmos`` (minus DMOS: never above 0,
            higher is better).
        low, high: ends of the scale, the lower number first.
    """

    polarity: Polarity
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            msg = f"the scale {self.low:g} to {self.high:g} is empty: name its lower end first"
            raise StageError(msg)
        if self.polarity is Polarity.NEGATED_DMOS and self.high > 0:
            msg = f"negated DMOS is never above 0, and the scale {self.low:g} to {self.high:g} is"
            raise StageError(msg)

    def quality(self, score: float) -> float:
        """A score on [0, 1], higher is better."""
        unit = (score - self.low) / (self.high - self.low)
        return 1 - unit if self.polarity is Polarity.DMOS else unit

    def unit_std(self, std: float | None) -> float | None:
        """A standard deviation on that scale."""
        return None if std is None else std / (self.high - self.low)
