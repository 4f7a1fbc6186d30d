"""Media as models see them: decoded once, kept as tensors in memory-mapped files of a stage's work folder.

Training reads the same medium in many steps, and evaluation asks several models about it; neither decodes it twice,
and a frozen encoder sees it once. Files are written in parts that appear whole or not at all, so a killed stage keeps
what it finished, and the processes of a stage share the parts. A medium that does not decode becomes a reject; too many
of them fail the stage.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.motion import MotionExtractor
from models.passes import passes
from models.quality_lmm import VisualFeatures
from models.vision_encoder import (
    HasEncoder,
    VisualInput,
    VisualSpec,
    encoder_state,
    prepare_clip,
    prepare_image,
    wanted_frames,
)
from tasks import group
from tasks.errors import MediaError, StageError
from tasks.media import ADMITTED, Clip, Limits, Pixels, decode_image, decode_video
from tasks.records import REJECTS, Modality
from tasks.shards import atomic, digest, frame_of

log = logging.getLogger(__name__)

Reader = Callable[[Any], bytes]
"""Gives the bytes of one candidate row."""
TileMotion = tuple[Tensor, Tensor | None]
"""Tiles, and the motion stream of a video: pixels or features."""
Looks = Mapping[str, list[VisualInput]]
"""Prepared views of some media, by id."""
V = TypeVar("V")
"""A prepared view of a medium."""
Opened = tuple[str, list[V] | dict[str, str]]
"""A medium's id with all of its views, or with the reject row that says why there are none."""
Maker = Callable[[Iterator[Mapping[str, list[V]]]], dict[str, Tensor]]
"""What a part keeps of its media, which come in groups that are decoded together."""


class PartSource(Protocol[V]):
    """Where the media of parts come from."""

    @property
    def preparation(self) -> "Preparation":
        """How they are prepared."""
        ...

    def open(self, row: Any) -> Opened[V]:
        """One medium."""
        ...

    def part_name(self, ids: Sequence[str]) -> str:
        """Name of the file that holds these media."""
        ...


class FrozenEncoder(Protocol):
    """What is asked about media: the encoder of a quality LMM, or that of a probe."""

    @property
    def spec(self) -> VisualSpec:
        """How it looks at media."""
        ...

    @property
    def image_encoder(self) -> nn.Module:
        """What makes its visual tokens."""
        ...

    @property
    def motion_extractor(self) -> MotionExtractor:
        """What makes its motion tokens."""
        ...

    def visual_features(self, inputs: Sequence[VisualInput]) -> list[VisualFeatures]:
        """Features of each medium."""
        ...


_CPU: Final = torch.device("cpu")
_TOGETHER: Final = 64
"""Media that are decoded and held as pixels at a time."""
_FALLBACK_RATE: Final = 25.0
"""Frames per second of a clip that declares none (as in tasks.media)."""
_PIXELS_STORED: Final = torch.float16
"""Half floats keep a normalised 8-bit pixel to a ninth of its step; features are stored in full."""


@dataclass(frozen=True)
class Preparation:
    """How media are prepared.

    Attributes:
        stage: name of the stage, for its rejects and its progress bar.
        threads: decoding threads; they do not change the result.
        max_reject_share: share of broken media above which the run fails.
        device: where frozen encoders look at them; nothing else of a model has to be there.
    """

    stage: str
    threads: int
    max_reject_share: float
    device: torch.device = _CPU


def decode_medium(
    data: bytes,
    modality: str,
    spec: VisualSpec,
    timing: tuple[int, float] | None = None,
    limits: Limits | None = None,
) -> Pixels | Clip:
    """Decode what ``spec`` looks at: the pixels of an image, or a clip's key frames and motion frames.

    Args:
        modality: what the medium is (Modality).
        timing: number of frames and frame rate if they are known; otherwise the clip is decoded once to count them.

    Raises:
        MediaError: the bytes do not decode.
    """
    if modality != Modality.VIDEO:
        return decode_image(data, limits)
    if timing is None:
        info = decode_video(data, [0], limits).info
        timing = info.frames, info.fps
    frames, rate = timing
    return decode_video(data, wanted_frames(frames, rate or _FALLBACK_RATE, spec), limits)


