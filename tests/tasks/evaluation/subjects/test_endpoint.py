"""An endpoint that is asked, against a real server in this process."""

import base64
import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lmm_server import Lmm, serving, text_of
from PIL import Image

from infra.errors import EndpointRefusedError, InfraError
from infra.lmm_endpoint import Endpoint, EndpointConfig
from models.levels import LEVELS
from models.sampling import Draws, Sampling
from tasks.errors import MediaError, StageError
from tasks.evaluation.subjects.course import Drawing, say
from tasks.evaluation.subjects.endpoint import EndpointSubject, Where
from tasks.evaluation.subjects.opening import is_address, open_endpoint
from tasks.evaluation.subjects.protocol import Answering, Asked, Shown, Subject

PIXELS = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving(Lmm(brain=lambda body: f"{text_of(body)} with {body.get('seed', 'no seed')}")) as server:
        yield server


@pytest.fixture
def subject(lmm: Lmm) -> Subject:
    config = EndpointConfig(lmm.address, None, first_wait_s=0.01, longest_wait_s=0.05)
    return EndpointSubject(Where(lmm.address, "chatty", concurrency=3), Endpoint(config))


@pytest.fixture
def shown(subject: Subject, tmp_path: Path) -> Shown:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return subject.open(tmp_path / "a.png")


def test_the_sampling_stands_in_the_request_and_the_picture_is_sent_as_it_is(lmm: Lmm, subject: Subject, shown: Shown):
    assert subject.name == "chatty"
    draws = Draws(Sampling(0.7, 0.9), [5, 6])
    told = subject.answers([Asked("one", shown), Asked("two")], Answering(20, draws))
    assert told == ["one with 5", "two with 6"]
    first = next(body for body in lmm.bodies if body["seed"] == 5)
    assert (first["model"], first["temperature"], first["top_p"]) == ("chatty", 0.7, 0.9)
    assert first["max_completion_tokens"] == 20
    (message,) = first["messages"]
    url = message["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert np.array_equal(np.asarray(sent), PIXELS)
    subject.answers([Asked("three")], Answering(20))
    assert lmm.bodies[-1]["temperature"] == 0.0
    assert "seed" not in lmm.bodies[-1]


def test_large_pictures_are_reduced(lmm: Lmm, tmp_path: Path):
    Image.fromarray(np.zeros((100, 400, 3), np.uint8)).save(tmp_path / "wide.png")
    small = EndpointSubject(Where(lmm.address, "chatty", max_side=200)).open(tmp_path / "wide.png")
    sent = Image.open(io.BytesIO(base64.b64decode(small.content[0].partition(",")[2])))
    assert sent.size == (200, 50)


def test_faults_pass_and_no_more_than_so_many_are_asked_at_once(lmm: Lmm, subject: Subject):
    lmm.faults = ["server_error", "rate_limited", "truncated", "drop"]
    lmm.delay_s = 0.02
    told = subject.answers([Asked(str(number)) for number in range(12)], Answering(20))
    assert told == [f"{number} with no seed" for number in range(12)]
    assert lmm.most_at_once <= 3


def test_the_same_question_again_is_a_request_of_its_own(lmm: Lmm, subject: Subject):
    subject.answers([Asked("again")] * 4, Answering(20))
    assert len(lmm.paid) == 4


def told(place: dict[str, float]) -> list[dict[str, Any]]:
    """What a server tells of the tokens of "It is good"."""
    listed = [{"token": token, "logprob": math.log(share)} for token, share in place.items()]
    tokens = [{"token": token, "logprob": -0.1, "top_logprobs": []} for token in ("It", " is")]
    return [*tokens, {"token": " good", "logprob": -0.5, "top_logprobs": listed}]


def test_probabilities_of_words_are_those_that_the_server_tells(lmm: Lmm, subject: Subject, shown: Shown):
    place = {" good": 0.4, "Good": 0.1, " high": 0.2, " fair": 0.1, " poor": 0.05, " low": 0.05, " the": 0.1}
    lmm.logprobs = lambda _: told(place)
    found = subject.word_probabilities([Asked("Rate it", shown)], LEVELS)
    assert np.allclose(found, [[0.2 / 0.9, 0.5 / 0.9, 0.1 / 0.9, 0.05 / 0.9, 0.05 / 0.9]])
    assert lmm.bodies[-1]["top_logprobs"] == 20


def test_words_that_the_server_does_not_tell_are_never_made_up(lmm: Lmm, subject: Subject, shown: Shown):
    lmm.logprobs = lambda _: told({" good": 0.6, " high": 0.2, " fair": 0.1})
    with pytest.raises(MediaError, match="poor, low not among the 20 likeliest"):
        subject.word_probabilities([Asked("Rate it", shown)], LEVELS)
    lmm.logprobs = lambda _: told({" good": 0.6})[:2]
    with pytest.raises(MediaError, match="says none of high, good"):
        subject.word_probabilities([Asked("Rate it", shown)], LEVELS)
    lmm.logprobs = lambda _: None
    with pytest.raises(StageError, match="chatty is an endpoint and gives no probabilities of words: its server tells"):
        subject.word_probabilities([Asked("Rate it", shown)], LEVELS)


def test_what_an_endpoint_cannot_give_is_an_error_that_says_why(subject: Subject, shown: Shown):
    with pytest.raises(StageError, match="gives no hidden states of its layers: name a local folder"):
        subject.layers([Asked("x", shown)], LEVELS, 4)
    with pytest.raises(StageError, match="gives no attention weights"):
        subject.attention([Asked("x", shown)])
    with pytest.raises(StageError, match="how its answers begin cannot be forced"):
        subject.answers([Asked("x", shown, "The quality is")], Answering(5))


def test_a_refused_picture_is_a_reject_and_a_refused_key_is_the_end(lmm: Lmm, subject: Subject, shown: Shown):
    lmm.reject = (400, {"error": {"code": "content_policy_violation"}})
    with pytest.raises(MediaError, match="content filter"):
        subject.answers([Asked("x", shown)], Answering(5))
    lmm.reject = (401, {"error": {"message": "no"}})
    with pytest.raises(EndpointRefusedError, match="check its key"):
        subject.answers([Asked("x", shown)], Answering(5))


@pytest.mark.parametrize("way", ["judge", "one_answer", "two_stage"])
def test_every_course_goes_on_with_free_answers(lmm: Lmm, shown: Shown, way: Any):

    opened = open_endpoint(Where(lmm.address, "chatty"))
    course = dataclasses.replace(opened.course, way=way)
    (said,) = say(opened.subject, course, [shown], Drawing(Sampling(1.0), [3]))
    verdict = next(body for body in lmm.bodies if body["seed"] == (6 if way == "one_answer" else 7))
    assert said.verdict.endswith(str(verdict["seed"]))
    assert ("image_url" in str(verdict["messages"])) == (way != "two_stage")
    assert bool(said.description) == (way != "judge")


def test_addresses_and_keys_are_checked(monkeypatch: pytest.MonkeyPatch):
    assert is_address("https://host/v1")
    assert not is_address("vital-base#prod")
    with pytest.raises(StageError, match="is no endpoint: base_url must be https where a key is sent"):
        EndpointSubject(Where("http://example.com/v1", "m", "SOME_KEY"))
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(InfraError, match="set SOME_KEY in the environment"):
        EndpointSubject(Where("https://example.com/v1", "m", "SOME_KEY"))
