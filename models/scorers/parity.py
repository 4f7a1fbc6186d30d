"""Whether a scorer may run less precisely: both ways score the same probes, made here in code, and are compared.

A faster runtime is only used by a scorer whose calibrated scores it moves by no more than a stated tolerance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.scorers.protocol import CLIP_FRAMES, Excerpt, Pixels, Sampling
from models.scorers.runtime import Runtime, TorchScorer

Floats = NDArray[np.float64]

_SEED: Final = 20220706
_SIZES: Final = ((240, 320), (300, 260), (384, 512))
"""Heights and widths of the probes."""
_CLIP: Final = 2 * CLIP_FRAMES
_SLOPES: Final = (0.6, 1.0, 1.6)
"""Of the amplitude spectra ``1/f^slope``: photographs have about 1, less is sharp or noisy, more is soft."""


@dataclass(frozen=True)
class Parity:
    """Outcome of a comparison.

    Attributes:
        runtime: what the scorer runs in from now on.
        difference: largest absolute difference of its calibrated scores over the probes; infinite if there was none.
        spread: largest minus smallest score of telling probes in the exact runtime; telling is what lies off the ends
            of the scale by more than the tolerance.
        kept: whether the runtime is the one that was asked for.
    """

    runtime: Runtime
    difference: float
    spread: float
    kept: bool


def probes(sampling: Sampling | Excerpt) -> list[Pixels]:
    """Fixed stills and a clip ``[T, H, W, 3]``, sharp to soft, dark to bright, noisy, blocky, as a scorer sees them."""
    generator = np.random.default_rng(_SEED)
    found: list[Pixels] = []
    for number, (height, width) in enumerate(_SIZES):
        pictures = [_texture(generator, height, width, slope) for slope in _SLOPES]
        found += [_pixels(picture_HW3 * (0.6 + 0.3 * number))[None] for picture_HW3 in pictures]
        found.append(_pixels(pictures[-1] + generator.normal(0.0, 0.12, (height, width, 3)))[None])
    found.append(np.repeat(np.repeat(found[0][:, ::16, ::16], 16, axis=1), 16, axis=2))
    scene_HW3 = _texture(generator, 256, 320 + 4 * _CLIP, 1.0)
    found.append(np.stack([_pixels(scene_HW3[:, 4 * step : 4 * step + 320]) for step in range(_CLIP)]))
    return [sampling.of(probe) for probe in found] if isinstance(sampling, Excerpt) else found


def settle(scorer: TorchScorer, wanted: Runtime, tolerance: float) -> Parity:
    """Let a scorer run as wanted if its scores of the probes stay within the tolerance, else exactly.

    A comparison that could not fail does not count: where the scores of telling probes spread by less than ten
    tolerances, or fewer than a third of the probes are telling, or the wanted runtime gives no number, the scorer runs
    exactly.

    Args:
        scorer: runs in the chosen runtime afterwards.
        wanted: its device and number of rows hold in any case.
        tolerance: largest absolute difference allowed, on [0, 1].

    Raises:
        ModelError: this machine has no such device.
    """
    scorer.run_as(wanted.exact)
    if wanted == wanted.exact:
        return Parity(wanted, 0.0, 0.0, kept=True)
    media = probes(scorer.sampling)
    exact = np.array(scorer.score_many(media))
    telling = exact[np.abs(exact - 0.5) < 0.5 - tolerance]
    spread = float(np.ptp(telling)) if len(telling) >= len(exact) / 3 else 0.0
    scorer.run_as(wanted)
    difference = _difference(scorer, media, exact)
    kept = difference <= tolerance and spread >= 10 * tolerance
    if not kept:
        scorer.run_as(wanted.exact)
    return Parity(scorer.runtime, difference, spread, kept)


def _difference(scorer: TorchScorer, media: Sequence[Pixels], exact: Floats) -> float:
    try:
        return float(np.abs(np.array(scorer.score_many(media)) - exact).max())
    except ModelError:  # no number came out
        return float("inf")


def _texture(generator: np.random.Generator, height: int, width: int, slope: float) -> Floats:
    """Noise ``[H, W, 3]`` around 0.5 whose amplitude falls with frequency; its colours share most of it."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    noise_3HW = generator.standard_normal((3, height, width))
    noise_3HW = 0.8 * noise_3HW[:1] + 0.3 * noise_3HW
    shaped_3HW = np.fft.irfft2(np.fft.rfft2(noise_3HW) / frequency**slope, s=(height, width))
    return (0.5 + 0.18 * shaped_3HW / shaped_3HW.std()).transpose(1, 2, 0)


def _pixels(picture_HW3: Floats) -> Pixels:
    return np.rint(np.clip(picture_HW3, 0.0, 1.0) * 255).astype(np.uint8)
