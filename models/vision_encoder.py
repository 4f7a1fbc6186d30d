"""What the image encoder sees: pixels become normalised tiles and motion frames, and the encoder travels as a folder.

Shape legend: ``T`` tiles or frames, ``C`` channels, ``H`` and ``W`` pixels.

Two ways to look. ``dynamic`` is InternVL's with the paper's sampling of clips: tiles by aspect ratio, a frame a second.
``fragments`` is for small tiles: one squashed view would average noise, blur and compression away, so native tiles of
unresized fragments stand beside it (``models/tiling.py``). A fragment is as wide as one pixel-shuffled token, so a
token never straddles two of them.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import InternVLVisionModel

from models.checkpoint import require_files, require_same_tensors, shapes_of
from models.compatibility import OFF, RELEASED, Compatibility
from models.errors import ModelError
from models.frames import FramePlan, densest_run, frame_rate, plan_per_second, plan_strided, spread_frames
from models.motion import MotionConfig, MotionExtractor
from models.tiling import dynamic_tiles, fragment_tiles, resize

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
        key_frames: at most so many frames of a clip, spread evenly, become tiles (``dynamic``: at most one a second).
        motion_frames: frames of the motion stream, a run around the clip's middle; 0 takes the whole clip (``dynamic``
            only).
        motion_px: side to which motion frames are squashed.
        motion_mean, motion_std: normalisation of the motion stream; Kinetics' is .45 and .225 for every channel.
        motion_limit: bound on the stream where the whole clip is taken; a longer one is thinned evenly. 0: no bound.
        compatibility: departures of the released code, for weights that expect them (``dynamic`` only).
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
    motion_limit: int = 0
    compatibility: Compatibility = OFF

    def __post_init__(self) -> None:
        if self.tiling == "fragments" and self.tile_px % self.fragment_px:
            msg = f"fragment_px {self.fragment_px} does not divide tile_px {self.tile_px}"
            raise ModelError(msg)
        if self.tiling == "fragments" and self.compatibility != OFF:
            raise ModelError("the released code's departures go with dynamic tiling; fragments know none of them")
        if self.key_frames < 1 or self.max_tiles < 1 or self.motion_frames < 0 or self.motion_limit < 0:
            raise ModelError("key_frames and max_tiles must be at least 1, motion_frames and motion_limit at least 0")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "VisualSpec":
        """Rebuild a spec from stored values; an unknown key or a missing one without default is an error."""
        stored = dict(values)
        if "compatibility" in stored:
            stored["compatibility"] = Compatibility.from_json(stored["compatibility"])
        try:
            return cls(**stored)
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
    motion_limit=1200,
)
"""InternVL3's views (VITAL section 3): one key frame a second, every frame in the motion stream.

The bounds are ours and hold every clip of the paper's pool (1-20 s) at 60 frames a second.
"""

RELEASED_SPEC: Final = dataclasses.replace(PAPER_SPEC, motion_px=448, compatibility=RELEASED)
"""The released code's views: its departures, and motion frames as large as tiles."""


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
    if spec.tiling == "fragments":
        tiles = fragment_tiles(image_CHW, spec.tile_px, spec.fragment_px, spec.native_tiles, rng)
        return VisualInput(_normalise(tiles))
    flags = spec.compatibility
    tiles = dynamic_tiles(image_CHW, spec.tile_px, spec.max_tiles, "area" if flags.area_tiling else "aspect")
    if flags.doubled_single_tile and len(tiles) == 1:
        tiles = tiles.expand(2, -1, -1, -1)
    return VisualInput(_normalise(tiles))


def prepare_clip(
    frames_THWC: Pixels,
    seconds_T: ArrayLike,
    spec: VisualSpec,
    rng: np.random.Generator | None = None,
    timing: tuple[int, float] | None = None,
) -> VisualInput:
    """Turn decoded frames into key-frame tiles and the motion stream.

    Give all frames of the clip, or those that :func:`wanted_frames` names together with the ``timing`` it was asked
    for. Key frames are the ones nearest to evenly spread times; the motion stream is the densest run of consecutive
    frames around the clip's middle, or the whole clip.

    Args:
        frames_THWC: uint8 RGB, in time order.
        seconds_T: their times.
        rng: as in :func:`prepare_image`; mirrors whole clips and draws one place per cell for the whole clip.
        timing: number of frames and frame rate of the whole clip; needed for ``dynamic`` if only wanted frames are
            given.

    Raises:
        ModelError: there is no frame, times and frames differ in number, or the frames are not those that the timing
            makes wanted.
    """
    seconds = np.asarray(seconds_T, dtype=np.float64)
    if len(frames_THWC) == 0 or len(frames_THWC) != len(seconds):
        msg = f"a clip needs frames and one time per frame, found {len(frames_THWC)} frames and {len(seconds)} times"
        raise ModelError(msg)
    plan = _plan_of_given(seconds, spec, timing)
    flip = rng is not None and bool(rng.random() < 0.5)
    tiles: list[Tensor] = []
    for index in plan.key:
        frame_CHW = _to_tensor(frames_THWC[index])
        frame_CHW = frame_CHW.flip(-1) if flip else frame_CHW
        if spec.tiling == "dynamic":
            tiles.append(resize(frame_CHW, spec.tile_px, spec.tile_px)[None])
        else:
            tiles.append(fragment_tiles(frame_CHW, spec.tile_px, spec.fragment_px, spec.frame_native_tiles, rng))
    motion_TCHW = torch.stack([resize(_to_tensor(frames_THWC[i]), spec.motion_px, spec.motion_px) for i in plan.motion])
    motion_TCHW = motion_TCHW.flip(-1) if flip else motion_TCHW
    return VisualInput(_normalise(torch.cat(tiles)), _normalise_motion(motion_TCHW, spec))


