"""Batches over real HTTP: found by our key, read line by line."""

import json
from collections.abc import Iterator

import pytest
from lmm_server import Lmm, serving

from infra.lmm_batches import await_batch, find_batch, read_batch, submit_batch
from infra.lmm_endpoint import Endpoint, EndpointConfig

BODY = {"model": "m", "messages": [{"role": "user", "content": "is it sharp?"}]}


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving() as lmm:
        yield lmm


@pytest.fixture
def endpoint(lmm: Lmm) -> Endpoint:
    return Endpoint(EndpointConfig(lmm.address, None))


def test_a_batch_is_found_by_our_key_until_it_fails(endpoint: Endpoint, lmm: Lmm):
    assert find_batch(endpoint, "k1") is None
    made = submit_batch(endpoint, "k1", "/chat/completions", {"a": BODY})
    found = find_batch(endpoint, "k1")
    assert found is not None
    assert (found.name, found.done) == (made.name, False)
    assert find_batch(endpoint, "k2") is None
    lmm.batches[made.name]["status"] = "failed"
    assert find_batch(endpoint, "k1") is None


def test_answers_come_by_custom_id_and_broken_lines_are_left_out(endpoint: Endpoint, lmm: Lmm):
    lmm.batch_polls = 3
    looks: list[int] = []
    batch = submit_batch(endpoint, "k1", "/chat/completions", {"a": BODY, "b": BODY})
    done = await_batch(endpoint, batch, lambda: looks.append(1))
    assert len(looks) == 3
    lmm.files[done.files[0]] += b'\nnot json\n[]\n{"custom_id": "c", "response": {"status_code": 500}}'
    answers = read_batch(endpoint, done)
    assert set(answers) == {"a", "b"}
    assert json.loads(answers["a"]["choices"][0]["message"]["content"])["verdict"] == "agree"


def test_an_expired_batch_gives_what_it_has(endpoint: Endpoint, lmm: Lmm):
    lmm.batch_polls = 10**9
    batch = submit_batch(endpoint, "k1", "/chat/completions", {"a": BODY})
    lmm.batches[batch.name]["status"] = "expired"
    lmm.batches[batch.name]["output_file_id"] = None
    assert read_batch(endpoint, await_batch(endpoint, batch, lambda: None)) == {}
