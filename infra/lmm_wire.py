"""Requests and answers of OpenAI-compatible endpoints as plain JSON: chat, and the two shapes of decisions.

Reading never fails and never trusts: what an answer does not hold in the expected form is absent.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from infra.errors import InfraError

Dialect = Literal["systemone", "decisions"]
"""``systemone``: ``transformers serve`` and hosts of that shape; ``decisions``: OpenAI's ``/v1/decisions``."""

PATHS: Final[Mapping[str, str]] = {
    "chat": "/chat/completions",
    "systemone": "/systemone",
    "decisions": "/decisions",
}

REMEDIES: Final[Mapping[str, str]] = {
    "temperature": "set temperature to null, or to a value that the model takes",
    "max_tokens": "set limit_name to max_completion_tokens, or lower max_output_tokens",
    "max_completion_tokens": "set limit_name to max_tokens, or lower max_output_tokens",
    "response_format": "set structured to false",
}
"""Parameter of a chat request that a server may refuse -> what to change in the role."""

_ADVICE: Final[Mapping[int, str]] = {
    401: "its key",
    402: "the balance of its account",
    403: "its key and what it may do",
    404: "base_url and the model's name",
}
_PARAMETERS: Final = re.compile(rf"\b(?:{'|'.join(REMEDIES)})\b")
MAX_MODEL_NAME: Final = 120
_SYSTEMONE_PICTURES: Final = 4
_NAME: Final = "quality"


@dataclass(frozen=True)
class Usage:
    """What a server says about an answer.

    Attributes:
        model: what answered; None if it does not say, or not in one short printable line.
        tokens_in: None if it does not say.
        tokens_out: likewise.
    """

    model: str | None
    tokens_in: int | None
    tokens_out: int | None


@dataclass(frozen=True)
class ChatReply:
    """A chat answer; ``problem`` says why there is no text of the model's own choice ("refusal", "cut off")."""

    text: str
    problem: str | None
    usage: Usage


@dataclass(frozen=True)
class DecisionReply:
    """Probability of each option; empty if the server refused or broke the form."""

    probabilities: Mapping[str, float]
    problem: str | None
    usage: Usage


@dataclass(frozen=True)
class ChatSettings:
    """What goes into every chat request of a role.

    Attributes:
        model: name at the endpoint.
        max_output_tokens: of one answer, reasoning included.
        limit_name: what the endpoint calls that; OpenAI's reasoning models take only the first.
        temperature: None leaves it to the server (GPT-5 takes no other).
        structured: send the JSON schema; False for servers that refuse one.
    """

    model: str
    max_output_tokens: int
    limit_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: float | None = None
    structured: bool = True


