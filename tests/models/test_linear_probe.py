import numpy as np
import pytest
from sklearn.linear_model import Ridge

from models.errors import ModelError
from models.linear_probe import fit_probe


def _data(samples: int = 120, width: int = 7) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(samples, width)) * rng.uniform(0.1, 10, width) + rng.normal(size=width)
    target = np.clip(0.5 + features @ rng.normal(size=width) * 0.01 + rng.normal(size=samples) * 0.02, 0, 1)
    return features, target, [f"content{n // 6}" for n in range(samples)]


def test_the_probe_is_ridge_regression_on_standardised_features():
    features, target, groups = _data()
    probe = fit_probe(features, target, groups, [0.3], 5)
    standard = (features - features.mean(0)) / features.std(0)
    reference = Ridge(alpha=0.3 * len(target)).fit(standard, target)
    assert np.allclose(probe.predict(features), np.clip(reference.predict(standard), 0, 1), atol=1e-10)


def test_the_penalty_is_chosen_on_contents_left_out():
    rng = np.random.default_rng(5)
    content = np.repeat(np.arange(20), 6)
    # Each content has a signature of 60 numbers and a quality of its own, which the signature says nothing about.
    features = rng.normal(size=(20, 60))[content] + 0.05 * rng.normal(size=(120, 60))
    target = np.clip(0.5 + 0.2 * rng.normal(size=20)[content], 0, 1)
    penalties = [1e-6, 1e-2, 100.0]
    by_content = fit_probe(features, target, [f"content{c}" for c in content], penalties, 5)
    by_sample = fit_probe(features, target, [f"sample{n:03d}" for n in range(120)], penalties, 5)
    assert by_content.penalty > by_sample.penalty


def test_constant_features_are_harmless_and_quality_stays_in_range():
    features, target, groups = _data()
    probe = fit_probe(np.hstack([features, np.ones((len(features), 2))]), target, groups, [1e-3], 4)
    far = probe.predict(np.vstack([np.full(9, 1e6), np.full(9, -1e6)]))
    assert np.isfinite(probe.weights_F).all()
    assert set(far) <= {0.0, 1.0}


@pytest.mark.parametrize(("folds", "count"), [(5, 24), (1, 120)])
def test_too_few_contents_are_refused(folds: int, count: int):
    features, target, groups = _data()
    with pytest.raises(ModelError, match="contents"):
        fit_probe(features[:count], target[:count], groups[:count], [1.0], folds)


def test_broken_features_are_refused():
    features, target, groups = _data()
    features[3, 2] = np.nan
    with pytest.raises(ModelError, match="finite"):
        fit_probe(features, target, groups, [1.0], 5)
