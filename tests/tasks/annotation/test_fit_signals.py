import numpy as np
import pytest
from skimage import data
from sklearn.linear_model import LogisticRegression

from tasks.annotation.fit_signals import camera_move, fit_curve
from tasks.errors import StageError


def test_the_curve_is_the_one_that_scikit_learn_finds():
    generator = np.random.default_rng(3)
    present, absent = generator.normal(2, 1, 120), generator.normal(0, 1.5, 400)
    ridge = 0.003
    x = np.concatenate([present, absent])
    middle, spread = np.median(x), x.std()
    weight = np.concatenate([np.full(120, 0.5 / 120), np.full(400, 0.5 / 400)])
    peer = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000)
    # scikit-learn penalises half the squared slope by 1 / C and sums the weighted losses
    peer.fit(((x - middle) / spread)[:, None], np.r_[np.ones(120), np.zeros(400)], sample_weight=weight / ridge)
    curve = fit_curve(present.tolist(), absent.tolist(), ridge)
    for value in (-2.0, 0.0, 1.0, 3.0):
        expected = peer.predict_proba([[(value - middle) / spread]])[0, 1]
        assert curve(value) == pytest.approx(expected, abs=1e-6)


def test_separable_classes_give_a_finite_curve_between_them():
    curve = fit_curve([5.0, 6.0, 7.0], [1.0, 2.0, 3.0], 0.003)
    assert 3.0 < curve.centre < 5.0
    assert curve(6.0) > 0.9
    assert curve(2.0) < 0.1
    assert fit_curve([1.0, 2.0], [8.0, 9.0], 0.003).slope < 0


def test_a_class_without_examples_is_an_error():
    with pytest.raises(StageError, match="no training example"):
        fit_curve([], [1.0], 0.1)


def test_a_camera_move_is_steady():
    photo = np.ascontiguousarray(data.coffee()[:200, :300])
    frames = camera_move(photo, 20, np.random.default_rng(2))
    assert frames.shape == (20, 140, 210, 3)
    change = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert change.min() > 0.3 * change.max()
