"""How far a quality follows from described features: ridge and ordinal regression, cross-validated, with permutations.

"Building Reasonable Inference for Vision-Language Models in Blind Image Quality Assessment" estimates how the final
quality relates to the visual features that a model describes and finds the relation weak. Here the share of explained
variance is measured on contents that the regression has not seen, for a model's quality and for people's side by side.

Shape legend: ``N`` samples, ``F`` features, ``P`` permutations, ``C`` levels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from models.errors import ModelError
from models.levels import CENTRES, LEVELS, level_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PENALTIES: Final = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Ridge penalties, chosen by leave-one-out within the training folds."""


@dataclass(frozen=True)
class Grounding:
    """How far a quality follows from features.

    Attributes:
        r2: share of the variance that ridge regression explains on unseen contents; negative if it does worse than the
            mean; None if the quality is constant.
        p_value: share of permutations that reach that ``r2``, itself included.
        ordinal_accuracy: share of levels that ordinal regression gets right on unseen contents.
        ordinal_r2: as ``r2``, of the expectation over its levels.
        majority: share of the most frequent level, which a guess gets right.
        weights_F: ridge coefficients on all samples, per unit of a feature.
        samples, contents: that were used.
    """

    r2: float | None
    p_value: float | None
    ordinal_accuracy: float | None
    ordinal_r2: float | None
    majority: float
    weights_F: Floats
    samples: int
    contents: int


def ground(
    features_NF: Floats, qualities: ArrayLike, contents: Sequence[str], folds: int, permutations: int, seed: int
) -> Grounding:
    """Regress a quality on features.

    Args:
        qualities: on [0, 1], higher is better, ``[N]``.
        contents: of each sample; a content is in one fold.
        permutations: of the qualities, for the p value. seed: of them and of the folds.

    Raises:
        ModelError: there are fewer contents than folds, or the arrays differ in length or are not finite.
    """
    quality_N = np.asarray(qualities, np.float64)
    _check(features_NF, quality_N, contents, folds)
    splits = _splits(features_NF, contents, folds, seed)
    levels_N = np.array([LEVELS.index(level_of(float(quality))) for quality in quality_N], dtype=np.int64)
    majority = float(np.bincount(levels_N).max() / len(levels_N))
    weights_F = np.asarray(_ridge(features_NF, quality_N).coef_, np.float64)
    size = {"samples": len(quality_N), "contents": len(set(contents))}
    if np.ptp(quality_N) < np.finfo(np.float64).eps:
        return Grounding(None, None, None, None, majority, weights_F, **size)
    r2 = _ridge_r2(features_NF, quality_N, splits)
    generator = np.random.default_rng(seed)
    reached = sum(_ridge_r2(features_NF, generator.permutation(quality_N), splits) >= r2 for _ in range(permutations))
    accuracy, ordinal_r2 = _ordinal(features_NF, quality_N, levels_N, splits)
    return Grounding(r2, (1 + reached) / (1 + permutations), accuracy, ordinal_r2, majority, weights_F, **size)


_Splits = Sequence[tuple[Integers, Integers]]


def _check(features_NF: Floats, quality_N: Floats, contents: Sequence[str], folds: int) -> None:
    if not len(features_NF) == len(quality_N) == len(contents):
        msg = f"{len(features_NF)} rows of features, {len(quality_N)} qualities and {len(contents)} contents do not fit"
        raise ModelError(msg)
    if not (np.isfinite(features_NF).all() and np.isfinite(quality_N).all()):
        raise ModelError("features and qualities must be finite")
    if len(set(contents)) < max(2, folds):
        msg = f"{len(set(contents))} contents are too few for {folds} folds"
        raise ModelError(msg)


def _splits(features_NF: Floats, contents: Sequence[str], folds: int, seed: int) -> _Splits:
    """Folds of shuffled contents: in their own order, names that count severities would put one into each fold."""
    return list(GroupKFold(folds, shuffle=True, random_state=seed).split(features_NF, groups=list(contents)))


def _ridge(features_NF: Floats, quality_N: Floats) -> RidgeCV:
    return RidgeCV(PENALTIES).fit(features_NF, quality_N)


def _ridge_r2(features_NF: Floats, quality_N: Floats, splits: _Splits) -> float:
    predicted_N = np.empty_like(quality_N)
    for train, test in splits:
        predicted_N[test] = _ridge(features_NF[train], quality_N[train]).predict(features_NF[test])
    return float(r2_score(quality_N, predicted_N))


def _ordinal(features_NF: Floats, quality_N: Floats, levels_N: Integers, splits: _Splits) -> tuple[float, float]:
    """Accuracy and R2 of ordinal regression: a logistic regression for each edge between levels (Frank and Hall 2001).

    Probabilities of levels are differences of the edges', clipped at 0.
    """
    chosen_N, expected_N = np.empty_like(levels_N), np.empty_like(quality_N)
    for train, test in splits:
        below_TE = np.stack(
            [_edge(features_NF, levels_N, edge, train, test) for edge in range(len(LEVELS) - 1)], axis=1
        )
        ends = np.zeros((len(test), 1)), np.ones((len(test), 1))
        probs_TC = np.clip(np.diff(np.hstack([ends[0], below_TE, ends[1]]), axis=1), 0.0, None)
        probs_TC = probs_TC / probs_TC.sum(axis=1, keepdims=True)
        chosen_N[test], expected_N[test] = probs_TC.argmax(axis=1), probs_TC @ CENTRES
    return float((chosen_N == levels_N).mean()), float(r2_score(quality_N, expected_N))


def _edge(features_NF: Floats, levels_N: Integers, edge: int, train: Integers, test: Integers) -> Floats:
    """Probability that a sample's level is ``edge`` or better."""
    reached = levels_N[train] <= edge
    if reached.all() or not reached.any():
        return np.full(len(test), float(reached.all()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separable edges do not converge, and need not
        model = LogisticRegression(max_iter=200).fit(features_NF[train], reached)
    return model.predict_proba(features_NF[test])[:, 1]