def wanted_frames(total: int, fps: float, spec: VisualSpec) -> list[int]:
    """Indices of the frames that :func:`prepare_clip` needs.

    For ``fragments`` first and last are included: they tell it the clip's span.
    """
    if spec.tiling == "dynamic":
        return plan_frames(total, fps, spec).wanted
    plan = _plan_fragments(np.arange(total) / fps, spec)
    return sorted({0, total - 1, *plan.wanted})


def plan_frames(total: int, fps: float, spec: VisualSpec) -> FramePlan:
    """Key and motion frames of a clip of ``total`` frames at ``fps`` frames a second (``dynamic``)."""
    stride = spec.compatibility.frame_stride
    if stride:
        return plan_strided(total, fps, stride, spec.key_frames, spec.motion_limit)
    plan = plan_per_second(total, fps, spec.key_frames, spec.motion_limit)
    if spec.motion_frames:
        run = densest_run(np.arange(total) / (fps or 1.0), min(spec.motion_frames, total))
        plan = dataclasses.replace(plan, motion=tuple(run))
    return plan


def _plan_of_given(seconds: NDArray[np.float64], spec: VisualSpec, timing: tuple[int, float] | None) -> FramePlan:
    """The plan in positions of the frames that were given."""
    if spec.tiling == "fragments":
        return _plan_fragments(seconds, spec)
    total, fps = timing or (len(seconds), frame_rate(seconds))
    plan = plan_frames(total, fps, spec)
    given = range(total) if len(seconds) == total else plan.wanted
    if len(given) != len(seconds):
        msg = f"{len(seconds)} frames were given of a clip of {total}; wanted are {len(given)}: use wanted_frames"
        raise ModelError(msg)
    places = {index: place for place, index in enumerate(given)}
    return FramePlan(tuple(places[i] for i in plan.key), tuple(places[i] for i in plan.motion))


def _plan_fragments(seconds: NDArray[np.float64], spec: VisualSpec) -> FramePlan:
    total = len(seconds)
    count = total if spec.motion_frames == 0 else min(spec.motion_frames, total)
    key = spread_frames(seconds, min(spec.key_frames, total))
    return FramePlan(tuple(key), tuple(densest_run(seconds, count)))


def _to_tensor(pixels_HWC: Pixels) -> Tensor:
    if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3:
        msg = f"expected uint8 RGB pixels [H, W, 3], found {pixels_HWC.dtype} {pixels_HWC.shape}"
        raise ModelError(msg)
    return torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)


def _normalise(pixels_TCHW: Tensor) -> Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (pixels_TCHW.float() / 255 - mean[:, None, None]) / std[:, None, None]


def _normalise_motion(pixels_TCHW: Tensor, spec: VisualSpec) -> Tensor:
    """Motion stream ``[C, T, H, W]``."""
    if spec.compatibility.imagenet_motion:
        return _normalise(pixels_TCHW).transpose(0, 1).contiguous()
    return ((pixels_TCHW.float() / 255 - spec.motion_mean) / spec.motion_std).transpose(0, 1).contiguous()


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


def load_motion_extractor(folder: Path, dtype: torch.dtype = torch.float32) -> MotionExtractor:
    """Read what :func:`save_motion_extractor` wrote, as ``dtype``.

    Raises:
        MissingWeightsError: a file is not there.
    """
    require_files(folder, ("config.json", "extractor.safetensors"), "motion extractor")
    extractor = MotionExtractor(MotionConfig(**json.loads((folder / "config.json").read_text())))
    extractor.load_state_dict(load_file(folder / "extractor.safetensors"))
    return extractor.to(dtype)


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
        problem = f"the encoder in {folder} does not fit this model"
        require_same_tensors(shapes_of(state), shapes_of(module.state_dict()), problem)
    for module, state in states:
        module.load_state_dict(state)
