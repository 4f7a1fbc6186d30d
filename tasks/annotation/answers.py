"""The answer store: what judges have answered, paid once and never lost.

Primary data: append-only, content-addressed Parquet shards under one URL that clones and workers share. A question is
(content hash, assertion, judge, model, prompt version, round). Its intent is on disk before it is asked and its answer
before it is used, in a journal beside the workspace; a journal left by a killed process is committed at the next start,
so no answered question is ever asked again. Paid calls that were in flight then are listed, and asked again under the
same idempotency key.
"""

import argparse
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Self

import pandas as pd
import pyarrow.parquet as pq

from infra.dvc_store import shared_store
from infra.errors import InfraError
from infra.object_store import ObjectStore
from models.judges import Vote
from tasks.annotation.answer_shards import put_rows, read_rows
from tasks.annotation.calls import Call, call_row, put_calls
from tasks.annotation.journal import Journal, append_line, read_lines
from tasks.annotation.parts import rows_of
from tasks.annotation.questions import (
    ANSWERS,
    SERVED_ANSWERS,
    TEXT_KIND,
    VOTE_KIND,
    Answer,
    AnswerKind,
    Question,
    columns_for,
    question_of,
    vote_of,
    vote_row,
)
from tasks.annotation.spending import Spent, enter
from tasks.errors import StageError, VitalError
from tasks.records import RowSchema
from tasks.shards import frame_of, read_table

log = logging.getLogger(__name__)


class AnswerBook(Generic[Answer]):
    """Answers about some contents: from the store, from this process' journal, or asked now; safe for threads.

    Used as a context manager; ``commit`` writes what was answered to the store and closes the journal.

    Args:
        store: the answer store.
        journal: file of this writer alone.
        contents: hashes of the media that questions will be about.
        kind: of the answers.
        account: that paid calls are entered to; None where nobody is paid.
    """

    def __init__(
        self,
        store: ObjectStore,
        journal: Path,
        contents: Iterable[str],
        kind: AnswerKind[Answer] = VOTE_KIND,
        account: str | None = None,
    ) -> None:
        self._store, self._kind, self._path = store, kind, journal
        self._journal = Journal(journal)
        if left := list(self._journal.entries()):  # its writer was killed after others had looked for such journals
            _commit_left(store, left, self._journal, journal.parent)
            self._journal.clear()
        self._answers = _stored(store, set(contents), kind)
        self._new: dict[Question, Answer] = {}
        self._calls: dict[Question, dict[str, Any]] = {}
        self._tally = _Tally(account, os.urandom(8).hex()) if account else None
        if self._tally is not None:
            self._journal.write([{"account": self._tally.account, "opened": self._tally.opened}])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def known(self, question: Question) -> Answer | None:
        """The answer, if somebody has given one."""
        return self._answers.get(question)

    def votes(self, questions: Sequence[Question], ask: Callable[[Question], Answer]) -> list[Answer]:
        """Answer questions in order; ``ask`` is called for those only that nobody has answered."""
        missing = list(dict.fromkeys(question for question in questions if question not in self._answers))
        if missing:
            self._journal.write({"intent": asdict(question)} for question in missing)
            for question in missing:
                answer = ask(question)
                self._journal.write([self._line(question, answer)], durable=False)
                self._answers[question] = self._new[question] = answer
            self._journal.flush()
        return [self._answers[question] for question in questions]

    def intend(self, questions: Iterable[Question], price: float) -> None:
        """Put on disk that these will be asked now, each at this price at most."""
        entries = [{"intent": asdict(question), "price": price} for question in questions]
        self._journal.write(entries)
        if self._tally is not None:
            self._tally.intend(entries)

    def release(self, question: Question) -> None:
        """Take back the last intent to ask: it has certainly cost nothing."""
        self._journal.write([{"released": asdict(question)}])
        if self._tally is not None:
            self._tally.release(question.key)

    def record(self, question: Question, answer: Answer, call: Call) -> None:
        """Put a paid answer on disk; only then is it known."""
        row = call_row(question.key, asdict(question), call)
        self._journal.write([{**self._line(question, answer), "call": row}])
        self._calls[question] = row
        self._answers[question] = self._new[question] = answer
        if self._tally is not None:
            self._tally.settle(question.key, call.cost)

    def commit(self) -> None:
        """Put the new answers into the store and remove the journal."""
        at = _commit_time(self._journal, ())
        put_calls(self._store, self._calls.values(), at)
        _put(self._store, self._new, self._kind, at)
        if self._tally is not None:
            self._tally.enter(self._path.parent)
        self._new, self._calls = {}, {}
        self._journal.remove()

    def _line(self, question: Question, answer: Answer) -> dict[str, Any]:
        return {self._kind.name: {**asdict(question), **self._kind.to_row(answer)}}


