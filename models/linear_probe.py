"""A linear read-out of frozen features: the baseline that shows what an encoder knows without any training of it.

Ridge regression on standardised features, in closed form; its penalty is chosen by cross-validation over *groups*
(contents), so that two distortions of one photograph never sit on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearProbe:
    """``quality = (features - centre) / spread @ weights + offset``, clipped to [0, 1].

    Attributes:
        centre_F: mean of each feature over the training samples.
        spread_F: standard deviation of each feature; 1 where a feature never varies.
        weights_F: ridge weights of the standardised features.
        offset: mean target.
        penalty: the chosen ridge penalty, per sample.
    """

    centre_F: Floats
    spread_F: Floats
    weights_F: Floats
    offset: float
    penalty: float

    def predict(self, features_NF: NDArray[np.floating]) -> Floats:
        """Quality ``[N]`` in [0, 1]."""
        standard = (np.asarray(features_NF, np.float64) - self.centre_F) / self.spread_F
        return np.clip(standard @ self.weights_F + self.offset, 0.0, 1.0)


def fit_probe(
    features_NF: NDArray[np.floating],
    target_N: NDArray[np.floating],
    group_N: Sequence[str],
    penalties: Sequence[float],
    folds: int,
) -> LinearProbe:
    """Fit a probe; the penalty is the one with the least squared error over ``folds`` folds of whole groups.

    Args:
        features_NF: pooled features.
        target_N: quality in [0, 1].
        group_N: content of each sample.
        penalties: ridge penalties per sample to choose from, on standardised features.
        folds: number of folds; groups are dealt to them in the order of their names.

    Raises:
        ModelError: fewer groups than folds, or an input is not finite.
    """
    features, target = np.asarray(features_NF, np.float64), np.asarray(target_N, np.float64)
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise ModelError("the linear probe needs finite features and targets")
    names = sorted(set(group_N))
    if folds < 2 or len(names) < folds:
        msg = f"the linear probe needs at least {max(folds, 2)} contents to choose its penalty; there are {len(names)}"
        raise ModelError(msg)
    fold_of = {name: position % folds for position, name in enumerate(names)}
    fold_N = np.array([fold_of[name] for name in group_N])
    errors = np.zeros(len(penalties))
    for fold in range(folds):
        kept, left = fold_N != fold, fold_N == fold
        for position, probe in enumerate(_ridge_path(features[kept], target[kept], penalties)):
            errors[position] += float(np.sum((probe.predict(features[left]) - target[left]) ** 2))
    best = penalties[int(np.argmin(errors))]
    return _ridge_path(features, target, [best])[0]


def _ridge_path(features_NF: Floats, target_N: Floats, penalties: Sequence[float]) -> list[LinearProbe]:
    """Solve ``(X'X / N + penalty I) w = X'y / N`` for each penalty from one eigendecomposition."""
    centre, spread = features_NF.mean(axis=0), features_NF.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    standard, offset = (features_NF - centre) / spread, float(target_N.mean())
    count = len(target_N)
    values, vectors = np.linalg.eigh(standard.T @ standard / count)
    projected = vectors.T @ (standard.T @ (target_N - offset) / count)
    return [
        LinearProbe(centre, spread, vectors @ (projected / (np.maximum(values, 0.0) + penalty)), offset, penalty)
        for penalty in penalties
    ]
