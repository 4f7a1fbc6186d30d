"""How far a quality follows from what a model describes: regression on claims, for its own scores and for people's.

Works on the records of contradiction: per image, a text and the score with the image, of models that were asked just
now or elsewhere.

Shape legend: ``N`` images, ``F`` attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from models.errors import ModelError
from models.instruments.grounding import Grounding, ground
from models.instruments.word_balance import feature_signs
from models.signals.claims import Attribute
from tasks.errors import StageError
from tasks.evaluation.contradiction import Answer, Keys, Options, read_file
from tasks.evaluation.named_columns import grouped
from tasks.evaluation.recorded import DIGITS, read_records, rounded

SCHEMA: Final = 1
FEATURES: Final = tuple(Attribute)


@dataclass(frozen=True)
class Fitting:
    """How qualities are regressed.

    Attributes:
        folds: of contents. permutations: of qualities, for the p value. seed: of both.
    """

    folds: int = 5
    permutations: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.folds < 2 or self.permutations < 1:
            raise StageError("a regression needs two folds and one permutation at least")


def ground_recorded(
    paths: Sequence[Path],
    keys: Keys,
    options: Options,
    fitting: Fitting,
    contents: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Report on files of recorded answers, one per model.

    Args:
        keys: of texts and scores; only the text with the image and its score are read.
        contents: of media by their names; media without one are contents of their own.

    Returns:
        Plain values: for each file, a regression of the model's scores, and of people's on the images that they scored.

    Raises:
        StageError: a file cannot be read, or holds too little.
    """
    one_score = Keys(keys.medium, keys.image_score, keys.image_score, keys.human, keys.image_text, None)
    reports = []
    for path in paths:
        answers, rejected = read_file(path, one_score, options)
        try:
            reports.append(measure(answers, rejected, path.name, options, fitting, contents or {}))
        except ModelError as error:
            msg = f"{path}: {error}"
            raise StageError(msg) from error
    return {
        "schema": SCHEMA,
        "features": [str(attribute) for attribute in FEATURES],
        "fitting": vars(fitting),
        "readout": options.readout,
        "scale": [options.low, options.high],
        "files": reports,
    }


def contents_of(paths: Sequence[Path], medium: str, wanted: str) -> dict[str, str]:
    """What the media of recorded answers show.

    Args:
        medium: key that names media. wanted: ``KEY`` or ``KEY:REGEX``, whose group 1 is taken.

    Raises:
        StageError: a file cannot be read, or a record does not say.
    """
    found: dict[str, str] = {}
    for path in paths:
        kept = [record for record in read_records(path, medium) if isinstance(record, dict)]
        groups = grouped(pd.DataFrame(kept), wanted, path)
        pairs = zip(kept, groups, strict=True)
        found |= {str(record[medium]): group for record, group in pairs if record.get(medium) is not None}
    return found


def measure(
    answers: Sequence[Answer],
    rejected: Mapping[str, int],
    source: str,
    options: Options,
    fitting: Fitting,
    contents: Mapping[str, str],
) -> dict[str, Any]:
    """Regress one model's scores on the claims of its texts, and people's scores of those images that have one.

    People's part is None where they scored fewer contents than there are folds.

    Raises:
        ModelError: there are fewer contents than folds.
        StageError: more images have no text than the limit for rejects allows.
    """
    told = [answer for answer in answers if answer.image_text]
    silent = len(answers) - len(told)
    if silent > options.comparing.max_reject_share * len(answers):
        msg = f"{source}: {silent} of {len(answers)} records have no text that claims could be found in"
        raise StageError(msg)
    signs_NF = np.array([[feature_signs(answer.image_text or "")[one] for one in FEATURES] for answer in told], float)
    content_N = [contents.get(answer.medium, answer.medium) for answer in told]
    rated = [number for number, answer in enumerate(told) if answer.human is not None]
    enough = len({content_N[number] for number in rated}) >= max(2, fitting.folds)

    def fitted(qualities: Sequence[float], rows: Sequence[int]) -> dict[str, Any]:
        contents = [content_N[number] for number in rows]
        found = ground(signs_NF[rows], qualities, contents, fitting.folds, fitting.permutations, fitting.seed)
        return _told(found)

    return {
        "source": source,
        "rejected": dict(rejected) | ({"no_text": silent} if silent else {}),
        "said": {str(one): _said(signs_NF[:, number]) for number, one in enumerate(FEATURES)},
        "nothing_said": int((signs_NF == 0).all(axis=1).sum()),
        "model": fitted([answer.image for answer in told], range(len(told))),
        "people": fitted([float(told[number].human or 0.0) for number in rated], rated) if enough else None,
    }


def _said(signs_N: Any) -> dict[str, int]:
    return {"fine": int((signs_N > 0).sum()), "faulty": int((signs_N < 0).sum())}


def _told(found: Grounding) -> dict[str, Any]:
    values = {name: value for name, value in vars(found).items() if name != "weights_F"}
    weights = {str(one): round(float(weight), DIGITS) for one, weight in zip(FEATURES, found.weights_F, strict=True)}
    return rounded(values) | {"weights": weights}
