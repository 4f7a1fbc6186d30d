"""Endpoints over real HTTP: retries, deadlines, idempotency keys, and keys that appear nowhere."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lmm_server import Lmm, serving

from infra.errors import EndpointRefusedError, EndpointUnavailableError, InfraError
from infra.lmm_endpoint import Endpoint, EndpointConfig
from infra.rate_limit import RateLimit

CANARY = "sk-canary-3f9a1c77"
Make = Callable[..., Endpoint]


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving() as lmm:
        yield lmm


@pytest.fixture
def make(lmm: Lmm, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("CANARY_KEY", CANARY)

    def endpoint(**changes: object) -> Endpoint:
        settings = {"timeout_s": 20.0, "attempts": 3, "first_wait_s": 0.01, "longest_wait_s": 0.05} | changes
        return Endpoint(EndpointConfig(base_url=lmm.address, key="CANARY_KEY", **settings))  # type: ignore[arg-type]

    return endpoint


def ask(endpoint: Endpoint, call: str = "call-1", **how: object):
    body = {"model": "m", "messages": [{"role": "user", "content": "is it sharp?"}]}
    return endpoint.post("/chat/completions", body, call, 100, **how)  # type: ignore[arg-type]


def test_an_answer_comes_with_the_key_and_the_idempotency_key(make: Make, lmm: Lmm):
    found = ask(make())
    assert found.body["model"] == "m-2026-11-01"
    assert (found.attempts, found.doubtful, found.replayed) == (1, 0, False)
    assert lmm.keys == {CANARY}
    assert lmm.seen == {"call-1": 1}


@pytest.mark.parametrize("fault", ["rate_limited", "server_error", "truncated", "not_json", "drop"])
def test_what_goes_wrong_on_the_way_is_tried_again_and_paid_once(fault: str, make: Make, lmm: Lmm):
    lmm.faults = [fault]
    found = ask(make())
    assert found.attempts == 2
    assert found.doubtful == (fault in ("server_error", "truncated", "not_json", "drop"))
    assert lmm.paid["call-1"] == 1
    assert lmm.seen["call-1"] == 2


@pytest.mark.parametrize("fault", ["hang", "slow"])
def test_a_deadline_holds_for_a_silent_server_and_for_one_that_drips(fault: str, make: Make, lmm: Lmm):
    endpoint = make(timeout_s=1.0)
    ask(endpoint, "warm")  # the library is imported before anything is timed
    lmm.faults, lmm.hang_s = [fault], 8.0
    started = time.monotonic()
    found = ask(endpoint)
    assert time.monotonic() - started < 6
    assert (found.attempts, found.doubtful, found.replayed) == (2, 1, True)
    assert lmm.paid["call-1"] == 1


def test_retry_after_holds_everybody_back(make: Make, lmm: Lmm):
    endpoint = make(attempts=6)
    ask(endpoint, "warm")
    lmm.faults, lmm.retry_after = ["rate_limited"], "0.6"
    sent: list[float] = []
    original = lmm.enter

    def timed(*arguments: str) -> str:
        sent.append(time.monotonic())
        return original(*arguments)  # type: ignore[arg-type]

    lmm.enter = timed  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        held = Endpoint(endpoint.config, RateLimit(requests_per_minute=300))
        list(pool.map(lambda number: ask(held, f"call-{number}"), range(8)))
    assert len(sent) == 9
    after = [moment - sent[0] for moment in sent[1:]]
    # who was sending at that moment may still arrive; everybody else waits
    assert sum(moment < 0.55 for moment in after) <= 1


@pytest.mark.parametrize(("fault", "doubtful"), [("gateway", 1), ("error_body", 1), ("rate_limited", 0)])
def test_what_may_have_been_paid_is_doubtful(fault: str, doubtful: int, make: Make, lmm: Lmm):
    lmm.faults = [fault]
    found = ask(make())
    assert (found.attempts, found.doubtful) == (2, doubtful)
    assert "choices" in found.body


def test_attempts_end_and_the_error_says_what_to_do(make: Make, lmm: Lmm):
    lmm.faults = ["server_error"] * 3
    with pytest.raises(EndpointUnavailableError, match="failed 3 times in a row, last: status 500; run again"):
        ask(make())


def test_a_wrong_key_is_final_and_names_the_variable(make: Make, lmm: Lmm):
    lmm.reject = (401, {"error": {"message": "wrong key KEY"}})
    with pytest.raises(EndpointRefusedError, match=r"status 401.*its key.*CANARY_KEY"):
        ask(make())
    assert sum(lmm.seen.values()) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(400, "content_filter"), (400, "invalid_prompt"), (400, "other"), (413, None)]
)
def test_a_question_that_is_refused_is_told_apart_from_an_endpoint_that_refuses(
    status: int, code: str | None, make: Make, lmm: Lmm
):
    filtered = code in ("content_filter", "invalid_prompt")
    lmm.reject = (status, {"error": {"message": "KEY", "code": code}})
    found = ask(make())
    assert found.refused is not None
    assert (found.refused.status, found.refused.filtered, found.body) == (status, filtered, {})


def test_a_refused_parameter_is_named_with_its_remedy(make: Make, lmm: Lmm):
    lmm.reject = (400, {"error": {"message": "Unsupported parameter KEY", "param": "max_tokens"}})
    refused = ask(make()).refused
    assert str(refused).endswith(
        "refuses the parameter max_tokens (status 400): "
        "in params, set limit_name to max_completion_tokens, or lower max_output_tokens"
    )


@pytest.mark.parametrize(("status", "code"), [(429, "insufficient_quota"), (400, "Arrearage")])
def test_an_account_without_credit_is_not_asked_again(status: int, code: str, make: Make, lmm: Lmm):
    lmm.reject = (status, {"error": {"message": "You exceeded your quota, KEY", "code": code}})
    with pytest.raises(EndpointRefusedError, match=f"no credit left .status {status}.: top it up and run again"):
        ask(make())
    assert sum(lmm.seen.values()) == 1


def test_retry_after_is_honoured_up_to_ten_times_the_longest_wait(make: Make, lmm: Lmm):
    endpoint, waits = make(), []
    lmm.faults, lmm.retry_after = ["rate_limited"], "3600"
    ask(Endpoint(endpoint.config, wait=waits.append))
    assert max(waits) == pytest.approx(10 * 0.05, abs=0.02)


class Money:
    """Writes down what it is told, with the number of requests at that time."""

    def __init__(self, lmm: Lmm) -> None:
        self.lmm, self.told = lmm, []

    def admit(self) -> None:
        self.told.append(("admit", sum(self.lmm.seen.values())))

    def release(self) -> None:
        self.told.append(("release", sum(self.lmm.seen.values())))


def test_payment_is_admitted_before_the_first_attempt_and_after_doubtful_ones(make: Make, lmm: Lmm):
    money = Money(lmm)
    lmm.faults = ["rate_limited", "truncated", "gateway"]
    ask(make(attempts=4), admission=money)
    assert money.told == [("admit", 0), ("admit", 2), ("admit", 3)]


def test_what_was_certainly_not_paid_is_given_back(make: Make, lmm: Lmm):
    money = Money(lmm)
    lmm.faults = ["truncated", "rate_limited", "rate_limited"]
    with pytest.raises(EndpointUnavailableError):
        ask(make(), admission=money)
    assert money.told == [("admit", 0), ("admit", 1), ("release", 3)]
    for reject in ((401, {}), (400, {"error": {"code": "content_filter"}})):
        money.told.clear()
        lmm.reject, before = reject, sum(lmm.seen.values())
        if reject[0] == 401:
            with pytest.raises(EndpointRefusedError):
                ask(make(), admission=money)
        else:
            ask(make(), admission=money)
        assert money.told == [("admit", before), ("release", before + 1)]


def test_no_header_of_another_provider_is_sent(make: Make, lmm: Lmm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: team-secret\nAuthorization: Bearer other-secret")
    ask(make())
    assert "secret" not in json.dumps(lmm.headers)
    assert lmm.keys == {CANARY}


def test_neither_pictures_nor_key_follow_a_redirect_to_another_host(make: Make, lmm: Lmm):
    with serving() as other:
        lmm.redirect = f"{other.address}/moved"
        with pytest.raises(EndpointRefusedError, match=r"redirects to another address.*set base_url"):
            ask(make())
        assert (other.bodies, other.headers) == ([], [])


def test_a_redirect_within_a_host_is_followed(make: Make, lmm: Lmm):
    lmm.redirect = "/v1/chat/completions/moved"
    assert ask(make()).attempts == 1
    assert lmm.keys == {CANARY}


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_make_another_request_of_it_is_refused(status: int, make: Make, lmm: Lmm):
    lmm.redirect, lmm.redirect_status = "/v1/chat/completions/moved", status
    with pytest.raises(EndpointRefusedError, match=rf"status {status}\).*set base_url"):
        ask(make())


@pytest.mark.parametrize("url", ["http://api.example.com/v1", "http://8.8.8.8/v1"])
def test_a_key_is_not_sent_in_the_clear_over_the_internet(url: str):
    with pytest.raises(ValueError, match="https"):
        EndpointConfig(url, "CANARY_KEY")
    EndpointConfig(url, None)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/v1", "http://[::1]/v1", "http://10.0.0.5/v1", "http://vllm:8000/v1"]
)
def test_a_key_may_be_sent_in_the_clear_to_this_machine_and_a_private_network(url: str):
    assert EndpointConfig(url, "CANARY_KEY").key == "CANARY_KEY"


def test_a_long_answer_is_broken_off(make: Make, lmm: Lmm):
    lmm.brain = lambda _: "x" * 5_000
    with pytest.raises(EndpointUnavailableError, match="failed 3 times"):
        ask(make(max_answer_bytes=2_000))


def test_the_key_is_in_no_error_no_log_and_no_answer(
    make: Make, lmm: Lmm, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    lmm.brain = lambda _: "my key is KEY"
    assert "my key is [key]" in json.dumps(ask(make(), "a").body)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in CANARY)
    assert make().read_json(f'{{"{escaped}": ["{escaped}"]}}'.encode()) == {"[key]": ["[key]"]}
    told = []
    for reject in ((401, {"error": {"message": "KEY"}}), (500, {"error": "KEY"}), (404, {"detail": "KEY"})):
        lmm.reject = reject
        with pytest.raises(InfraError) as error:
            ask(make(), "b")
        told += [
            str(error.value),
            repr(error.value),
            repr(error.value.__cause__),
            str(error.value.__suppress_context__),
        ]
    assert lmm.keys == {CANARY}
    written = capfd.readouterr()
    assert CANARY not in "".join(told) + caplog.text + written.out + written.err


def test_without_its_key_an_endpoint_is_not_made(lmm: Lmm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(InfraError, match="set NO_SUCH_KEY"):
        Endpoint(EndpointConfig(lmm.address, "NO_SUCH_KEY"))
    assert ask(Endpoint(EndpointConfig(lmm.address, None))).attempts == 1


@pytest.mark.parametrize("key", ["sk-\u043a\u043b\u044e\u0447", "sk-one\nsk-two", "sk-one\rtwo"])
def test_a_key_that_no_header_can_carry_is_refused_in_one_line(key: str, lmm: Lmm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ODD_KEY", key)
    with pytest.raises(InfraError, match="the key in ODD_KEY holds a line break or a character that is not") as told:
        Endpoint(EndpointConfig(lmm.address, "ODD_KEY"))
    assert "sk-" not in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("url", ["ftp://x/v1", "https://user:secret@host/v1", "https://host/v1?key=x", "host/v1"])
def test_addresses_with_credentials_or_without_a_host_are_refused(url: str):
    with pytest.raises(ValueError, match="without credentials"):
        EndpointConfig(url, None)


def test_the_library_is_not_imported_before_the_first_request(checkout: Path):
    code = "import sys, infra.lmm_endpoint, infra.lmm_wire; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=checkout, check=False).returncode == 0
