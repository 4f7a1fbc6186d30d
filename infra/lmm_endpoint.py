"""Client of OpenAI-compatible endpoints: one request, a deadline and a size for its answer, retries with jitter.

The key of an endpoint is known by the name of an environment variable and lives in this module alone: whatever a server
says is freed of it before anybody else sees it, and errors are told in our words. The client library is imported when
the first request is sent.
"""

import ipaddress
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import httpx2

from infra.errors import EndpointRefusedError, EndpointUnavailableError, InfraError, QuestionRefusedError
from infra.lmm_wire import is_answer, parameter_refused, refusal_told
from infra.rate_limit import RateLimit

if TYPE_CHECKING:
    from openai import OpenAI

KEYLESS: Final = "no-key"
"""What is sent as a key to a server that needs none."""

REPLAYED: Final = "idempotent-replayed"
"""Header by which a server says that it answered from its store of idempotency keys."""

_HIDDEN: Final = "[key]"
_RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_MAY_BE_PAID: Final = frozenset({408, 500, 502, 504, 520, 522, 524})
"""A gateway may say these when the server behind it has done its work."""
_FILTERS: Final = frozenset({"content_filter", "content_policy_violation", "data_inspection_failed", "invalid_prompt"})
_EXHAUSTED: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "Arrearage"})
"""No credit is left: asking again, which is the answer to a mere rate limit, is of no use."""
UNFIT: Final = frozenset({400, 413, 422})
"""Refused for what it holds, or for a parameter: which of the two only other requests can tell."""
_OURS: Final = frozenset(
    {"host", "connection", "accept", "accept-encoding", "content-type", "content-length", "transfer-encoding"}
    | {"user-agent", "authorization", "idempotency-key"}
)
"""Headers that are sent; others that the library takes from the environment would tell one provider about another."""
_TURN_TO_GET: Final = frozenset({301, 302, 303})
"""Redirects after which clients send a GET in the place of a POST."""
_MAX_ERROR_BYTES: Final = 20_000


@dataclass(frozen=True)
class EndpointConfig:
    """Where an endpoint is and how patiently it is asked.

    Attributes:
        base_url: for example ``https://api.openai.com/v1``.
        key: NAME of the environment variable that holds the key; None for a server without keys.
        timeout_s: for a whole answer, however slowly it streams.
        attempts: of one request, at most.
        first_wait_s: before the second attempt; doubled for each further one, with jitter.
        longest_wait_s: of one wait; a server's retry-after is honoured up to ten times this.
        max_answer_bytes: a longer answer is broken off.
    """

    base_url: str
    key: str | None
    timeout_s: float = 120.0
    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    max_answer_bytes: int = 2_000_000

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError("base_url must be http(s)://HOST/PATH, without credentials or a query")
        if self.key is not None and parts.scheme == "http" and not _is_near(parts.hostname):
            raise ValueError("base_url must be https where a key is sent, except to this machine or a private network")
        if min(self.timeout_s, self.attempts, self.first_wait_s, self.longest_wait_s) <= 0:
            raise ValueError("timeout_s, attempts, first_wait_s and longest_wait_s must be positive")

    @property
    def host(self) -> str:
        """What messages call the endpoint."""
        return urlsplit(self.base_url).netloc


@dataclass(frozen=True)
class Answered:
    """A server's answer.

    Attributes:
        body: its JSON object, without the key should it have been repeated there.
        latency_s: of the attempt that succeeded.
        attempts: how many were made.
        doubtful: attempts that broke off after they were sent: they may have been paid.
        replayed: the server says that it answered from its store.
        refused: the server refuses this question; the body is empty.
    """

    body: dict[str, Any]
    latency_s: float
    attempts: int = 1
    doubtful: int = 0
    replayed: bool = False
    refused: QuestionRefusedError | None = None


class Admission(Protocol):
    """Who answers for the money: asked before a request that may be paid, told if it certainly was not."""

    def admit(self) -> None:
        """A request is about to be sent; may raise to stop it."""
        ...

    def release(self) -> None:
        """The request that was admitted last has certainly cost nothing, and there will be no other."""
        ...


class _Free:
    def admit(self) -> None:
        pass

    def release(self) -> None:
        pass


class _Failure(Exception):  # noqa: N818 - not an error that anybody outside sees
    """One attempt failed in a way that may pass."""

    def __init__(self, what: str, *, wait_s: float | None = None, doubtful: bool = False) -> None:
        super().__init__(what)
        self.wait_s, self.doubtful = wait_s, doubtful


