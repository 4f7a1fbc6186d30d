"""A local checkpoint of plain transformers as a subject: any family that takes images and text and has a chat template.

Questions whose inputs have equal shapes go through the model together, others one after the other: nothing is ever
padded, so that no answer hangs on its company. A clip is shown as evenly drawn frames, each an image.

Shape legend: ``B`` questions together, ``T`` tokens, ``N`` questions, ``C`` candidate words, ``V`` vocabulary.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from models.errors import ModelError
from models.instruments.attention_share import GROUPS, AttentionShare, attention_share
from models.instruments.lens import Decoder, find_decoder, layer_logits, read_layers, watched_layers
from models.sampling import Choose
from tasks.devices import Computing
from tasks.errors import StageError
from tasks.evaluation.subjects.protocol import Answering, Asked, Floats, Layers, Shown
from tasks.evaluation.subjects.words import next_word_ids, token_texts
from tasks.media import decode_image, decode_video, is_video, read_file

Inputs = Mapping[str, Tensor]
Spans = Mapping[str, tuple[int, int]]


class CheckpointSubject:
    """A checkpoint that is asked.

    Args:
        name: what reports call it.
        model: a transformers model that generates, in evaluation mode. Of its generation settings only the tokens that
            end an answer are kept: penalties and samplers of its own would be conditions that no report tells.
        processor: of the same checkpoint.
        frames: of a clip.

    Raises:
        StageError: the processor has no chat template.
    """

    def __init__(self, name: str, model: Any, processor: Any, frames: int = 8) -> None:
        self._name, self.model, self.processor, self._frames = name, model, processor, frames
        if not (processor.chat_template or self._tokenizer.chat_template):
            msg = f"{name} has no chat template: how it is asked is not known"
            raise StageError(msg)
        self._ends = _ends(model, self._tokenizer)
        model.generation_config = GenerationConfig()  # what a call leaves open is filled in from there
        self._decoder: Decoder | None = None
        keeps = inspect.signature(model.forward).parameters
        self._last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in keeps else {}

    @property
    def name(self) -> str:
        """See ``protocol.Subject``."""
        return self._name

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self.processor.tokenizer

    def open(self, path: Path) -> Shown:
        """See ``protocol.Subject``."""
        data = read_file(path)
        if is_video(data):
            frames = decode_video(data, self._frames).frames_THWC
            return Shown(path, True, tuple(Image.fromarray(frame) for frame in frames))
        return Shown(path, False, (Image.fromarray(decode_image(data)),))

    @torch.no_grad()
    def answers(self, asked: Sequence[Asked], answering: Answering) -> list[str]:
        """See ``protocol.Subject``."""
        laid = self._laid(asked)
        texts = [""] * len(asked)
        for members in _alike(laid):
            inputs = _joined([laid[number] for number in members])
            length = inputs["input_ids"].shape[1]
            banned = [
                [self._tokenizer.encode(text, add_special_tokens=False) for text in asked[n].avoid] for n in members
            ]
            chooser = _Chooser(answering.draws.of(members, len(asked)), banned, length)
            given = self.model.generate(
                **inputs,
                generation_config=self._generation(answering.max_new_tokens),
                logits_processor=LogitsProcessorList([chooser]),
            )
            for number, row in zip(members, given[:, length:].tolist(), strict=True):
                texts[number] = self._text(row)
        return texts

    @torch.no_grad()
    def word_probabilities(self, asked: Sequence[Asked], words: Sequence[str]) -> Floats:
        """See ``protocol.Subject``."""
        columns = next_word_ids(self._tokenizer, words)
        laid = self._laid(asked)
        found_NC = torch.zeros(len(asked), len(columns), dtype=torch.float64)
        for members in _alike(laid):
            logits_BV = self._next_logits(_joined([laid[number] for number in members]))
            found_NC[members] = logits_BV[:, columns].double().softmax(-1).cpu()
        return found_NC.numpy()

    @torch.no_grad()
    def layers(self, asked: Sequence[Asked], words: Sequence[str], top: int) -> list[Layers]:
        """See ``protocol.Subject``."""
        columns = next_word_ids(self._tokenizer, words)
        laid = self._laid(asked)
        found: dict[int, Layers] = {}
        for members in _alike(laid):
            inputs = _joined([laid[number] for number in members])
            decoder = self._lens(inputs)
            with watched_layers(decoder) as outputs:
                given_BV = self._next_logits(inputs)
            last = [inputs["input_ids"].shape[1] - 1] * len(members)
            for number, logits_LV in zip(members, layer_logits(decoder, outputs, last, given_BV), strict=True):
                reading = read_layers(logits_LV, columns, top)
                found[number] = Layers(reading, token_texts(self._tokenizer, reading.top_ids_LK))
        return [found[number] for number in range(len(asked))]

    @torch.no_grad()
    def attention(self, asked: Sequence[Asked]) -> list[AttentionShare]:
        """See ``protocol.Subject``; one question at a time, since weights are squares of its length."""
        with self._eager():
            return [self._attention(one) for one in asked]

    # ---------------------------------------------------------------- layout

    def _laid(self, asked: Sequence[Asked]) -> list[dict[str, Tensor]]:
        """Inputs of each question; what is asked twice is prepared once."""
        known: dict[tuple[str, int], dict[str, Tensor]] = {}
        laid = []
        for one in asked:
            text = self._rendered(one)
            key = (text, id(one.medium))
            if key not in known:
                known[key] = self._inputs(text, one)
            laid.append(known[key])
        return laid

    def _rendered(self, asked: Asked) -> str:
        """The conversation up to where the answer goes on."""
        pictures = asked.medium.content if asked.medium is not None else ()
        parts = [*({"type": "image"} for _ in pictures), {"type": "text", "text": asked.question}]
        conversation = [{"role": "user", "content": parts}]
        opened = self.processor.apply_chat_template(conversation, add_generation_prompt=True)
        if not asked.opening:
            return opened
        answer = {"role": "assistant", "content": [{"type": "text", "text": asked.opening}]}
        try:
            forced = self.processor.apply_chat_template([*conversation, answer], continue_final_message=True)
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError):  # it knows no such turn
            forced = ""
        if forced.endswith(asked.opening):
            return forced
        return f"{opened}{'' if opened[-1:].isspace() else ' '}{asked.opening}"

    def _inputs(self, text: str, asked: Asked, **wanted: Any) -> dict[str, Tensor]:
        """What the model is given for one question, each with a first axis that others can be joined on."""
        pictures = list(asked.medium.content) if asked.medium is not None else []
        start: Any = self._tokenizer.bos_token
        if start is not None and text.startswith(start):  # the template brings what the tokenizer would add
            wanted["add_special_tokens"] = False
        given = self.processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt", **wanted)
        weight = self.model.dtype
        return {
            name: value.to(self.model.device, weight if value.is_floating_point() else None)
            for name, value in given.items()
        }

    def _spans(self, text: str, asked: Asked) -> Spans:
        """Characters of prompt and description in a rendered conversation.

        Raises:
            ModelError: the template leaves either out, or changes it.
        """
        tail = len(text) - len(asked.opening) if asked.opening else len(text)
        spans = {"prompt": _last(asked.question.strip(), text, tail)}
        if asked.description:
            inside = asked.description in asked.question
            spans["description"] = _last(asked.description.strip(), text, tail if inside else len(text))
        return spans

    def _groups(self, text: str, asked: Asked, inputs: Inputs, offsets_T2: Tensor) -> dict[str, list[int]]:
        """Positions of each group of tokens; the processor makes text longer only where it puts images in.

        Offsets count characters of the longer text, so they are held against the rendered one from its end.
        """
        spans = self._spans(text, asked)
        longer = int(offsets_T2.max()) - len(text)
        image = _image_token(self.model.config)
        groups: dict[str, list[int]] = {name: [] for name in GROUPS}
        pairs = zip(inputs["input_ids"][0].tolist(), offsets_T2.tolist(), strict=True)
        for position, (token, (start, end)) in enumerate(pairs):
            groups["image" if token == image else _label(start - longer, end - longer, spans)].append(position)
        return groups

    # ---------------------------------------------------------------- passes

    def _next_logits(self, inputs: Inputs) -> Tensor:
        return self.model(**inputs, use_cache=False, **self._last).logits[:, -1]

    def _lens(self, inputs: Inputs) -> Decoder:
        if self._decoder is None:
            self._decoder = find_decoder(self.model, lambda: self._next_logits(inputs))
        return self._decoder

    def _attention(self, asked: Asked) -> AttentionShare:
        text = self._rendered(asked)
        inputs = self._inputs(text, asked, return_offsets_mapping=True)
        offsets_T2 = inputs.pop("offset_mapping")[0]
        given = self.model(**inputs, use_cache=False, output_attentions=True, **self._last)
        last = inputs["input_ids"].shape[1] - 1
        return attention_share(given.attentions, self._groups(text, asked, inputs, offsets_T2), last)

    @contextmanager
    def _eager(self) -> Iterator[None]:
        decoder = self.model.get_decoder()
        usual = decoder.config._attn_implementation or "sdpa"  # noqa: SLF001 - transformers has no public name
        decoder.set_attn_implementation("eager")  # fused kernels keep no weights
        try:
            yield
        finally:
            decoder.set_attn_implementation(usual)

    def _generation(self, tokens: int) -> GenerationConfig:
        pad: Any = self._tokenizer.pad_token_id
        return GenerationConfig(
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=self._ends or None,
            pad_token_id=pad if pad is not None else (self._ends or [0])[0],
        )

    def _text(self, row: list[int]) -> str:
        ends = [place for place, token in enumerate(row) if token in self._ends]
        return str(self._tokenizer.decode(row[: ends[0]] if ends else row, skip_special_tokens=True)).strip()


@dataclass
class _Chooser(LogitsProcessor):
    """Lets transformers' loop go on with the token that ``choose`` takes.

    Attributes:
        banned: of each answer, openings that it may not have. length: of the prompt.
    """

    choose: Choose
    banned: Sequence[Sequence[Sequence[int]]]
    length: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``[B, V]`` of which one is not minus infinity."""
        scores = scores.clone()
        for row_T, banned, scores_V in zip(input_ids.tolist(), self.banned, scores, strict=True):
            said = row_T[self.length :]
            for opening in banned:
                if list(opening[:-1]) == said:
                    scores_V[opening[-1]] = -torch.inf
        chosen_B = self.choose(scores)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen_B[:, None], 0.0)


