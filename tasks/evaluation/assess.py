"""Assess media with a trained model: the core of ``vital assess``. Score, level, distortion, description, answer.

Each medium is decoded and encoded once; the readouts share its features. All are deterministic, and how many media go
through the model together changes no number of float32 beyond 1e-5. A probe knows score and level alone.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import torch

from models.distortions import IMAGE_CELLS, VIDEO_CELLS, words
from models.errors import ModelError
from models.levels import Level, expectation, level_of
from models.openings import NOT_DESCRIPTIONS
from models.probe_head import QualityProbe, is_probe
from models.quality_lmm import QualityLMM, VisualFeatures
from models.vision_encoder import VisualInput, VisualSpec
from tasks.devices import ON_CPU, Computing
from tasks.errors import MediaError
from tasks.media import is_video
from tasks.prepared import decode_medium, prepare_medium
from tasks.records import Modality

Judge = QualityLMM | QualityProbe
"""What can assess; a probe has no words."""

_DESCRIPTION_TOKENS: Final = 48
"""Longest description or answer, tokens; training answers are about 15 (VITAL section 3)."""
_WINDOW: Final = 2
"""Batches in memory at most: the one in the model, and the one that is decoded meanwhile."""


@dataclass(frozen=True)
class Assessment:
    """What a model says about one medium.

    Attributes:
        path: the file, as it was given.
        score: quality, higher is better: the expectation over the five levels, [.1, .9] (a probe's released readout:
            [.2, 1]).
        level_probs: probabilities of the levels, best first.
        level: the fifth of [0, 1] that the score lies in.
        distortion: the likeliest "severity type" of the synthetic distortions; the model knows no "none".
        description: one assertion about the medium.
        answer: to the question that was asked; None if none was.

    Texts are None where none were wanted, and of a probe.
    """

    path: Path
    score: float
    level_probs: tuple[float, ...]
    level: Level
    distortion: str | None
    description: str | None
    answer: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A medium that could not be assessed, and why."""

    path: Path
    error: MediaError


@dataclass(frozen=True)
class Wanted:
    """What is to be told, and how the work is cut; only the former changes a result.

    Attributes:
        question: asked about each medium; only models that were fine-tuned on instructions know what to do with one.
        text: whether to tell distortion and description, which is most of the work.
        batch: media that go through the model together.
        threads: that decode ahead while the model runs.
    """

    question: str | None = None
    text: bool = True
    batch: int = field(default=1, compare=False)
    threads: int = field(default=2, compare=False)

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 1:
            raise ModelError("batch and threads must be at least 1")


@dataclass(frozen=True)
class _Opened:
    path: Path
    modality: Modality
    medium: VisualInput


def load_judge(folder: Path, computing: Computing = ON_CPU) -> Judge:
    """Read a model's folder, a probe's or a whole LMM's, and bring it to where it computes.

    Raises:
        ModelError: its content does not fit this version, or a file is missing.
    """
    if computing.device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    kind = QualityProbe if is_probe(folder) else QualityLMM
    return kind.from_pretrained(folder, computing.dtype).to(computing.device)


def assess_path(path: Path, model: Judge, question: str | None = None) -> Assessment:
    """Assess a file.

    Args:
        question: as in :class:`Wanted`.

    Raises:
        MediaError: it cannot be read, or is not a medium that decodes.
        ModelError: a probe was asked.
    """
    return _judged([_open(path, model.spec)], model, Wanted(question))[0]


def assess(data: bytes, model: Judge, path: Path = Path(), question: str | None = None) -> Assessment:
    """Assess the bytes of a medium; see :func:`assess_path`.

    Raises:
        MediaError: they do not decode.
        ModelError: a probe was asked.
    """
    return _judged([_prepared(data, path, model.spec)], model, Wanted(question))[0]


def assess_many(paths: Iterable[Path], model: Judge, wanted: Wanted) -> Iterator[Assessment | Rejected]:
    """Assess files in their order, a batch at a time; the next batch is decoded by threads while the model runs.

    No more than two batches of prepared media are in memory, however many paths there are.

    Raises:
        ModelError: a probe was asked.
    """
    _check(model, wanted)
    return _assessed(iter(paths), model, wanted)


