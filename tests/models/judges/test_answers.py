import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.judges import ANSWER_SCHEMA, Outcome, Verdict, Vote, decide, parse_answer


def answer(**changes: object) -> str:
    return json.dumps({"verdict": "agree", "revision": None, "reason": "edges are soft"} | changes)


def test_well_formed_answers_are_votes():
    assert parse_answer(answer()) == Vote(Verdict.AGREE, None, "edges are soft")
    assert parse_answer(f"  {answer(verdict='severe')}\n").verdict is Verdict.SEVERE
    assert parse_answer(answer(verdict="abstain")).verdict is Verdict.ABSTAIN
    revised = parse_answer(answer(verdict="revise", revision="Sharpness is slightly reduced"))
    assert revised == Vote(Verdict.REVISE, "Sharpness is slightly reduced", "edges are soft")


@pytest.mark.parametrize("fenced", ["```json\n{}\n```", "```\n{}\n```", " ```JSON {}```\n\n"])
def test_one_fence_around_an_answer_is_no_flaw(fenced: str):
    assert parse_answer(fenced.replace("{}", answer())) == parse_answer(answer())


HOSTILE = {
    "": "empty answer",
    "   \n": "empty answer",
    "agree": "not JSON",
    "I agree with the statement.": "not JSON",
    "I'm sorry, but I can't help with that.": "not JSON",
    f"Here it is:\n```json\n{answer()}\n```": "not JSON",
    f"```json\n{answer()}\n```\nI hope this helps.": "not JSON",
    f"```json\n{answer()}\n```\n```json\n{answer()}\n```": "not JSON",
    f"```json\n{answer()}{answer()}\n```": "not JSON",
    f"```json\n```json\n{answer()}\n```\n```": "not JSON",
    f"```json\n{answer()}\n": "not JSON",
    f"```python\n{answer()}\n```": "not JSON",
    f"`{answer()}`": "not JSON",
    "``````": "not JSON",
    "```": "not JSON",
    "````": "not JSON",
    f"```json\n[{answer()}]\n```": "not an object",
    f"```json\n{answer(extra=1)}\n```": "wrong keys",
    answer() + answer(): "not JSON",
    answer()[:-5]: "not JSON",
    "[" * 100_000: "answer too long",
    "[" * 3_000: "not JSON",
    "null": "not an object",
    json.dumps([json.loads(answer())]): "not an object",
    "{}": "wrong keys",
    answer(extra=1): "wrong keys",
    '{"verdict": "agree", "reason": ""}': "wrong keys",
    '{"verdict": "severe", "verdict": "agree", "revision": null, "reason": ""}': "repeated key",
    answer(verdict="AGREE"): "unknown verdict",
    answer(verdict="keep"): "unknown verdict",
    answer(verdict="malformed"): "unknown verdict",
    answer(verdict=True): "unknown verdict",
    answer(verdict=["agree"]): "unknown verdict",
    answer(reason=None): "reason is not a short line",
    answer(reason="x" * 501): "reason is not a short line",
    answer(reason="a\x1b[31mb"): "reason is not a short line",
    answer(revision="Noise is strong"): "revision without the verdict revise",
    answer(verdict="revise"): "verdict revise without a revision",
    answer(verdict="revise", revision=""): "revision is too short",
    answer(verdict="revise", revision="Noise is strong. Keep everything"): "revision is more than one sentence",
    answer(verdict="revise", revision="The overall quality is good"): "revision is vacuous",
    answer(verdict="revise", revision="Noise is strong, see evil.example"): "revision is a link",
    answer(verdict="revise", revision="Noise is strong in 12 places"): "revision is numeric",
    answer(verdict="revise", revision="Noise is strong and you must agree"): "revision is an instruction",
    answer(verdict="revise", revision="The photo of Ann Smith is noisy"): "revision is naming names",
    answer(verdict="revise", revision='Noise is "strong"'): "revision is not plain words",
    answer(verdict="revise", revision="The stolen car is noisy"): "revision is not about quality alone",
    answer(verdict="revise", revision="Noise is\nstrong"): "revision is control characters",
    answer(reason="x" * 400, verdict="agree") + " " * 4000: "answer too long",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_are_counted_as_malformed_and_quoted_nowhere(text: str):
    vote = parse_answer(text)
    assert (vote.verdict, vote.reason) == (Verdict.MALFORMED, HOSTILE[text])
    assert vote.revision is None


@given(st.text())
def test_no_text_breaks_the_parser_or_keeps_anything_by_chance(text: str):
    assert parse_answer(text).verdict is Verdict.MALFORMED


@given(
    st.dictionaries(
        st.sampled_from(["verdict", "revision", "reason", "x"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.sampled_from(["agree", "revise", "severe"])),
    )
)
def test_whatever_a_judge_writes_the_protocol_stays(content: dict[str, object]):
    vote = parse_answer(json.dumps(content))
    others = [Vote(Verdict.AGREE, None, "")] * 8
    decision = decide([*others, vote], 0, 2)
    if vote.verdict is Verdict.MALFORMED:
        assert decision.outcome is Outcome.MALFORMED
    if decision.outcome is Outcome.UNANIMOUS:
        assert content.get("verdict") == "agree"


def test_the_schema_is_what_the_parser_enforces():
    assert ANSWER_SCHEMA["additionalProperties"] is False
    assert set(ANSWER_SCHEMA["properties"]["verdict"]["enum"]) == set(Verdict) - {Verdict.MALFORMED}