def prepare_medium(decoded: Pixels | Clip, spec: VisualSpec, rng: np.random.Generator | None = None) -> VisualInput:
    """Prepare a decoded medium; ``rng`` draws a further view, None gives the view of evaluation."""
    if isinstance(decoded, Clip):
        timing = decoded.info.frames, decoded.info.fps or _FALLBACK_RATE
        return prepare_clip(decoded.frames_THWC, decoded.seconds_T, spec, rng, timing)
    return prepare_image(decoded, spec, rng)


def packed(medium: VisualInput) -> TileMotion:
    """A medium's pixels as they are kept or sent: half floats."""
    motion = medium.motion_CTHW
    return medium.tiles_TCHW.to(_PIXELS_STORED), None if motion is None else motion.to(_PIXELS_STORED)


class _Parts:
    """Tensors by medium and key (a view or an encoder), from parts that :func:`fill_parts` wrote."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: list[Any] = []
        self._names: list[frozenset[str]] = []
        self._file_of: dict[str, int] = {}
        rejects: list[dict[str, str]] = []
        for path in paths:
            file, ids, lost = open_part(path)
            self._file_of.update(dict.fromkeys(ids, len(self._files)))
            self._files.append(file)
            self._names.append(frozenset(file.keys()))
            rejects.extend(lost)
        self.rejects = frame_of(REJECTS, rejects)
        self.broken = frozenset(self.rejects["id"])

    @property
    def ids(self) -> frozenset[str]:
        """Media that decoded."""
        return frozenset(self._file_of)

    def read(self, medium_id: str, key: str) -> TileMotion:
        """Tiles and motion of one medium, as float32."""
        number = self._file_of[medium_id]
        tiles, motion = f"{medium_id}/{key}/tiles", f"{medium_id}/{key}/motion"
        found = self._files[number].get_tensor(motion).float() if motion in self._names[number] else None
        return self._files[number].get_tensor(tiles).float(), found


class PreparedMedia:
    """Prepared pixels by id; see :func:`prepare_media`.

    Attributes:
        ids: media that decoded.
        rejects: REJECTS rows of the others, ``broken`` their ids.
    """

    def __init__(self, parts: _Parts, views: int) -> None:
        self._parts, self._views = parts, views
        self.ids, self.rejects, self.broken = parts.ids, parts.rejects, parts.broken

    def read(self, medium_id: str, visit: int) -> VisualInput:
        """The medium as it is shown for the ``visit``-th time: its views take turns."""
        return VisualInput(*self._parts.read(medium_id, str(visit % self._views)))


class CachedFeatures:
    """What one frozen encoder says about media; see :func:`encode_media`.

    Attributes:
        ids: media that decoded.
        rejects: REJECTS rows of the others, ``broken`` their ids.
        motion_channels: width of a motion token.
    """

    def __init__(self, parts: _Parts, encoder: str, motion_channels: int) -> None:
        self._parts, self._encoder = parts, encoder
        self.motion_channels = motion_channels
        self.ids, self.rejects, self.broken = parts.ids, parts.rejects, parts.broken

    def read(self, medium_id: str, visit: int = 0) -> VisualFeatures:
        """The medium's features, the same at every visit."""
        del visit
        return VisualFeatures(*self._parts.read(medium_id, self._encoder))


def prepare_media(
    folder: Path,
    candidates: pd.DataFrame,
    read: Reader,
    views: "Views",
    preparation: Preparation,
) -> PreparedMedia:
    """Decode and prepare the media of ``candidates`` (rows of CANDIDATES) below ``folder``; finished parts are kept.

    All processes of a group call it, and share the work.

    Raises:
        StageError: more media are broken than ``max_reject_share`` allows.
    """

    def made_of(groups: Iterator[Looks]) -> dict[str, Tensor]:
        return _named(
            (f"{name}/{view}", packed(one))
            for media in groups
            for name, shown in media.items()
            for view, one in enumerate(shown)
        )

    parts = _Parts(fill_parts(folder, candidates, Preparer(read, views, preparation), made_of, _TOGETHER))
    check_rejects(parts.rejects, len(candidates), preparation)
    return PreparedMedia(parts, views.count)


