"""Does a score that a model gives for an image agree with the score it gives for its own words about the image?

Scores are qualities on [0, 1], higher is better, whatever scale they were written on; a level is a fifth of that scale.

Shape legend: ``N`` samples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.correlation import Agreement, agreement
from models.errors import ModelError
from models.levels import LEVELS, level_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """How far two scores of one sample lie apart, per sample.

    Attributes:
        difference_N: absolute difference.
        flip_N: 1 where the two lie on different levels. far_flip_N: 1 where they lie two levels apart or more.
    """

    difference_N: Floats
    flip_N: Floats
    far_flip_N: Floats


def gap(image_scores: ArrayLike, text_scores: ArrayLike) -> Gap:
    """Compare the score with the image with the score from the text alone.

    Raises:
        ModelError: a score is no quality in [0, 1], or the two differ in number.
    """
    image_N, text_N = np.asarray(image_scores, np.float64), np.asarray(text_scores, np.float64)
    if image_N.shape != text_N.shape or image_N.ndim != 1:
        msg = f"{image_N.shape} scores with the image and {text_N.shape} from the text cannot be paired"
        raise ModelError(msg)
    steps_N = np.abs(_levels(image_N) - _levels(text_N))
    return Gap(np.abs(image_N - text_N), (steps_N >= 1).astype(np.float64), (steps_N >= 2).astype(np.float64))


def _levels(score_N: Floats) -> NDArray[np.int64]:
    return np.array([LEVELS.index(level_of(float(score))) for score in score_N], dtype=np.int64)


@dataclass(frozen=True)
class Against:
    """Agreement of both scores with people; None where there are no people's scores."""

    image: Agreement
    text: Agreement


def against_people(image_scores: ArrayLike, text_scores: ArrayLike, human: ArrayLike) -> Against:
    """Correlate both scores with people's.

    Args:
        human: qualities on a scale where higher is better; a DMOS must have been turned round.

    Raises:
        ModelError: as :func:`models.correlation.agreement`.
    """
    return Against(agreement(image_scores, human), agreement(text_scores, human))