def chat_body(
    settings: ChatSettings, system: str, text: str, pictures: Sequence[str], schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Body of a chat completion.

    Args:
        settings: of the role.
        system: instructions.
        text: of the user's turn; pictures come before it.
        pictures: data URLs, in order.
        schema: JSON schema of the answer; None for prose.
    """
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    content.append({"type": "text", "text": text})
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": content}],
        settings.limit_name: settings.max_output_tokens,
    }
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if schema is not None and settings.structured:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    return body


def is_answer(path: str, body: Mapping[str, Any]) -> bool:
    """Whether a body answers at all; gateways tell of errors under status 200 too, and those are not the model's."""
    holds = body.get("choices") if path == PATHS["chat"] else body.get("answers")
    return not body.get("error") and isinstance(holds, list | dict)


def parameter_refused(body: object) -> str | None:
    """The one of ``REMEDIES`` that a refusal's body is about: its ``param`` alone, else what it mentions first.

    A context that is too long is the pictures' or the text's matter, whatever parameter is mentioned beside it.
    """
    told = body.get("error", body) if isinstance(body, dict) else None
    named, code = (told.get("param"), told.get("code")) if isinstance(told, dict) else (None, None)
    if code == "context_length_exceeded":
        return None
    found = _PARAMETERS.search(named if isinstance(named, str) else json.dumps(body))
    return found.group() if found else None


def refusal_told(host: str, status: int, parameter: str | None = None) -> str:
    """What people are told of a refusal, in our words: who refuses what, and what to change."""
    if parameter is None:
        return f"{host} refuses (status {status}): check {_ADVICE.get(status, 'model and parameters')}"
    return f"{host} refuses the parameter {parameter} (status {status}): in params, {REMEDIES[parameter]}"


def read_chat(body: Mapping[str, Any]) -> ChatReply:
    """Read a chat completion."""
    choice = _first(body.get("choices"))
    message = _mapping(choice.get("message"))
    text, refusal = message.get("content"), message.get("refusal")
    problem = None
    if choice.get("finish_reason") == "content_filter" or (isinstance(refusal, str) and refusal):
        problem = "refusal"
    elif choice.get("finish_reason") == "length":
        problem = "cut off"
    usage = _mapping(body.get("usage"))
    counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    return ChatReply(text if isinstance(text, str) else "", problem, Usage(_model(body), *counts))


def decision_body(
    dialect: Dialect, model: str, instructions: str, options: Mapping[str, str], pictures: Sequence[str]
) -> dict[str, Any]:
    """Body of one closed question about pictures.

    Args:
        dialect: shape of the request.
        model: name at the endpoint.
        instructions: the question.
        options: value -> description.
        pictures: data URLs, in order.

    Raises:
        InfraError: more pictures than the shape can hold.
    """
    if dialect == "decisions":
        parts: list[dict[str, Any]] = [{"type": "input_image", "image_url": url} for url in pictures]
        choices = [{"value": value, "description": told} for value, told in options.items()]
        question = {"type": "choice", "name": _NAME, "instructions": instructions, "choices": choices}
        message = {"type": "message", "role": "user", "content": parts}
        return {"model": model, "input": [message], "questions": [question]}
    if len(pictures) > _SYSTEMONE_PICTURES:
        msg = f"systemone takes {_SYSTEMONE_PICTURES} pictures a request: set pictures.frames to that or less"
        raise InfraError(msg)
    names = [f"picture-{number}" for number in range(1, len(pictures) + 1)]
    assets = {name: {"data_base64": url} for name, url in zip(names, pictures, strict=True)}
    question = {"type": "choice", "instructions": instructions, "criteria": dict(options)}
    return {"model": model, "state": " ".join(names), "questions": {_NAME: question}, "assets": assets}


def read_decision(dialect: Dialect, body: Mapping[str, Any], options: Sequence[str]) -> DecisionReply:
    """Read the answer to one closed question; probabilities must be those of exactly the options."""
    usage = _mapping(body.get("usage"))
    told = Usage(_model(body), _count(usage.get("input_tokens")), _count(usage.get("output_tokens")))
    answers = body.get("answers")
    answer = _first(answers) if dialect == "decisions" else _mapping(_mapping(answers).get(_NAME))
    if answer.get("type") == "refusal":
        return DecisionReply({}, "refusal", told)
    listed = answer.get("probabilities")
    if isinstance(listed, list):
        listed = {item.get("value"): item.get("probability") for item in listed if isinstance(item, dict)}
    probabilities = _mapping(listed)
    whole = set(probabilities) == set(options) and all(_is_share(value) for value in probabilities.values())
    if not whole or not 0.97 <= sum(probabilities.values()) <= 1.03:
        return DecisionReply({}, "no probabilities of the options", told)
    return DecisionReply({name: float(probabilities[name]) for name in options}, None, told)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: object) -> Mapping[Any, Any]:
    return _mapping(value[0]) if isinstance(value, list) and value else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _model(body: Mapping[str, Any]) -> str | None:
    name = body.get("model")
    return name if isinstance(name, str) and 0 < len(name) <= MAX_MODEL_NAME and name.isprintable() else None
