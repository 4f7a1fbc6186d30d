"""Where questions meet endpoints: many at once within each role's limits, every one paid once, all within a budget."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, Generic, cast

from infra.errors import EndpointRefusedError, QuestionRefusedError
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

FILTERED: Final = "refusal"
"""Problem of a reply that a content filter has kept back: the same as a model's own refusal."""

UNFIT_QUESTION: Final = "refused by the server"
"""Problem of a reply to a question that the server will not take, though it takes others."""

_MOST: Final = 10
"""Times what params say, beyond which people are told of a count, and it makes no later call wait longer."""

log = logging.getLogger(__name__)

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
    """A worded question on its way: body and path, and what it is expected to take.

    Attributes:
        tokens_in: as estimated from params.
        tokens_out: at most, as params say.
        tokens: in and out, as set aside after what the model has counted so far, at most ``_MOST`` times as many: they
            decide how long a call waits.
        price: of all that the model has counted so far: the budget holds.
    """

    path: str
    body: dict[str, Any]
    tokens_in: int
    tokens_out: int
    tokens: int
    price: float


@dataclass(frozen=True)
class _Counted:
    """What a role's server counts beyond our estimates: input tokens to one of ours, and its longest answer."""

    excess: float = 1.0
    longest: int = 0
    absurd: bool = False


@dataclass
class _Payment(Generic[Answer]):
    """One call's money: set aside before each request that may be paid, given back where nothing was."""

    book: AnswerBook[Answer]
    spending: Spending
    question: Question
    price: float
    admitted: int = 0

    def admit(self) -> None:
        self.spending.admit(self.price)
        self.admitted += 1
        self.book.intend([self.question], self.price)

    def release(self) -> None:
        self.spending.release(self.price)
        self.admitted -= 1
        self.book.release(self.question)


@dataclass(frozen=True)
class _Unfit(Generic[Answer]):
    """A question that was refused; whether it or a parameter is to blame, answers to others tell."""

    inquiry: Inquiry[Answer]
    refused: QuestionRefusedError
    record: Callable[[], None]


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
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._answered: set[str] = set()
        self._counted: dict[Role, _Counted] = {}
        self._unfit: list[_Unfit[Any]] = []
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
        unfit, self._unfit = self._unfit, []
        for error in sorted(failures, key=lambda error: isinstance(error, StoppedError)):
            raise error
        judges = {one.inquiry.question.judge for one in unfit}
        answering = {judge for judge in judges if self.has_answered(book, judge, inquiries)}
        for one in unfit:
            if one.inquiry.question.judge not in answering:
                raise EndpointRefusedError(str(one.refused))
            one.record()

    def note(self, role: str) -> None:
        """A role has answered: its address, key, model and parameters are right."""
        self._answered.add(role)

    def has_answered(self, book: AnswerBook[Answer], role: str, inquiries: Iterable[Inquiry[Answer]]) -> bool:
        """Whether a role has answered, in this process or an earlier one, some of these inquiries."""
        mine = (inquiry.question for inquiry in inquiries if inquiry.question.judge == role)
        return role in self._answered or any(book.known(question) is not None for question in mine)

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
        tokens_in, counted = role.input_tokens(characters, len(pictures)), self._counted.get(role, _Counted())
        aside = round(tokens_in * counted.excess), max(tokens_out, counted.longest)
        tokens = min(aside[0], _MOST * tokens_in) + min(aside[1], _MOST * role.max_output_tokens)
        return Request(PATHS[role.kind], body, tokens_in, tokens_out, tokens, role.cost(*aside))

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
        tokens_in = usage.tokens_in if usage.tokens_in is not None else request.tokens_in
        tokens_out = usage.tokens_out if usage.tokens_out is not None else request.tokens_out
        self._learn(role, tokens_in / max(1, request.tokens_in), tokens_out)
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
        payment = _Payment(book, self.spending, question, request.price)
        answered = self.endpoints[question.judge].post(
            request.path, request.body, question.key, request.tokens, payment
        )
        if answered.refused is None:
            self.note(question.judge)
            reply, usage = self.read(asked, role, answered.body)
            self._record(book, inquiry, payment, (request, answered, reply, usage))
            return
        problem = FILTERED if answered.refused.filtered else UNFIT_QUESTION
        reply = ChatReply("", problem) if isinstance(asked, ChatQuestion) else DecisionReply({}, problem)
        told = (request, answered, reply, Usage(None, 0, 0))
        if answered.refused.filtered:
            self._record(book, inquiry, payment, told)
        else:
            one = _Unfit(inquiry, answered.refused, lambda: self._record(book, inquiry, payment, told))
            with self._lock:
                self._unfit.append(one)

    def _record(
        self,
        book: AnswerBook[Answer],
        inquiry: Inquiry[Answer],
        payment: _Payment[Answer],
        told: tuple[Request, Answered, Reply, Usage],
    ) -> None:
        """Put an answer, or a refusal, on disk and settle what it has cost."""
        request, answered, reply, usage = told
        call = self.call(self.roles[inquiry.question.judge], request, usage, answered)
        book.record(inquiry.question, inquiry.read(reply), call)
        self.spending.settle(payment.admitted * payment.price, call.cost)

    def _learn(self, role: Role, excess: float, tokens_out: int) -> None:
        """A server that counts more than params say is believed from then on; if far more, people are told."""
        absurd = excess > _MOST or tokens_out > _MOST * role.max_output_tokens
        with self._lock:
            counted = self._counted.get(role, _Counted())
            self._counted[role] = _Counted(
                max(counted.excess, excess), max(counted.longest, tokens_out), counted.absurd or absurd
            )
        if absurd and not counted.absurd:
            msg = "%s counts more than %d times the tokens that params say: check picture_tokens and max_output_tokens"
            log.warning(msg, role.endpoint.host, _MOST)

    def _wait_or_stop(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError


def unanswered(book: AnswerBook[Answer], inquiries: Sequence[Inquiry[Answer]]) -> list[Inquiry[Answer]]:
    """Inquiries that the book has no answer to, each question once, in order."""
    distinct = {inquiry.question: inquiry for inquiry in inquiries}
    return [inquiry for question, inquiry in distinct.items() if book.known(question) is None]
