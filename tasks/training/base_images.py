"""Pictures and clips to learn seeing from: procedural scenes under random, unlabelled signal changes.

Scenes are dead leaves (occluding, textured shapes), power-law textures, gradients and strokes: natural image
statistics without any photograph, so the base depends on its recipe alone. A signal change has no name and no label
that leaves this module; the corpus tells only what is *measured* in the changed pixels.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class SceneConfig:
    """Size of the procedural world.

    Attributes:
        scenes: different scenes. variants: differently changed pictures of each.
        clips: moving views. clip_frames: frames of each.
        sides: smallest and largest side of a picture, pixels.
    """

    scenes: int
    variants: int
    clips: int
    clip_frames: int
    sides: tuple[int, ...]


def scene(rng: np.random.Generator, sides: Sequence[int]) -> Pixels:
    """Draw one scene ``[H, W, 3]``, sharp and free of noise, at up to twice its final size, then reduced."""
    width, height = (int(rng.integers(sides[0], sides[1] + 1)) for _ in range(2))
    scale = float(rng.uniform(1.0, 2.0))
    canvas = _ground(rng, round(height * scale), round(width * scale))
    for _ in range(int(rng.integers(1, 4))):
        canvas = _LAYERS[int(rng.integers(len(_LAYERS)))](rng, canvas)
    exposure = float(np.exp(rng.normal(0.0, 0.25)))
    graded = np.clip(canvas * exposure, 0.0, 1.0) ** float(np.exp(rng.normal(0.0, 0.2)))
    image = Image.fromarray((graded * 255).round().astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _ground(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Smooth gradient between two colours."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    ramp = (np.cos(angle) * columns + np.sin(angle) * rows)[..., None]
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)
    first, second = _colour(rng), _colour(rng)
    return (first + ramp * (second - first)).astype(np.float32)


def _colour(rng: np.random.Generator) -> Floats:
    grey = rng.beta(1.3, 1.5)
    return np.clip(grey + rng.normal(0, rng.uniform(0.0, 0.15), 3), 0, 1).astype(np.float32)


def _texture(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Power-law noise, zero mean, unit deviation: spectrum ``1 / f ** s`` with random ``s`` and orientation."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    stretch, angle = np.exp(rng.normal(0, 0.5)), rng.uniform(0, np.pi)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = np.cos(angle) * rows - np.sin(angle) * columns
    radius = np.sqrt((along * stretch) ** 2 + (across / stretch) ** 2) + 0.5 / max(height, width)
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / radius ** rng.uniform(0.6, 2.2)
    field = np.fft.irfft2(spectrum, s=(height, width))
    return ((field - field.mean()) / (field.std() + 1e-9)).astype(np.float32)


def _textured(rng: np.random.Generator, canvas: Floats) -> Floats:
    height, width = canvas.shape[:2]
    field = _texture(rng, height, width)[..., None] * rng.uniform(0.03, 0.2)
    tint = rng.normal(1.0, 0.3, 3).astype(np.float32)
    return np.clip(canvas + field * tint, 0, 1)


def _leaves(rng: np.random.Generator, canvas: Floats) -> Floats:
    """Occluding ellipses and polygons with power-law sizes, each with a colour, some shaded by a texture."""
    height, width = canvas.shape[:2]
    image = Image.fromarray((canvas * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(20, 300))):
        radius = float(np.clip(3 * rng.pareto(1.2) + 2, 2, 0.4 * max(height, width)))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        fill = tuple(int(v) for v in _colour(rng) * 255)
        if rng.random() < 0.5:
            squeeze = rng.uniform(0.4, 1.0)
            draw.ellipse((x - radius, y - radius * squeeze, x + radius, y + radius * squeeze), fill=fill)
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
            draw.polygon([(x + radius * np.cos(t), y + radius * np.sin(t)) for t in turns], fill=fill)
    leaves = np.asarray(image, dtype=np.float32) / 255
    shade = _texture(rng, height, width)[..., None] * rng.uniform(0.0, 0.15)
    return np.clip(leaves * (1 + shade), 0, 1)


def _strokes(rng: np.random.Generator, canvas: Floats) -> Floats:
    """Lines and glyph-like marks: thin, straight, high-contrast edges."""
    height, width = canvas.shape[:2]
    image = Image.fromarray((canvas * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    ink = tuple(int(v) for v in _colour(rng) * 255)
    pen = int(rng.integers(1, 6))
    for _ in range(int(rng.integers(10, 80))):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(5, 60)
        points = [(x + rng.uniform(-size, size), y + rng.uniform(-size, size)) for _ in range(int(rng.integers(2, 5)))]
        draw.line(points, fill=ink, width=pen)
    return np.asarray(image, dtype=np.float32) / 255


_LAYERS: Final[tuple[Callable[[np.random.Generator, Floats], Floats], ...]] = (
    _leaves,
    _leaves,
    _textured,
    _textured,
    _strokes,
)


def changed(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Apply none to three random signal changes of random strength; nothing about them is kept."""
    values = pixels.astype(np.float32) / 255
    count = int(rng.choice([0, 1, 2, 3], p=[0.15, 0.4, 0.3, 0.15]))
    for index in sorted(rng.choice(len(_CHANGES), count, replace=False)):
        values = np.clip(_CHANGES[index](rng, values), 0, 1)
    return (values * 255).round().astype(np.uint8)


