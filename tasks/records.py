"""The rows that stages exchange on disk: the only contract between the phases of the plant.

Each table has a fixed schema and a key; tables are written sorted by key, so equal content is equal bytes.
Column types are Arrow's; ``list`` columns hold five level probabilities, best first, unless said otherwise.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pandas as pd
import pyarrow as pa

from tasks.errors import StageError


class Modality(StrEnum):
    """What a medium is."""

    IMAGE = "image"
    VIDEO = "video"


class Split(StrEnum):
    """Which part of the line a *content* (an original and all its distorted children) may serve."""

    TRAIN = "train"
    WARM_UP = "warm_up"
    HELD_OUT = "held_out"


class Origin(StrEnum):
    """Who made an assertion."""

    DESCRIBER = "describer"
    PLANTED = "planted"


class Task(StrEnum):
    """Kinds of training example."""

    SINGLE = "single"
    PAIR = "pair"
    DISTORTION = "distortion"
    DESCRIPTION = "description"


class QuestionKind(StrEnum):
    """Kinds of instruction, by the question of the last turn; all but ``OPEN`` and ``SCORE`` have options."""

    YES_NO = "yes_no"
    WHAT_HOW = "what_how"
    WHICH = "which"
    COMPARE = "compare"
    OPEN = "open"
    SCORE = "score"


MEDIUM_MARK: Final = "<medium>"
"""Where a question of INSTRUCTIONS shows its next medium."""


@dataclass(frozen=True)
class RowSchema:
    """Name, columns and key of one table."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """Column names in order."""
        return list(self.schema.names)

    def to_arrow(self, frame: pd.DataFrame) -> pa.Table:
        """Check a frame against the schema and return it as an Arrow table sorted by key.

        Raises:
            StageError: columns are missing or unknown, a value has the wrong type, or the key repeats.
        """
        missing, extra = set(self.columns) - set(frame.columns), set(frame.columns) - set(self.columns)
        if missing or extra:
            msg = f"table {self.name}: missing columns {sorted(missing)}, unknown columns {sorted(extra)}"
            raise StageError(msg)
        if frame.duplicated(list(self.key)).any():
            repeated = frame.loc[frame.duplicated(list(self.key)), list(self.key)].head(3).to_dict("records")
            msg = f"table {self.name}: key {self.key} repeats, for example {repeated}"
            raise StageError(msg)
        ordered = frame.sort_values(list(self.key), kind="stable")[self.columns]
        try:
            return pa.Table.from_pandas(ordered, schema=self.schema, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            msg = f"table {self.name}: {error}"
            raise StageError(msg) from error


_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_LEVELS5 = pa.list_(pa.float64())


def _table(name: str, key: tuple[str, ...], /, **columns: pa.DataType) -> RowSchema:
    return RowSchema(name, pa.schema(list(columns.items())), key)


CANDIDATES: Final = _table(
    "candidates",
    ("id",),
    id=_S,  # originals: hash of the bytes; children: hash of (parent, type, severity, seed, generator)
    content_id=_S,  # id of the original that this sample shows; splits are made of contents
    parent_id=_S,  # null for originals
    split=_S,  # Split
    modality=_S,  # Modality
    mime=_S,
    width=_I,
    height=_I,
    frames=_I,  # 1 for images
    fps=_F,  # 0 for images
    duration_s=_F,  # 0 for images
    source=_S,  # path relative to the pool, or URI; of the original
    bytes_sha256=_S,
    shard=_S,  # archive that holds the bytes, relative to the stage's folder
    offset=_I,  # position of the bytes in the archive
    length=_I,
    distortion=_S,  # type name, null for originals
    severity=_I,  # 1-5, 0 for originals
    seed=_I,
    generator=_S,  # generator version, null for originals
)
"""Written by ``collect`` (originals) and ``distort`` (children)."""

REJECTS: Final = _table("rejects", ("stage", "id", "reason", "detail"), stage=_S, id=_S, reason=_S, detail=_S)
"""Everything a stage took in and did not pass on; ``id`` is the sample, assertion or source path."""

OPINIONS: Final = _table(
    "opinions",
    ("id",),
    id=_S,
    bytes_sha256=_S,
    scorers=pa.list_(_S),  # names, in the order of scores
    versions=pa.list_(_S),
    scores=pa.list_(_F),  # calibrated, [0, 1], higher is better
    mu=_F,
    sigma=_F,
    pmod=_LEVELS5,
    mu_clamped=_B,
)
"""Written by ``score``: one row per scored candidate (originals and children)."""

ASSERTIONS: Final = _table(
    "assertions",
    ("assertion_id",),
    assertion_id=_S,  # hash of (id, text)
    id=_S,
    position=_I,  # order within the description
    attribute=_S,  # sharpness noise exposure contrast colour compression (video: also stability, smoothness)
    text=_S,  # one assertion, no final full stop
    origin=_S,  # Origin
    planted_truth=_B,  # null unless planted: what the distortion recipe says
)
"""Written by ``describe``."""

VOTES: Final = _table(
    "votes",
    ("assertion_id", "phase", "judge", "round", "attempt"),
    assertion_id=_S,
    id=_S,
    phase=_S,  # "cross" or "self"
    judge=_S,
    model=_S,
    prompt_version=_S,
    round=_I,
    attempt=_I,  # 0 first vote, 1-2 votes on a revision
    verdict=_S,  # Verdict of models.judges
    revision=_S,  # proposed text, null unless the verdict is "revise"
    reason=_S,
)
"""Written by ``review``: every vote that was cast."""

REVIEWED: Final = _table(
    "reviewed",
    ("assertion_id",),
    assertion_id=_S,
    id=_S,
    position=_I,
    attribute=_S,
    text=_S,  # after adopted revisions
    origin=_S,
    planted_truth=_B,
    kept=_B,
    reason=_S,  # "unanimous" if kept, else the reject reason
)
"""Written by ``review``: the outcome of every assertion."""

EXAMPLES: Final = _table(
    "examples",
    ("example_id",),
    example_id=_S,
    task=_S,  # Task
    modality=_S,
    split=_S,
    ids=pa.list_(_S),  # one sample; two for pairs, whose order is that of the label
    answers=pa.list_(_S),  # one text per sample
    targets=pa.list_(_LEVELS5),  # one PMOD per sample; empty for text tasks
    preference=_F,  # pairs: 1 first better, 0 second better, .5 tie; null otherwise
)
"""Written by ``assemble``: training examples, whole line (all splits)."""

INSTRUCTIONS: Final = _table(
    "instructions",
    ("instruction_id",),
    instruction_id=_S,  # hash of source, media and turns
    source=_S,  # "line", or the name of the imported data set
    kind=_S,  # QuestionKind
    split=_S,
    content_id=_S,  # what is not independent of each other; null if it shows nothing
    media=pa.list_(_S),  # in order of the marks: candidate ids of the line, else paths below the data set's root
    modalities=pa.list_(_S),  # Modality of each
    questions=pa.list_(_S),  # one per turn, with MEDIUM_MARK where a medium is shown
    answers=pa.list_(_S),  # one per turn
    options=pa.list_(_S),  # of the last turn, in the order of their letters; empty for open questions
    letter=_S,  # of the right option; null for open questions
)
"""Written by ``assistant`` and by ``vital data import --instructions``: conversations about media."""

ANSWERS: Final = _table(
    "answers",
    ("model", "instruction_id"),
    model=_S,
    instruction_id=_S,
    source=_S,
    kind=_S,
    content_id=_S,
    options=_I,  # number of options
    letter=_S,  # of the right option
    blind=_S,  # letter that the training questions of this wording have most often; null if there are none
    said=_S,  # beginning of the greedy answer
    chosen=_S,  # letter that it begins with; null if it begins with none of the options' letters
    likeliest=_S,  # letter of the options that the model finds likeliest as the answer's first token
)
"""Written by ``answer``: what models say to held-out questions, stored before any metric."""

INFERENCES: Final = _table(
    "inferences",
    ("model", "id"),
    model=_S,
    id=_S,
    content_id=_S,
    modality=_S,  # Modality
    target=_F,  # the machine opinion's mean, [0, 1]
    description=_S,  # greedy; empty where the model describes nothing
    verdict=_S,  # greedy, with its forced opening
    word=_S,  # level that the verdict names; null if it names none, or several
    level_probs=_LEVELS5,  # after all that the verdict rests on
    text_probs=_LEVELS5,  # after the description alone; null without one
    drawn=pa.list_(_S),  # level that each drawn verdict names; null as in word
    layers=_I,  # of the decoder that gives the verdict
    commit_layer=_I,  # from which on its best level stays, from 1
    switches=_I,
    late_switch=_B,
    margin=_F,
    shares=pa.list_(_F),  # attention on image, description, prompt, other
    effective_tokens=_F,
)
"""Written by ``reason``: what models say about held-out media, and how they come to it, stored before any figure."""

SWAPS: Final = _table(
    "swaps",
    ("reader", "encoder", "id"),
    reader=_S,  # data set whose teacher's language model reads, or "mixed": the teacher of all of them
    encoder=_S,  # whose tokens it reads: a data set's teacher's, "ract", or "pretrained"
    id=_S,
    content_id=_S,
    data_sets=pa.list_(_S),  # that the medium belongs to
    target=_F,  # the machine opinion's mean, [0, 1]
    expectation=_F,  # over the level words, [0, 1]
    rating=_F,  # that the greedy answer names, [0, 1]; null if it names none
    said=_S,  # the greedy answer
)
"""Written by ``cross_swap``: every reader with every encoder, stored before any figure."""

EXPLANATIONS: Final = _table(
    "explanations",
    ("source", "id", "number"),
    source=_S,  # "reviewed", "teacher", or the name of an imported data set
    id=_S,  # candidate of the line, or key of an imported medium
    content_id=_S,
    modality=_S,  # Modality
    number=_I,  # texts of one medium from one source, from 0
    text=_S,  # without what gives the verdict away, unless leaks are kept
    dropped=_I,  # sentences that gave it away
    seed=_I,  # null unless the text was drawn
    temperature=_F,
    top_p=_F,
)
"""Written by ``explain``: reasoning text about media, whoever wrote it."""

TAUGHT: Final = _table(
    "taught",
    ("id",),
    id=_S,
    content_id=_S,
    modality=_S,
    split=_S,  # null for imported media
    teacher=_F,  # the teacher's quality, [0, 1]
    opinion=_F,  # the machine opinion's mean, [0, 1]; null for imported media
)
"""Written by ``explain``: what media are worth, to the teacher and by machine opinion."""

_T, _I32 = pa.large_string(), pa.int32()
_NAME = pa.dictionary(pa.int32(), pa.string())

SET_EXAMPLES: Final = pa.schema(
    {
        "example_id": _T,
        "media": pa.large_list(_I32),  # rows of SET_MEDIA, in the order of EXAMPLES.ids
        "answers": pa.large_list(_T),
        "targets": pa.large_list(pa.list_(_F, 5)),
        "preference": _F,  # NaN unless a pair
    }
)
SET_MEDIA: Final = pa.schema(
    {
        "id": _T,
        "content_id": _T,
        "modality": _NAME,
        "width": _I32,
        "height": _I32,
        "frames": _I32,
        "fps": _F,
        "stage": _NAME,  # whose archive it is
        "shard": _NAME,
        "offset": _I,
        "length": _I,
    }
)
"""Written by ``assemble``: EXAMPLES and their media once more, laid out to be mapped (tasks.training_set)."""

PREDICTIONS: Final = _table(
    "predictions",
    ("model", "id"),
    model=_S,
    id=_S,
    content_id=_S,
    modality=_S,
    distortion=_S,
    severity=_I,
    score=_F,  # the model's quality, higher is better, [0, 1] unless the column readout says otherwise
    level_probs=_LEVELS5,  # empty for models without levels
    target=_F,  # what it is compared with
    target_kind=_S,  # "machine_opinion" or "mos"
    readout=_S,  # "expectation", "niqe", "linear_probe" ...
)
"""Written by ``predict``: per-sample predictions, stored before any metric."""

CORRELATIONS: Final = _table(
    "correlations",
    ("target_kind", "model", "slice", "statistic"),
    target_kind=_S,
    model=_S,  # a model of PREDICTIONS, or "target" where the reference itself is measured against severity
    slice=_S,  # all, image, video, undistorted, distorted, within_type
    statistic=_S,  # srcc krcc plcc plcc_fitted rmse rmse_fitted; within_type: severity_srcc, target_srcc
    value=_F,  # null where undefined: note says why
    low=_F,  # bootstrap interval over contents
    high=_F,
    samples=_I,
    contents=_I,
    note=_S,
)
"""Written by ``correlate``: agreement of every model with the reference."""

DIFFERENCES: Final = _table(
    "differences",
    ("target_kind", "model", "other", "slice", "statistic"),
    target_kind=_S,
    model=_S,
    other=_S,
    slice=_S,
    statistic=_S,
    difference=_F,  # model minus other, on the samples that both predicted
    low=_F,  # paired bootstrap interval over contents
    high=_F,
    positive=_F,  # share of the replicates in which the difference is above 0
    samples=_I,
    contents=_I,
    note=_S,
)
"""Written by ``correlate``: paired comparisons."""
