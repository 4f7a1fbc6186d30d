"""PCA, buckets and k-means, held against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from models.errors import ModelError
from models.rali.codebook import Projection, Recipe, allotted, build_codebook


def _samples(count: int = 300, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(4, 3, size=count)
    vectors = rng.normal(size=(count, width)) + 3 * scores[:, None] * rng.normal(size=width)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), scores


def test_components_are_orthonormal_and_those_of_a_library():
    vectors, _ = _samples()
    found = Projection.principal(vectors, 5, centred=True)
    assert found.components_dD @ found.components_dD.T == pytest.approx(np.eye(5), abs=1e-10)
    library = PCA(5, svd_solver="full").fit(vectors)
    assert np.abs(found.components_dD) == pytest.approx(np.abs(library.components_), abs=1e-8)
    assert found.explained == pytest.approx(library.explained_variance_ratio_.sum(), abs=1e-10)
    assert np.abs(found.applied(vectors)) == pytest.approx(np.abs(library.transform(vectors)), abs=1e-8)


def test_without_a_centre_the_components_are_singular_vectors():
    vectors, _ = _samples()
    found = Projection.principal(vectors, 3, centred=False)
    values, rows = np.linalg.eigh(vectors.T @ vectors)
    assert not found.mean_D.any()
    assert np.abs(found.components_dD) == pytest.approx(np.abs(rows[:, ::-1][:, :3].T), abs=1e-8)
    assert found.explained == pytest.approx(values[::-1][:3].sum() / values.sum())


def test_no_compression_changes_nothing():
    vectors, _ = _samples()
    assert np.array_equal(Projection.identity(12).applied(vectors), vectors)


def test_too_many_components_are_refused():
    with pytest.raises(ModelError, match="there are 300 and 12"):
        Projection.principal(_samples()[0], 13, centred=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 1000))
def test_there_are_exactly_so_many_bases_and_each_is_the_mean_of_its_members(bases: int, buckets: int, seed: int):
    vectors, scores = _samples(80, 4, seed)
    filled = len(np.unique(np.minimum(((scores - scores.min()) / np.ptp(scores) * buckets).astype(int), buckets - 1)))
    recipe = Recipe(max(bases, filled), buckets, "buckets", seed)
    book = build_codebook(vectors, scores, recipe)
    assert len(book.scores_K) == recipe.bases
    assert book.empty_buckets == buckets - filled
    assert np.all(np.diff(book.scores_K) >= 0)
    for number in range(recipe.bases):
        own = book.labels_N == number
        assert own.any()
        assert book.vectors_Kd[number] == pytest.approx(vectors[own].mean(axis=0), abs=1e-9)
        assert book.scores_K[number] == pytest.approx(scores[own].mean(), abs=1e-9)


def test_a_centre_holds_samples_of_one_bucket():
    vectors, scores = _samples()
    book = build_codebook(vectors, scores, Recipe(40, 20, "buckets", 0))
    width = np.ptp(scores) / 20
    for number in range(40):
        assert np.ptp(scores[book.labels_N == number]) <= width + 1e-12


def test_without_buckets_centres_may_hold_anything():
    vectors, scores = _samples()
    book = build_codebook(vectors, scores, Recipe(10, 20, "none", 0))
    assert len(book.scores_K) == 10
    assert book.empty_buckets == 0
    assert max(np.ptp(scores[book.labels_N == number]) for number in range(10)) > np.ptp(scores) / 20


def test_the_same_samples_give_the_same_codebook():
    first, second = (build_codebook(*_samples(), Recipe(50, 20, "buckets", 3)) for _ in range(2))
    assert np.array_equal(first.vectors_Kd, second.vectors_Kd)
    assert np.array_equal(first.labels_N, second.labels_N)


def test_one_score_for_all_is_one_bucket():
    vectors, _ = _samples(30)
    book = build_codebook(vectors, np.full(30, 0.4), Recipe(3, 10, "buckets", 0))
    assert book.scores_K == pytest.approx(0.4)
    assert book.empty_buckets == 9


@pytest.mark.parametrize(
    ("sizes", "total", "wanted"),
    [([5, 1, 10], 3, [1, 1, 1]), ([5, 1, 10], 6, [2, 1, 3]), ([2, 2], 4, [2, 2]), ([4, 4], 3, [2, 1])],
)
def test_centres_go_where_most_members_share_one(sizes: list[int], total: int, wanted: list[int]):
    assert allotted(sizes, total) == wanted


def test_what_cannot_be_dealt_out_is_one_line():
    vectors, scores = _samples(20)
    with pytest.raises(ModelError, match="30 bases need as many samples, and there are 20"):
        build_codebook(vectors, scores, Recipe(30, 5, "buckets", 0))
    with pytest.raises(ModelError, match="more than the 4 bases"):
        build_codebook(vectors, scores, Recipe(4, 200, "buckets", 0))
    with pytest.raises(ModelError, match="6 bases need as many different embeddings, and there are 1"):
        build_codebook(np.ones((20, 3)), scores, Recipe(6, 1, "buckets", 0))
