"""What the image encoder sees: pixels become normalised tiles and motion frames, and the encoder travels as a folder.

Shape legend: ``T`` tiles or frames, ``C`` channels, ``H`` and ``W`` pixels.

Two tilings. ``dynamic`` is InternVL's: a grid of tiles chosen by aspect ratio, then a thumbnail. ``fragments`` is for
small tiles: one squashed view would average noise, blur and compression away, so beside the thumbnail stand *native*
tiles, each a mosaic of unresized fragments, one from every cell of a grid over the whole picture (the sampling idea of
FAST-VQA, arXiv 2207.02595). A fragment is as wide as one pixel-shuffled token, so a token never straddles two of them.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import InternVLVisionModel

from models.errors import MissingWeightsError, ModelError
from models.motion import MotionConfig, MotionExtractor

Pixels = NDArray[np.uint8]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""InternVL's normalisation of tiles (its preprocessor_config.json)."""


@dataclass(frozen=True)
class VisualSpec:
    """How pixels become tiles and motion frames; stored beside the weights that were trained with it.

    Attributes:
        tile_px: side of a tile; the image encoder's input size.
        tiling: ``fragments`` or ``dynamic`` (see the module's text).
        fragment_px: side of a native fragment; divides ``tile_px`` (equal to it: one contiguous crop per tile).
        native_tiles: native tiles of an image beside its thumbnail (``fragments`` only).
        frame_native_tiles: native tiles of each key frame beside its thumbnail (``fragments`` only).
        max_tiles: largest grid (``dynamic`` only; video frames are always one squashed tile there, as in the paper).
        key_frames: at most so many frames of a clip, spread evenly, become tiles (at most one per second in the paper).
        motion_frames: frames of the motion stream; 0 takes every frame that was given.
        motion_px: side to which motion frames are squashed.
        motion_mean, motion_std: normalisation of the motion stream; Kinetics' is .45 and .225 for every channel.
    """

    tile_px: int
    tiling: Literal["fragments", "dynamic"]
    fragment_px: int
    native_tiles: int
    frame_native_tiles: int
    max_tiles: int
    key_frames: int
    motion_frames: int
    motion_px: int
    motion_mean: float
    motion_std: float

    def __post_init__(self) -> None:
        if self.tiling == "fragments" and self.tile_px % self.fragment_px:
            msg = f"fragment_px {self.fragment_px} does not divide tile_px {self.tile_px}"
            raise ModelError(msg)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "VisualSpec":
        """Rebuild a spec from stored values; an unknown or missing key is an error."""
        try:
            return cls(**values)
        except TypeError as error:
            msg = f"this folder's visual spec does not fit this version of the project: {error}"
            raise ModelError(msg) from error


EMBEDDED_SPEC: Final = VisualSpec(
    tile_px=112,
    tiling="fragments",
    fragment_px=28,
    native_tiles=2,
    frame_native_tiles=1,
    max_tiles=1,
    key_frames=2,
    motion_frames=16,
    motion_px=96,
    motion_mean=0.45,
    motion_std=0.225,
)
"""The tiny family's views: 3 tiles per image, 4 tiles and 16 motion frames per clip."""

PAPER_SPEC: Final = VisualSpec(
    tile_px=448,
    tiling="dynamic",
    fragment_px=448,
    native_tiles=0,
    frame_native_tiles=0,
    max_tiles=12,
    key_frames=20,
    motion_frames=0,
    motion_px=224,
    motion_mean=0.45,
    motion_std=0.225,
)
"""InternVL3's views (VITAL section 3, clips of 1-20 s: one key frame a second, every frame in the motion stream)."""


@dataclass(frozen=True)
class VisualInput:
    """One medium as the model sees it.

    Attributes:
        tiles_TCHW: float32, ImageNet-normalised: tiles of an image, or of a clip's key frames in time order.
        motion_CTHW: float32, normalised clip for the motion extractor; None for images.
    """

    tiles_TCHW: Tensor
    motion_CTHW: Tensor | None = None

    @property
    def is_video(self) -> bool:
        """Whether this medium has a motion stream."""
        return self.motion_CTHW is not None


