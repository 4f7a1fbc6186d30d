"""What a plan takes for granted: devices, how large media are, how long answers are. The values stand in one file.

A *sample* is one conversation about one medium; a step counts *examples*, and a pair is one example of two samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from infra.params import merge
from models.decoders import INTERNVIT_300M, TINY_ENCODER, EncoderSize
from models.footprint import Sample
from models.motion import SLOWFAST_R50, TINY_MOTION, MotionConfig
from models.view_shape import clip_shape, image_tiles
from models.vision_encoder import EMBEDDED_SPEC, PAPER_SPEC, VisualSpec
from tasks.errors import ConfigError
from tasks.records import Task
from tasks.stage import build_config

PLANNING_FILE: Final = "infra/planning.yaml"

FAMILIES: Final[dict[str, tuple[EncoderSize, MotionConfig, VisualSpec]]] = {
    "tiny": (TINY_ENCODER, TINY_MOTION, EMBEDDED_SPEC),
    "internvl3": (INTERNVIT_300M, SLOWFAST_R50, PAPER_SPEC),
}
"""Family of decoders -> encoder, motion extractor, and how media are prepared."""

SCORED: Final = (Task.SINGLE, Task.PAIR)
"""Tasks whose answer names a level."""


@dataclass(frozen=True)
class Device:
    """A GPU, or a processor.

    Attributes:
        tflops: precision -> dense peak, 1e12 FLOPs a second.
        dollars_per_hour: declared by whoever plans; no quotation.
        processor: whether it is one, and no GPU.
    """

    memory_mib: int
    tflops: dict[str, float]
    dollars_per_hour: float
    processor: bool = False


@dataclass(frozen=True)
class MediumKind:
    """A kind of media. ``seconds`` 0 is an image; ``share`` of the samples."""

    share: float
    width: int
    height: int
    seconds: float = 0.0
    frames_per_second: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.width < 1 or self.height < 1 or self.share < 0:
            raise ValueError("width and height must be at least 1, share at least 0")
        if self.seconds < 0 or (self.seconds > 0 and self.seconds * self.frames_per_second < 1):
            raise ValueError("a clip needs seconds and frames_per_second for one frame at least")


@dataclass(frozen=True)
class ConversationLength:
    """Tokens of the questions, and of the answers with their ends, in all turns of an average conversation."""

    questions: int
    answers: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.questions < 1 or self.answers < 1:
            raise ValueError("a conversation has at least one token of question and one of answer")


@dataclass(frozen=True)
class TeachingLength:
    """A teacher's questions and answers.

    Attributes:
        question, answer: tokens; an answer with its thought and its end.
        drawing_mfu: part of the peak that drawing reaches, where a token at a time is computed.
    """

    question: int
    answer: int
    drawing_mfu: float

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.question < 1 or self.answer < 1 or not 0.0 < self.drawing_mfu <= 1.0:
            raise ValueError("question and answer must be at least 1, drawing_mfu must lie in (0, 1]")


@dataclass(frozen=True)
class Workload:
    """What a family of decoders works on.

    Attributes:
        device, devices: name and number, unless the user says otherwise.
        zero: stage -> ZeRO stage, where params name no ZeRO engine.
        mfu: model FLOPs utilisation, the part of the peak that training reaches.
        vocabulary: rows of the embedding table.
        prompt_tokens: tokens around the medium and before the answer.
        answers: task -> tokens of an answer, with the end of turn.
        conversation: tokens of an average conversation of the fine-tuning on instructions.
        teaching: of a teacher that thinks aloud.
        samples_per_medium: samples of a step that share one medium, whose encoders run once.
        media: kinds of media with their shares.
        longest: the largest that come; memory has to do for them.
        scored: kind of media -> how many a benchmark scores.
    """

    device: str
    devices: int
    zero: dict[str, int]
    mfu: float
    vocabulary: int
    prompt_tokens: int
    answers: dict[str, int]
    conversation: ConversationLength
    teaching: TeachingLength
    samples_per_medium: float
    media: dict[str, MediumKind]
    longest: dict[str, MediumKind]
    scored: dict[str, int]

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.samples_per_medium < 1:
            raise ValueError("samples_per_medium must be at least 1")
        if sum(kind.share for kind in self.media.values()) <= 0:
            raise ValueError("some kind of media must have a share")
        if unknown := sorted(set(self.scored) - set(self.media)):
            msg = f"scored names {unknown[0]!r}, which is no kind of media"
            raise ValueError(msg)


@dataclass(frozen=True)
class Published:
    """What a publication says about its run."""

    samples: int
    gpu_hours: float
    devices: int


@dataclass(frozen=True)
class Planning:
    """The whole file.

    Attributes:
        reserve: share of a device's memory that is left to others.
    """

    reserve: float
    devices: dict[str, Device]
    workloads: dict[str, Workload]
    published: Published

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0.0 <= self.reserve < 1.0:
            raise ValueError("reserve must lie in [0, 1)")

    def workload(self, family: str) -> Workload:
        """What a family of decoders works on.

        Raises:
            ConfigError: the file does not know the family.
        """
        if family not in self.workloads:
            msg = f"planning file: no workload of the family {family!r}; there are {', '.join(self.workloads)}"
            raise ConfigError(msg)
        return self.workloads[family]

    def device(self, name: str) -> Device:
        """Look a device up.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self.devices:
            msg = f"unknown device {name!r}; the devices are {', '.join(self.devices)}; --assume devices.NAME.KEY=VALUE"
            raise ConfigError(msg)
        return self.devices[name]


