"""Assess one medium with a trained model: score, level, the nearest distortion, a description, and an answer; the core
of ``vital assess``.

The medium is decoded and encoded once; the readouts share its features. All are deterministic.
"""  # noqa: D205 - the first sentence needs two lines

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch

from models.distortions import IMAGE_CELLS, SEVERITY_WORDS, VIDEO_CELLS, words
from models.levels import Level, expectation, level_of
from models.quality_lmm import IMAGE_PREFIX, QualityLMM, VisualFeatures
from tasks.errors import MediaError
from tasks.media import is_video
from tasks.prepared import decode_medium, prepare_medium
from tasks.records import Modality

_DESCRIPTION_TOKENS: Final = 48
"""Longest description or answer, tokens; training answers are about 15 (VITAL section 3)."""


@dataclass(frozen=True)
class Assessment:
    """What a model says about one medium.

    Attributes:
        path: the file, as it was given.
        score: expectation over the five levels, [.1, .9], higher is better.
        level_probs: probabilities of the levels, best first.
        level: the fifth of [0, 1] that the score lies in.
        distortion: the likeliest "severity type" of the synthetic distortions; the model knows no "none".
        description: one assertion about the medium.
        answer: to the question that was asked; None if none was.
    """

    path: Path
    score: float
    level_probs: tuple[float, ...]
    level: Level
    distortion: str
    description: str
    answer: str | None = None


def assess_path(path: Path, model: QualityLMM, question: str | None = None) -> Assessment:
    """Assess a file.

    Args:
        question: asked about it; only models that were fine-tuned on instructions know what to do with one.

    Raises:
        MediaError: it cannot be read, or is not a medium that decodes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError("unreadable", f"cannot read {path}: {error.strerror}") from error
    return assess(data, model, path, question)


@torch.no_grad()
def assess(data: bytes, model: QualityLMM, path: Path = Path(), question: str | None = None) -> Assessment:
    """Assess the bytes of a medium; see :func:`assess_path`.

    Raises:
        MediaError: they do not decode.
    """
    modality = Modality.VIDEO if is_video(data) else Modality.IMAGE
    medium = prepare_medium(decode_medium(data, modality, model.spec), model.spec)
    features = model.visual_features([medium])
    probs_5 = model.level_probabilities(features)[0].double().numpy()
    score = float(expectation(probs_5))
    return Assessment(
        path=path,
        score=score,
        level_probs=tuple(probs_5.tolist()),
        level=level_of(score),
        distortion=_distortion(features, model, modality),
        description=_description(features, model),
        answer=model.generate(features, question, max_new_tokens=_DESCRIPTION_TOKENS)[0] if question else None,
    )


@cache
def distortion_answers(modality: Modality) -> tuple[str, ...]:
    """The closed set of distortion answers for one modality, in the catalogue's order."""
    cells = VIDEO_CELLS if modality is Modality.VIDEO else IMAGE_CELLS
    return tuple(dict.fromkeys(words(kind, severity) for kind, severity in cells))


def _distortion(features: list[VisualFeatures], model: QualityLMM, modality: Modality) -> str:
    answers = distortion_answers(modality)
    likelihood_NA = model.answer_log_likelihood(features, answers, prompt=model.asked("distortion", features[0]))
    return answers[int(likelihood_NA[0].argmax())]


def _description(features: list[VisualFeatures], model: QualityLMM) -> str:
    """Greedy answer that opens neither like a score nor like a distortion: openings tell the promptless tasks apart."""
    score_opening = " ".join(IMAGE_PREFIX.split()[:2])
    avoid = [score_opening, *(word.split()[0] for word in SEVERITY_WORDS)]
    asked = model.asked("description", features[0])
    return model.generate(features, asked, max_new_tokens=_DESCRIPTION_TOKENS, avoid=avoid)[0]
