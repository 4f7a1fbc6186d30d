"""Bodies of requests, and readers that never fail whatever a server sends."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import InfraError
from infra.lmm_wire import (
    REMEDIES,
    ChatSettings,
    chat_body,
    decision_body,
    parameter_refused,
    read_chat,
    read_decision,
    refusal_told,
)

OPTIONS = {"fine": "It is fine", "strong": "It is bad"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "answers", "quality", "probabilities", "model"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def test_a_chat_request_shows_pictures_first_and_asks_for_the_schema():
    body = chat_body(ChatSettings("m", 50), "be strict", "is it?", ["data:a", "data:b"], {"type": "object"})
    content = body["messages"][1]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert body["max_completion_tokens"] == 50
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "temperature" not in body


def test_a_server_without_schemas_or_with_another_limit_gets_what_it_takes():
    settings = ChatSettings("m", 50, "max_tokens", 0.2, structured=False)
    body = chat_body(settings, "s", "t", [], {"type": "object"})
    assert (body["max_tokens"], body["temperature"]) == (50, 0.2)
    assert "response_format" not in body
    assert "response_format" not in chat_body(ChatSettings("m", 5), "s", "t", [], None)


def chat(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return {"model": "m-1", "choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def test_a_chat_answer_is_text_refusal_or_cut_off():
    found = read_chat(chat({"content": "yes"}))
    assert (found.text, found.problem, found.usage.model, found.usage.tokens_in) == ("yes", None, "m-1", 7)
    assert read_chat(chat({"content": None, "refusal": "no"})).problem == "refusal"
    assert read_chat(chat({"content": ""}, "content_filter")).problem == "refusal"
    assert read_chat(chat({"content": '{"ver'}, "length")).problem == "cut off"


@pytest.mark.parametrize("name", ["x" * 121, "a\nb", "", 3, None])
def test_a_model_name_that_is_no_short_line_is_absent(name: object):
    assert read_chat({**chat({"content": ""}), "model": name}).usage.model is None


@pytest.mark.parametrize("count", [-1, True, 1.5, "7", 10**12])
def test_counts_that_are_none_are_absent(count: object):
    assert read_chat({"usage": {"prompt_tokens": count}}).usage.tokens_in is None


def test_decisions_in_both_shapes_ask_and_answer_alike():
    one = decision_body("systemone", "m", "which?", OPTIONS, ["data:a"])
    other = decision_body("decisions", "m", "which?", OPTIONS, ["data:a"])
    assert one["questions"]["quality"]["criteria"] == OPTIONS
    assert one["assets"] == {"picture-1": {"data_base64": "data:a"}}
    assert one["state"] == "picture-1"
    assert [choice["value"] for choice in other["questions"][0]["choices"]] == list(OPTIONS)
    shares = {"fine": 0.25, "strong": 0.75}
    told = {"answers": {"quality": {"type": "choice", "probabilities": shares}}, "usage": {"input_tokens": 5}}
    assert read_decision("systemone", told, list(OPTIONS)).probabilities == shares
    listed = [{"value": name, "probability": share} for name, share in shares.items()]
    answer = {"type": "choice", "probabilities": listed}
    assert read_decision("decisions", {"answers": [answer]}, list(OPTIONS)).probabilities == shares


def test_a_clip_with_more_pictures_than_systemone_takes_is_told():
    with pytest.raises(InfraError, match=r"pictures\.frames"):
        decision_body("systemone", "m", "which?", OPTIONS, ["data:a"] * 5)


@pytest.mark.parametrize(
    "shares",
    [
        {"fine": 1.0},
        {"fine": 0.5, "strong": 0.5, "other": 0.0},
        {"fine": 0.5, "strong": "0.5"},
        {"fine": 2, "strong": -1},
        {"fine": 0.9, "strong": 0.9},
        [1, 2],
        None,
    ],
)
def test_probabilities_of_other_options_or_of_no_sum_are_none(shares: object):
    told = {"answers": {"quality": {"probabilities": shares}}}
    found = read_decision("systemone", told, list(OPTIONS))
    assert (dict(found.probabilities), found.problem) == ({}, "no probabilities of the options")


def test_a_refused_decision_is_a_refusal():
    assert read_decision("decisions", {"answers": [{"type": "refusal", "name": None}]}, ["a"]).problem == "refusal"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["choices", "usage", "answers", "model"]), JSON, max_size=4))
def test_no_body_breaks_a_reader(body: dict[str, Any]):
    read_chat(json.loads(json.dumps(body)))
    for dialect in ("systemone", "decisions"):
        read_decision(dialect, body, list(OPTIONS))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"error": {"message": "Only the default (1) value is supported.", "param": "temperature"}}, "temperature"),
        ({"param": None, "message": "'max_tokens' is not supported: use 'max_completion_tokens'"}, "max_tokens"),
        ({"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "no"}]}, "max_completion_tokens"),
        ({"error": {"param": "response_format.json_schema", "message": "max_tokens"}}, "response_format"),
        ({"error": {"param": "messages[1].content", "message": "bad image"}}, None),
        ({"error": {"param": "messages", "message": "the colour temperature profile is broken"}}, None),
        ({"error": {"code": "context_length_exceeded", "message": "reduce the messages or max_tokens"}}, None),
        ("temperatures", None),
        (None, None),
    ],
)
def test_a_refusal_s_parameter_is_one_of_ours(body: object, named: str | None):
    assert parameter_refused(body) == named


def test_a_refusal_says_which_setting_to_change_and_nothing_of_the_server_s():
    told = "host refuses the parameter temperature (status 400): in params, set temperature to null"
    assert refusal_told("host", 400, "temperature").startswith(told)
    assert refusal_told("host", 402) == "host refuses (status 402): check the balance of its account"
    body = chat_body(ChatSettings("m", 9, temperature=0.1), "", "", [], {})
    assert {"max_tokens", *body} >= set(REMEDIES)
