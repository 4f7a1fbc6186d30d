"""Quality in two stages: a describer says what a medium looks like, a reasoner infers the quality from those words.

"Building Reasonable Inference for Vision-Language Models in Blind Image Quality Assessment" (arXiv 2512.09555): the
first stage learns to describe, the second infers quality solely from the description. Two readings of "solely" are
offered. ``text``: the reasoner's prompt holds the description and nothing else, so no number of it depends on a pixel.
``block_mask``: one sequence holds medium, description and verdict, and the verdict's tokens may not attend to the
medium; the description's tokens have, so the medium leaks through them.

Shape legend: ``N`` media or descriptions, ``5`` levels, best first, ``D`` decoder width.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from models.checkpoint import require_files
from models.conversations import AnswerRows, Conversation, Turn, answer_rows
from models.errors import ModelError
from models.levels import LEVELS, Level
from models.quality_lmm import IMAGE_PREFIX, VIDEO_PREFIX, Medium, QualityLMM
from models.questions import question_of
from models.reasoning_text import without_verdict
from models.text_reasoner import Reasoner, TextReasoner
from models.tokenizer import TURN_END

ReasonerInput = Literal["text", "block_mask"]
ReasonerKind = Literal["separate", "shared"]

_LAYOUT_FILE: Final = "two_stage.json"
_DESCRIBER: Final = "describer"
_REASONER: Final = "reasoner"
_DESCRIPTION_TOKENS: Final = 128
_VERDICT_TOKENS: Final = 16


@dataclass(frozen=True)
class Description:
    """What was said of a medium.

    Attributes:
        text: may be empty. is_video: which of the two forced sentences belongs to it.
        dropped: sentences that gave a verdict away, and were taken out.
    """

    text: str
    is_video: bool
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdicts:
    """What was inferred.

    Attributes:
        answers: in the model's own, greedy words.
        probabilities_N5: of the level word after the forced sentence.
    """

    answers: list[str]
    probabilities_N5: Tensor


# ------------------------------------------------------------------ what is said to whom


def verdict_sentence(level: Level, *, is_video: bool) -> str:
    """The forced sentence with its level word."""
    return f"{VIDEO_PREFIX if is_video else IMAGE_PREFIX} {level}"


def shown(number: int, task: str, answer: str, model: QualityLMM, *, is_video: bool) -> Conversation:
    """A conversation that shows medium ``number`` of a batch and asks the question of ``task``."""
    return (Turn((number, f"\n{question_of(task, model.question, is_video=is_video)}"), answer),)


def told(description: str, answer: str, model: Reasoner, *, is_video: bool) -> Conversation:
    """A conversation that tells a description, and asks for the quality if the model is asked at all."""
    question = question_of("inference", model.question, is_video=is_video)
    return (Turn(("\n".join(text for text in (description, question) if text),), answer),)


def described(description: str, verdict: str) -> str:
    """An answer of a description and its verdict."""
    return f"{description} {verdict}" if description else verdict


def verdict_tokens(model: Reasoner, description: str, verdict: str) -> int:
    """How many of the last tokens of such an answer are the verdict's, its end of turn included."""
    tail = described(description, verdict)[len(description) :]
    return len(model.tokenizer.encode(f"{tail}{TURN_END}", add_special_tokens=False))


def level_rows(rows: AnswerRows) -> Tensor:
    """Hidden states ``[N, D]`` that predict the word before each conversation's end of turn: its level."""
    return rows.hidden_ND[rows.lengths_C.cumsum(0) - 2]


def level_logits(model: Reasoner, rows: AnswerRows) -> Tensor:
    """Logits ``[N, 5]`` of the level words, in float32."""
    return model.vocabulary_head(level_rows(rows), columns_K=torch.tensor(model.level_ids, device=model.device))


# ------------------------------------------------------------------ both stages in one answer