def prepare_image(pixels_HWC: Pixels, spec: VisualSpec, rng: np.random.Generator | None = None) -> VisualInput:
    """Turn a decoded image into tiles: thumbnail first for ``fragments``, last for ``dynamic`` (InternVL's order).

    Args:
        pixels_HWC: uint8 RGB.
        rng: draws the fragments' places and a mirror image (training); without it places are fixed (evaluation).

    Raises:
        ModelError: the pixels are not uint8 ``[H, W, 3]``.
    """
    image_CHW = _to_tensor(pixels_HWC)
    if rng is not None and rng.random() < 0.5:
        image_CHW = image_CHW.flip(-1)
    if spec.tiling == "dynamic":
        return VisualInput(_normalise_tiles(_dynamic_tiles(image_CHW, spec)))
    return VisualInput(_normalise_tiles(_fragment_tiles(image_CHW, spec, spec.native_tiles, rng)))


def prepare_clip(
    frames_THWC: Pixels, seconds_T: ArrayLike, spec: VisualSpec, rng: np.random.Generator | None = None
) -> VisualInput:
    """Turn decoded frames into key-frame tiles and the motion stream.

    Give all frames of the clip, or those that :func:`wanted_frames` names; key frames are the ones nearest to evenly
    spread times, the motion stream is the densest run of consecutive frames around the clip's middle.

    Args:
        frames_THWC: uint8 RGB, in time order.
        seconds_T: their times.
        rng: as in :func:`prepare_image`; mirrors whole clips and draws one place per cell for the whole clip.

    Raises:
        ModelError: there is no frame, or times and frames differ in number.
    """
    seconds = np.asarray(seconds_T, dtype=np.float64)
    if len(frames_THWC) == 0 or len(frames_THWC) != len(seconds):
        msg = f"a clip needs frames and one time per frame, found {len(frames_THWC)} frames and {len(seconds)} times"
        raise ModelError(msg)
    flip = rng is not None and bool(rng.random() < 0.5)
    tiles: list[Tensor] = []
    for index in _key_frame_indices(seconds, spec):
        frame_CHW = _to_tensor(frames_THWC[index])
        frame_CHW = frame_CHW.flip(-1) if flip else frame_CHW
        if spec.tiling == "dynamic":
            tiles.append(_resize(frame_CHW, spec.tile_px, spec.tile_px)[None])
        else:
            tiles.append(_fragment_tiles(frame_CHW, spec, spec.frame_native_tiles, rng))
    motion_TCHW = torch.stack(
        [_resize(_to_tensor(frames_THWC[i]), spec.motion_px, spec.motion_px) for i in _motion_indices(seconds, spec)]
    )
    motion_TCHW = motion_TCHW.flip(-1) if flip else motion_TCHW
    motion_CTHW = ((motion_TCHW.float() / 255 - spec.motion_mean) / spec.motion_std).transpose(0, 1).contiguous()
    return VisualInput(_normalise_tiles(torch.cat(tiles)), motion_CTHW)


def wanted_frames(total: int, fps: float, spec: VisualSpec) -> list[int]:
    """Indices of the frames that :func:`prepare_clip` needs, first and last included: they tell it the clip's span."""
    seconds = np.arange(total) / fps
    return sorted({0, total - 1, *_key_frame_indices(seconds, spec), *_motion_indices(seconds, spec)})


def _key_frame_indices(seconds: NDArray[np.float64], spec: VisualSpec) -> list[int]:
    count = min(spec.key_frames, len(seconds))
    if spec.tiling == "dynamic":  # the paper's one frame a second
        count = min(count, max(1, int(seconds[-1] - seconds[0]) + 1))
    share = (np.arange(count) + 0.5) / count
    times = seconds[0] + share * (seconds[-1] - seconds[0])
    return sorted({int(np.abs(seconds - time).argmin()) for time in times})


