"""Training samples of the built-in scorers: pristine photographs, damaged in known ways, with full-reference labels.

Nothing here has seen a human score. Every photograph gives several crops, every crop several versions: the pristine
one, single catalogue distortions, and chains that a camera and the net would do to it (resampling, defocus, shake,
bad light, sensor noise, denoising, sharpening, compression). Clips are pans and zooms over a photograph.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from models.distortions import IMAGE_CELLS, IMAGE_TYPES, VIDEO_TYPES, distort_clip, distort_image, strength
from tasks.errors import StageError
from tasks.media import Pixels, decode_video

PRISTINE: Final = "pristine"
MIXTURE: Final = "mixture"
KINDS: Final = (PRISTINE, *IMAGE_TYPES, MIXTURE)
"""Names of what can be wrong with a still sample; the multi-task scorer learns to tell them apart."""

_SMALL_CHANCE: Final = 0.35
_SMALL_FACTOR: Final = (1.25, 5.5)
"""Least and largest reduction of pictures that come small; they are enlarged to the screen as views do it."""


@dataclass(frozen=True)
class Rendering:
    """How samples are rendered.

    Attributes:
        side: side of a still sample, pixels.
        crops: crops per photograph.
        singles: versions with one catalogue distortion, per crop.
        chains: versions with a camera chain, per crop.
        both: versions with a camera chain after a catalogue distortion, per crop.
        smallest_share: smallest share of the photograph's shorter side that a crop shows.
        retouch_share: share of crops whose pristine version is retouched (gamma, cast, saturation) beforehand.
        clips: clips per photograph.
        clip_frames: frames of a clip.
        clip_side: side of a clip, pixels.
        clip_fps: frames per second of a clip.
    """

    side: int
    crops: int
    singles: int
    chains: int
    both: int
    smallest_share: float
    retouch_share: float
    clips: int
    clip_frames: int
    clip_side: int
    clip_fps: float


@dataclass(frozen=True)
class Version:
    """One version of a crop: pixels and what was done to them; ``strength`` is 0-5, NaN where no catalogue says it."""

    pixels_HWC: Pixels
    kind: str
    strength: float


@dataclass(frozen=True)
class ClipVersion:
    """One distorted clip beside its pristine frames; ``smoothness`` in [0, 1] is 1 unless its timing was disturbed."""

    frames_THWC: Pixels
    reference_THWC: Pixels
    kind: str
    smoothness: float


def render_crops(photo: Pixels, rendering: Rendering, seed: Sequence[int]) -> Iterator[list[Version]]:
    """Yield, crop by crop, all versions of the crop; the first is the pristine one."""
    for crop in range(rendering.crops):
        rng = np.random.default_rng([*seed, crop])
        pristine = _pristine_crop(photo, rendering, rng)
        singles = [_single(pristine, rng) for _ in range(rendering.singles)]
        bases = [pristine] * rendering.chains + [_single(pristine, rng).pixels_HWC for _ in range(rendering.both)]
        chains = [Version(camera_chain(base, rng), MIXTURE, np.nan) for base in bases]
        yield [Version(pristine, PRISTINE, 0.0), *singles, *chains]


def render_clips(photo: Pixels, rendering: Rendering, seed: Sequence[int]) -> Iterator[ClipVersion]:
    """Yield distorted clips of one photograph: timing, codec and still distortions in turn."""
    for number in range(rendering.clips):
        rng = np.random.default_rng([*seed, 1_000_000 + number])
        reference = _pan(photo, rendering, rng)
        kinds = (PRISTINE, "frame_stutter", "camera_shake", "h264_compression", "h265_compression", MIXTURE)
        kind = kinds[number % len(kinds)]
        frames, smoothness = reference, 1.0
        if kind == MIXTURE:
            chain_seed = int(rng.integers(2**31))
            chained = [camera_chain(frame, np.random.default_rng(chain_seed)) for frame in reference]
            frames = np.stack(chained)
        elif kind in VIDEO_TYPES:
            severity = int(rng.integers(1, 6))
            encoded = distort_clip(reference, rendering.clip_fps, kind, severity, int(rng.integers(2**31)))
            frames = decode_video(encoded, range(len(reference))).frames_THWC
            if kind in {"frame_stutter", "camera_shake"}:
                smoothness = (
                    1.0 - severity / 6.0
                )  # equal steps from the pristine clip's 1 towards 0: a convention of ours
        yield ClipVersion(frames, reference, kind, smoothness)


def camera_chain(pristine: Pixels, rng: np.random.Generator) -> Pixels:
    """Damage a photograph as cameras, editors and the net do, in that order; each link acts with its own chance.

    A third of the pictures is small: they are reduced, damaged at that size, and enlarged again.
    """
    image = Image.fromarray(pristine)
    if rng.random() < _SMALL_CHANCE:
        factor = float(np.exp(rng.uniform(*np.log(_SMALL_FACTOR))))
        image = image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.LANCZOS)
    damaged = _damaged(image, rng)
    size = (pristine.shape[1], pristine.shape[0])
    return np.asarray(damaged if damaged.size == size else damaged.resize(size, Image.Resampling.BICUBIC))


def _damaged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    links = rng.random(8) < np.array([0.45, 0.5, 0.5, 0.5, 0.25, 0.3, 0.25, 0.7])
    if links[0]:
        image = _resampled(image, rng)
    if links[1]:
        image = _blurred(image, rng)
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    if links[2]:
        pixels = _exposed(pixels, rng)
    if links[3]:
        pixels = _sensor_noise(pixels, rng)
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
    if links[4]:
        image = _denoised(image, rng)
    if links[5]:
        image = image.filter(ImageFilter.UnsharpMask(rng.uniform(0.6, 3.0), int(rng.uniform(40, 300)), 0))
    if links[6]:
        image = _resampled(image, rng)
    if links[7]:
        image = _recompressed(image, rng)
    return image


def _single(pristine: Pixels, rng: np.random.Generator) -> Version:
    kind, severity = IMAGE_CELLS[int(rng.integers(len(IMAGE_CELLS)))]
    pixels = distort_image(pristine, kind, severity, int(rng.integers(2**31)))
    return Version(pixels, kind, float(strength(kind, severity)))


def _pristine_crop(photo: Pixels, rendering: Rendering, rng: np.random.Generator) -> Pixels:
    image = Image.fromarray(photo)
    shorter = min(image.size)
    if shorter < rendering.side:
        msg = f"pristine photographs need sides of at least {rendering.side} pixels, not {image.width}x{image.height}"
        raise StageError(msg)
    window = int(rng.uniform(max(rendering.smallest_share * shorter, rendering.side), shorter + 1))
    left, top = (int(rng.integers(0, extent - window + 1)) for extent in image.size)
    side = (rendering.side, rendering.side)
    image = image.resize(side, Image.Resampling.LANCZOS, box=(left, top, left + window, top + window))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image)
    return _retouched(pixels, rng) if rng.random() < rendering.retouch_share else pixels


def _retouched(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A taste, not a fault: mild gamma, cast and saturation, so that the pristine photographs vary more."""
    values = np.asarray(pixels, dtype=np.float32) / 255.0
    values = values ** rng.uniform(0.8, 1.25)
    values = values * rng.uniform(0.94, 1.06, size=3).astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * rng.uniform(0.6, 1.25)
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _resampled(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shrink and enlarge again, as thumbnails, screens and messengers do."""
    size, factor = image.size, float(np.exp(rng.uniform(np.log(1.15), np.log(4.5))))
    small = (max(16, round(size[0] / factor)), max(16, round(size[1] / factor)))
    methods = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX)
    down = methods[int(rng.integers(4))]
    up = methods[int(rng.integers(3))]
    return image.resize(small, down).resize(size, up)


def _blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Out of focus, or moved during exposure, everywhere or (a third of the time) in one half of the picture only."""
    strong = float(np.exp(rng.uniform(np.log(0.5), np.log(5.0))))
    choice = rng.random()
    if choice < 0.4:
        soft = image.filter(ImageFilter.GaussianBlur(strong))
    elif choice < 0.65:
        soft = image.filter(ImageFilter.BoxBlur(strong)).filter(ImageFilter.BoxBlur(strong * 0.4))
    else:
        soft = _moved(image, 2.5 * strong, rng)
    if rng.random() < 0.33:
        angle = rng.uniform(0, 2 * np.pi)
        across, down = np.meshgrid(np.linspace(-1, 1, image.width), np.linspace(-1, 1, image.height))
        ramp = 1 / (1 + np.exp(-6 * (across * np.cos(angle) + down * np.sin(angle))))
        return Image.composite(soft, image, Image.fromarray((ramp * 255).astype(np.uint8)))
    return soft


def _moved(image: Image.Image, length: float, rng: np.random.Generator) -> Image.Image:
    """Average along a straight path of ``length`` pixels in a random direction."""
    angle, steps = rng.uniform(0, np.pi), max(2, round(length) + 1)
    total = np.zeros((image.height, image.width, 3), dtype=np.float32)
    for offset in np.linspace(-length / 2, length / 2, steps):
        matrix = (1, 0, float(offset * np.cos(angle)), 0, 1, float(offset * np.sin(angle)))
        padded = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        total += np.asarray(padded, dtype=np.float32)
    return Image.fromarray((total / steps + 0.5).astype(np.uint8))


def _exposed(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Too little or too much light in linear light, then haze or a hard tone curve."""
    stops = rng.normal(-0.5, 1.3)
    linear = np.clip(pixels, 0, 1) ** 2.2 * 2.0**stops
    values = np.clip(linear, 0, 1) ** (1 / 2.2)
    choice = rng.random()
    if choice < 0.3:
        haze = rng.uniform(0.05, 0.5)
        values = values * (1 - haze) + haze * rng.uniform(0.5, 0.9)
    elif choice < 0.5:
        values = 0.5 + (values - 0.5) * rng.uniform(1.2, 2.2)
    if rng.random() < 0.3:
        values = values * rng.uniform(0.75, 1.2, size=3)
    return np.clip(values, 0, 1).astype(np.float32)


def _sensor_noise(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Shot and read noise; half of the time smeared, as after demosaicking."""
    level = float(np.exp(rng.uniform(np.log(0.008), np.log(0.12))))
    deviation = level * np.sqrt(0.3 + pixels)
    grain = rng.standard_normal(pixels.shape).astype(np.float32)
    if rng.random() < 0.4:
        grain = np.repeat(grain.mean(axis=2, keepdims=True) * np.sqrt(3), 3, axis=2)
    if rng.random() < 0.5:
        grain = 0.5 * (grain + np.roll(grain, 1, axis=0))
        grain = (grain + np.roll(grain, 1, axis=1)) * 0.8
    return (pixels + deviation * grain).astype(np.float32)


def _denoised(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A phone's denoiser: colour smeared, and fine texture wiped by a median."""
    luma, blue, red = image.convert("YCbCr").split()
    radius = rng.uniform(1.0, 4.0)
    if rng.random() < 0.6:
        luma = luma.filter(ImageFilter.MedianFilter(int(rng.choice([3, 5]))))
    chroma = [plane.filter(ImageFilter.GaussianBlur(radius)) for plane in (blue, red)]
    return Image.merge("YCbCr", [luma, *chroma]).convert("RGB")


def _recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer, quality = io.BytesIO(), int(np.exp(rng.uniform(np.log(8), np.log(95))))
    if rng.random() < 0.8:
        image.save(buffer, "JPEG", quality=quality, subsampling=int(rng.choice([0, 2])))
    else:
        image.save(buffer, "WEBP", quality=quality, method=2)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def _pan(photo: Pixels, rendering: Rendering, rng: np.random.Generator) -> Pixels:
    """A camera that pans and zooms steadily over a photograph, ``[T, side, side, 3]``; a third stand still."""
    image, side, steps = Image.fromarray(photo), rendering.clip_side, rendering.clip_frames
    shorter = min(image.size)
    window = rng.uniform(min(side, 0.85 * shorter), 0.9 * shorter)
    still = rng.random() < 0.33
    velocity = np.zeros(2) if still else rng.uniform(-1, 1, size=2) * window * 0.03
    zoom = 1.0 if still else 1 + rng.uniform(-0.01, 0.01)
    start = np.array([rng.uniform(0, extent - window) for extent in image.size])
    frames = []
    for step in range(steps):
        wide = min(window * zoom**step, shorter)
        corner = np.clip(start + velocity * step, 0, np.array(image.size) - wide)
        left, top = float(corner[0]), float(corner[1])
        box = (left, top, left + wide, top + wide)
        frames.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box)))
    return np.stack(frames)