class Endpoint:
    """One endpoint as one judge uses it, from any number of threads.

    Args:
        config: where and how.
        limit: turns are taken from it.
        wait: sleeps; it may raise to give up.
    """

    def __init__(
        self, config: EndpointConfig, limit: RateLimit | None = None, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self.config = config
        self._limit, self._wait = limit or RateLimit(), wait
        self._key = KEYLESS if config.key is None else os.environ.get(config.key, "").strip()
        if not self._key:
            msg = f"the key of {config.host} is missing: set {config.key} in the environment"
            raise InfraError(msg)
        if not (self._key.isascii() and self._key.isprintable()):
            msg = f"the key in {config.key} holds a line break or a character that is not ASCII: set the key alone"
            raise InfraError(msg)
        self._lock = threading.Lock()
        self._client: OpenAI | None = None

    def post(
        self, path: str, body: dict[str, Any], call: str, tokens: int, admission: Admission | None = None
    ) -> Answered:
        """Send one request until it is answered.

        Args:
            path: such as ``/chat/completions``.
            body: of the request.
            call: idempotency key; the same for every attempt, now and after a kill.
            tokens: estimate for the rate limit.
            admission: asked before the first attempt, and before each that follows one which may have been paid.

        Raises:
            EndpointRefusedError: the server will never take requests of this kind.
            EndpointUnavailableError: every attempt failed.
        """
        admission = admission or _Free()
        doubtful, told, unpaid = 0, "", False
        try:
            for attempt in range(1, self.config.attempts + 1):
                self._limit.take(tokens, self._wait)
                if not unpaid:
                    admission.admit()
                    unpaid = True
                started = time.monotonic()
                try:
                    answer, replayed = self._attempt(path, body, call)
                except _Failure as failure:
                    told = str(failure)
                    if failure.doubtful:
                        doubtful, unpaid = doubtful + 1, False
                    if attempt < self.config.attempts:
                        self._pause(attempt, failure.wait_s)
                    continue
                except QuestionRefusedError as refused:
                    return Answered({}, time.monotonic() - started, attempt, doubtful, refused=refused)
                unpaid = False
                return Answered(answer, time.monotonic() - started, attempt, doubtful, replayed)
            msg = f"{self.config.host} failed {self.config.attempts} times in a row, last: {told}; run again to go on"
            raise EndpointUnavailableError(msg)
        finally:
            if unpaid:
                admission.release()

    def client(self) -> "OpenAI":
        """The library's client, for files and batches; use ``guarded`` around its calls."""
        with self._lock:
            if self._client is None:
                from openai import DefaultHttpxClient, OpenAI  # noqa: PLC0415 - a second of CPU; most runs ask no endpoint

                hooks = {"request": [self._strip], "response": [self._bound]}
                web = DefaultHttpxClient(event_hooks=hooks, timeout=self.config.timeout_s)
                self._client = OpenAI(
                    api_key=self._key,
                    base_url=self.config.base_url,
                    max_retries=0,
                    http_client=web,
                    timeout=web.timeout,
                )
            return self._client

    def scrub(self, text: str) -> str:
        """The text without the key."""
        return text if self._key == KEYLESS else text.replace(self._key, _HIDDEN)

    def read_json(self, data: bytes) -> Any:
        """JSON without the key, however the server has escaped it.

        Raises:
            ValueError: it is no JSON. RecursionError: it is nested without end.
        """
        return self._scrubbed(json.loads(data.decode("utf-8", "replace")))

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, list):
            return [self._scrubbed(item) for item in value]
        if isinstance(value, dict):
            return {self.scrub(name): self._scrubbed(item) for name, item in value.items()}
        return value

    def guarded(self, request: Callable[["OpenAI"], Any], *, attempts: int | None = None) -> Any:
        """One request through the library's client, with its failures in our words.

        Args:
            request: may be sent again, because it changes nothing at the server; else give ``attempts`` 1.
            attempts: at most; None for those of the endpoint.

        Raises:
            EndpointRefusedError: the server will never take such a request.
            EndpointUnavailableError: every attempt failed.
        """
        most = attempts or self.config.attempts
        for attempt in range(1, most + 1):
            try:
                return self._told(request)
            except QuestionRefusedError as refused:
                raise EndpointRefusedError(str(refused)) from None
            except _Failure as failure:
                if attempt == most:
                    msg = f"{self.config.host}: {failure}; run again to go on"
                    raise EndpointUnavailableError(msg) from None
                self._pause(attempt, failure.wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    @staticmethod
    def is_filtered(body: object) -> bool:
        """Whether an error's body says that a content filter refused the request."""
        return Endpoint._says(body, _FILTERS)

    @staticmethod
    def _says(body: object, codes: frozenset[str]) -> bool:
        told = body.get("error", body) if isinstance(body, dict) else None
        code = told.get("code") if isinstance(told, dict) else None
        return isinstance(code, str) and code in codes

    def _attempt(self, path: str, body: dict[str, Any], call: str) -> tuple[dict[str, Any], bool]:
        options: Any = {"headers": {"Idempotency-Key": call}}
        response = self._told(lambda client: client.post(path, cast_to=httpx2.Response, body=body, options=options))
        try:
            content = self.read_json(response.content)
        except (ValueError, RecursionError):
            raise _Failure("the answer is not whole", doubtful=True) from None
        if not isinstance(content, dict):
            raise _Failure("the answer is no JSON object", doubtful=True)
        if not is_answer(path, content):
            raise _Failure("the answer tells of an error, or holds none", doubtful=True)
        return content, response.headers.get(REPLAYED, "").lower() == "true"

    def _told(self, request: Callable[["OpenAI"], Any]) -> Any:
        """Make a request; the library's errors, which repeat what the server says, end here."""
        client = self.client()
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError  # noqa: PLC0415 - as above

        try:
            return request(client)
        except APITimeoutError:
            told = f"no whole answer within {self.config.timeout_s:g} s"
            raise _Failure(told, doubtful=True) from None
        except APIConnectionError:
            raise _Failure("the connection failed or broke off", doubtful=True) from None
        except APIStatusError as error:
            raise self._refusal(error.status_code, error.response.headers, error.body) from None
        except (OpenAIError, httpx2.HTTPError) as error:
            told = f"the answer is not usable ({type(error).__name__})"
            raise _Failure(told, doubtful=True) from None

    def _refusal(self, status: int, headers: httpx2.Headers, body: object) -> Exception:
        if self.is_filtered(body):
            msg = f"the content filter of {self.config.host} refuses the request"
            return QuestionRefusedError(msg, status, filtered=True)
        if self._says(body, _EXHAUSTED):
            msg = f"the account at {self.config.host} has no credit left (status {status}): top it up and run again"
            return EndpointRefusedError(msg)
        if status in _RETRIED:
            msg = f"status {status}"
            return _Failure(msg, wait_s=_retry_after(headers), doubtful=status in _MAY_BE_PAID)
        parameter = parameter_refused(body) if status in UNFIT else None
        msg = refusal_told(self.config.host, status, parameter)
        if self.config.key is not None and parameter is None:
            msg = f"{msg}; the key is read from {self.config.key}"
        if status in UNFIT:
            return QuestionRefusedError(msg, status, filtered=False)
        return EndpointRefusedError(msg)

    def _pause(self, attempt: int, wanted_s: float | None) -> None:
        """Wait before the next attempt; where the server has said how long, everybody else waits too."""
        backoff = min(self.config.first_wait_s * 2 ** (attempt - 1), self.config.longest_wait_s)
        if wanted_s is not None:
            wanted_s = min(wanted_s, 10 * self.config.longest_wait_s)
            self._limit.pause(wanted_s)
        self._wait((wanted_s or 0.0) + backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    def _strip(self, request: httpx2.Request) -> None:
        """Before a request is sent, also after a redirect: to this endpoint alone, with headers of ours alone."""
        if request.url.origin != httpx2.URL(self.config.base_url).origin:
            msg = (
                f"{self.config.host} redirects to another address, to which neither pictures nor key are sent: "
                "set base_url to where the API is"
            )
            raise EndpointRefusedError(msg)
        request.extensions["started"] = time.monotonic()
        for name in set(request.headers) - _OURS:
            del request.headers[name]
        request.headers["Authorization"] = f"Bearer {self._key}"

    def _bound(self, response: httpx2.Response) -> None:
        """Before a body is read: give it a deadline and a size, whatever the status."""
        if (
            response.has_redirect_location
            and response.status_code in _TURN_TO_GET
            and response.request.method == "POST"
        ):
            msg = (
                f"{self.config.host} redirects (status {response.status_code}) in a way that drops the request's body: "
                "set base_url to where the API is"
            )
            raise EndpointRefusedError(msg)
        limit = self.config.max_answer_bytes if response.status_code < 400 else _MAX_ERROR_BYTES
        started = response.request.extensions.get("started", time.monotonic())
        if response.request.method == "GET":
            limit = 1 << 30  # files of batches
        response.stream = _BoundedStream(response.stream, started + self.config.timeout_s, limit)


class _BoundedStream(httpx2.SyncByteStream):
    """A body that ends with a timeout at a deadline, and with an error at a size."""

    def __init__(self, stream: Any, deadline: float, limit: int) -> None:
        self._stream, self._deadline, self._left = stream, deadline, limit

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._left -= len(chunk)
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("deadline")
            if self._left < 0:
                raise httpx2.DecodingError("too long")
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _is_near(host: str) -> bool:
    """This machine, a private network, or a name without a domain (as of containers)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(".localhost")
    return address.is_private or address.is_loopback


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the server asks to wait; None if it does not say, or says it as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < 86_400:
            return seconds
    return None