def encode_media(
    folder: Path,
    candidates: pd.DataFrame,
    read: Reader,
    encoders: Mapping[str, FrozenEncoder],
    preparation: Preparation,
) -> dict[str, CachedFeatures]:
    """Decode the media of ``candidates`` once and run every frozen encoder on each; finished parts are kept.

    All processes of a group call it, and share the work.

    Args:
        encoders: name -> a model whose encoder is asked; all must look at media in the same way.

    Raises:
        StageError: more media are broken than ``max_reject_share`` allows.
    """

    @torch.no_grad()
    def made_of(groups: Iterator[Looks]) -> dict[str, Tensor]:
        return _named(
            (f"{name}/{encoder}", item)
            for media in groups
            for encoder, model in encoders.items()
            for name, item in encoded(media, model)
        )

    source = Preparer(read, Views(spec_of(encoders), 1, 0), preparation, tuple(encoders))
    with encoders_on(preparation.device, encoders.values()):
        parts = _Parts(fill_parts(folder, candidates, source, made_of, _TOGETHER))
    check_rejects(parts.rejects, len(candidates), preparation)
    return {
        encoder: CachedFeatures(parts, encoder, model.motion_extractor.config.channels)
        for encoder, model in encoders.items()
    }


def spec_of(encoders: Mapping[str, FrozenEncoder]) -> VisualSpec:
    """How all of some encoders look at media.

    Raises:
        StageError: they do not look in one way.
    """
    specs = {model.spec for model in encoders.values()}
    if len(specs) != 1:
        raise StageError("models that are compared on one set of media must prepare them in the same way")
    return specs.pop()


def stands_on(model: HasEncoder, other: HasEncoder) -> bool:
    """Whether two models have the same encoder and motion extractor, bit by bit."""
    own, theirs = encoder_state(model), encoder_state(other)
    return own.keys() == theirs.keys() and all(torch.equal(own[name].cpu(), theirs[name].cpu()) for name in own)


def encoded(media: Looks, model: FrozenEncoder) -> Iterator[tuple[str, TileMotion]]:
    """What an encoder says of the first view of each medium, on the CPU; media pass it in bounded groups."""
    looks = passes([shown[0] for shown in media.values()])
    features = [item for some in looks for item in model.visual_features(some)]
    for name, item in zip(media, features, strict=True):
        yield name, (item.tiles_PSC.cpu(), None if item.motion_TM is None else item.motion_TM.cpu())


def _named(found: Iterable[tuple[str, TileMotion]]) -> dict[str, Tensor]:
    """Tiles and motion under names of their own."""
    stored: dict[str, Tensor] = {}
    for name, (tiles, motion) in found:
        stored[f"{name}/tiles"] = tiles
        if motion is not None:
            stored[f"{name}/motion"] = motion
    return stored


@contextmanager
def encoders_on(device: torch.device, models: Iterable[FrozenEncoder]) -> Iterator[None]:
    """Image encoders and motion extractors on a device; afterwards they are where they were."""
    parts: list[nn.Module] = [part for model in models for part in (model.image_encoder, model.motion_extractor)]
    homes = [next(part.parameters()).device for part in parts]
    for part in parts:
        part.to(device)
    yield
    for part, home in zip(parts, homes, strict=True):
        part.to(home)


@dataclass(frozen=True)
class Views:
    """Which versions of each medium are prepared.

    Attributes:
        spec: how pixels become tiles.
        count: the first version is that of evaluation; the others draw their fragments elsewhere and mirror at random.
        seed: seed of the further versions, mixed with the medium's id.
    """

    spec: VisualSpec
    count: int
    seed: int


