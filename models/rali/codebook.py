"""From embeddings to a codebook of quality: principal components, score buckets, k-means in each of them.

RALI, step b: the joint space is compressed by PCA, training samples are dealt into buckets of equal width on the score
axis, each bucket is clustered, and all centres with their members' mean scores are the codebook of step c
(``models/rali/head.py``). The paper has 768 -> 512 dimensions, 240 buckets and 250 centres of KonIQ's 7,058 images: a
centre a bucket, nearly, so the rule that deals out the rest is ours.

Shape legend: ``N`` samples, ``D`` joint space, ``d`` compressed space, ``K`` centres.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from models.errors import ModelError

Floats = NDArray[np.float64]
Grouping = Literal["buckets", "none"]

_STARTS: Final = 4
"""Runs of k-means from different starts, of which the best counts."""


@dataclass(frozen=True)
class Projection:
    """``(unit embedding - mean) @ components.T``.

    Attributes:
        mean_D: zeros where nothing is centred.
        components_dD: orthonormal rows.
        explained: share of the variance that the components keep; 1 without compression.
    """

    mean_D: Floats
    components_dD: Floats
    explained: float

    @classmethod
    def principal(cls, embeddings_ND: Floats, dims: int, *, centred: bool) -> "Projection":
        """The first principal components, each with its largest entry positive so that equal input gives equal signs.

        Args:
            centred: whether the mean is taken off first, as PCA does; the paper does not say. Without it these are the
                singular vectors of the embeddings themselves.

        Raises:
            ModelError: there are fewer samples or dimensions than components.
        """
        count, width = embeddings_ND.shape
        if not 1 <= dims <= min(count, width):
            msg = f"{dims} components need as many samples and dimensions; there are {count} and {width}"
            raise ModelError(msg)
        mean_D = embeddings_ND.mean(axis=0) if centred else np.zeros(width)
        _, singular, rows_RD = np.linalg.svd(embeddings_ND - mean_D, full_matrices=False)
        strongest = np.abs(rows_RD).argmax(axis=1)
        signs = np.sign(rows_RD[np.arange(len(rows_RD)), strongest])
        total = float((singular**2).sum())
        kept = float((singular[:dims] ** 2).sum()) / total if total > 0.0 else 1.0
        return cls(mean_D, (rows_RD * signs[:, None])[:dims], kept)

    @classmethod
    def identity(cls, width: int) -> "Projection":
        """No compression: the ablation without PCA."""
        return cls(np.zeros(width), np.eye(width), 1.0)

    def applied(self, embeddings_ND: Floats) -> Floats:
        """Compressed embeddings ``[N, d]``."""
        return (embeddings_ND - self.mean_D) @ self.components_dD.T


@dataclass(frozen=True)
class Recipe:
    """How a codebook is made.

    Attributes:
        bases: centres in all, ``K``.
        buckets: of equal width between the lowest and the highest score.
        grouping: ``buckets``, or ``none``: k-means over all samples at once (the ablation without buckets).
        seed: of k-means.
    """

    bases: int
    buckets: int
    grouping: Grouping
    seed: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.bases < 1 or self.buckets < 1:
            raise ValueError("bases and buckets must be at least 1")


@dataclass(frozen=True)
class Codebook:
    """Centres with their scores.

    Attributes:
        vectors_Kd: means of their members. scores_K: their members' mean scores, rising.
        labels_N: number of the centre that each sample belongs to.
        empty_buckets: buckets without a sample, which have no centre.
    """

    vectors_Kd: Floats
    scores_K: Floats
    labels_N: NDArray[np.int64]
    empty_buckets: int


def build_codebook(compressed_Nd: Floats, scores_N: Floats, recipe: Recipe) -> Codebook:
    """Cluster samples into exactly ``recipe.bases`` centres; the same samples in the same order give the same ones.

    Raises:
        ModelError: the centres cannot be dealt out: fewer different samples than centres, or more buckets with samples
            than centres.
    """
    if len(compressed_Nd) < recipe.bases:
        msg = f"{recipe.bases} bases need as many samples, and there are {len(compressed_Nd)}: lower rali.build.bases"
        raise ModelError(msg)
    if recipe.grouping == "none":
        groups, empty = [np.arange(len(scores_N))], 0
    else:
        groups, empty = _buckets(scores_N, recipe.buckets)
    centres = allotted([len(np.unique(compressed_Nd[group], axis=0)) for group in groups], recipe.bases)
    labels_N, first = np.empty(len(scores_N), dtype=np.int64), 0
    for group, count in zip(groups, centres, strict=True):
        labels_N[group] = first + _clustered(compressed_Nd[group], count, recipe.seed)
        first += count
    return _of_members(compressed_Nd, scores_N, labels_N, empty)


def _buckets(scores_N: Floats, buckets: int) -> tuple[list[NDArray[np.int64]], int]:
    """Members of each bucket that has some, by rising score, and the number of the others."""
    low, high = float(scores_N.min()), float(scores_N.max())
    width = (high - low) / buckets
    places_N = np.zeros(len(scores_N), dtype=np.int64)
    if width > 0.0:
        places_N = np.minimum(((scores_N - low) / width).astype(np.int64), buckets - 1)
    groups = [np.flatnonzero(places_N == bucket) for bucket in range(buckets)]
    filled = [group for group in groups if len(group)]
    return filled, buckets - len(filled)


def allotted(sizes: list[int], total: int) -> list[int]:
    """How many centres each group has: one at least, and the others one by one to the group with most members a centre.

    Args:
        sizes: different members of each group, none 0.

    Raises:
        ModelError: there are more groups than centres, or fewer different members than centres.
    """
    if len(sizes) > total:
        msg = f"{len(sizes)} buckets hold samples, more than the {total} bases: lower rali.build.buckets"
        raise ModelError(msg)
    if sum(sizes) < total:
        msg = f"{total} bases need as many different embeddings, and there are {sum(sizes)}: lower rali.build.bases"
        raise ModelError(msg)
    counts = [1] * len(sizes)
    for _ in range(total - len(sizes)):
        open_groups = (number for number, size in enumerate(sizes) if counts[number] < size)
        counts[max(open_groups, key=lambda number: (sizes[number] / counts[number], -number))] += 1
    return counts


def _clustered(members_Md: Floats, count: int, seed: int) -> NDArray[np.int64]:
    """Number of the cluster of each member, every cluster having one at least."""
    if count == 1:
        return np.zeros(len(members_Md), dtype=np.int64)
    starts: Any = _STARTS  # its type is told as text alone
    found = KMeans(count, n_init=starts, random_state=seed).fit_predict(members_Md)
    labels_M = np.unique(found, return_inverse=True)[1].astype(np.int64)
    for label in range(int(labels_M.max()) + 1, count):  # k-means may leave clusters without members
        labels_M[_farthest(members_Md, labels_M)] = label
    return labels_M


def _farthest(members_Md: Floats, labels_M: NDArray[np.int64]) -> int:
    """The member farthest from its cluster's mean."""
    means = np.stack([members_Md[labels_M == label].mean(axis=0) for label in range(int(labels_M.max()) + 1)])
    return int(((members_Md - means[labels_M]) ** 2).sum(axis=1).argmax())


def _of_members(compressed_Nd: Floats, scores_N: Floats, labels_N: NDArray[np.int64], empty: int) -> Codebook:
    """Means of the members, exactly; centres in the order of their scores."""
    count = int(labels_N.max()) + 1
    vectors = np.stack([compressed_Nd[labels_N == label].mean(axis=0) for label in range(count)])
    scores = np.array([scores_N[labels_N == label].mean() for label in range(count)])
    order = np.argsort(scores, kind="stable")
    renumbered = np.empty(count, dtype=np.int64)
    renumbered[order] = np.arange(count)
    return Codebook(vectors[order], scores[order], renumbered[labels_N], empty)