class _Tally:
    """What one journal has spent: answered calls at their cost, others at the prices of their intents."""

    def __init__(self, account: str, opened: str) -> None:
        self.account, self.opened = account, opened
        self._lock, self._calls = threading.Lock(), 0
        self._open: dict[str, list[float]] = {}
        self._cost = 0.0

    def intend(self, entries: Iterable[Mapping[str, Any]]) -> None:
        with self._lock:
            for entry in entries:
                self._calls += 1
                self._open.setdefault(Question(**entry["intent"]).key, []).append(entry["price"])

    def release(self, key: str) -> None:
        with self._lock:
            if self._open.get(key):  # else another journal has counted it
                self._open[key].pop()
                self._calls -= 1

    def settle(self, key: str, cost: float) -> None:
        with self._lock:
            if self._open.pop(key, None) is not None:  # else the journal that submitted its batch has counted it
                self._cost += cost

    def enter(self, journals: Path) -> None:
        totals = Spent(self._calls, self._cost + sum(map(sum, self._open.values())))
        enter(spending_folder(journals), self.account, self.opened, totals)


def spending_folder(journals: Path) -> Path:
    """Where the accounts of a workspace lie, beside its journals."""
    return journals.parent / "spending"


def in_flight_file(journals: Path) -> Path:
    """The list of paid calls that were in flight when a run was killed: only these can be asked a second time."""
    return journals.parent / "in_flight.jsonl"


def recover(store: ObjectStore, folder: Path) -> list[Question]:
    """Commit the journals that killed processes have left in ``folder``.

    Returns:
        Questions that were in flight: asked, but with no answer on disk. Only these can be asked a second time.
    """
    in_flight: list[Question] = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        try:
            journal = Journal(path)
        except StageError:
            continue  # its owner is alive
        in_flight += _commit_left(store, list(journal.entries()), journal, folder)
        journal.remove()
    if in_flight:
        log.info("answers: %d questions were in flight when a run was killed and may be asked again", len(in_flight))
    return in_flight


def _commit_time(journal: Journal, entries: Iterable[Mapping[str, Any]]) -> int:
    """When a journal is committed, in milliseconds; a commit that is repeated after a kill has the same time."""
    at = next((entry["commit"] for entry in entries if "commit" in entry), None)
    if at is None:
        at = time.time_ns() // 1_000_000
        journal.write([{"commit": at}])
    return at


def _commit_left(store: ObjectStore, entries: list[dict[str, Any]], journal: Journal, folder: Path) -> list[Question]:
    """Put what a killed journal holds into store and account; returns its questions without an answer."""
    at = _commit_time(journal, entries)
    put_calls(store, [entry["call"] for entry in entries if "call" in entry], at)
    answered: set[Question] = set()
    for kind in (VOTE_KIND, TEXT_KIND):
        rows = [entry[kind.name] for entry in entries if kind.name in entry]
        answers = {question_of(row): kind.of_row(row) for row in rows}
        _put(store, answers, kind, at)
        answered |= set(answers)
    open_ = _in_flight(entries, answered)
    head = next((entry for entry in entries if "account" in entry), None)
    if head is not None:
        tally = _Tally(head["account"], head["opened"])
        for entry in entries:
            if "intent" in entry:
                tally.intend([entry])
            elif "released" in entry:
                tally.release(Question(**entry["released"]).key)
            elif "call" in entry:
                tally.settle(entry["call"]["call"], entry["call"]["cost"])
        tally.enter(folder)
        for entry in open_:
            call = {"call": Question(**entry["intent"]).key, "journal": head["opened"], "price": entry["price"]}
            append_line(in_flight_file(folder), {**call, **entry["intent"]})
    return list(dict.fromkeys(Question(**entry["intent"]) for entry in open_))


