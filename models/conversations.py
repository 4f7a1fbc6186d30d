"""Conversations of several turns and media in the chat layout of the quality LMM, and the rows that they supervise.

Shape legend: ``C`` conversations, ``N`` supervised tokens of all of them, ``X`` positions of one conversation, ``K``
visual tokens of one medium, ``D`` decoder width, ``V`` vocabulary.

What the assistant says is supervised, with its end of turn; system message, questions, media and the marks of turns
are not. A conversation is one row of the batch whatever the number of its turns: under causal attention an answer sees
what was said before it and nothing after it. A conversation of one turn that shows its medium first is laid out as
``QualityLMM.hidden_states`` lays out a prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2Model

from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_END, IMAGE_START, TURN_END, TURN_START


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: in order what the person says and shows: texts, and numbers of media in the batch.
        answer: what the assistant says.
    """

    question: tuple[str | int, ...]
    answer: str


Conversation = Sequence[Turn]


class Speaker(Protocol):
    """A decoder with the chat layout: a quality LMM, or one that reads texts alone."""

    tokenizer: PreTrainedTokenizerFast
    system: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def language_model(self) -> Qwen2Model:
        """The decoder without its vocabulary head."""
        ...

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Vocabulary logits of hidden states."""
        ...


@dataclass(frozen=True)
class AnswerRows:
    """The supervised rows of a batch of conversations.

    Attributes:
        hidden_ND: hidden states (after the final norm), each of which *predicts* its token.
        ids_N: the tokens, each answer closed by its end of turn.
        conversation_N: which conversation each row belongs to.
        lengths_C: rows of each conversation.
    """

    hidden_ND: Tensor
    ids_N: Tensor
    conversation_N: Tensor
    lengths_C: Tensor

    def first(self, count: int) -> "AnswerRows":
        """The rows of the first ``count`` conversations."""
        end = int(self.lengths_C[:count].sum())
        return AnswerRows(self.hidden_ND[:end], self.ids_N[:end], self.conversation_N[:end], self.lengths_C[:count])

    def padded(self, start: int) -> Tensor:
        """Hidden states ``[C, L, D]`` of the conversations from ``start`` on, padded on the right."""
        rows = torch.split(self.hidden_ND, self.lengths_C.tolist())
        return nn.utils.rnn.pad_sequence(list(rows[start:]), batch_first=True)


def answer_rows(
    model: Speaker, visual: Sequence[Tensor], conversations: Sequence[Conversation], blind: Sequence[int] = ()
) -> AnswerRows:
    """Run the decoder over whole conversations and pick the rows of the assistant's turns.

    Args:
        visual: tokens ``[K, D]`` of the batch's media (``QualityLMM.visual_tokens``); several conversations may show
            one of them.
        blind: how many of the last tokens of each conversation do not attend to its media, 0 for none; what they do
            attend to has seen the media (see :func:`_sees`). Empty for no such conversation.
    """
    pages = [_Page.of(model, visual, conversation) for conversation in conversations]
    mask = _sees(model, pages, blind) if any(blind) else None
    hidden_CXD = _hidden_states(model, [page.embeddings() for page in pages], mask)
    owner = [c for c, page in enumerate(pages) for _ in page.supervised]
    position = [x - 1 for page in pages for x, _ in page.supervised]
    conversation_N = torch.tensor(owner, device=model.device)
    return AnswerRows(
        hidden_ND=hidden_CXD[conversation_N, torch.tensor(position, device=model.device)],
        ids_N=torch.tensor([token for page in pages for _, token in page.supervised], device=model.device),
        conversation_N=conversation_N,
        lengths_C=torch.tensor([len(page.supervised) for page in pages], device=model.device),
    )


def heads(model: Speaker, visual: Sequence[Tensor], conversations: Sequence[Conversation]) -> list[Tensor]:
    """Embeddings ``[X, D]`` of each conversation up to where its last answer begins."""
    return [_Page.of(model, visual, conversation, open_end=True).embeddings() for conversation in conversations]


@torch.no_grad()
def opening_logits(model: Speaker, opened: Sequence[Tensor]) -> Tensor:
    """Logits ``[C, V]`` of the first token of each answer that :func:`heads` has opened."""
    hidden_CXD = _hidden_states(model, opened)
    last_C = torch.tensor([len(head) - 1 for head in opened], device=model.device)
    return model.logits(hidden_CXD[torch.arange(len(opened), device=model.device), last_C])


def text_tokens(model: Speaker, conversation: Conversation) -> int:
    """Tokens of a conversation without its media."""
    page = _Page(model)
    page.write(conversation, [torch.zeros(0, 0)] * (1 + max(_media(conversation), default=0)))
    return page.length


def _media(conversation: Conversation) -> list[int]:
    return [part for turn in conversation for part in turn.question if isinstance(part, int)]


def _hidden_states(model: Speaker, rows: Sequence[Tensor], mask_C1XX: Tensor | None = None) -> Tensor:
    """Hidden states ``[C, X, D]`` of conversations of any lengths; padding stands on the right, where no row looks."""
    padded_CXD = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    decoder = model.language_model
    return decoder(inputs_embeds=padded_CXD, attention_mask=mask_C1XX, use_cache=False).last_hidden_state


def _sees(model: Speaker, pages: Sequence["_Page"], blind: Sequence[int]) -> Tensor:
    """Added to attention ``[C, 1, X, X]``: a token sees what stands before it; a blind one no token of a medium.

    The other tokens do see the media, so a blind token still hears of them at second hand.
    """
    longest = max(page.length for page in pages)
    sees_CXX = torch.ones(len(pages), longest, longest, dtype=torch.bool, device=model.device).tril()
    for sees_XX, page, count in zip(sees_CXX, pages, blind, strict=True):
        for start, end in page.shown if count else ():
            sees_XX[page.length - count : page.length, start:end] = False
    kind = model.language_model.embed_tokens.weight.dtype
    added = torch.zeros(sees_CXX.shape, dtype=kind, device=model.device)
    return added.masked_fill(~sees_CXX, torch.finfo(kind).min)[:, None]


class _Page:
    """One conversation as it is laid out: texts and media in order, and what of it is supervised.

    Attributes:
        length: positions so far. supervised: position and token of all that the assistant says.
        shown: first position of each medium, and the one behind its last.
    """

    def __init__(self, model: Speaker) -> None:
        self._model = model
        self._pieces: list[list[int] | Tensor] = []
        self._text = ""
        self.length = 0
        self.supervised: list[tuple[int, int]] = []
        self.shown: list[tuple[int, int]] = []

    @classmethod
    def of(
        cls, model: Speaker, visual: Sequence[Tensor], conversation: Conversation, *, open_end: bool = False
    ) -> "_Page":
        page = cls(model)
        page.write(conversation, visual, open_end=open_end)
        return page

    def write(self, conversation: Conversation, visual: Sequence[Tensor], *, open_end: bool = False) -> None:
        """Lay a conversation out; ``open_end`` stops where its last answer begins."""
        self._text += f"{TURN_START}system\n{self._model.system}{TURN_END}\n"
        for number, turn in enumerate(conversation, 1):
            self._text += f"{TURN_START}user\n"
            for part in turn.question:
                if isinstance(part, str):
                    self._text += part
                else:
                    self._show(visual[part])
            self._text += f"{TURN_END}\n{TURN_START}assistant\n"
            self._flush()
            if not (open_end and number == len(conversation)):
                self._answer(turn.answer)

    def embeddings(self) -> Tensor:
        """The page ``[X, D]`` in the decoder's space."""
        ids = [token for piece in self._pieces if isinstance(piece, list) for token in piece]
        known_XD = self._model.language_model.embed_tokens(torch.tensor(ids, device=self._model.device))
        texts = iter(known_XD.split([len(piece) for piece in self._pieces if isinstance(piece, list)]))
        return torch.cat([next(texts) if isinstance(piece, list) else piece for piece in self._pieces])

    def _show(self, tokens_KD: Tensor) -> None:
        model = self._model
        labelled = isinstance(model, QualityLMM) and model.spec.compatibility.frame_labels  # they bring marks of theirs
        self._text += "" if labelled else IMAGE_START
        self._flush()
        self.shown.append((self.length, self.length + len(tokens_KD)))
        self._add(tokens_KD)
        self._text += "" if labelled else IMAGE_END

    def _answer(self, text: str) -> None:
        ids = self._encode(f"{text}{TURN_END}")
        self.supervised += [(self.length + offset, token) for offset, token in enumerate(ids)]
        self._add(ids)
        self._text += "\n"

    def _flush(self) -> None:
        if self._text:
            self._add(self._encode(self._text))
            self._text = ""

    def _add(self, piece: list[int] | Tensor) -> None:
        self._pieces.append(piece)
        self.length += len(piece)

    def _encode(self, text: str) -> list[int]:
        return list(self._model.tokenizer.encode(text, add_special_tokens=False))
