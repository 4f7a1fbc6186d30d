"""NIQE against the MATLAB-faithful implementation in pyiqa, and its behaviour on photographs."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from models.errors import MissingWeightsError, ModelError
from models.niqe import (
    FEATURES,
    PRISTINE_FILE,
    PristineModel,
    fit_pristine,
    load_pristine,
    niqe,
    patch_features,
    save_pristine,
)

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


def peer(pixels: np.ndarray, model: PristineModel) -> float:
    """What pyiqa makes of the same pixels and the same pristine model."""
    import torch
    from pyiqa.archs.niqe_arch import niqe as pyiqa_niqe
    from pyiqa.utils.color_util import to_y_channel

    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    luma = to_y_channel(image, 255, "yiq").double()
    mean, covariance = torch.from_numpy(model.mean_F)[None], torch.from_numpy(model.covariance_FF)[None]
    return float(pyiqa_niqe(luma, mean, covariance))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_equals_the_peer_implementation(name: str):
    pixels = getattr(skimage.data, name)()
    model = load_pristine(PRISTINE_FILE)
    # the peer rounds luma in single precision: a grey level flips on some pixels that lie exactly between two
    assert niqe(pixels) == pytest.approx(peer(pixels, model), rel=3e-3)


def test_ranks_as_the_original_parameters_do(shared_data: Path):
    stored = np.load(shared_data / "params/niqe_pris_params.npz")
    original = PristineModel(stored["mu_pris_param"].ravel(), stored["cov_pris_param"])
    pixels = skimage.data.astronaut()
    assert niqe(pixels, original) == pytest.approx(peer(pixels, original), rel=3e-3)
    ours, theirs = [], []
    for path in sorted((shared_data / "images/avt_iqt").glob("*.png")):
        picture = np.asarray(Image.open(path).convert("RGB"))
        with contextlib.suppress(ModelError):  # one picture is flat everywhere
            ours.append(niqe(picture))
            theirs.append(niqe(picture, original))
    assert len(ours) == len(theirs) == 68
    assert spearmanr(ours, theirs)[0] == pytest.approx(0.929, abs=0.001)


def test_gets_worse_with_blur_and_with_noise():
    pixels = skimage.data.astronaut()
    rng = np.random.default_rng(0)
    blurred = [niqe(np.uint8(gaussian_filter(pixels, (s, s, 0)))) for s in (0, 1.5, 3, 5)]
    noisy = [niqe(np.uint8(np.clip(pixels + rng.normal(0, s, pixels.shape), 0, 255))) for s in (0, 15, 40, 80)]
    assert blurred == sorted(blurred)
    assert noisy == sorted(noisy)


def test_one_patch_is_enough():
    value = niqe(skimage.data.astronaut()[200:296, 200:300])
    assert np.isfinite(value)
    assert value > 0


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((95, 200, 3), np.uint8), "96x96 pixels; the image has 200x95"),
        (np.zeros((200, 200), np.uint8), "8-bit RGB"),
        (np.zeros((200, 200, 3), np.float32), "8-bit RGB"),
        (np.full((200, 200, 3), 90, np.uint8), "flat"),
    ],
)
def test_what_cannot_be_scored_is_refused(pixels: np.ndarray, message: str):
    with pytest.raises(ModelError, match=message):
        niqe(pixels)


def test_a_fit_is_stored_and_read_back(tmp_path: Path):
    photographs = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    model, patches = fit_pristine(photographs, threshold=0.3)
    assert patches > FEATURES
    features = np.concatenate([patch_features(p) for p in photographs])
    assert np.linalg.norm(model.mean_F - features.mean(axis=0)) < np.linalg.norm(features.std(axis=0))
    save_pristine(tmp_path / "m.safetensors", model, {"photographs": "4"})
    again = load_pristine(tmp_path / "m.safetensors")
    assert (again.mean_F == model.mean_F).all()
    assert (again.covariance_FF == model.covariance_FF).all()


def test_too_few_sharp_patches_and_missing_files_are_named(tmp_path: Path):
    with pytest.raises(ModelError, match="more than 36 sharp patches"):
        fit_pristine([skimage.data.astronaut()[:200, :200]])
    with pytest.raises(MissingWeightsError, match="fit_niqe"):
        load_pristine(tmp_path / "absent.safetensors")
    from safetensors.numpy import save_file

    save_file({"mean_F": np.zeros(3)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelError, match="36 features"):
        load_pristine(tmp_path / "wrong.safetensors")
