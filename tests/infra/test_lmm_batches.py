"""Batches over real HTTP: found by our key, read line by line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lmm_server import Lmm, serving

from infra.errors import EndpointRefusedError, EndpointUnavailableError
from infra.lmm_batches import Batch, await_batch, find_batch, read_batch, submit_batch
from infra.lmm_endpoint import Endpoint, EndpointConfig

PATH = "/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "is it sharp?"}]}


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving() as lmm:
        yield lmm


@pytest.fixture
def endpoint(lmm: Lmm) -> Endpoint:
    return Endpoint(EndpointConfig(lmm.address, None, first_wait_s=0.01, longest_wait_s=0.02))


@pytest.fixture
def submit(endpoint: Endpoint, tmp_path: Path) -> Callable[..., Batch]:
    def submitted(key: str, *names: str) -> Batch:
        lines = [{"custom_id": name, "method": "POST", "url": f"/v1{PATH}", "body": BODY} for name in names]
        (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return submit_batch(endpoint, key, PATH, tmp_path / "lines", lambda: None)

    return submitted


def test_a_batch_is_found_by_our_key_until_it_fails(endpoint: Endpoint, lmm: Lmm, submit: Callable[..., Batch]):
    assert find_batch(endpoint, "k1") is None
    made = submit("k1", "a")
    found = find_batch(endpoint, "k1")
    assert found is not None
    assert (found.name, found.done) == (made.name, False)
    assert find_batch(endpoint, "k2") is None
    lmm.batches[made.name]["status"] = "failed"
    assert find_batch(endpoint, "k1") is None
    with pytest.raises(EndpointRefusedError, match="refuses a batch file as a whole"):
        await_batch(endpoint, made, lambda: None)


def test_what_became_of_each_line(endpoint: Endpoint, lmm: Lmm, submit: Callable[..., Batch]):
    lmm.batch_polls = 3
    lmm.batch_line = {
        "b": {"response": {"status_code": 500, "body": {}}},
        "c": {"response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}},
        "d": {"response": {"status_code": 400, "body": {"error": {"code": "unknown_parameter"}}}},
        "e": {"response": None, "error": {"code": "batch_expired", "message": "late"}},
        "f": {"response": {"status_code": 200, "body": {"error": {"message": "overloaded"}}}},
    }.get
    looks: list[int] = []
    batch = submit("k1", *"abcdef")
    done = await_batch(endpoint, batch, lambda: looks.append(1))
    assert len(looks) == 3
    lmm.files[done.files[0]] += b'\nnot json\n[]\n{"custom_id": 7}'
    lines = read_batch(endpoint, done, PATH)
    assert json.loads(lines["a"].body["choices"][0]["message"]["content"])["verdict"] == "agree"
    assert {name: (line.status, line.filtered, line.refuses) for name, line in lines.items()} == {
        "a": (200, False, False),
        "b": (500, False, False),
        "c": (400, True, True),
        "d": (400, False, True),
        "e": (0, False, False),
        "f": (0, False, False),
    }
    assert all(line.body == {} for name, line in lines.items() if name != "a")


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_a_batch_that_ended_early_gives_what_it_has(
    status: str, endpoint: Endpoint, lmm: Lmm, submit: Callable[..., Batch]
):
    submit("k1", "a", "b")
    lmm.run_batch(lmm.batches["batch-0"])
    kept = lmm.files["file-out-batch-0"].split(b"\n")[0]
    lmm.files["file-out-batch-0"] = kept
    lmm.batches["batch-0"]["status"] = status
    found = find_batch(endpoint, "k1")
    assert found is not None
    assert found.done
    assert set(read_batch(endpoint, found, PATH)) == {"a"}


def test_a_batch_that_is_being_cancelled_is_not_done(endpoint: Endpoint, lmm: Lmm, submit: Callable[..., Batch]):
    lmm.batches[submit("k1", "a").name]["status"] = "cancelling"
    found = find_batch(endpoint, "k1")
    assert found is not None
    assert not found.done


def test_a_busy_provider_is_tried_again(endpoint: Endpoint, lmm: Lmm, submit: Callable[..., Batch]):
    lmm.busy = 2
    batch = submit("k1", "a")
    assert len(lmm.batches) == 1
    lmm.busy = 2
    done = await_batch(endpoint, batch, lambda: None)
    lmm.busy = 2
    assert set(read_batch(endpoint, done, PATH)) == {"a"}


def test_a_batch_whose_creation_was_not_heard_of_is_not_created_twice(
    endpoint: Endpoint, lmm: Lmm, submit: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
):
    original = endpoint.guarded

    def deaf(request: Callable[..., Any], *, attempts: int | None = None) -> Any:
        found = original(request, attempts=attempts)
        if attempts == 1:
            raise EndpointUnavailableError("the connection broke off")
        return found

    monkeypatch.setattr(endpoint, "guarded", deaf)
    assert submit("k1", "a").name == "batch-0"
    assert len(lmm.batches) == 1
