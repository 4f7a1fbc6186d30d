"""Qualities that do follow from features, and qualities that do not."""

import numpy as np
import pytest

from models.errors import ModelError
from models.instruments.grounding import ground

SIZE = 300
CONTENTS = [f"c{number % 60}" for number in range(SIZE)]


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).integers(-1, 2, (SIZE, 5)).astype(np.float64)


def test_a_quality_that_is_a_sum_of_features_is_explained_with_the_right_signs(features: np.ndarray):
    weights = np.array([0.2, 0.1, 0.0, -0.05, 0.08])
    noise = np.random.default_rng(1).normal(0, 0.01, SIZE)
    quality = np.clip(0.5 + features @ weights + noise, 0.0, 1.0)
    found = ground(features, quality, CONTENTS, folds=5, permutations=99, seed=0)
    assert found.r2 is not None
    assert found.r2 >= 0.95
    assert found.p_value == pytest.approx(0.01)
    assert found.weights_F == pytest.approx(weights, abs=0.02)
    assert found.ordinal_accuracy is not None
    assert found.ordinal_accuracy > max(0.75, found.majority)
    assert found.ordinal_r2 is not None
    assert found.ordinal_r2 > 0.8
    assert (found.samples, found.contents) == (SIZE, 60)


def test_a_quality_that_knows_nothing_of_the_features_is_not(features: np.ndarray):
    quality = np.random.default_rng(2).random(SIZE)
    found = ground(features, quality, CONTENTS, folds=5, permutations=49, seed=0)
    assert found.r2 is not None
    assert found.r2 <= 0.05
    assert found.p_value is not None
    assert found.p_value > 0.05
    assert found.ordinal_r2 is not None
    assert found.ordinal_r2 <= 0.05


def test_contents_that_are_learned_by_heart_explain_nothing():
    of_content = np.random.default_rng(3).random(60)
    quality = of_content[np.arange(SIZE) % 60]
    one_hot = np.eye(60)[np.arange(SIZE) % 60]
    found = ground(one_hot, quality, CONTENTS, folds=5, permutations=0, seed=0)
    assert found.r2 is not None
    assert found.r2 <= 0.0
    assert found.p_value == 1.0


def test_a_constant_quality_has_nothing_to_explain(features: np.ndarray):
    found = ground(features, np.full(SIZE, 0.5), CONTENTS, folds=5, permutations=9, seed=0)
    assert (found.r2, found.p_value, found.majority) == (None, None, 1.0)


def test_what_cannot_be_regressed_is_refused(features: np.ndarray):
    quality = np.full(SIZE, 0.5)
    with pytest.raises(ModelError, match="2 contents are too few for 5 folds"):
        ground(features, quality, ["a", "b"] * (SIZE // 2), folds=5, permutations=0, seed=0)
    with pytest.raises(ModelError, match="do not fit"):
        ground(features[:-1], quality, CONTENTS, folds=5, permutations=0, seed=0)
    with pytest.raises(ModelError, match="finite"):
        ground(features * np.nan, quality, CONTENTS, folds=5, permutations=0, seed=0)


def test_names_that_count_severities_do_not_put_one_into_each_fold():
    severity = np.arange(SIZE) % 5
    features = np.where(severity < 3, 1.0, -1.0)[:, None]
    quality = 0.9 - 0.2 * severity
    names = [f"{number:04}" for number in range(SIZE)]  # in their own order, a fold would be a severity
    found = ground(features, quality, names, folds=5, permutations=0, seed=0)
    assert found.r2 == pytest.approx(0.75, abs=0.02)  # explained by means of 3 and 2 levels: 1 - .02 / .08