def _assessed(paths: Iterator[Path], model: Judge, wanted: Wanted) -> Iterator[Assessment | Rejected]:
    pool = ThreadPoolExecutor(wanted.threads)
    ahead: deque[tuple[Path, Future[_Opened]]] = deque()
    try:
        while True:
            room = _WINDOW * wanted.batch - len(ahead)
            ahead.extend((path, pool.submit(_open, path, model.spec)) for path in itertools.islice(paths, room))
            if not ahead:
                return
            taken = [ahead.popleft() for _ in range(min(wanted.batch, len(ahead)))]
            outcomes = [_outcome(path, opening) for path, opening in taken]
            opened = [one for one in outcomes if isinstance(one, _Opened)]
            found = iter(_judged(opened, model, wanted))
            yield from (one if isinstance(one, Rejected) else next(found) for one in outcomes)
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(path: Path, opening: "Future[_Opened]") -> _Opened | Rejected:
    try:
        return opening.result()
    except MediaError as error:
        return Rejected(path, error)


def _open(path: Path, spec: VisualSpec) -> _Opened:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError("unreadable", f"cannot read {path}: {error.strerror}") from error
    return _prepared(data, path, spec)


def _prepared(data: bytes, path: Path, spec: VisualSpec) -> _Opened:
    modality = Modality.VIDEO if is_video(data) else Modality.IMAGE
    return _Opened(path, modality, prepare_medium(decode_medium(data, modality, spec), spec))


def _check(model: Judge, wanted: Wanted) -> None:
    if wanted.question is not None and isinstance(model, QualityProbe):
        raise ModelError("a probe tells score and level and has no words: ask no question, or name a whole model")


@torch.no_grad()
def _judged(media: Sequence[_Opened], model: Judge, wanted: Wanted) -> list[Assessment]:
    """One assessment for each medium, all of them in one pass."""
    _check(model, wanted)
    if not media:
        return []
    features = model.visual_features([one.medium for one in media])
    probs_N5 = model.level_probabilities(features).double().cpu().numpy()
    if isinstance(model, QualityProbe):
        scores_N, texts = model.scores(probs_N5), [(None, None, None)] * len(media)
    else:
        scores_N, texts = expectation(probs_N5), _texts(features, [one.modality for one in media], model, wanted)
    return [
        Assessment(one.path, float(score), tuple(probs_5.tolist()), level_of(float(score)), *told)
        for one, score, probs_5, told in zip(media, scores_N, probs_N5, texts, strict=True)
    ]


def _texts(
    features: list[VisualFeatures], modalities: Sequence[Modality], model: QualityLMM, wanted: Wanted
) -> list[tuple[str | None, str | None, str | None]]:
    """Distortion, description and answer of each medium."""
    nothing: list[str | None] = [None] * len(features)
    distortions, descriptions, answers = nothing, nothing, nothing
    if wanted.text:
        distortions, descriptions = _distortions(features, modalities, model), _descriptions(features, model)
    if wanted.question is not None:
        answers = [*model.generate(features, wanted.question, max_new_tokens=_DESCRIPTION_TOKENS)]
    return list(zip(distortions, descriptions, answers, strict=True))


@cache
def distortion_answers(modality: Modality) -> tuple[str, ...]:
    """The closed set of distortion answers for one modality, in the catalogue's order."""
    cells = VIDEO_CELLS if modality is Modality.VIDEO else IMAGE_CELLS
    return tuple(dict.fromkeys(words(kind, severity) for kind, severity in cells))


def _distortions(
    features: Sequence[VisualFeatures], modalities: Sequence[Modality], model: QualityLMM
) -> list[str | None]:
    told: list[str | None] = [None] * len(features)
    for modality in dict.fromkeys(modalities):
        members = [number for number, one in enumerate(modalities) if one is modality]
        answers = distortion_answers(modality)
        asked = model.asked("distortion", features[members[0]])
        likelihood_NA = model.answer_log_likelihood([features[number] for number in members], answers, prompt=asked)
        for number, best in zip(members, likelihood_NA.argmax(dim=1).tolist(), strict=True):
            told[number] = answers[best]
    return told


def _descriptions(features: list[VisualFeatures], model: QualityLMM) -> list[str | None]:
    """Greedy answers that open neither like a score nor like a distortion: openings tell the promptless tasks apart."""
    asked = [model.asked("description", one) for one in features]
    return [*model.generate(features, asked, max_new_tokens=_DESCRIPTION_TOKENS, avoid=NOT_DESCRIPTIONS)]