def _motion_indices(seconds: NDArray[np.float64], spec: VisualSpec) -> list[int]:
    total = len(seconds)
    count = total if spec.motion_frames == 0 else min(spec.motion_frames, total)
    spans = seconds[count - 1 :] - seconds[: total - count + 1]
    starts = np.flatnonzero(spans <= spans.min() + 1e-6)
    middle = seconds[0] + 0.5 * (seconds[-1] - seconds[0])
    start = int(min(starts, key=lambda s: abs(0.5 * (seconds[s] + seconds[s + count - 1]) - middle)))
    return list(range(start, start + count))


def _to_tensor(pixels_HWC: Pixels) -> Tensor:
    if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3:
        msg = f"expected uint8 RGB pixels [H, W, 3], found {pixels_HWC.dtype} {pixels_HWC.shape}"
        raise ModelError(msg)
    return torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)


def _resize(image_CHW: Tensor, height: int, width: int) -> Tensor:
    """Bicubic with antialiasing on bytes, as InternVL's processor does; a picture of the right size is not touched."""
    if image_CHW.shape[1:] == (height, width):
        return image_CHW
    bytes_1CHW = image_CHW[None].contiguous()
    return functional.interpolate(
        bytes_1CHW, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )[0]


def _normalise_tiles(tiles_TCHW: Tensor) -> Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (tiles_TCHW.float() / 255 - mean[:, None, None]) / std[:, None, None]


def _fragment_tiles(image_CHW: Tensor, spec: VisualSpec, native: int, rng: np.random.Generator | None) -> Tensor:
    thumbnail = _resize(image_CHW, spec.tile_px, spec.tile_px)
    if min(image_CHW.shape[1:]) < spec.fragment_px:  # smaller than one fragment: the smallest enlargement that fits
        scale = spec.fragment_px / min(image_CHW.shape[1:])
        height, width = (max(spec.fragment_px, round(side * scale)) for side in image_CHW.shape[1:])
        image_CHW = _resize(image_CHW, height, width)
    tiles = [_mosaic(image_CHW, spec, index, native, rng) for index in range(native)]
    return torch.stack([thumbnail, *tiles])


def _mosaic(image_CHW: Tensor, spec: VisualSpec, index: int, count: int, rng: np.random.Generator | None) -> Tensor:
    """One native tile: the fragment of every cell, placed in reading order."""
    cells, size = spec.tile_px // spec.fragment_px, spec.fragment_px
    tile = torch.empty(3, spec.tile_px, spec.tile_px, dtype=torch.uint8)
    shares = (index + 0.5) / count if rng is None else rng.random((2, cells, cells))
    rows = _fragment_starts(image_CHW.shape[1], cells, size, shares if rng is None else shares[0])  # type: ignore[index]
    columns = _fragment_starts(image_CHW.shape[2], cells, size, shares if rng is None else shares[1].T).T  # type: ignore[index]
    for row in range(cells):
        for column in range(cells):
            top, left = int(rows[row, column]), int(columns[row, column])
            patch = image_CHW[:, top : top + size, left : left + size]
            tile[:, row * size : (row + 1) * size, column * size : (column + 1) * size] = patch
    return tile


def _fragment_starts(length: int, cells: int, size: int, share: float | NDArray[np.float64]) -> NDArray[np.int64]:
    """First pixel of each cell's fragment along one axis: the share of the room that the cell leaves."""
    edges = np.linspace(0, length, cells + 1)
    room = np.maximum(edges[1:] - edges[:-1] - size, 0)[:, None]
    starts = edges[:-1, None] + room * np.broadcast_to(np.asarray(share), (cells, cells))
    return np.clip(np.floor(starts), 0, length - size).astype(np.int64)


