"""Parts of the networks: what is normal is learnt once, and nothing is farther than five deviations."""

import numpy as np
import pytest
import torch

from models.scorers.blocks import Standardised, unit_pixels, weighted_mean


def test_figures_are_standardised_by_the_samples_that_were_fitted() -> None:
    figures = np.random.default_rng(0).normal([3.0, -2.0], [2.0, 0.5], size=(40, 6, 2))
    standard = Standardised(2)
    standard.fit(torch.from_numpy(figures).float())
    found = standard(torch.from_numpy(figures).float()).numpy()
    flat = figures.reshape(-1, 2)
    expected = np.clip((figures - flat.mean(axis=0)) / flat.std(axis=0), -5, 5)
    assert found == pytest.approx(expected, abs=1e-4)


def test_what_is_far_is_cut_and_what_never_varied_is_not_blown_up() -> None:
    standard = Standardised(2)
    standard.fit(torch.tensor([[0.0, 7.0], [1.0, 7.0]]))
    assert standard(torch.tensor([[1e6, 7.001], [-1e6, 7.0]])).numpy() == pytest.approx(
        np.array([[5.0, 0.1], [-5.0, 0.0]]), abs=1e-3
    )


def test_pixels_are_centred_and_weights_sum_to_one() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1)
    assert unit_pixels(pixels).flatten().tolist() == [-1.0, 1.0]
    mean = weighted_mean(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, np.log(3.0)]]))
    assert mean.item() == pytest.approx(2.5)
