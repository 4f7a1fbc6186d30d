"""What the line's student without a language model says of candidates, by the files alone that it is used with."""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from models.rali.runtime import RaliScorer
from tasks.pool import read_media
from tasks.stage import Place
from tasks.tiles import frames_of

STUDENT: Final = "vital-rali"
"""Its name in the predictions and in the registry."""


def student_scores(place: Place, rows: pd.DataFrame, threads: int) -> NDArray[np.float64]:
    """Quality ``[N]`` in [0, 1] of candidates that decode.

    Raises:
        MissingWeightsError: ``rali`` has not been published.
    """
    scorer = RaliScorer(place.artifacts("rali") / "student", threads)
    scores = np.empty(len(rows))
    for position, row in enumerate(tqdm(rows.itertuples(index=False), total=len(rows), desc=f"predict: {STUDENT}")):
        candidate: Any = row
        scores[position] = scorer.score(frames_of(read_media(place, candidate), candidate.modality, scorer.frames))
    return scores
