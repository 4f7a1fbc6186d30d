"""Batch mode: the questions of a wave as batch files, each found again by its key and never submitted twice.

A batch's key is the hash of all questions that its chunk of the wave holds, answered or not, so it is the same after a
kill at any point. Its answers are taken from wherever the batch is: an earlier process' batch is adopted.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from infra.errors import EndpointUnavailableError
from infra.lmm_batches import Batch, await_batch, find_batch, read_batch, submit_batch
from infra.lmm_endpoint import Answered
from infra.lmm_wire import PATHS
from tasks.annotation.answers import AnswerBook
from tasks.annotation.desk import Asked, Desk, Inquiry, Request, unanswered
from tasks.annotation.questions import Answer
from tasks.annotation.roles import Batches, Role
from tasks.shards import digest


@dataclass(frozen=True)
class _Open:
    """A batch on its way: its chunk, whether this process has submitted (and so counted) it, and since when."""

    role: Role
    name: str
    chunk: tuple[Inquiry, ...]
    batch: Batch
    ours: bool
    since: float


class BatchDesk:
    """Answers waves by batch files where a role can, live where it cannot (decisions have no batches).

    Args:
        desk: whose roles, endpoints and account are used.
        config: sizes and prices.
    """

    def __init__(self, desk: Desk, config: Batches) -> None:
        self._desk, self._config = desk, config

    def answer(self, book: AnswerBook[Answer], inquiries: Sequence[Inquiry[Answer]]) -> None:
        """See to it that the book knows the answers.

        Raises:
            BudgetReachedError: a batch could exceed the budget; it was not submitted.
            EndpointUnavailableError: after all attempts some lines still have no answer.
        """
        wave = list({inquiry.question: inquiry for inquiry in inquiries}.values())
        live = [inquiry for inquiry in wave if self._role(inquiry).kind != "chat"]
        by_role: dict[str, list[Inquiry[Answer]]] = {}
        for inquiry in wave:
            if self._role(inquiry).kind == "chat":
                by_role.setdefault(inquiry.question.judge, []).append(inquiry)
        size = self._config.requests
        chunks = [tuple(group[at : at + size]) for group in by_role.values() for at in range(0, len(group), size)]
        for attempt in range(self._config.attempts):
            open_ = [self._open(book, chunk, attempt) for chunk in chunks if unanswered(book, chunk)]
            for one in open_:
                self._collect(book, one)
            if not any(unanswered(book, chunk) for chunk in chunks):
                break
        else:
            left = sum(len(unanswered(book, chunk)) for chunk in chunks)
            msg = f"{left} lines of batches came back without an answer {self._config.attempts} times: run again"
            raise EndpointUnavailableError(msg)
        self._desk.answer(book, live)

    def _role(self, inquiry: Inquiry[Answer]) -> Role:
        return self._desk.roles[inquiry.question.judge]

    def _open(self, book: AnswerBook[Answer], chunk: tuple[Inquiry[Answer], ...], attempt: int) -> _Open:
        """Find the chunk's batch, or submit it: budget first, intents on disk second, then the file."""
        name = chunk[0].question.judge
        role, endpoint = self._desk.roles[name], self._desk.endpoints[name]
        key = f"vital-{digest(sorted(inquiry.question.key for inquiry in chunk), attempt)}"
        batch = find_batch(endpoint, key)
        ours = batch is None
        if batch is None:
            missing = unanswered(book, chunk)
            requests = {inquiry.question: self._desk.request(inquiry.word(), role) for inquiry in missing}
            prices = {question: request.price * self._config.price_share for question, request in requests.items()}
            for price in prices.values():
                self._desk.spending.admit(price)
            for question, price in prices.items():
                book.intend([question], price)
            bodies = {question.key: request.body for question, request in requests.items()}
            batch = submit_batch(endpoint, key, PATHS[role.kind], bodies)
        return _Open(role, name, chunk, batch, ours, time.monotonic())

    def _collect(self, book: AnswerBook[Answer], one: _Open) -> None:
        endpoint = self._desk.endpoints[one.name]
        batch = await_batch(endpoint, one.batch, lambda: time.sleep(self._config.poll_s))
        bodies = read_batch(endpoint, batch)
        seconds = time.monotonic() - one.since
        for inquiry in unanswered(book, one.chunk):
            body = bodies.get(inquiry.question.key)
            if body is not None:
                self._record(book, inquiry, one, Answered(body, seconds))

    def _record(self, book: AnswerBook[Answer], inquiry: Inquiry[Answer], one: _Open, answered: Answered) -> None:
        role = one.role
        asked: Asked = inquiry.word()
        request: Request = self._desk.request(asked, role)
        reply, usage = self._desk.read(asked, role, answered.body)
        call = self._desk.call(role, request, usage, answered, "batch", self._config.price_share)
        book.record(inquiry.question, inquiry.read(reply), call)
        if one.ours:
            self._desk.spending.settle(request.price * self._config.price_share, call.cost)
