"""Means over samples with intervals over contents, and replicates that several models share, so that they pair.

Shape legend: ``N`` samples, ``G`` groups (contents), ``B`` replicates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.correlation import interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """A mean over samples with its interval.

    Attributes:
        value: None if it is defined for no sample.
        low, high: None where replicates leave the mean undefined too often.
        samples: that the mean is over.
    """

    value: float | None
    low: float | None
    high: float | None
    samples: int


@dataclass(frozen=True)
class Replicates:
    """Contents drawn with replacement, shared by all that is compared.

    Attributes:
        group_N: number of each sample's content, in ``range(G)``.
        multiplicities_BG: from :func:`models.correlation.resamples`.
        confidence: of intervals. max_undefined: share of replicates that may be undefined.
    """

    group_N: Integers
    multiplicities_BG: Integers
    confidence: float
    max_undefined: float

    def mean(self, values_N: Floats) -> Share:
        """Mean of what is defined, with its interval over contents."""
        defined_N = np.isfinite(values_N)
        if not defined_N.any():
            return Share(None, None, None, 0)
        low, high = interval(self.means(values_N), self.confidence, self.max_undefined) or (None, None)
        return Share(float(values_N[defined_N].mean()), low, high, int(defined_N.sum()))

    def means(self, values_N: Floats) -> Floats:
        """Mean of what is defined on every replicate, ``[B]``; NaN where a replicate has nothing of it."""
        defined_N = np.isfinite(values_N)
        size = self.multiplicities_BG.shape[1]
        sum_G = np.bincount(self.group_N, np.where(defined_N, values_N, 0.0), size)
        count_G = np.bincount(self.group_N, defined_N.astype(np.float64), size)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.multiplicities_BG @ sum_G) / (self.multiplicities_BG @ count_G)