def _dynamic_tiles(image_CHW: Tensor, spec: VisualSpec) -> Tensor:
    """InternVL's dynamic tiling: the grid nearest in aspect ratio, then a thumbnail if there is more than one tile."""
    from transformers.models.got_ocr2.image_processing_got_ocr2 import (  # noqa: PLC0415 - paper profile only
        get_optimal_tiled_canvas,
    )

    size = spec.tile_px
    height, width = image_CHW.shape[1:]
    columns, rows = get_optimal_tiled_canvas((height, width), (size, size), 1, spec.max_tiles)
    canvas_CHW = _resize(image_CHW, size * rows, size * columns)
    tiles = canvas_CHW.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).reshape(-1, 3, size, size)
    if len(tiles) > 1:
        tiles = torch.cat([tiles, _resize(image_CHW, size, size)[None]])
    return tiles


class HasEncoder(Protocol):
    """The part of a model that pre-training makes and other decoders receive."""

    @property
    def image_encoder(self) -> InternVLVisionModel:
        """The vision tower."""
        ...

    @property
    def motion_extractor(self) -> MotionExtractor:
        """The fast pathway."""
        ...


def encoder_state(model: HasEncoder) -> dict[str, Tensor]:
    """All tensors of image encoder and motion extractor, detached copies, named ``image.*`` and ``motion.*``."""
    image = {f"image.{name}": value.detach().clone() for name, value in model.image_encoder.state_dict().items()}
    motion = {f"motion.{name}": value.detach().clone() for name, value in model.motion_extractor.state_dict().items()}
    return image | motion


def save_encoder(model: HasEncoder, folder: Path) -> None:
    """Write image encoder (plain transformers' ``InternVLVisionModel`` folder) and ``motion/`` below it."""
    model.image_encoder.save_pretrained(folder)
    save_motion_extractor(model.motion_extractor, folder / "motion")


def save_motion_extractor(extractor: MotionExtractor, folder: Path) -> None:
    """Write the motion extractor's configuration and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in extractor.state_dict().items()}, folder / "extractor.safetensors")
    config = dataclasses.asdict(extractor.config)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_motion_extractor(folder: Path) -> MotionExtractor:
    """Read what :func:`save_motion_extractor` wrote, as float32.

    Raises:
        MissingWeightsError: a file is not there.
    """
    require_files(folder, ("config.json", "extractor.safetensors"), "motion extractor")
    extractor = MotionExtractor(MotionConfig(**json.loads((folder / "config.json").read_text())))
    extractor.load_state_dict(load_file(folder / "extractor.safetensors"))
    return extractor


def require_files(folder: Path, names: Sequence[str], what: str) -> None:
    """Check that a weight folder is complete.

    Raises:
        MissingWeightsError: naming the first file that is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            msg = f"{what}: {folder / name} is missing; make it with the stage that writes this folder, or dvc pull"
            raise MissingWeightsError(msg)


def swap_encoder(model: HasEncoder, folder: Path) -> None:
    """Zero-shot transfer: replace image encoder and motion extractor by those of an exported encoder folder.

    Projectors and decoder of the target stay untouched (VITAL-Zero).

    Raises:
        MissingWeightsError: the folder is incomplete.
        ModelError: the exported encoder has another shape than the target's.
    """
    require_files(folder, ("config.json", "model.safetensors"), "encoder")
    states = (
        (model.image_encoder, load_file(folder / "model.safetensors")),
        (model.motion_extractor, load_motion_extractor(folder / "motion").state_dict()),
    )
    for module, state in states:
        own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        new = {name: tuple(value.shape) for name, value in state.items()}
        if own != new:
            name = min(key for key in own.keys() | new.keys() if own.get(key) != new.get(key))
            shapes = f"tensor {name} is {new.get(name)}, not {own.get(name)}"
            msg = f"the encoder in {folder} does not fit this model: {shapes}"
            raise ModelError(msg)
    for module, state in states:
        module.load_state_dict(state)
