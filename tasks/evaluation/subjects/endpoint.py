"""A model behind an OpenAI-compatible endpoint as a subject: answers, and probabilities of words where the server has them.

How an answer begins cannot be forced there, and layers and attention stay inside. What cannot be had is an error, and
what a server does not tell is never filled in.

Shape legend: ``N`` questions, ``C`` candidate words.
"""  # noqa: E501 - one entry of README's tree

import base64
import io
import math
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from infra.errors import QuestionRefusedError
from infra.lmm_endpoint import Endpoint, EndpointConfig
from infra.lmm_wire import PATHS, ChatSettings, chat_body, read_chat
from models.instruments.attention_share import AttentionShare
from models.sampling import GREEDY, Draws
from tasks.errors import MediaError, StageError
from tasks.evaluation.subjects.protocol import (
    ATTENTION,
    LAYERS,
    WORD_PROBABILITIES,
    Answering,
    Asked,
    Floats,
    Layers,
    Shown,
    cannot,
)
from tasks.media import Pixels, decode_image, decode_video, is_video, read_file

TOP: Final = 20
"""Tokens that are asked for at each place of an answer: the most that the interface knows."""
_KIND: Final = "an endpoint"
_LOCAL: Final = "name a local folder or a model of the registry"
_SHORT_ANSWER: Final = 32
_PICTURE_TOKENS: Final = 1000
"""Of one picture, for the rate limit."""


@dataclass(frozen=True)
class Where:
    """An endpoint, and how it is asked.

    Attributes:
        base_url: such as ``https://HOST/v1``. model: its name there.
        key: NAME of the environment variable that holds the key; None for a server without keys.
        concurrency: requests at a time. frames: of a clip.
        max_side: longer side of a picture, pixels; larger ones are reduced by averaging.
        max_bytes: of an encoded picture: PNG if it fits, else JPEG at quality 95 without colour subsampling.
    """

    base_url: str
    model: str
    key: str | None = None
    concurrency: int = 8
    frames: int = 8
    max_side: int = 1024
    max_bytes: int = 2_000_000


