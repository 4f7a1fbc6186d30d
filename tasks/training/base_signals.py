"""What is measured in pixels: the statistics that the base encoder learns, and the properties that the corpus tells.

Every quantity is computed from the medium alone; none compares it with an undistorted original, so none is a quality.

Shape legend: ``N`` tiles, ``S`` tokens of a tile, ``F`` statistics, ``G`` pixels of a token's side, ``T`` frames.
"""

import itertools
import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

Pixels = NDArray[np.uint8]

LUMA: Final = (0.299, 0.587, 0.114)
_BANDS: Final = 9
_CODE_BLOCK: Final = 8
_FLOOR: Final = 1e-5  # variance of a quarter of a grey level: below it lies the rounding to 8 bits

IMAGE_PROPERTIES: Final = (
    "sharpness",
    "detail",
    "noise",
    "contrast",
    "brightness",
    "colourfulness",
    "blockiness",
    "smoothness",
    "clipping",
    "halo",
)
VIDEO_PROPERTIES: Final = ("motion", "steadiness", "flicker", "fluency")
"""Keys of what is measured; larger is more of it."""


def token_statistics(tiles_N3HW: Tensor, side: int) -> Tensor:
    """Statistics ``[N, S, F]`` of every token's pixels.

    Log energies of frequency bands (luma, by radius; chroma, three), means and deviations, direction, level, peakedness
    and correlation of the high-pass residue, share of flat pixel pairs, share of clipped pixels, and periodicity of
    eight pixels.

    Args:
        tiles_N3HW: RGB in [0, 1].
        side: pixels ``G`` of a token's side.
    """
    blocks = tiles_N3HW.unfold(2, side, side).unfold(3, side, side)  # N 3 h w G G
    blocks = blocks.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # N S 3 G G
    luma = (blocks * torch.tensor(LUMA)[:, None, None]).sum(2)
    chroma = torch.stack([blocks[:, :, 2] - luma, blocks[:, :, 0] - luma], dim=2)
    parts = [
        _band_energies(luma, _BANDS),
        _band_energies(chroma, 3).flatten(2),
        blocks.mean((3, 4)),
        luma.std((2, 3), keepdim=True)[..., 0],
        _log(chroma.var((3, 4))),
        _direction(luma),
        _residue(luma),
        _flat_and_clipped(luma),
        _periodicity(luma),
    ]
    return torch.cat(parts, dim=2)


def _log(values: Tensor) -> Tensor:
    return (values + _FLOOR).log()


def _band_energies(blocks: Tensor, bands: int) -> Tensor:
    """Log mean DCT energy in ``bands`` rings of the frequency plane; the mean is left out."""
    side = blocks.shape[-1]
    index = torch.arange(side)
    basis = torch.cos(math.pi / side * (index[None, :] + 0.5) * index[:, None]) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    energy = (basis @ blocks @ basis.T) ** 2
    radius = torch.hypot(index[:, None].float(), index[None, :].float())
    # the first ring starts just below the first wave
    edges = torch.logspace(math.log10(0.9), math.log10(1.5 * side), bands + 1)
    rings = [(radius > low) & (radius <= high) for low, high in itertools.pairwise(edges)]
    return torch.stack([_log(energy[..., ring].mean(-1)) for ring in rings], dim=-1)


def _direction(luma: Tensor) -> Tensor:
    across = luma.diff(dim=-1).square().mean((2, 3))
    down = luma.diff(dim=-2).square().mean((2, 3))
    return (_log(across) - _log(down))[..., None]


def _residue(luma: Tensor) -> Tensor:
    """Level, power, peakedness, and neighbour correlation of the residue after the mean of four neighbours."""
    mid = luma[..., 1:-1, 1:-1]
    around = (luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]) / 4
    high = mid - around
    level = high.abs().sqrt().mean((2, 3)).pow(4)  # a fractional moment: edges weigh little, noise much
    power = high.square().mean((2, 3))
    peaked = _log(high.pow(4).mean((2, 3)).sqrt()) - _log(power)
    neighbour = (high[..., 1:] * high[..., :-1]).mean((2, 3)) / (power + _FLOOR)
    return torch.stack([_log(level), _log(power), peaked, neighbour], dim=-1)


def _flat_and_clipped(luma: Tensor) -> Tensor:
    flat = (luma.diff(dim=-1).abs() < 0.5 / 255).float().mean((2, 3))
    low, high = (luma < 4 / 255).float().mean((2, 3)), (luma > 251 / 255).float().mean((2, 3))
    return torch.stack([flat, low, high], dim=-1)


def _periodicity(luma: Tensor) -> Tensor:
    """How much one of the eight phases of a coding grid stands out in the gradients, across and down."""
    ratios = []
    for dim in (-1, -2):
        steps = luma.diff(dim=dim).abs().mean(-2 if dim == -1 else -1)
        phases = torch.stack([steps[..., phase::_CODE_BLOCK].mean(-1) for phase in range(_CODE_BLOCK)], dim=-1)
        ratios.append(_log(phases.amax(-1)) - _log(phases.median(-1).values))
    return torch.stack(ratios, dim=-1)


