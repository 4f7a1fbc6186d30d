"""Fixed measurements against NumPy and SciPy, and their meaning: what blurs lowers energy, what repeats stands out."""

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scorers import statistics as measured


def _unit(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape)).float()


@pytest.mark.parametrize("side", [8, 32])
def test_cosine_functions_are_those_of_the_type_two_transform(side: int) -> None:
    block = np.random.default_rng(side).normal(size=(side, side))
    rows = measured.cosine_basis(side).double().numpy()
    assert rows @ block @ rows.T == pytest.approx(scipy.fft.dctn(block, norm="ortho"), abs=1e-5)


def test_block_kernels_give_the_same_coefficients_as_the_transform() -> None:
    block = np.random.default_rng(1).normal(size=(8, 8))
    kernels = measured.block_basis().double().numpy()
    found = (kernels[:, 0] * block).sum(axis=(1, 2))
    assert found == pytest.approx(scipy.fft.dctn(block, norm="ortho").ravel(), abs=1e-5)


def test_bands_average_each_frequency_once_and_leave_the_mean_out() -> None:
    bands = measured.frequency_bands(32, 12).double().numpy()
    assert (bands[0] == 0).all()
    assert ((bands > 0).sum(axis=1)[1:] == 1).all()
    filled = bands.sum(axis=0) > 0
    assert bands.sum(axis=0)[filled] == pytest.approx(1.0)
    along_rows = np.zeros((32, 32))
    along_rows[0, 16] = 1.0
    assert np.flatnonzero(along_rows.ravel() @ bands).tolist() == [3 * 5]  # ring 5 of 12, first direction


def test_haar_kernels_keep_energy_and_name_directions() -> None:
    kernels = measured.haar_kernels().numpy()
    vectors = kernels.reshape(4, 4) * 2
    assert vectors @ vectors.T == pytest.approx(np.eye(4))
    steps = np.array([[0.0, 1.0], [0.0, 1.0]])  # brightness changes along the row
    assert (kernels * steps).sum(axis=(1, 2)) == pytest.approx([0.5, -0.5, 0.0, 0.0])


@settings(max_examples=25, deadline=None)
@given(low=st.floats(-1, -0.1), high=st.floats(0.1, 1), bins=st.integers(3, 12), seed=st.integers(0, 99))
def test_shares_are_a_distribution_whatever_the_range(low: float, high: float, bins: int, seed: int) -> None:
    found = measured.shares(_unit(seed, 2, 1, 9, 7), low, high, bins)
    assert found.shape == (2, bins)
    assert found.sum(dim=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert (found >= 0).all()


def test_pooling_weighs_by_activity() -> None:
    figures = _unit(3, 1, 5, 2)
    activity = torch.tensor([[0.0, 0.0, 9.0, 0.0, 0.0]])
    mean, spread, active = measured.pooled(figures, activity)[0].split(2)
    values = figures[0].double().numpy()
    assert mean == pytest.approx(values.mean(axis=0), abs=1e-6)
    assert spread == pytest.approx(values.std(axis=0), abs=1e-4)
    weights = np.exp(activity[0].numpy()) / np.exp(activity[0].numpy()).sum()
    assert active == pytest.approx(weights @ values, abs=1e-5)


def test_only_the_period_asked_for_stands_out() -> None:
    found = []
    for period in (8, 7):
        profile = torch.full((1, 8 * 70), 0.1)
        profile[:, ::period] = 1.0
        found.append(measured.periods(profile, 8).item())
    assert found[0] > 1.0 > found[1]


def test_residue_kernels_blank_out_planes_and_have_unit_energy() -> None:
    kernels = measured.residue_kernels().double().numpy()[:, 0]
    down, across = np.mgrid[:5, :5]
    assert (kernels**2).sum(axis=(1, 2)) == pytest.approx(1.0)
    assert (kernels * 3.0).sum(axis=(1, 2)) == pytest.approx(0.0, abs=1e-6)
    slope = (kernels * (2.0 * across + down)).sum(axis=(1, 2))
    assert slope[2:] == pytest.approx(0.0, abs=1e-6)  # from second differences on, slopes vanish, too


def test_residue_statistics_of_known_noise() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 3 * 2 / 255, (1, 1, 96, 96))).float()
    found = measured.residue_statistics(noise)[0].numpy()
    assert found.shape == (12,)
    assert found[0] == pytest.approx(np.log(9), abs=0.05)  # deviation of three grey levels
    assert found[1] == pytest.approx(np.sqrt(2 / np.pi), abs=0.02)  # mean size of a normal variable
    assert np.abs(found[6:10]).max() < 0.05  # neighbours know nothing of one another


def test_scene_statistics_follow_numpy_and_blur_raises_agreement_of_neighbours() -> None:
    rng = np.random.default_rng(2)
    noisy = rng.uniform(-1, 1, (1, 1, 64, 64))
    blurred = (noisy + np.roll(noisy, 1, 2) + np.roll(noisy, 1, 3) + np.roll(noisy, (1, 1), (2, 3))) / 4
    rows = [measured.scene_statistics(torch.from_numpy(x).float())[0].numpy() for x in (noisy, blurred)]
    assert rows[0].shape == (46,)
    assert rows[0][:11].sum() == pytest.approx(1.0, abs=1e-5)
    assert rows[0][44] == pytest.approx(np.abs(noisy).mean(), abs=1e-5)
    assert rows[1][26] > rows[0][26] + 0.1  # product with the right neighbour


def test_tones_tell_light_colour_and_clipping() -> None:
    red = torch.zeros(1, 3, 32, 32) - 1.0
    red[:, 0] = 1.0
    white = torch.ones(1, 3, 32, 32)
    found = [measured.tones(picture)[0].numpy() for picture in (red, white)]
    assert all(len(row) == 24 for row in found)
    assert found[0][10] > 0.9  # red minus green
    assert found[1][17:20] == pytest.approx(1.0, abs=0.01)  # all channels clipped high
    assert found[0][20:23] == pytest.approx([0, 1, 1], abs=0.01)  # green and blue clipped low


def test_smoothing_is_the_mean_of_what_lies_in_the_window() -> None:
    picture = np.random.default_rng(4).normal(size=(1, 1, 9, 11))
    found = measured.smoothed(torch.from_numpy(picture).float(), 5)[0, 0].numpy()
    plane = picture[0, 0]
    expected = [[plane[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean() for x in range(11)] for y in range(9)]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
