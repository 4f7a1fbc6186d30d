"""Full-reference measures: equal pictures are best, more damage is worse, and two agree with independent code."""

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import structural_similarity

from models.distortions import distort_image
from models.errors import ModelError
from models.fidelity import MEASURES, measure


def _batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return skimage.data.astronaut()[:320, :320]


@pytest.mark.parametrize("kind", ["gaussian_blur", "white_noise", "jpeg"])
@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"tone"}))
def test_more_damage_is_less_faithful(photo: np.ndarray, name: str, kind: str) -> None:
    values = [MEASURES[name](_batch(photo), _batch(photo)).item()]
    values += [
        MEASURES[name](_batch(photo), _batch(distort_image(photo, kind, level, 3))).item() for level in (1, 3, 5)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_equal_pictures_reach_the_top_of_every_measure(photo: np.ndarray) -> None:
    values = {name: value.item() for name, value in measure(_batch(photo), _batch(photo)).items()}
    tops = {"gmsd": 0.0, "ms_ssim": 1.0, "mdsi": 0.0, "haarpsi": 1.0, "tone": 0.0}
    assert values == pytest.approx(tops, abs=2e-3)


def test_tone_sees_exposure_and_is_blind_to_grain(photo: np.ndarray) -> None:
    dark, grainy = (distort_image(photo, kind, level, 1) for kind, level in (("darken", 4), ("white_noise", 3)))
    assert MEASURES["tone"](_batch(photo), _batch(dark)) < MEASURES["tone"](_batch(photo), _batch(grainy)) - 2


def test_gmsd_is_the_papers_formula_computed_another_way(photo: np.ndarray) -> None:
    from scipy.ndimage import convolve

    def gradient(pixels: np.ndarray) -> np.ndarray:
        luma = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
        small = luma.reshape(160, 2, 160, 2).mean(axis=(1, 3))
        kernel = np.repeat([[1.0, 0.0, -1.0]], 3, axis=0) / 3
        sides = [convolve(small, k, mode="constant") for k in (kernel, kernel.T)]
        return np.hypot(*sides)

    distorted = distort_image(photo, "jpeg", 4, 0)
    x, y = gradient(photo), gradient(distorted)
    expected = ((2 * x * y + 170) / (x**2 + y**2 + 170)).std()
    assert -MEASURES["gmsd"](_batch(photo), _batch(distorted)).item() == pytest.approx(expected, abs=1e-5)


def test_first_scale_of_ms_ssim_is_skimages_ssim(photo: np.ndarray) -> None:
    from models.fidelity import _luma, _ssim_terms

    distorted = distort_image(photo, "gaussian_blur", 3, 0)
    luminance, structure = _ssim_terms(_luma(_batch(photo)), _luma(_batch(distorted)))
    x, y = (p.astype(np.float64) @ [0.299, 0.587, 0.114] for p in (photo, distorted))
    _, full = structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
    )
    assert (luminance * structure).mean().item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)


def test_pairs_that_do_not_match_are_refused(photo: np.ndarray) -> None:
    with pytest.raises(ModelError, match="two"):
        measure(_batch(photo), _batch(photo[:300]))
    with pytest.raises(ModelError, match="176"):
        measure(_batch(photo[:100, :100]), _batch(photo[:100, :100]))