def _alike(laid: Sequence[Inputs]) -> list[list[int]]:
    """Numbers of questions whose inputs can be joined without padding."""
    groups: dict[object, list[int]] = {}
    for number, inputs in enumerate(laid):
        shapes = tuple(sorted((name, tuple(value.shape[1:])) for name, value in inputs.items()))
        groups.setdefault(shapes, []).append(number)
    return list(groups.values())


def _joined(laid: Sequence[Inputs]) -> dict[str, Tensor]:
    return {name: torch.cat([inputs[name] for inputs in laid]) for name in laid[0]}


def _ends(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer."""
    told: Any = getattr(model.generation_config, "eos_token_id", None)
    own: Any = tokenizer.eos_token_id
    ends = [*([told] if isinstance(told, int) else told or ()), *([own] if isinstance(own, int) else ())]
    return [int(token) for token in dict.fromkeys(ends)]


def _image_token(config: Any) -> int | None:
    """The token that stands where an image's features go; families call it by either name."""
    for name in ("image_token_id", "image_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    return None


def _last(part: str, text: str, end: int) -> tuple[int, int]:
    start = text.rfind(part, 0, end)
    if start < 0:
        msg = f"the chat template leaves out or changes what is asked: {part[:60]!r}"
        raise ModelError(msg)
    return start, start + len(part)


def _label(start: int, end: int, spans: Spans) -> str:
    """The group of a token by its characters: the description first, which may lie within the prompt."""
    for name in ("description", "prompt"):
        if name in spans and start < spans[name][1] and end > spans[name][0]:
            return name
    return "other"


def load_checkpoint(folder: Path, name: str, computing: Computing, frames: int = 8) -> CheckpointSubject:
    """Read a folder: safetensors alone, no code of its own, nothing from the network.

    Raises:
        StageError: it is no such checkpoint, or something is missing.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415 - seconds of import

    reading: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **reading)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, dtype=computing.dtype, **reading
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        told = " ".join(str(error).split())[:300]
        msg = f"{folder} is no checkpoint that transformers reads as a model of images and text: {told}"
        raise StageError(msg) from error
    if not hasattr(processor, "tokenizer"):
        msg = f"{folder} has no processor of images and text: its preprocessor_config.json or processor_config.json"
        raise StageError(msg)
    return CheckpointSubject(name, model.eval().to(computing.device), processor, frames)