def image_properties(pixels_HW3: Pixels) -> dict[str, float]:
    """Measure an image; keys are ``IMAGE_PROPERTIES``."""
    values = pixels_HW3.astype(np.float32) / 255
    luma = values @ np.array(LUMA, dtype=np.float32)
    high = luma - ndimage.uniform_filter(luma, 3, mode="nearest")
    middle = ndimage.uniform_filter(luma, 3, mode="nearest") - ndimage.uniform_filter(luma, 9, mode="nearest")
    gradient = np.hypot(ndimage.sobel(luma, 0), ndimage.sobel(luma, 1))
    red_green, yellow_blue = values[..., 0] - values[..., 1], (values[..., 0] + values[..., 1]) / 2 - values[..., 2]
    quiet = gradient <= np.quantile(gradient, 0.3)
    edges = gradient >= np.quantile(gradient, 0.95)
    colour = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    edge_width = np.abs(high[edges]).mean() / (np.abs(middle[edges]).mean() + 2e-3)
    return {
        "sharpness": float(edge_width),
        "detail": float(np.log(middle.std() + 1e-3)),
        "noise": float(np.log(np.abs(high[quiet]).mean() + 1e-4)),
        "contrast": float(np.quantile(luma, 0.95) - np.quantile(luma, 0.05)),
        "brightness": float(luma.mean()),
        "colourfulness": float(colour),
        "blockiness": _grid_strength(luma),
        "smoothness": float((np.abs(np.diff(luma, axis=1)) < 1.5 / 255).mean()),
        "clipping": float(((luma < 3 / 255) | (luma > 252 / 255)).mean()),
        "halo": float(np.log(np.abs(high[edges]).mean() + 1e-3) - np.log(gradient[edges].mean() + 1e-2)),
    }


def _grid_strength(luma: NDArray[np.floating]) -> float:
    """Log ratio of the strongest phase of an eight-pixel grid to the median phase, mean of both directions."""
    ratios = []
    for steps in (np.abs(np.diff(luma, axis=1)).mean(0), np.abs(np.diff(luma, axis=0)).mean(1)):
        phases = [steps[phase::_CODE_BLOCK].mean() for phase in range(_CODE_BLOCK)]
        ratios.append(np.log(max(phases) + 1e-3) - np.log(np.median(phases) + 1e-3))
    return float(np.mean(ratios))


def clip_properties(frames_THW3: Pixels) -> dict[str, float]:
    """Measure a clip: its middle frame as an image, and ``VIDEO_PROPERTIES``."""
    luma = frames_THW3.astype(np.float32) @ (np.array(LUMA, dtype=np.float32) / 255)
    steps = np.abs(np.diff(luma, axis=0)).mean((1, 2))
    moves = np.array([_shift(first, second) for first, second in itertools.pairwise(luma)])
    turns = np.linalg.norm(np.diff(moves, axis=0), axis=1).mean() if len(moves) > 1 else 0.0
    level = luma.mean((1, 2))
    return image_properties(frames_THW3[len(frames_THW3) // 2]) | {
        "motion": float(np.log(steps.mean() + 1e-3)),
        "steadiness": float(-np.log(turns + 0.05)),
        "flicker": float(np.log(np.abs(np.diff(level, 2)).mean() + 1e-4)),
        "fluency": float(-(steps < 0.1 * steps.mean() + 1e-4).mean()),
    }


def _shift(first_HW: NDArray[np.float32], second_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Whole-pixel displacement between two frames by phase correlation."""
    cross = np.fft.rfft2(first_HW - first_HW.mean()) * np.conj(np.fft.rfft2(second_HW - second_HW.mean()))
    peak = np.fft.irfft2(cross / (np.abs(cross) + 1e-6), s=first_HW.shape)
    place = np.array(np.unravel_index(int(peak.argmax()), peak.shape), dtype=np.float64)
    sides = np.array(first_HW.shape)
    return np.where(place > sides / 2, place - sides, place)


def frame_statistics(motion_CTHW: Tensor) -> Tensor:
    """Statistics ``[T, F]`` of every motion frame: spread, change from the frame before, change of that change.

    Args:
        motion_CTHW: normalised clip as the motion extractor sees it.
    """
    luma = motion_CTHW.mean(0)
    before = torch.cat([luma[:1], luma[:-1]])
    change = luma - before
    swing = change - torch.cat([change[:1], change[:-1]])
    level = change.mean((1, 2))
    return torch.stack(
        [
            luma.mean((1, 2)),
            _log(luma.var((1, 2))),
            _log(luma.diff(dim=2).square().mean((1, 2))),
            _log(change.square().mean((1, 2))),
            _log(swing.square().mean((1, 2))),
            _log(level.square()),
            (change.abs() < 1e-3).float().mean((1, 2)),
        ],
        dim=-1,
    )
