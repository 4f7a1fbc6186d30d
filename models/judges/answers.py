"""From the text that an endpoint answers to a vote: a strict schema, because a judge is untrusted.

Nothing that a model writes can change the protocol: an answer either is exactly one object of this schema or it is
a counted ``malformed`` vote, which neither keeps, revises nor discards by itself.
"""

import json
from collections.abc import Collection
from typing import Any, Final

from models.judges.protocol import Verdict, Vote
from models.signals.assertions import problem_of

MAX_ANSWER: Final = 4000
MAX_REASON: Final = 500

ANSWER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["verdict", "revision", "reason"],
    "properties": {
        "verdict": {"type": "string", "enum": ["agree", "revise", "severe", "abstain"]},
        "revision": {"type": ["string", "null"]},
        "reason": {"type": "string", "maxLength": MAX_REASON},
    },
}
"""JSON Schema of an answer, for endpoints that can enforce one; ``parse_answer`` checks it in any case."""

_FENCE: Final = "```"
_LANGUAGE: Final = "json"
_ALLOWED: Final = frozenset(ANSWER_SCHEMA["properties"]["verdict"]["enum"])


def parse_answer(text: str) -> Vote:
    """Validate an endpoint's answer.

    Returns:
        The vote, or a ``malformed`` vote whose reason says which rule was broken (never the answer's own words).
    """
    problem, content = parse_object(text, ANSWER_SCHEMA["required"])
    problem = problem or _problem_with(content)
    if problem is not None:
        return Vote(Verdict.MALFORMED, None, problem)
    verdict = Verdict(content["verdict"])
    return Vote(verdict, content["revision"] if verdict is Verdict.REVISE else None, content["reason"].strip())


def parse_object(text: str, keys: Collection[str]) -> tuple[str | None, dict[str, Any]]:
    """Read one JSON object with exactly these keys; or say which rule is broken, and give an empty object.

    A fence of three backticks around the whole of it is no flaw: models without structured output write one.
    """
    if not text.strip():
        return "empty answer", {}
    if len(text) > MAX_ANSWER:
        return "answer too long", {}
    try:
        content = json.loads(_unfenced(text.strip()), object_pairs_hook=_unique)
    except (json.JSONDecodeError, RecursionError):
        return "not JSON", {}
    except KeyError:
        return "repeated key", {}
    if not isinstance(content, dict):
        return "not an object", {}
    return (None, content) if set(content) == set(keys) else ("wrong keys", {})


def _unfenced(text: str) -> str:
    fenced = len(text) >= 2 * len(_FENCE) and text.startswith(_FENCE) and text.endswith(_FENCE)
    if not fenced:
        return text
    inner = text[len(_FENCE) : -len(_FENCE)]
    return inner[len(_LANGUAGE) :] if inner[: len(_LANGUAGE)].lower() == _LANGUAGE else inner


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise KeyError("repeated")
    return content


def _problem_with(content: dict[str, Any]) -> str | None:
    verdict, revision, reason = content["verdict"], content["revision"], content["reason"]
    if not isinstance(verdict, str) or verdict not in _ALLOWED:
        return "unknown verdict"
    if not isinstance(reason, str) or len(reason) > MAX_REASON or not reason.isprintable():
        return "reason is not a short line"
    if verdict != Verdict.REVISE:
        return None if revision is None else "revision without the verdict revise"
    if not isinstance(revision, str):
        return "verdict revise without a revision"
    flaw = problem_of(revision)
    return f"revision is {flaw}" if flaw else None