def logits_after(
    model: QualityLMM, media: Sequence[Medium], descriptions: Sequence[Description], task: str, *, blind: bool
) -> Tensor:
    """Logits ``[N, 5]`` of the level after medium, description and forced sentence; differentiable.

    Args:
        task: whose question is asked. blind: whether the verdict's tokens may not attend to the medium.
    """
    verdicts = [verdict_sentence(LEVELS[0], is_video=one.is_video) for one in descriptions]
    talks, tails = [], []
    for number, (one, verdict) in enumerate(zip(descriptions, verdicts, strict=True)):
        talks.append(shown(number, task, described(one.text, verdict), model, is_video=one.is_video))
        tails.append(verdict_tokens(model, one.text, verdict) if blind else 0)
    return level_logits(model, answer_rows(model, model.visual_tokens(media), talks, tails))


# ------------------------------------------------------------------ two stages


class TwoStageLMM(nn.Module):
    """A describer and a reasoner.

    Attributes:
        describer: sees media and describes them.
        reasoner: infers quality; under ``text`` a decoder that cannot see. It may share the describer's weights.
        input: what the reasoner reads, see the module.

    Raises:
        ModelError: the reasoner cannot read what it is to read.
    """

    def __init__(self, describer: QualityLMM, reasoner: Reasoner, input: ReasonerInput) -> None:  # noqa: A002 - the option's name
        super().__init__()
        if (input == "text") != isinstance(reasoner, TextReasoner):
            msg = f"a {type(reasoner).__name__} does not read {input}"
            raise ModelError(msg)
        self.describer, self.reasoner = describer, reasoner
        self.input: ReasonerInput = input

    @property
    def kind(self) -> ReasonerKind:
        """Whether the reasoner has weights of its own."""
        same = self.reasoner.vocabulary_head.weight is self.describer.vocabulary_head.weight
        return "shared" if same else "separate"

    @torch.no_grad()
    def describe(
        self, media: Sequence[Medium], max_new_tokens: int = _DESCRIPTION_TOKENS, **answering: Any
    ) -> list[Description]:
        """Describe media; sentences that give a verdict away are taken out, so no description has one.

        Args:
            answering: further keywords of ``QualityLMM.generate``.
        """
        style = self.describer.question
        prompts = [question_of("perception", style, is_video=medium.is_video) for medium in media]
        texts = self.describer.generate(media, prompts, max_new_tokens=max_new_tokens, **answering)
        bodies = [without_verdict(text) for text in texts]
        return [
            Description(body.text, medium.is_video, body.dropped) for medium, body in zip(media, bodies, strict=True)
        ]

    def verdict_logits(self, descriptions: Sequence[Description], media: Sequence[Medium] | None = None) -> Tensor:
        """Logits ``[N, 5]`` of the level words after the forced sentence; differentiable.

        Args:
            media: what was described. Under ``text`` they may be attached and reach nothing: the logits are the same
                bits with any media, and have no gradient with respect to a pixel.

        Raises:
            ModelError: ``block_mask`` has no media, or another number of them.
        """
        reasoner = self.reasoner
        if isinstance(reasoner, QualityLMM):
            shown_media = self._shown(descriptions, media)
            return logits_after(reasoner, shown_media, descriptions, "perception", blind=True)
        verdicts = [verdict_sentence(LEVELS[0], is_video=one.is_video) for one in descriptions]
        pairs = zip(descriptions, verdicts, strict=True)
        talks = [told(one.text, verdict, reasoner, is_video=one.is_video) for one, verdict in pairs]
        return level_logits(reasoner, answer_rows(reasoner, [], talks))

    @torch.no_grad()
    def judge(
        self,
        descriptions: Sequence[Description],
        media: Sequence[Medium] | None = None,
        max_new_tokens: int = _VERDICT_TOKENS,
    ) -> Verdicts:
        """Infer quality from descriptions, in words and as level probabilities.

        Args:
            media: as in :meth:`verdict_logits`.
        """
        probabilities_N5 = self.verdict_logits(descriptions, media).softmax(-1)
        reasoner = self.reasoner
        if isinstance(reasoner, QualityLMM):
            answers = _blind_answers(reasoner, self._shown(descriptions, media), descriptions, max_new_tokens)
            return Verdicts(answers, probabilities_N5)
        asked = [told(one.text, "", reasoner, is_video=one.is_video)[0].question[0] for one in descriptions]
        return Verdicts(reasoner.answers([str(text) for text in asked], max_new_tokens), probabilities_N5)

    @staticmethod
    def _shown(descriptions: Sequence[Description], media: Sequence[Medium] | None) -> Sequence[Medium]:
        if media is None or len(media) != len(descriptions):
            count = "none" if media is None else str(len(media))
            msg = f"block_mask reads {len(descriptions)} descriptions beside their media, and there are {count}"
            raise ModelError(msg)
        return media

    def save_pretrained(self, folder: Path) -> None:
        """Write ``describer/``, ``two_stage.json`` and, where the reasoner has weights of its own, ``reasoner/``."""
        self.describer.save_pretrained(folder / _DESCRIBER)
        self.save_reasoner(folder)

    def save_reasoner(self, folder: Path) -> None:
        """As :meth:`save_pretrained`, without the describer."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "separate":
            self.reasoner.save_pretrained(folder / _REASONER)
        layout = {"input": self.input, "reasoner": self.kind}
        (folder / _LAYOUT_FILE).write_text(json.dumps(layout, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype | None = torch.float32) -> "TwoStageLMM":
        """Read a folder that :meth:`save_pretrained` wrote.

        Args:
            dtype: as in ``QualityLMM.from_pretrained``.

        Raises:
            MissingWeightsError: the folder is incomplete.
            ModelError: its content does not fit this version.
        """
        require_files(folder, (_LAYOUT_FILE,), "two-stage model")
        layout: dict[str, str] = json.loads((folder / _LAYOUT_FILE).read_text())
        for name, kinds in (("input", get_args(ReasonerInput)), ("reasoner", get_args(ReasonerKind))):
            if layout.get(name) not in kinds:
                msg = f"{folder / _LAYOUT_FILE}: {name} {layout.get(name)!r} is none of {', '.join(kinds)}"
                raise ModelError(msg)
        reads: ReasonerInput = "block_mask" if layout["input"] == "block_mask" else "text"
        describer = QualityLMM.from_pretrained(folder / _DESCRIBER, dtype)
        if layout["reasoner"] == "shared":
            return pair(describer, reads, shared=True)
        kind = QualityLMM if reads == "block_mask" else TextReasoner
        return cls(describer, kind.from_pretrained(folder / _REASONER, dtype), reads).eval()


def pair(describer: QualityLMM, reads: ReasonerInput, *, shared: bool) -> TwoStageLMM:
    """A describer with a reasoner that knows what it knows: the very same weights, or a copy of them."""
    if reads == "text":
        return TwoStageLMM(describer, TextReasoner.of(describer, shared=shared), reads).eval()
    return TwoStageLMM(describer, describer if shared else copy.deepcopy(describer), reads).eval()


def _blind_answers(
    model: QualityLMM, media: Sequence[Medium], descriptions: Sequence[Description], max_new_tokens: int
) -> list[str]:
    """Greedy verdicts whose tokens do not attend to the media; each token is a pass over the whole sequence."""
    visual = model.visual_tokens(media)
    said: list[list[int]] = [[] for _ in descriptions]
    done = [False] * len(said)
    end_id = int(model.tokenizer.encode(TURN_END, add_special_tokens=False)[0])
    for _ in range(max_new_tokens):
        texts = [str(model.tokenizer.decode(ids)).strip() for ids in said]
        talks, tails = [], []
        for number, (one, text) in enumerate(zip(descriptions, texts, strict=True)):
            answer = described(one.text, text) if text else one.text
            talks.append(shown(number, "perception", answer, model, is_video=one.is_video))
            tails.append(verdict_tokens(model, one.text, text) if text else 1)
        rows = answer_rows(model, visual, talks, tails)
        next_N = model.logits(rows.hidden_ND[rows.lengths_C.cumsum(0) - 1]).argmax(-1).tolist()
        for index, token in enumerate(next_N):
            done[index] = done[index] or token == end_id
            if not done[index]:
                said[index].append(token)
        if all(done):
            break
    return [str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in said]
