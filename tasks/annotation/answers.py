"""The answer store: what judges have answered, paid once and never lost.

Primary data: append-only, content-addressed Parquet shards under one URL that clones and workers share. A question is
(content hash, assertion, judge, model, prompt version, round). Its intent is on disk before it is asked and its answer
before it is used, in a journal beside the workspace; a journal left by a killed process is committed at the next start,
so no answered question is ever asked again.
"""

import argparse
import fcntl
import hashlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infra.dvc_store import shared_store
from infra.errors import InfraError
from infra.object_store import ObjectStore
from models.judges import Verdict, Vote
from tasks.annotation.parts import rows_of
from tasks.errors import StageError, VitalError
from tasks.records import RowSchema
from tasks.shards import digest, frame_of, read_table

log = logging.getLogger(__name__)

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

_FOLDER: Final = "answers"


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


class AnswerBook:
    """Answers about some contents: from the store, from this process' journal, or asked now.

    Used as a context manager; ``commit`` writes what was answered to the store and closes the journal.
    """

    def __init__(self, store: ObjectStore, journal: Path, contents: Iterable[str]) -> None:
        self._store, self._path = store, journal
        wanted = set(contents)
        self._answers = {
            question: vote for question, vote in _stored(store, _buckets(wanted)) if question.content in wanted
        }
        self._new: dict[Question, Vote] = {}
        self._journal = _Journal(journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def votes(self, questions: Sequence[Question], ask: Callable[[Question], Vote]) -> list[Vote]:
        """Answer questions in order; ``ask`` is called for those only that nobody has answered."""
        missing = list(dict.fromkeys(question for question in questions if question not in self._answers))
        if missing:
            self._journal.write({"intent": asdict(question)} for question in missing)
            for question in missing:
                vote = ask(question)
                self._journal.write([_answered(question, vote)], durable=False)
                self._answers[question] = self._new[question] = vote
            self._journal.flush()
        return [self._answers[question] for question in questions]

    def commit(self) -> None:
        """Put the new answers into the store and remove the journal."""
        _put(self._store, self._new)
        self._new = {}
        self._journal.remove()


def recover(store: ObjectStore, folder: Path) -> list[Question]:
    """Commit the journals that killed processes have left in ``folder``.

    Returns:
        Questions that were in flight: asked, but with no answer on disk. Only these can be asked a second time.
    """
    in_flight: list[Question] = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        try:
            journal = _Journal(path)
        except StageError:
            continue  # its owner is alive
        intents, answers = journal.read()
        _put(store, answers)
        in_flight += [question for question in intents if question not in answers]
        journal.remove()
    if in_flight:
        log.info("answers: %d questions were in flight when a run was killed and may be asked again", len(in_flight))
    return in_flight


def snapshot_rows(questions: Iterable[Question], votes: Iterable[Vote]) -> pd.DataFrame:
    """Rows of ``ANSWERS``, one per question."""
    records = {question: _row(question, vote) for question, vote in zip(questions, votes, strict=True)}
    return frame_of(ANSWERS, records.values())


def restore(store: ObjectStore, snapshot: pd.DataFrame) -> int:
    """Put a snapshot's answers into a store, for a clone that has the snapshot but not the store.

    Returns:
        How many answers the store did not have; one that it has stays as it is.
    """
    answers = dict(map(_unrow, rows_of(snapshot)))
    known = dict(_stored(store, _buckets(question.content for question in answers)))
    new = {question: vote for question, vote in answers.items() if question not in known}
    _put(store, new)
    return len(new)


class _Journal:
    """Lines of JSON that are in the kernel's hands when ``write`` returns, and on disk after ``flush``."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            msg = f"another review is writing {path.name} in this workspace: wait for it, or stop it"
            raise StageError(msg) from error

    def write(self, entries: Iterable[dict[str, Any]], *, durable: bool = True) -> None:
        data = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries).encode()
        while data:
            data = data[os.write(self._handle, data) :]
        if durable:
            self.flush()

    def flush(self) -> None:
        os.fsync(self._handle)

    def read(self) -> tuple[list[Question], dict[Question, Vote]]:
        intents: list[Question] = []
        answers: dict[Question, Vote] = {}
        for line in self._path.read_bytes().split(b"\n")[:-1]:  # a torn last line has no end
            entry = json.loads(line)
            if "intent" in entry:
                intents.append(Question(**entry["intent"]))
            else:
                question, vote = _unrow(entry["answer"])
                answers[question] = vote
        return intents, answers

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _answered(question: Question, vote: Vote) -> dict[str, Any]:
    return {"answer": _row(question, vote)}


def _row(question: Question, vote: Vote) -> dict[str, Any]:
    return {**asdict(question), "verdict": str(vote.verdict), "revision": vote.revision, "reason": vote.reason}


def _unrow(row: dict[str, Any]) -> tuple[Question, Vote]:
    question = Question(**{name: row[name] for name in ANSWERS.key})
    revision = row["revision"] if isinstance(row["revision"], str) else None
    return question, Vote(Verdict(row["verdict"]), revision, row["reason"])


def _buckets(contents: Iterable[str]) -> set[str]:
    """Shards are grouped by the first hex digit of the content hash, so that a part reads its share of the store."""
    return {content[0] for content in contents}


def _stored(store: ObjectStore, buckets: set[str]) -> list[tuple[Question, Vote]]:
    """All answers in some buckets; of several answers to one question the first in shard order holds."""
    found: dict[Question, Vote] = {}
    for bucket in sorted(buckets):
        for name in store.list(f"{_FOLDER}/{bucket}/"):
            try:
                table = pq.read_table(io.BytesIO(store.get(name)), schema=ANSWERS.schema)
            except pa.ArrowInvalid as error:
                msg = f"{name} in the store {store.url} is not a shard of answers: {error}"
                raise StageError(msg) from error
            for question, vote in map(_unrow, table.to_pylist()):
                found.setdefault(question, vote)
    return list(found.items())


def _put(store: ObjectStore, answers: dict[Question, Vote]) -> None:
    for bucket in sorted(_buckets(question.content for question in answers)):
        rows = [_row(question, vote) for question, vote in answers.items() if question.content[0] == bucket]
        sink = io.BytesIO()
        pq.write_table(ANSWERS.to_arrow(frame_of(ANSWERS, rows)), sink, compression="zstd")
        data = sink.getvalue()
        store.put_if_absent(f"{_FOLDER}/{bucket}/{hashlib.sha256(data).hexdigest()[:32]}.parquet", data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Restore the answers of a snapshot into the store of the current workspace; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.annotation.answers",
        description="Put the answers of a review's snapshot into the store of the workspace in this folder.",
    )
    parser.add_argument("snapshot", type=Path, help="for example artifacts/review/answers/answers.parquet")
    named = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        store, snapshot = shared_store(Path.cwd()), read_table(named.snapshot, ANSWERS)
        added = restore(store, snapshot)
    except (VitalError, InfraError) as error:
        log.error("%s", error)  # noqa: TRY400 - one line for people, no traceback
        return 1
    log.info("%d of %d answers were new to the store %s", added, len(snapshot), store.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
