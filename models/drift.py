"""How far numbers have drifted from what they were: PSI, the Kolmogorov-Smirnov distance, and moves between levels.

``before`` and ``after`` are scores of two versions of one data set. The first two measures compare distributions and
need no common samples; moves between levels compare the same samples one by one.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import ModelError
from models.levels import LEVELS, level_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_HALF: Final = 0.5
"""Added to every count (Jeffreys' prior of a multinomial): an empty bin is a large drift, not an infinite one."""


def psi(before_N: ArrayLike, after_M: ArrayLike, bins: int = 10) -> float:
    """Population stability index over bins that ``before`` fills equally.

    ``sum((q_k - p_k) ln(q_k / p_k))``, the symmetrised Kullback-Leibler divergence of the shares ``p`` (before) and
    ``q`` (after); credit scoring's rule of thumb calls .1 a small and .25 a large shift (Siddiqi 2006). Equal
    quantiles of ``before`` share an edge.

    Args:
        before_N, after_M: finite numbers.
        bins: of equal share of ``before``, at least 2.

    Returns:
        At least 0; 0 if the shares are equal.

    Raises:
        ModelError: there are no numbers, or one is not finite, or fewer than two bins.
    """
    before, after = _numbers(before_N), _numbers(after_M)
    if bins < 2:
        msg = f"PSI needs at least two bins, not {bins}"
        raise ModelError(msg)
    edges = np.unique(np.quantile(before, np.arange(1, bins) / bins))
    counts = [np.bincount(np.searchsorted(edges, x, side="right"), minlength=edges.size + 1) for x in (before, after)]
    p_K, q_K = ((count + _HALF) / (count.sum() + _HALF * count.size) for count in counts)
    return float(np.sum((q_K - p_K) * np.log(q_K / p_K)))


def ks(before_N: ArrayLike, after_M: ArrayLike) -> float:
    """Two-sample Kolmogorov-Smirnov distance: the largest difference of the two cumulative distributions, [0, 1].

    No p-value: versions of a data set share most of their samples, and the test's null distribution needs independent
    ones.

    Raises:
        ModelError: there are no numbers, or one is not finite.
    """
    before, after = np.sort(_numbers(before_N)), np.sort(_numbers(after_M))
    where = np.concatenate([before, after])
    below = [np.searchsorted(side, where, side="right") / side.size for side in (before, after)]
    return float(np.abs(below[0] - below[1]).max())


def migration(before_N: ArrayLike, after_N: ArrayLike) -> Integers:
    """Moves between levels of the same ``N`` samples, ``[5, 5]``: row is the level before, column after, best first.

    Args:
        before_N, after_N: qualities in [0, 1].

    Raises:
        ModelError: the numbers of samples differ, or a quality is outside [0, 1].
    """
    before, after = level_indices(before_N), level_indices(after_N)
    if before.size != after.size:
        msg = f"moves need the same samples before and after, not {before.size} and {after.size}"
        raise ModelError(msg)
    table = np.zeros((len(LEVELS), len(LEVELS)), dtype=np.int64)
    np.add.at(table, (before, after), 1)
    return table


def moved_share(table_55: ArrayLike, levels: int = 1) -> float:
    """Share of the samples of a :func:`migration` that moved by at least ``levels`` levels; 0 of none."""
    table = np.asarray(table_55)
    row, column = np.indices(table.shape)
    total = int(table.sum())
    return float(table[np.abs(row - column) >= levels].sum() / total) if total else 0.0


def level_indices(quality_N: ArrayLike) -> Integers:
    """Position in ``LEVELS`` of each quality; see :func:`models.levels.level_of` for errors."""
    places = {level: index for index, level in enumerate(LEVELS)}
    return np.array([places[level_of(float(q))] for q in np.asarray(quality_N, dtype=np.float64)], dtype=np.int64)


def _numbers(values: ArrayLike) -> Floats:
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise ModelError("drift needs at least one number on each side, and all of them finite")
    return numbers