def read_planning(checkout: Path, changes: dict[str, Any]) -> Planning:
    """Read the file of a checkout, with changes (nested mappings) laid on top.

    Raises:
        ConfigError: a key is unknown, missing, of another type or out of its range.
    """
    values = yaml.safe_load((checkout / PLANNING_FILE).read_text())
    return build_config(Planning, "planning", merge(values, changes))


def medium_shape(kind: MediumKind, spec: VisualSpec) -> tuple[int, int]:
    """Tiles and motion frames of a medium."""
    if kind.seconds == 0:
        return image_tiles(kind.height, kind.width, spec), 0
    return clip_shape(max(1, round(kind.seconds * kind.frames_per_second)), kind.frames_per_second, spec)


@dataclass(frozen=True)
class Mixture:
    """What a stage computes.

    Attributes:
        parts: (task or kind of media, share, samples of one example); shares sum to 1.
        longest: the largest examples that come.
    """

    parts: tuple[tuple[str, float, tuple[Sample, ...]], ...]
    longest: tuple[tuple[Sample, ...], ...]


def training_mixture(shares: Mapping[str, float], workload: Workload, spec: VisualSpec, encoded: float) -> Mixture:
    """Examples of a mixture of tasks.

    Args:
        shares: task -> share of the examples; they need not sum to 1.
        encoded: share of the media for which the encoders run; of the largest examples all, unless it is 0.

    Raises:
        ConfigError: a task is not known to the workload.
    """
    tasks = {task: share for task, share in shares.items() if share > 0}
    whole = sum(tasks.values()) * sum(kind.share for kind in workload.media.values())
    parts = [
        (task, share * kind.share / whole, _example(task, kind, workload, spec, encoded))
        for task, share in tasks.items()
        for kind in workload.media.values()
    ]
    longest = [
        _example(task, kind, workload, spec, float(encoded > 0)) for task in tasks for kind in workload.longest.values()
    ]
    return Mixture(tuple(parts), tuple(longest))


@dataclass(frozen=True)
class Conversations:
    """How fine-tuning shows conversations: how many about a medium, the longest text, and whether its opinion too."""

    per_medium: int
    max_tokens: int
    rehearsed: bool


def conversation_mixture(told: Conversations, workload: Workload, spec: VisualSpec) -> Mixture:
    """Conversations of a fine-tuning: one in ``per_medium`` has its medium encoded, and its opinion rehearsed."""
    length, whole = workload.conversation, sum(kind.share for kind in workload.media.values())

    def example(kind: MediumKind, questions: int, answers: int, encoded: float) -> tuple[Sample, ...]:
        tiles, frames = medium_shape(kind, spec)
        text = workload.prompt_tokens + questions + answers
        samples = (Sample(tiles, frames, text, text_rows=answers, encoded=encoded),)
        rehearsed = told.rehearsed and encoded > 0
        return samples + (_example(Task.SINGLE, kind, workload, spec, 0.0) if rehearsed else ())

    first = 1.0 / told.per_medium
    parts = [
        ("conversation", share * kind.share / whole, example(kind, length.questions, length.answers, encoded))
        for kind in workload.media.values()
        for share, encoded in ((first, 1.0), (1.0 - first, 0.0))
        if share > 0
    ]
    answers = max(1, told.max_tokens - length.questions)
    longest = [example(kind, length.questions, answers, 1.0) for kind in workload.longest.values()]
    return Mixture(tuple(parts), tuple(longest))


def scoring_mixture(workload: Workload, spec: VisualSpec) -> Mixture:
    """Media that a benchmark scores: the forced sentence with a level word, and one row of logits."""
    total = sum(workload.scored.values())
    tokens = workload.prompt_tokens + workload.answers[Task.SINGLE] - 1  # no end of turn

    def sample(kind: MediumKind) -> tuple[Sample, ...]:
        return (Sample(*medium_shape(kind, spec), tokens, level_rows=1),)

    parts = [(name, count / total, sample(workload.media[name])) for name, count in workload.scored.items()]
    return Mixture(tuple(parts), tuple(sample(kind) for kind in workload.longest.values()))


def _example(task: str, kind: MediumKind, workload: Workload, spec: VisualSpec, encoded: float) -> tuple[Sample, ...]:
    if task not in workload.answers:
        msg = f"planning file: answers has no task {task!r}; it has {', '.join(workload.answers)}"
        raise ConfigError(msg)
    tiles, frames = medium_shape(kind, spec)
    tokens = workload.answers[task]
    level = int(task in SCORED)
    text_rows = tokens - 2 if level else tokens  # of a scored answer the sentence before the level word
    sample = Sample(tiles, frames, workload.prompt_tokens + tokens, level, text_rows, encoded)
    return (sample,) * (2 if task == Task.PAIR else 1)
