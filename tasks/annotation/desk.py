"""Where questions meet endpoints: many at once within each role's limits, every one paid once, all within a budget."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, cast

from infra.errors import ContentRefusedError
from infra.lmm_endpoint import Answered, Endpoint
from infra.lmm_wire import PATHS, Dialect, Usage, chat_body, decision_body, read_chat, read_decision
from infra.rate_limit import RateLimit
from models.judges import ChatQuestion, ChatReply, DecisionQuestion, DecisionReply
from tasks.annotation.answers import AnswerBook
from tasks.annotation.calls import Call
from tasks.annotation.exhibits import Exhibits
from tasks.annotation.questions import Answer, Question
from tasks.annotation.roles import Role
from tasks.annotation.spending import Spending

Asked = ChatQuestion | DecisionQuestion
Reply = ChatReply | DecisionReply


@dataclass(frozen=True)
class Inquiry(Generic[Answer]):
    """A question, how it is worded (media are decoded then), and what an answer to it means."""

    question: Question
    word: Callable[[], Asked]
    read: Callable[[Any], Answer]


@dataclass(frozen=True)
class Request:
    """A worded question on its way: body and path, and what it is expected to take."""

    path: str
    body: dict[str, Any]
    tokens: int
    price: float


class StoppedError(Exception):
    """Another call has failed, or the budget is reached: this one is not made."""


class Desk:
    """Asks the endpoints of some roles.

    Args:
        roles: name of a question's judge -> role.
        exhibits: encodes pictures.
        spending: admits and settles every call.
        account: name of the account, for telemetry.
    """

    def __init__(self, roles: Mapping[str, Role], exhibits: Exhibits, spending: Spending, account: str) -> None:
        self.roles, self.exhibits, self.spending, self.account = roles, exhibits, spending, account
        self._stop = threading.Event()
        self.endpoints = {
            name: Endpoint(
                role.endpoint, RateLimit(role.requests_per_minute, role.tokens_per_minute), wait=self._wait_or_stop
            )
            for name, role in roles.items()
        }

    def answer(self, book: AnswerBook[Answer], inquiries: Sequence[Inquiry[Answer]]) -> None:
        """Ask what the book does not know, each role with its own concurrency.

        When a call fails for good, or the budget is reached, no further one is made; those in flight are waited for and
        their answers kept.

        Raises:
            BudgetReachedError: the next call could exceed the budget.
            EndpointError: an endpoint refuses, or failed at every attempt.
        """
        missing = unanswered(book, inquiries)
        pools: dict[str, ThreadPoolExecutor] = {}
        futures: list[Future[None]] = []
        self._stop.clear()
        try:
            for inquiry in missing:
                name = inquiry.question.judge
                if name not in pools:
                    pools[name] = ThreadPoolExecutor(self.roles[name].concurrency, thread_name_prefix=name)
                futures.append(pools[name].submit(self._one, book, inquiry))
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() and future.exception() is None for future in futures):
                self._stop.set()
            for pool in pools.values():
                pool.shutdown(wait=True, cancel_futures=True)
        failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
        for error in sorted(failures, key=lambda error: isinstance(error, StoppedError)):
            raise error

    def request(self, question: Asked, role: Role) -> Request:
        """Word a request."""
        pictures = self.exhibits.of(question.medium) if question.medium is not None else ()
        if isinstance(question, ChatQuestion):
            body = chat_body(role.chat, question.system, question.text, pictures, question.schema)
            characters = len(question.system) + len(question.text)
            tokens_out = role.max_output_tokens
        else:
            options = dict(question.options)
            dialect = cast("Dialect", role.kind)
            body = decision_body(dialect, role.model, question.instructions, options, pictures)
            characters = len(question.instructions) + sum(map(len, (*options, *options.values())))
            tokens_out = 0
        tokens_in = role.input_tokens(characters, len(pictures))
        return Request(PATHS[role.kind], body, tokens_in + tokens_out, role.cost(tokens_in, tokens_out))

    def read(self, question: Asked, role: Role, body: Mapping[str, Any]) -> tuple[Reply, Usage]:
        """Read an answer's body; never fails."""
        if isinstance(question, ChatQuestion):
            chat = read_chat(body)
            return ChatReply(chat.text, chat.problem, chat.usage.model), chat.usage
        decision = read_decision(cast("Dialect", role.kind), body, list(question.options))
        return DecisionReply(decision.probabilities, decision.problem, decision.usage.model), decision.usage

    def call(
        self, role: Role, request: Request, usage: Usage, answered: Answered, mode: str = "live", share: float = 1.0
    ) -> Call:
        """What an answer took: the server's counts, or our estimate where it gives none."""
        estimated = usage.tokens_in is None or usage.tokens_out is None
        tokens_in = usage.tokens_in if usage.tokens_in is not None else request.tokens - role.max_output_tokens
        tokens_out = usage.tokens_out if usage.tokens_out is not None else role.max_output_tokens
        cost = role.cost(tokens_in, tokens_out) * share
        if not answered.replayed:
            cost += answered.doubtful * request.price
        counts = (tokens_in, tokens_out, estimated, cost)
        how = (round(answered.latency_s, 4), answered.attempts, answered.doubtful, answered.replayed)
        return Call(round(time.time(), 3), usage.model, self.account, mode, *counts, *how)

    def _one(self, book: AnswerBook[Answer], inquiry: Inquiry[Answer]) -> None:
        try:
            self._ask(book, inquiry)
        except BaseException:
            self._stop.set()
            raise

    def _ask(self, book: AnswerBook[Answer], inquiry: Inquiry[Answer]) -> None:
        if self._stop.is_set():
            raise StoppedError
        question, role = inquiry.question, self.roles[inquiry.question.judge]
        asked = inquiry.word()
        request = self.request(asked, role)
        admitted = 0

        def admit() -> None:
            nonlocal admitted
            self.spending.admit(request.price)
            admitted += 1
            book.intend([question], request.price)

        try:
            answered = self.endpoints[question.judge].post(
                request.path, request.body, question.key, request.tokens, admit
            )
            reply, usage = self.read(asked, role, answered.body)
        except ContentRefusedError:
            answered, usage = Answered({}, 0.0), Usage(None, 0, 0)
            words = isinstance(asked, ChatQuestion)
            reply = ChatReply("", "refusal") if words else DecisionReply({}, "refusal")
        call = self.call(role, request, usage, answered)
        book.record(question, inquiry.read(reply), call)
        self.spending.settle(admitted * request.price, call.cost)

    def _wait_or_stop(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError


def unanswered(book: AnswerBook[Answer], inquiries: Sequence[Inquiry[Answer]]) -> list[Inquiry[Answer]]:
    """Inquiries that the book has no answer to, each question once, in order."""
    distinct = {inquiry.question: inquiry for inquiry in inquiries}
    return [inquiry for question, inquiry in distinct.items() if book.known(question) is None]
