"""The panel of the stage ``score``: scorers with the runtime each was admitted to, a look at a medium, a judgement.

An engine (score_local.py, score_ray.py) decides where and when; what is computed is decided here, for all of them. A
medium is decoded once, by :meth:`Panel.look`. Scorers that take a medium at a time score it there and then; those that
share forward passes among media, or a GPU, get what they see of it by :meth:`Panel.judge`, a group of media at a time.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from models.errors import ModelError
from models.scorers import (
    Excerpt,
    Runtime,
    Sampling,
    Scorer,
    TorchScorer,
    load_scorer,
    records,
    scorer_sampling,
    scorer_version,
)
from models.scorers.built_in import Backend
from models.scorers.parity import settle
from models.scorers.protocol import Pixels
from models.scorers.runtime import Precision
from tasks.annotation.opinions import FrameRule, decode_frames, score_by, scores_by
from tasks.errors import MediaError
from tasks.media import ADMITTED
from tasks.records import Modality

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_Problem = tuple[str, str] | None
"""Reason and message of what cannot be scored."""
_THREADS: Final = 1
"""Of a forward pass on the CPU, everywhere: sums depend on them in the last digits; media are scored in parallel."""


@dataclass(frozen=True)
class TorchConfig:
    """How scorers run that take a runtime: the official ones, and others that are a ``TorchScorer``.

    Attributes:
        device: ``auto`` is the GPU where there is one.
        precision, channels_last: used by a scorer whose scores of probes it moves by at most ``tolerance``.
        tolerance: largest absolute difference of a calibrated score, on [0, 1].
        rows: frames or clips in a forward pass, and media that are judged at a time.
    """

    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = False
    tolerance: float = 0.005
    rows: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0.0 < self.tolerance < 0.1:
            raise ValueError("torch.rows must be at least 1 and torch.tolerance in (0, 0.1)")

    def runtime(self) -> Runtime:
        """What is asked for on this machine."""
        device = self.device
        if device == "auto":
            import torch  # noqa: PLC0415 - the default panel does without it

            device = "cuda" if torch.cuda.is_available() else "cpu"
        return Runtime(device, self.precision, self.channels_last, self.rows)


@dataclass(frozen=True)
class PanelConfig:
    """Who scores, and what they see of a video."""

    scorers: tuple[str, ...]
    backend: Backend
    rule: FrameRule
    torch: TorchConfig = TorchConfig()


@dataclass(frozen=True)
class Seat:
    """A scorer as it was admitted: all that an opinion depends on besides the content.

    Attributes:
        version: of the scorer itself.
        sampling: what it sees of a medium.
        runtime: how it runs; None if it cannot be told.
    """

    name: str
    version: str
    sampling: Sampling | Excerpt
    runtime: Runtime | None = None

    @property
    def shared(self) -> bool:
        """Whether media share its passes or its GPU, so that it judges a group of media at a time."""
        return self.runtime is not None and (self.runtime.device != "cpu" or self.runtime.rows > 1)

    @property
    def full_version(self) -> str:
        """Version with the runtime."""
        return self.version + (self.runtime.suffix if self.runtime else "")


def opinion_version(seat: Seat, modality: Modality, config: PanelConfig) -> str:
    """Under which version an opinion is stored: the scorer's, its backend and runtime, and how videos are sampled."""
    rule = config.rule
    version = seat.version if config.backend == "onnx" else f"{seat.version}+{config.backend}"
    version += seat.runtime.suffix if seat.runtime else ""
    if modality is Modality.IMAGE or isinstance(seat.sampling, Excerpt):  # an excerpt's rule is the scorer's own
        return version
    return f"{version}+{rule.clips}clips" if seat.sampling.clips else f"{version}+{rule.frames}frames"


