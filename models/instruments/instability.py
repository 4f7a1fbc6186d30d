"""How much a model's answer to one question changes when the question is asked again.

"Building Reasonable Inference for Vision-Language Models in Blind Image Quality Assessment" reports one share of
unstable answers and does not say how it is counted, so three estimators are told apart by name. With ``n_c`` of ``R``
answers in class ``c``, per sample:

* ``any_change``: 1 if not all answers are equal; grows with ``R``.
* ``modal``: ``1 - max n_c / R``, the share of answers that are not the most frequent one.
* ``pairwise``: ``1 - sum n_c (n_c - 1) / (R (R - 1))``, the chance that two answers differ; its mean does not depend
  on ``R``, and is that of ``any_change`` at two answers.

Shape legend: ``N`` samples, ``R`` answers, ``C`` classes.
"""

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.instruments.replicates import Replicates, Share

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Failures = Literal["own_class", "left_out"]

FAILED: Final = -1
"""Class of an answer that could not be read."""
ESTIMATORS: Final = ("pairwise", "any_change", "modal")
"""The first is the one to quote: it can be compared between runs with different numbers of answers."""


def unstable_shares(classes_NR: Integers, failures: Failures) -> dict[str, Floats]:
    """Every estimator for every sample, ``[N]`` in [0, 1]; NaN where fewer than two answers are left.

    Args:
        classes_NR: class of each answer, from 0; ``FAILED`` for one that could not be read.
        failures: whether failed answers are a class of their own, or are left out.

    Raises:
        ModelError: the array is no table, or holds another negative number.
    """
    if classes_NR.ndim != 2 or (classes_NR < FAILED).any():
        msg = f"answers must be a table of classes from 0, {FAILED} for failed ones, not {classes_NR.shape}"
        raise ModelError(msg)
    kinds = np.unique(classes_NR)
    counted = kinds if failures == "own_class" else kinds[kinds != FAILED]
    count_NC = (classes_NR[:, :, None] == counted).sum(axis=1).astype(np.float64)
    total_N = count_NC.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {
            "pairwise": 1.0 - (count_NC * (count_NC - 1.0)).sum(axis=1) / (total_N * (total_N - 1.0)),
            "any_change": ((count_NC > 0).sum(axis=1) > 1).astype(np.float64),
            "modal": 1.0 - count_NC.max(axis=1, initial=0.0) / total_N,
        }
    return {name: np.where(total_N >= 2, values_N, np.nan) for name, values_N in shares.items()}


def instability(classes_NR: Integers, failures: Failures, replicates: Replicates) -> dict[str, Share]:
    """Every estimator, averaged over samples.

    Raises:
        ModelError: as :func:`unstable_shares`.
    """
    return {name: replicates.mean(values_N) for name, values_N in unstable_shares(classes_NR, failures).items()}


def instability_difference(
    first_NR: Integers, second_NR: Integers, failures: Failures, replicates: Replicates
) -> Mapping[str, Share]:
    """First minus second model on the same samples, paired sample by sample.

    Raises:
        ModelError: the models answered about unlike numbers of samples; otherwise as :func:`unstable_shares`.
    """
    if len(first_NR) != len(second_NR):
        msg = f"the models answered about {len(first_NR)} and {len(second_NR)} samples: only like can be paired"
        raise ModelError(msg)
    first, second = unstable_shares(first_NR, failures), unstable_shares(second_NR, failures)
    return {name: replicates.mean(first[name] - second[name]) for name in ESTIMATORS}


def score_gap(scores_NR: Floats) -> Floats:
    """Mean absolute difference between two of a sample's scores, ``[N]``; NaN where fewer than two are numbers."""
    gaps_N = np.full(len(scores_NR), np.nan)
    for sample, scores_R in enumerate(scores_NR):
        kept = np.sort(scores_R[np.isfinite(scores_R)])
        size = len(kept)
        if size >= 2:
            weights = 2.0 * np.arange(size) - (size - 1.0)  # how often a sorted value is the larger less the smaller
            gaps_N[sample] = float(weights @ kept) / (size * (size - 1) / 2)
    return gaps_N
