"""NIQE, the opinion-unaware baseline: how far an image's local statistics lie from those of pristine photographs.

Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE SPL 20(3), 2013; "(n)" cites
its equations. Written here with NumPy and SciPy; the tests hold it to the MATLAB-faithful implementation in pyiqa. The
authors' parameter file is not redistributed, so the pristine model is our own fit by the paper's recipe
(:func:`fit_pristine`): the file beside this module says in its metadata which photographs it was fitted on.

Shape legend: H, W height and width; P patches; F = 36 features (18 on each of two scales).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import gammaln

from models.errors import MissingWeightsError, ModelError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

PATCH: Final = 96
"""Side of a patch on the first scale, pixels; the paper's value, which the pristine model depends on."""
FEATURES: Final = 36
SHARPNESS_THRESHOLD: Final = 0.75
"""Pristine patches count if their mean local deviation exceeds this share of the sharpest one's (T, section II.B)."""
PRISTINE_FILE: Final = Path(__file__).with_name("niqe_pristine.safetensors")

_LUMA: Final = np.array([0.299, 0.587, 0.114])
_WINDOW_RADIUS, _WINDOW_SIGMA = 3, 7.0 / 6.0
_SHIFTS: Final = ((0, 1), (1, 0), (1, 1), (1, -1))
_EPS: Final = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class PristineModel:
    """Multivariate Gaussian of pristine patches' features: ``mean_F`` and ``covariance_FF``."""

    mean_F: Floats
    covariance_FF: Floats


def niqe(pixels_HWC: Pixels, pristine: PristineModel | None = None) -> float:
    """Distance from the pristine model; >= 0, lower is better, about 2 to 30 for photographs.

    An image of a single patch has no covariance of its own; it counts as zero.

    Args:
        pixels_HWC: upright RGB, uint8, both sides >= 96.
        pristine: the model to compare with; by default the project's own.

    Raises:
        ModelError: the image is smaller than one patch, is not 8-bit RGB, or is so flat that no patch has statistics.
    """
    model = pristine or load_pristine(PRISTINE_FILE)
    features_PF = patch_features(pixels_HWC)
    whole_PF = features_PF[~np.isnan(features_PF).any(axis=1)]
    if len(whole_PF) == 0:
        raise ModelError("NIQE is undefined here: every patch of the image is flat")
    difference_F = np.nanmean(features_PF, axis=0) - model.mean_F
    own_FF = np.cov(whole_PF, rowvar=False) if len(whole_PF) > 1 else np.zeros((FEATURES, FEATURES))
    inverse_FF = np.linalg.pinv((model.covariance_FF + own_FF) / 2)
    return float(np.sqrt(max(difference_F @ inverse_FF @ difference_F, 0.0)))  # (10)