@dataclass(frozen=True)
class Job:
    """One content to score.

    Attributes:
        content: hash of its bytes.
        row: where they lie, a row of the candidates.
        wanted: names of the scorers that have no opinion of it yet.
    """

    content: str
    row: dict[str, Any]
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """A medium after its only decode.

    Attributes:
        scores: of the scorers that take a medium at a time.
        frames: what each of the others sees of it, ``[T, H, W, 3]``.
        problem: reason and message, if it cannot be decoded.
        decode_s, score_s: seconds that decoding and those scorers took.
    """

    content: str
    scores: dict[str, float] = field(default_factory=dict)
    frames: dict[str, Pixels] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    decode_s: float = 0.0
    score_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Scores of one content by scorer, or why there are none: reason and message."""

    content: str
    scores: dict[str, float]
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class Judged:
    """Outcomes of a group of media, and how long scorers waited for its decode and worked on it, in seconds."""

    outcomes: tuple[Outcome, ...]
    waited_s: float
    worked_s: float


class Panel:
    """Loaded scorers, in the order of their seats; threads may share one."""

    def __init__(self, config: PanelConfig, seats: Sequence[Seat], scorers: dict[str, Scorer]) -> None:
        self._rule, self.seats, self._scorers = config.rule, tuple(seats), scorers

    @classmethod
    def convene(cls, config: PanelConfig) -> "Panel":
        """Load all scorers, and admit each to the runtime that is asked for, or to the exact one.

        Raises:
            ModelError: a scorer is unknown or its weights are missing, or there is no such device.
        """
        scorers = {name: load_scorer(name, config.backend, _THREADS) for name in config.scorers}
        _fix_threads()
        return cls(config, [_admitted(scorer, config.torch) for scorer in scorers.values()], scorers)

    @classmethod
    def load(cls, config: PanelConfig, seats: Sequence[Seat], *, shared: bool) -> "Panel":
        """One part of a panel that was convened elsewhere: the scorers whose seats are shared, or the others.

        Raises:
            ModelError: as :meth:`convene`.
        """
        scorers: dict[str, Scorer] = {}
        for seat in seats:
            if seat.shared == shared:
                scorer = scorers[seat.name] = load_scorer(seat.name, config.backend, _THREADS)
                if seat.runtime is not None and isinstance(scorer, TorchScorer):
                    scorer.run_as(seat.runtime)
        _fix_threads()
        return cls(config, seats, scorers)

    @property
    def rows(self) -> int:
        """Media in a group."""
        return group_size(self.seats)

    def look(self, job: Job, data: bytes) -> Seen:
        """Decode a medium once, for all scorers that want it."""
        seats = [seat for seat in self.seats if seat.name in job.wanted]
        started = time.perf_counter()
        try:
            frames = decode_frames(data, self._rule, [seat.sampling for seat in seats], ADMITTED)
        except MediaError as error:
            return Seen(job.content, problem=(error.reason, str(error)), decode_s=time.perf_counter() - started)
        decoded = time.perf_counter()
        seen = {seat.name: frames.for_sampling(seat.sampling) for seat in seats}
        scores, problem = self._scored({seat.name: seen[seat.name] for seat in seats if not seat.shared})
        return Seen(
            job.content,
            scores,
            {seat.name: seen[seat.name] for seat in seats if seat.shared and problem is None},
            problem,
            decode_s=decoded - started,
            score_s=time.perf_counter() - decoded,
        )

    def judge(self, group: Sequence[Seen]) -> tuple[Outcome, ...]:
        """Outcomes of a group of media, in its order."""
        found = [Outcome(seen.content, dict(seen.scores), seen.problem) for seen in group]
        for seat in self.seats:
            places = [index for index, seen in enumerate(group) if seat.name in seen.frames]
            if not places:
                continue
            given = self._scored_together(seat.name, [group[index].frames[seat.name] for index in places])
            for index, (scores, problem) in zip(places, given, strict=True):
                before = found[index]
                found[index] = Outcome(before.content, before.scores | scores, before.problem or problem)
        return tuple(found)

    def _scored(self, frames: dict[str, Pixels]) -> tuple[dict[str, float], _Problem]:
        """Scores of one medium by those who take a medium at a time, and what the first that could not said."""
        scores: dict[str, float] = {}
        problem: _Problem = None
        for name, seen in frames.items():
            try:
                scores[name] = score_by(self._scorers[name], seen)
            except MediaError as error:
                problem = problem or (error.reason, str(error))
        return scores, problem

    def _scored_together(self, name: str, media: Sequence[Pixels]) -> list[tuple[dict[str, float], _Problem]]:
        """Scores of several media by one scorer; if it cannot, each is asked for alone: one must not spoil all."""
        scorer = self._scorers[name]
        if not isinstance(scorer, TorchScorer):
            msg = f"{name} was admitted as a scorer that takes several media at a time, and is none"
            raise ModelError(msg)
        try:
            return [({name: score}, None) for score in scores_by(name, lambda: scorer.score_many(media))]
        except MediaError as error:
            if len(media) == 1:
                return [({}, (error.reason, str(error)))]
            return [one for frames in media for one in self._scored_together(name, [frames])]


def group_size(seats: Iterable[Seat]) -> int:
    """Media that are judged at a time: the rows of shared passes."""
    return max((seat.runtime.rows for seat in seats if seat.shared and seat.runtime), default=1)


def groups_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive groups of ``size`` items; the last one may be smaller."""
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def expected_seats(config: PanelConfig) -> list[Seat]:
    """The seats as they are if every scorer is admitted to the runtime that is asked for; no weights are loaded.

    Raises:
        ModelError: a scorer is unknown.
    """
    return [_expected(name, config.torch) for name in config.scorers]


def _expected(name: str, config: TorchConfig) -> Seat:
    record = records().get(name)
    if record is None:
        scorer = load_scorer(name)
        runtime = config.runtime() if isinstance(scorer, TorchScorer) else None
        return Seat(name, scorer.version, scorer.sampling, runtime)
    runtime = config.runtime() if record.origin == "official" else None
    return Seat(name, scorer_version(name), scorer_sampling(name), runtime)


def _admitted(scorer: Scorer, config: TorchConfig) -> Seat:
    if not isinstance(scorer, TorchScorer):
        return Seat(scorer.name, scorer.version, scorer.sampling)
    wanted = config.runtime()
    found = settle(scorer, wanted, config.tolerance)
    if found.kept and wanted != wanted.exact:
        log.info("score: %s runs as%s; probes moved by %.2g", scorer.name, wanted.suffix, found.difference)
    elif not found.kept:
        log.warning(
            "score: %s stays in fp32 and the usual memory format: as%s its scores of the probes, which spread over "
            "%.2g, move by %.2g; the tolerance is %g",
            scorer.name, wanted.suffix, found.spread, found.difference, config.tolerance,
        )  # fmt: skip
    return Seat(scorer.name, scorer.version, scorer.sampling, found.runtime)


def _fix_threads() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(_THREADS)