def _spread(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform number."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _smooth(rng: np.random.Generator, values: Floats) -> Floats:
    sigma = _spread(rng, 0.4, 6.0)
    if rng.random() < 0.3:
        size = max(2, round(2 * sigma))
        return ndimage.uniform_filter1d(values, size, axis=int(rng.integers(2)), mode="nearest")
    return ndimage.gaussian_filter(values, (sigma, sigma, 0), mode="nearest")


def _resample(rng: np.random.Generator, values: Floats) -> Floats:
    height, width = values.shape[:2]
    factor = _spread(rng, 1.3, 8.0)
    image = Image.fromarray((values * 255).astype(np.uint8))
    small = image.resize((max(8, round(width / factor)), max(8, round(height / factor))), Image.Resampling.BOX)
    kind = Image.Resampling.NEAREST if rng.random() < 0.5 else Image.Resampling.BICUBIC
    return np.asarray(small.resize((width, height), kind), dtype=np.float32) / 255


def _tone(rng: np.random.Generator, values: Floats) -> Floats:
    gamma, gain, lift = np.exp(rng.normal(0, 0.5)), np.exp(rng.normal(0, 0.35)), rng.normal(0, 0.1)
    return np.clip((values**gamma - 0.5) * gain + 0.5 + lift, 0, 1)


def _tint(rng: np.random.Generator, values: Floats) -> Floats:
    grey = values.mean(axis=2, keepdims=True)
    shifted = grey + (values - grey) * rng.uniform(-0.3, 2.5)
    if rng.random() < 0.3:
        shifted[..., 1] = np.roll(shifted[..., 1], int(rng.integers(1, 8)), axis=int(rng.integers(2)))
    return shifted


def _sharpen(rng: np.random.Generator, values: Floats) -> Floats:
    soft = ndimage.gaussian_filter(values, (1.5, 1.5, 0), mode="nearest")
    return values + (values - soft) * _spread(rng, 0.3, 6.0)


def _sensor(rng: np.random.Generator, values: Floats) -> Floats:
    strength = _spread(rng, 0.008, 0.15)
    kind = rng.random()
    if kind < 0.2:
        salt = rng.random(values.shape) < strength / 2
        return np.where(salt, rng.integers(0, 2, values.shape), values).astype(np.float32)
    channels = values.shape[2] if kind < 0.8 else 1
    grain = rng.standard_normal((*values.shape[:2], channels)).astype(np.float32)
    return values + strength * grain * (values * 2 if kind > 0.65 else 1)


def _coarse(rng: np.random.Generator, values: Floats) -> Floats:
    steps = _spread(rng, 5, 40)
    return np.round(values * steps) / np.float32(steps)


def _transform_code(rng: np.random.Generator, values: Floats) -> Floats:
    stream = io.BytesIO()
    quality = round(_spread(rng, 3, 60))
    image = Image.fromarray((values * 255).astype(np.uint8))
    if rng.random() < 0.7:
        image.save(stream, "JPEG", quality=quality)
    else:
        image.save(stream, "WEBP", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"), dtype=np.float32) / 255


_CHANGES: Final[tuple[Callable[[np.random.Generator, Floats], Floats], ...]] = (
    _tone,
    _tint,
    _smooth,
    _resample,
    _sharpen,
    _sensor,
    _sensor,
    _coarse,
    _transform_code,
    _transform_code,
)
"""In the order of a camera: light, colour, optics, sampling, sensor, coding."""


def moving_view(rng: np.random.Generator, picture: Pixels, frames: int) -> Pixels:
    """A clip ``[T, H, W, 3]``: a window that pans and trembles over a picture, with repeats, flicker and grain."""
    size = int(min(picture.shape[:2]) * rng.uniform(0.5, 0.8))
    room = np.array(picture.shape[:2]) - size
    drift = rng.normal(0, 1, 2)
    drift *= _spread(rng, 0.05, 6.0) / (np.linalg.norm(drift) + 1e-9)
    tremble = rng.normal(0, _spread(rng, 0.05, 6.0), (frames, 2)) * (rng.random() < 0.6)
    places = rng.uniform(0, 1, 2) * room + np.arange(frames)[:, None] * drift + tremble
    places = np.abs((places + room) % (2 * room + 1e-6) - room).round().astype(int)  # bounce at the picture's edges
    held = rng.random(frames) < rng.uniform(0, 0.8) * (rng.random() < 0.4)
    flicker = 1 + rng.normal(0, _spread(rng, 0.003, 0.1), frames) * (rng.random() < 0.5)
    grain = _spread(rng, 0.002, 0.08) * (rng.random() < 0.5)
    clip: list[Floats] = []
    for index, (top, left) in enumerate(places):
        if index and held[index]:
            clip.append(clip[-1])
            continue
        view = picture[top : top + size, left : left + size].astype(np.float32) / 255 * flicker[index]
        clip.append(view + grain * rng.standard_normal(view.shape).astype(np.float32))
    return (np.clip(np.stack(clip), 0, 1) * 255).round().astype(np.uint8)