def patch_features(pixels_HWC: Pixels) -> Floats:
    """Natural-scene features ``[P, 36]`` of the whole 96-pixel patches; a flat patch's features are NaN.

    Raises:
        ModelError: as :func:`niqe`.
    """
    luma_HW = _crop(_luma(pixels_HWC))
    halves = []
    for scale in (1, 2):
        normalised_HW, _ = _normalise(luma_HW)
        halves.append(_features(_patches(normalised_HW, PATCH // scale)))
        luma_HW = _half_size(luma_HW) if scale == 1 else luma_HW
    return np.concatenate(halves, axis=1)


def fit_pristine(photographs: Iterable[Pixels], threshold: float = SHARPNESS_THRESHOLD) -> tuple[PristineModel, int]:
    """Fit the pristine model on photographs ``[H, W, 3]``; returns it with the number of sharp patches used.

    Raises:
        ModelError: there are fewer sharp patches than features.
    """
    rows = []
    for pixels_HWC in photographs:
        _, deviation_HW = _normalise(_crop(_luma(pixels_HWC)))
        sharpness_P = _patches(deviation_HW, PATCH).mean(axis=(1, 2))
        rows.append(patch_features(pixels_HWC)[sharpness_P > threshold * sharpness_P.max()])
    features_PF = np.concatenate(rows) if rows else np.empty((0, FEATURES))
    features_PF = features_PF[~np.isnan(features_PF).any(axis=1)]
    if len(features_PF) <= FEATURES:
        msg = f"a pristine model needs more than {FEATURES} sharp patches; these photographs have {len(features_PF)}"
        raise ModelError(msg)
    return PristineModel(features_PF.mean(axis=0), np.cov(features_PF, rowvar=False)), len(features_PF)


def save_pristine(path: Path, model: PristineModel, origin: dict[str, str]) -> None:
    """Write the model as safetensors; ``origin`` says what it was fitted on."""
    from safetensors.numpy import save  # noqa: PLC0415 - only the fit pays for it

    told = {"origin": json.dumps(origin, sort_keys=True)}  # one entry: the format keeps no order of several
    path.write_bytes(save({"mean_F": model.mean_F, "covariance_FF": model.covariance_FF}, metadata=told))


@cache
def load_pristine(path: Path) -> PristineModel:
    """Read a pristine model.

    Raises:
        MissingWeightsError: the file is absent.
        ModelError: its tensors have other names or shapes.
    """
    from safetensors.numpy import load_file  # noqa: PLC0415 - as above

    if not path.is_file():
        msg = f"{path} is missing: restore it from the repository, or run python -m tasks.evaluation.fit_niqe"
        raise MissingWeightsError(msg)
    tensors = load_file(path)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != {"mean_F": (FEATURES,), "covariance_FF": (FEATURES, FEATURES)}:
        msg = f"{path.name} is not a NIQE model of {FEATURES} features: it holds {shapes}"
        raise ModelError(msg)
    return PristineModel(tensors["mean_F"], tensors["covariance_FF"])


def _luma(pixels_HWC: Pixels) -> Floats:
    """Rounded luma ``[H, W]`` on 0-255, as MATLAB sees an 8-bit grey image."""
    if pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3 or pixels_HWC.dtype != np.uint8:
        msg = f"NIQE reads 8-bit RGB pixels [H, W, 3], not {pixels_HWC.dtype} {pixels_HWC.shape}"
        raise ModelError(msg)
    height, width = pixels_HWC.shape[:2]
    if min(height, width) < PATCH:
        msg = f"NIQE needs at least {PATCH}x{PATCH} pixels; the image has {width}x{height}"
        raise ModelError(msg)
    return np.rint(pixels_HWC.astype(np.float64) @ _LUMA)


def _crop(luma_HW: Floats) -> Floats:
    height, width = (side // PATCH * PATCH for side in luma_HW.shape)
    return luma_HW[:height, :width]


def _normalise(luma_HW: Floats) -> tuple[Floats, Floats]:
    """Mean-subtracted, contrast-normalised coefficients (1) and the local deviation (3), both ``[H, W]``."""
    offsets = np.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _WINDOW_SIGMA**2))
    window /= window.sum()

    def blur(image: Floats) -> Floats:
        return correlate1d(correlate1d(image, window, axis=0, mode="nearest"), window, axis=1, mode="nearest")

    mean_HW = blur(luma_HW)
    deviation_HW = np.sqrt(np.abs(blur(luma_HW**2) - mean_HW**2) + _EPS)
    return (luma_HW - mean_HW) / (deviation_HW + 1.0), deviation_HW


def _half_size(luma_HW: Floats) -> Floats:
    """Halve both sides with MATLAB's antialiased bicubic kernel (a = -1/2, stretched by two, mirrored edges)."""
    distance = np.abs(np.arange(-3.5, 4.0)) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel = np.where(distance <= 1, near, far)
    kernel /= kernel.sum()
    for axis in (0, 1):
        # An even kernel's centre lies between two samples: origin -1 and every second result put it on the new grid.
        luma_HW = correlate1d(luma_HW, kernel, axis=axis, mode="reflect", origin=-1)
        luma_HW = luma_HW[::2] if axis == 0 else luma_HW[:, ::2]
    return luma_HW


def _patches(image_HW: Floats, side: int) -> Floats:
    """Cut into whole patches ``[P, side, side]``, row by row."""
    rows, columns = image_HW.shape[0] // side, image_HW.shape[1] // side
    blocks = image_HW[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return blocks.transpose(0, 2, 1, 3).reshape(rows * columns, side, side)


def _features(patches_PHW: Floats) -> Floats:
    """Features ``[P, 18]`` of one scale: the coefficients' shape and spread, and four of each neighbour product."""
    shape_P, left_P, right_P = _fit_aggd(patches_PHW)
    columns = [shape_P, (left_P + right_P) / 2]
    for shift in _SHIFTS:
        product_PHW = patches_PHW * np.roll(patches_PHW, shift, axis=(1, 2))
        shape_P, left_P, right_P = _fit_aggd(product_PHW)
        mean_P = (right_P - left_P) * np.exp(gammaln(2 / shape_P) - gammaln(1 / shape_P))  # (8)
        columns += [shape_P, mean_P, left_P, right_P]
    return np.stack(columns, axis=1)


@cache
def _shape_table() -> tuple[Floats, Floats]:
    """Shapes .2 to 10 and the generalised Gaussian's ratio E|x|^2 / E x^2, which rises with the shape."""
    shapes = np.arange(200, 10001) / 1000
    return shapes, np.exp(2 * gammaln(2 / shapes) - gammaln(1 / shapes) - gammaln(3 / shapes))


def _fit_aggd(values_PHW: Floats) -> Sequence[Floats]:
    """Moment fit of the asymmetric generalised Gaussian (4): shape, left and right scale, each ``[P]``."""
    squares_PHW = values_PHW**2
    with np.errstate(invalid="ignore", divide="ignore"):
        left_P, right_P = (
            np.sqrt((squares_PHW * side).sum(axis=(1, 2)) / side.sum(axis=(1, 2)))
            for side in (values_PHW < 0, values_PHW > 0)
        )
        skew_P = left_P / right_P
        ratio_P = np.abs(values_PHW).mean(axis=(1, 2)) ** 2 / squares_PHW.mean(axis=(1, 2))
        wanted_P = ratio_P * (skew_P**3 + 1) * (skew_P + 1) / (skew_P**2 + 1) ** 2
    shapes, ratios = _shape_table()
    above_P = np.clip(np.searchsorted(ratios, wanted_P), 1, len(shapes) - 1)
    nearer_below_P = wanted_P - ratios[above_P - 1] <= ratios[above_P] - wanted_P
    shape_P = np.where(np.isnan(wanted_P), np.nan, shapes[above_P - nearer_below_P])
    scale_P = np.sqrt(np.exp(gammaln(1 / shape_P) - gammaln(3 / shape_P)))
    return shape_P, left_P * scale_P, right_P * scale_P