def _in_flight(entries: list[dict[str, Any]], answered: set[Question]) -> list[dict[str, Any]]:
    """Intents of a journal that were neither answered nor taken back."""
    released = Counter(Question(**entry["released"]) for entry in entries if "released" in entry)
    found = []
    for entry in entries:
        if "intent" in entry:
            question = Question(**entry["intent"])
            if released[question] > 0:
                released[question] -= 1
            elif question not in answered:
                found.append(entry)
    return found


def answered_questions(store: ObjectStore, journals: Path, contents: Iterable[str]) -> dict[Question, Vote]:
    """Votes about some contents that are paid for: in the store, and in journals that killed runs have left."""
    found = _stored(store, set(contents), VOTE_KIND)
    for path in sorted(journals.glob("*.jsonl")) if journals.is_dir() else ():
        rows = [entry[VOTE_KIND.name] for entry in read_lines(path) if VOTE_KIND.name in entry]
        found = {question_of(row): vote_of(row) for row in rows} | found
    return found


def snapshot_rows(questions: Iterable[Question], votes: Iterable[Vote], rows: RowSchema = ANSWERS) -> pd.DataFrame:
    """Rows of ``ANSWERS``, or of ``SERVED_ANSWERS``, one per question."""
    pairs = zip(questions, votes, strict=True)
    records = {question: {**asdict(question), **vote_row(vote)} for question, vote in pairs}
    return frame_of(rows, records.values())


def read_snapshot(path: Path) -> pd.DataFrame:
    """Read a snapshot of measured or of served answers.

    Raises:
        StageError: it is missing or is neither.
    """
    served = path.is_file() and pq.ParquetFile(path).schema_arrow.names == SERVED_ANSWERS.columns
    return read_table(path, SERVED_ANSWERS if served else ANSWERS)


def restore(store: ObjectStore, snapshot: pd.DataFrame) -> int:
    """Put a snapshot's answers into a store, for a clone that has the snapshot but not the store.

    Returns:
        How many answers the store did not have; one that it has stays as it is.
    """
    answers = {question_of(row): vote_of(row) for row in rows_of(snapshot)}
    known = _stored(store, {question.content for question in answers}, VOTE_KIND)
    new = {question: vote for question, vote in answers.items() if question not in known}
    _put(store, new, VOTE_KIND, time.time_ns() // 1_000_000)
    return len(new)


def _stored(store: ObjectStore, contents: set[str], kind: AnswerKind[Answer]) -> dict[Question, Answer]:
    """All answers about some contents; of several answers to one question the first holds."""
    found: dict[Question, Answer] = {}
    for row in read_rows(store, kind.folder, kind.rows.schema, contents):
        found.setdefault(question_of(row), kind.of_row(row))
    return found


def _put(store: ObjectStore, answers: Mapping[Question, Any], kind: AnswerKind[Any], at: int) -> None:
    rows = [{**asdict(question), **kind.to_row(answer)} for question, answer in answers.items()]
    put_rows(store, kind.folder, columns_for(rows, kind), rows, at)


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
        store, snapshot = shared_store(Path.cwd()), read_snapshot(named.snapshot)
        added = restore(store, snapshot)
    except (VitalError, InfraError) as error:
        log.error("%s", error)  # noqa: TRY400 - one line for people, no traceback
        return 1
    log.info("%d of %d answers were new to the store %s", added, len(snapshot), store.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