class EndpointSubject:
    """An endpoint that is asked.

    Raises:
        StageError: the address is none. InfraError: there is no key where one is named.
    """

    def __init__(self, where: Where, endpoint: Endpoint | None = None) -> None:
        self._where = where
        try:
            self._endpoint = endpoint or Endpoint(EndpointConfig(where.base_url, where.key))
        except ValueError as error:
            msg = f"{where.base_url} is no endpoint: {error}"
            raise StageError(msg) from error

    @property
    def name(self) -> str:
        """See ``protocol.Subject``."""
        return self._where.model

    def open(self, path: Path) -> Shown:
        """See ``protocol.Subject``."""
        data = read_file(path)
        if is_video(data):
            frames = decode_video(data, self._where.frames).frames_THWC
            return Shown(path, True, tuple(self._url(frame) for frame in frames))
        return Shown(path, False, (self._url(decode_image(data)),))

    def answers(self, asked: Sequence[Asked], answering: Answering) -> list[str]:
        """See ``protocol.Subject``; a refusal in the model's own words is its answer.

        Raises:
            MediaError: the server refuses what is shown. EndpointError: it does not answer.
        """
        bodies = [
            self._body(one, answering.max_new_tokens, answering.draws, number) for number, one in enumerate(asked)
        ]
        return [read_chat(given).text.strip() for given in self._posted(bodies)]

    def word_probabilities(self, asked: Sequence[Asked], words: Sequence[str]) -> Floats:
        """See ``protocol.Subject``: read where the answer first says one of the words.

        Raises:
            MediaError: the answer says none, or a word is not among the tokens that the server tells.
            StageError: the server tells no probabilities.
        """
        bodies = [self._body(one, _SHORT_ANSWER, GREEDY, 0) | {"logprobs": True, "top_logprobs": TOP} for one in asked]
        return np.array([self._words(given, words) for given in self._posted(bodies)])

    def layers(self, asked: Sequence[Asked], words: Sequence[str], top: int) -> list[Layers]:
        """See ``protocol.Subject``.

        Raises:
            StageError: always.
        """
        del asked, words, top
        raise cannot(self.name, _KIND, LAYERS, _LOCAL)

    def attention(self, asked: Sequence[Asked]) -> list[AttentionShare]:
        """See ``protocol.Subject``.

        Raises:
            StageError: always.
        """
        del asked
        raise cannot(self.name, _KIND, ATTENTION, _LOCAL)

    def _body(self, asked: Asked, tokens: int, draws: Draws, number: int) -> dict[str, Any]:
        if asked.opening:
            msg = f"{self.name} is {_KIND}: how its answers begin cannot be forced; leave --opening out"
            raise StageError(msg)
        settings = ChatSettings(self._where.model, tokens, temperature=draws.sampling.temperature, structured=False)
        body = chat_body(settings, "", asked.question, asked.medium.content if asked.medium else (), None)
        body["messages"] = body["messages"][1:]  # the model's own system message stays
        if not draws.sampling.greedy:
            body |= {"top_p": draws.sampling.top_p, "seed": draws.seeds[number]}
        return body

    def _posted(self, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(min(self._where.concurrency, max(len(bodies), 1))) as pool:
            return list(pool.map(self._post, bodies))

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        pictures = len(body["messages"][-1]["content"]) - 1
        # a key of its own: a server that answers from its store would make repeated answers look alike
        answered = self._endpoint.post(PATHS["chat"], body, uuid.uuid4().hex, _PICTURE_TOKENS * max(pictures, 1))
        if isinstance(answered.refused, QuestionRefusedError):
            raise MediaError("refused", str(answered.refused))
        return answered.body

    def _words(self, given: Mapping[str, Any], words: Sequence[str]) -> list[float]:
        """Probabilities of the words among each other."""
        places = _places(given)
        if not places:
            raise cannot(self.name, _KIND, WORD_PROBABILITIES, f"its server tells no logprobs; {_LOCAL}")
        lowered = [word.lower() for word in words]
        said = next((place for place in places if _plain(place.get("token")) in lowered), None)
        if said is None:
            msg = f"the answer says none of {', '.join(words)}: {read_chat(given).text[:80]!r}"
            raise MediaError("no_level_word", msg)
        listed = said.get("top_logprobs")
        found = dict.fromkeys(lowered, 0.0)
        for token in listed if isinstance(listed, list) else []:
            word, logprob = _plain(token.get("token")), token.get("logprob")
            if word in found and isinstance(logprob, int | float):
                found[word] += math.exp(logprob)
        if absent := [word for word, share in found.items() if share <= 0]:
            msg = f"{', '.join(absent)} not among the {TOP} likeliest tokens that the server tells: no expectation"
            raise MediaError("words_not_told", msg)
        return [found[word] / sum(found.values()) for word in lowered]

    def _url(self, pixels_HWC: Pixels) -> str:
        """One picture as a data URL within the limits."""
        picture = Image.fromarray(pixels_HWC)
        if max(picture.size) > self._where.max_side:
            ratio = self._where.max_side / max(picture.size)
            width, height = (max(1, round(side * ratio)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BOX)
        kinds: list[tuple[str, dict[str, Any]]] = [("png", {}), ("jpeg", {"quality": 95, "subsampling": 0})]
        for kind, options in kinds:
            sink = io.BytesIO()
            picture.save(sink, kind, **options)
            if sink.tell() <= self._where.max_bytes:
                return f"data:image/{kind};base64,{base64.b64encode(sink.getvalue()).decode()}"
        msg = f"the picture is larger than {self._where.max_bytes} bytes even as a JPEG"
        raise MediaError("too_large", msg)


def _places(given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a chat answer tells of each of its tokens; nothing if it tells nothing, or not in the known form."""
    choices = given.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    told = choice.get("logprobs") if isinstance(choice, dict) else None
    content = told.get("content") if isinstance(told, dict) else None
    return [place for place in content if isinstance(place, dict)] if isinstance(content, list) else []


def _plain(token: object) -> str:
    """A token as a word: servers mark a leading space in their own ways."""
    return token.strip(" \u0120\u2581\n\"'*.,:").lower() if isinstance(token, str) else ""