@dataclass(frozen=True)
class Preparer:
    """Decodes one medium and prepares views of it."""

    read: Reader
    views: Views
    preparation: Preparation
    keys: tuple[str, ...] = ()

    def prepare(self, row: Any, numbers: Iterable[int]) -> list[VisualInput] | dict[str, str]:
        """Chosen views of one medium, or the reject row that says why there are none."""
        shown: list[VisualInput] = []
        try:
            timing = (int(row.frames), float(row.fps)) if row.frames else None
            decoded = decode_medium(self.read(row), row.modality, self.views.spec, timing, ADMITTED)
            for view in numbers:
                entropy = [self.views.seed, view, int(digest(row.id)[:12], 16)]
                rng = None if view == 0 else np.random.default_rng(entropy)
                shown.append(prepare_medium(decoded, self.views.spec, rng))
        except MediaError as error:
            stage = self.preparation.stage
            return {"stage": stage, "id": row.id, "reason": error.reason, "detail": str(error)}
        return shown

    def open(self, row: Any) -> Opened[VisualInput]:
        """All views of one medium, or its reject row, with its id."""
        return row.id, self.prepare(row, range(self.views.count))

    def part_name(self, ids: Sequence[str]) -> str:
        """Name of the file that holds these media."""
        return digest(dataclasses.asdict(self.views), self.keys, list(ids))


def fill_parts(
    folder: Path, candidates: pd.DataFrame, source: PartSource[V], made_of: Maker[V], media: int
) -> list[Path]:
    """Make files of ``media`` media each, in the order of their ids; those that are there already are kept.

    The processes of a group share what there is to do; each of them returns when all files are there.

    Args:
        made_of: what a file keeps, by name.
    """
    here, frame = group.current(), candidates.sort_values("id", kind="stable")
    starts = range(0, len(frame), media)
    paths = [folder / f"{source.part_name(list(frame['id'].iloc[at : at + media]))}.safetensors" for at in starts]

    def make(numbers: Iterable[int]) -> None:
        for number in numbers:
            rows: list[Any] = list(frame.iloc[starts[number] : starts[number] + media].itertuples(index=False))
            if not paths[number].is_file():
                groups = (rows[first : first + _TOGETHER] for first in range(0, len(rows), _TOGETHER))
                _write_part(paths[number], (list(pool.map(source.open, some)) for some in groups), made_of)
            bar.update(len(rows))

    mine = range(here.rank, len(paths), here.size)
    own = sum(min(media, len(frame) - starts[number]) for number in mine)
    bar = tqdm(total=own, desc=f"{source.preparation.stage}: media", unit="medium", disable=not here.leads)
    with ThreadPoolExecutor(source.preparation.threads) as pool, bar:
        make(mine)
        here.gather(None)
        make(number for number, path in enumerate(paths) if not path.is_file())  # of machines that share no folder
    return paths


def _write_part(path: Path, groups: Iterable[Sequence[Opened[V]]], made_of: Maker[V]) -> None:
    ids: list[str] = []
    rejects: list[dict[str, str]] = []

    def looks() -> Iterator[Mapping[str, list[V]]]:
        for results in groups:
            media = {name: outcome for name, outcome in results if isinstance(outcome, list)}
            ids.extend(media)
            rejects.extend(outcome for _, outcome in results if isinstance(outcome, dict))
            yield media

    stored = {name: tensor.contiguous().clone() for name, tensor in made_of(looks()).items()}
    metadata = {"vital": json.dumps({"ids": ids, "rejects": rejects})}
    with atomic(path) as file:
        file.write(safetensors.torch.save(stored, metadata=metadata))


def open_part(path: Path) -> tuple[Any, list[str], list[dict[str, str]]]:
    """A file of :func:`fill_parts`, mapped into memory, with the ids of its media and the REJECTS rows of others."""
    file: Any = safetensors.safe_open(path, framework="pt")
    told = json.loads(file.metadata()["vital"])
    return file, told["ids"], told["rejects"]


def check_rejects(rejects: pd.DataFrame, total: int, preparation: Preparation) -> None:
    """Tell how many media do not decode.

    Raises:
        StageError: they are more than ``max_reject_share`` allows.
    """
    if rejects.empty:
        return
    first = f"{rejects['id'].iloc[0]}: {rejects['detail'].iloc[0]}"
    log.warning("%s: %d of %d media do not decode; first %s", preparation.stage, len(rejects), total, first)
    if len(rejects) > preparation.max_reject_share * total:
        msg = (
            f"{len(rejects)} of {total} media do not decode, more than the declared share "
            f"{preparation.max_reject_share}; first {first}"
        )
        raise StageError(msg)
