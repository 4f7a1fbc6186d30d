"""Batch mode: the questions of a wave as batch files, each paid once whatever happens in between.

A batch is in the workspace's register before it is submitted. Questions of a registered batch are never asked anew: its
answers are waited for, fetched, and kept until they are recorded, even if the review is cut into other parts meanwhile.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from infra.errors import EndpointRefusedError, EndpointUnavailableError
from infra.lmm_batches import OK, Batch, Line, await_batch, find_batch, read_batch, submit_batch
from infra.lmm_endpoint import Answered
from infra.lmm_wire import PATHS, Usage, read_chat, refusal_told
from models.judges import ChatReply
from tasks.annotation.answers import AnswerBook
from tasks.annotation.batch_register import BatchRegister, Entry, Expected
from tasks.annotation.desk import FILTERED, UNFIT_QUESTION, Desk, Inquiry, Request, unanswered
from tasks.annotation.questions import Answer
from tasks.annotation.roles import Batches, DescribeEndpoints, ReviewEndpoints, Role
from tasks.annotation.spending import BudgetReachedError
from tasks.shards import atomic, digest

_PATH: Final = PATHS["chat"]

Chunk = dict[str, Inquiry]
"""Question key -> inquiry."""


@dataclass(frozen=True)
class _Open:
    """A batch on its way; ``ours`` if this process has set money aside for it; None if it was never submitted."""

    entry: Entry
    batch: Batch | None
    ours: bool
    since: float


def desk_in_mode(desk: Desk, endpoints: ReviewEndpoints | DescribeEndpoints, root: Path) -> "Desk | BatchDesk":
    """Who answers in the mode of some endpoints: the desk itself, or one that makes batch files of its questions.

    Args:
        desk: of the endpoints' roles.
        endpoints: say the mode.
        root: of the workspace, which keeps the register of batches in ``.vital/batches``.
    """
    if endpoints.mode == "live":
        return desk
    return BatchDesk(desk, endpoints.batches, root / ".vital" / "batches")


class BatchDesk:
    """Answers waves by batch files where a role can, live where it cannot (as decisions, which have no batches).

    Args:
        desk: whose roles, endpoints and account are used.
        config: sizes and prices.
        folder: of the workspace's register of batches.
    """

    def __init__(self, desk: Desk, config: Batches, folder: Path) -> None:
        self._desk, self._config, self._folder = desk, config, folder
        self._register = BatchRegister(folder)

    def answer(self, book: AnswerBook[Answer], inquiries: Sequence[Inquiry[Answer]]) -> None:
        """See to it that the book knows the answers.

        Raises:
            BudgetReachedError: a batch could exceed the budget; it was not submitted, and earlier ones were collected.
            EndpointRefusedError: a provider refuses batches of this kind.
            EndpointUnavailableError: after all attempts some lines still have no answer.
        """
        wave = list({inquiry.question: inquiry for inquiry in inquiries}.values())
        batched = [inquiry for inquiry in wave if self._role(inquiry).in_batches]
        for _ in range(self._config.attempts):
            self._collect_known(book, batched)
            missing = unanswered(book, batched)
            if not missing:
                break
            self._ask(book, missing)
        left = len(unanswered(book, batched))
        if left:
            msg = f"{left} lines of batches came back without an answer {self._config.attempts} times: run again"
            raise EndpointUnavailableError(msg)
        self._desk.answer(book, [inquiry for inquiry in wave if not self._role(inquiry).in_batches])

    def _role(self, inquiry: Inquiry[Answer]) -> Role:
        return self._desk.roles[inquiry.question.judge]

    def _collect_known(self, book: AnswerBook[Answer], inquiries: Sequence[Inquiry[Answer]]) -> None:
        """Collect the batches that earlier runs, or other parts of this one, have submitted for such questions."""
        found: dict[str, tuple[Entry, Chunk]] = {}
        for inquiry in inquiries:
            entry = self._register.holding(inquiry.question.key)
            if entry is not None:
                found.setdefault(entry.key, (entry, {}))[1][inquiry.question.key] = inquiry
        for entry, chunk in found.values():
            batch = None
            if self._register.lines(entry) is None:
                batch = find_batch(self._desk.endpoints[entry.role], entry.key)
                if batch is None:  # killed before it was submitted: nothing is on its way
                    self._register.forget(entry, entry.asked)
                    continue
            self._collect(book, _Open(entry, batch, ours=False, since=time.monotonic()), chunk)

    def _ask(self, book: AnswerBook[Answer], missing: Sequence[Inquiry[Answer]]) -> None:
        """Submit batches, as many as the budget allows, and collect those."""
        by_role: dict[str, list[Inquiry[Answer]]] = {}
        for inquiry in missing:
            by_role.setdefault(inquiry.question.judge, []).append(inquiry)
        open_: list[tuple[_Open, Chunk]] = []
        try:
            for name, group in by_role.items():
                left = group
                while left:
                    chunk, lines = self._cut(name, left)
                    open_.append((self._submit(book, name, chunk, lines), chunk))
                    left = left[len(chunk) :]
        finally:  # also when the budget is reached, or a provider refuses: what is on its way is paid for
            for one, chunk in open_:
                self._collect(book, one, chunk)

    def _cut(self, name: str, group: Sequence[Inquiry[Answer]]) -> tuple[Chunk, dict[str, Request]]:
        """Word as many questions as one batch file may hold, and write their lines."""
        role, chunk, requests, size = self._desk.roles[name], {}, {}, 0
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic(self._lines_file) as file:
            for inquiry in group[: self._config.requests]:
                request, key = self._desk.request(inquiry.word(), role), inquiry.question.key
                entry = {"custom_id": key, "method": "POST", "url": f"/v1{_PATH}", "body": request.body}
                line = json.dumps(entry).encode() + b"\n"
                if chunk and size + len(line) > self._config.max_megabytes * 1e6:
                    break
                file.write(line)
                size += len(line)
                chunk[key], requests[key] = inquiry, replace(request, body={})
        return chunk, requests

    @property
    def _lines_file(self) -> Path:
        return self._folder / "next.jsonl"

    def _submit(self, book: AnswerBook[Answer], name: str, chunk: Chunk, requests: dict[str, Request]) -> _Open:
        """Budget first, intents and register on disk second, then the file.

        The provider is asked for a batch with the same questions before: the register may have been lost.
        """
        endpoint, number = self._desk.endpoints[name], 0
        asked = {
            key: Expected(request.tokens_in + request.tokens_out, request.price * self._config.price_share)
            for key, request in requests.items()
        }
        while self._register.is_settled(key := f"vital-{digest(sorted(chunk), number)}"):
            number += 1
        entry = Entry(key, name, endpoint.config.host, asked)
        batch = find_batch(endpoint, key)
        if batch is not None:
            self._register.add(entry)
            return _Open(entry, batch, ours=False, since=time.monotonic())
        self._admit([expected.price for expected in asked.values()])
        for key, expected in asked.items():
            book.intend([chunk[key].question], expected.price)
        self._register.add(entry)
        try:
            batch = submit_batch(endpoint, entry.key, _PATH, self._lines_file, self._pause)
        except EndpointRefusedError:
            self._give_back(book, entry, chunk)
            raise
        finally:
            self._lines_file.unlink(missing_ok=True)
        return _Open(entry, batch, ours=True, since=time.monotonic())

    def _admit(self, prices: Iterable[float]) -> None:
        """Set all of a batch aside, or nothing."""
        admitted: list[float] = []
        try:
            for price in prices:
                self._desk.spending.admit(price)
                admitted.append(price)
        except BudgetReachedError:
            for price in admitted:
                self._desk.spending.release(price)
            raise

    def _give_back(self, book: AnswerBook[Answer], entry: Entry, chunk: Chunk) -> None:
        """A batch was refused as a whole: nothing of it was paid."""
        for key, expected in entry.asked.items():
            self._desk.spending.release(expected.price)
            book.release(chunk[key].question)
        self._register.forget(entry, entry.asked)

    def _pause(self) -> None:
        time.sleep(self._config.poll_s)

    def _collect(self, book: AnswerBook[Answer], one: _Open, chunk: Chunk) -> None:
        """Record a batch's answers to some questions; what it says of others stays until they are wanted."""
        lines = self._register.lines(one.entry)
        if lines is None and one.batch is not None:
            endpoint = self._desk.endpoints[one.entry.role]
            try:
                batch = await_batch(endpoint, one.batch, self._pause)
            except EndpointRefusedError:
                if one.ours:
                    self._give_back(book, one.entry, chunk)
                else:
                    self._register.forget(one.entry, one.entry.asked)
                raise
            lines = read_batch(endpoint, batch, _PATH)
            self._register.keep(one.entry, lines)
        wanted = [
            inquiry for inquiry in unanswered(book, list(chunk.values())) if inquiry.question.key in one.entry.asked
        ]
        self._settle(book, one, {inquiry.question.key: inquiry for inquiry in wanted}, lines or {})
        self._register.forget(one.entry, chunk)

    def _settle(self, book: AnswerBook[Answer], one: _Open, wanted: Chunk, lines: Mapping[str, Line]) -> None:
        """Record answers first and refusals last: whether a question or a parameter is refused, answers tell."""
        unfit: list[tuple[Inquiry, Line]] = []
        for key, inquiry in wanted.items():
            line = lines.get(key)
            if line is not None and line.status == OK:
                self._record(book, inquiry, one, line)
            elif line is not None and line.filtered:
                self._refuse(book, inquiry, one, line)
            elif line is not None and line.refuses:
                unfit.append((inquiry, line))
            else:
                self._release(book, inquiry, one)
        if not unfit:
            return
        if self._desk.has_answered(book, one.entry.role, wanted.values()):
            for inquiry, line in unfit:
                self._refuse(book, inquiry, one, line)
            return
        for inquiry, _ in unfit:
            self._release(book, inquiry, one)
        self._register.forget(one.entry, wanted)
        refused = unfit[0][1]
        raise EndpointRefusedError(refusal_told(one.entry.host, refused.status, refused.parameter))

    def _release(self, book: AnswerBook[Answer], inquiry: Inquiry[Answer], one: _Open) -> None:
        """An error, or nothing: providers charge for answers."""
        if one.ours:
            self._desk.spending.release(one.entry.asked[inquiry.question.key].price)
            book.release(inquiry.question)

    def _record(self, book: AnswerBook[Answer], inquiry: Inquiry[Answer], one: _Open, line: Line) -> None:
        chat = read_chat(line.body)
        reply = ChatReply(chat.text, chat.problem, chat.usage.model)
        self._desk.note(one.entry.role)
        self._enter(book, inquiry, one, reply, chat.usage)

    def _refuse(self, book: AnswerBook[Answer], inquiry: Inquiry[Answer], one: _Open, line: Line) -> None:
        reply = ChatReply("", FILTERED if line.filtered else UNFIT_QUESTION)
        self._enter(book, inquiry, one, reply, Usage(None, 0, 0))

    def _enter(
        self, book: AnswerBook[Answer], inquiry: Inquiry[Answer], one: _Open, reply: ChatReply, usage: Usage
    ) -> None:
        expected = one.entry.asked[inquiry.question.key]
        role = self._desk.roles[one.entry.role]
        limit = role.max_output_tokens
        request = Request(_PATH, {}, expected.tokens - limit, limit, expected.tokens, expected.price)
        answered = Answered({}, time.monotonic() - one.since)
        call = self._desk.call(role, request, usage, answered, "batch", self._config.price_share)
        book.record(inquiry.question, inquiry.read(reply), call)
        if one.ours:
            self._desk.spending.settle(expected.price, call.cost)
