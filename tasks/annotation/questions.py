"""What can be asked and answered, and how each kind of answer is kept: votes of judges, texts of writers.

A question is (content hash, assertion, judge, model, prompt version, round): the key under which it is paid once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa

from models.judges import Verdict, Vote
from tasks.records import RowSchema
from tasks.shards import digest

_S: Final = pa.string()
ANSWERS: Final = RowSchema(
    "answers",
    pa.schema(
        {
            "content": _S,  # hash of the medium's bytes
            "assertion": _S,
            "judge": _S,
            "model": _S,
            "prompt_version": _S,
            "round": pa.int64(),
            "verdict": _S,
            "revision": _S,
            "reason": _S,
        }
    ),
    ("content", "assertion", "judge", "model", "prompt_version", "round"),
)
"""One row per answered question; snapshot in ``artifacts/review/answers``, shards in the store."""

SERVED_ANSWERS: Final = RowSchema("answers", ANSWERS.schema.append(pa.field("served_model", _S)), ANSWERS.key)
"""Answers that servers gave: with the model that answered, as the server says."""

TEXTS: Final = RowSchema(
    "texts",
    pa.schema(
        [
            *(ANSWERS.schema.field(name) for name in ANSWERS.key),
            *((name, _S) for name in ("text", "served_model", "problem")),
        ]
    ),
    ANSWERS.key,
)
"""Descriptions and polished descriptions, asked for and paid like votes; ``assertion`` is the text that was edited."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Question:
    """The key of an answer."""

    content: str
    assertion: str
    judge: str
    model: str
    prompt_version: str
    round: int

    @property
    def key(self) -> str:
        """Short hash; also the idempotency key of a call."""
        return digest(*asdict(self).values())


@dataclass(frozen=True)
class Text:
    """What a writer wrote, the model that a server says it was, and the rule that the answer broke, if it broke one."""

    text: str
    model: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class AnswerKind(Generic[Answer]):
    """How one kind of answer is kept.

    Attributes:
        name: of its lines in journals.
        folder: in the store.
        rows: all columns that a shard may have.
        to_row: answer -> its columns beyond the key.
        of_row: the way back.
    """

    name: str
    folder: str
    rows: RowSchema
    to_row: Callable[[Answer], dict[str, Any]]
    of_row: Callable[[Mapping[str, Any]], Answer]


def vote_row(vote: Vote) -> dict[str, Any]:
    """A vote's columns beyond the key; measured votes have none for a served model."""
    served = {} if vote.model is None else {"served_model": vote.model}
    return {"verdict": str(vote.verdict), "revision": vote.revision, "reason": vote.reason, **served}


def vote_of(row: Mapping[str, Any]) -> Vote:
    """The vote of a row."""
    revision, model = row["revision"], row.get("served_model")
    told = revision if isinstance(revision, str) else None
    return Vote(Verdict(row["verdict"]), told, row["reason"], model if isinstance(model, str) else None)


def _text_row(told: Text) -> dict[str, Any]:
    return {"text": told.text, "served_model": told.model, "problem": told.problem}


def _text_of(row: Mapping[str, Any]) -> Text:
    model, problem = (row.get(name) for name in ("served_model", "problem"))  # early shards have no problems
    return Text(row["text"], *(value if isinstance(value, str) else None for value in (model, problem)))


VOTE_KIND: Final = AnswerKind("answer", "answers", SERVED_ANSWERS, vote_row, vote_of)
TEXT_KIND: Final = AnswerKind("text", "texts", TEXTS, _text_row, _text_of)


def question_of(row: Mapping[str, Any]) -> Question:
    """The question of a row of any kind of answer."""
    return Question(**{name: row[name] for name in ANSWERS.key})


def columns_for(rows: Iterable[Mapping[str, Any]], kind: AnswerKind[Any]) -> RowSchema:
    """The schema of a shard or snapshot: votes that no server gave have no column for one."""
    measured = kind is VOTE_KIND and not any("served_model" in row for row in rows)
    return ANSWERS if measured else kind.rows
