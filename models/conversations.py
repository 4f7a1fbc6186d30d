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

import torch
from torch import Tensor, nn

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


def answer_rows(model: QualityLMM, visual: Sequence[Tensor], conversations: Sequence[Conversation]) -> AnswerRows:
    """Run the decoder over whole conversations and pick the rows of the assistant's turns.

    Args:
        visual: tokens ``[K, D]`` of the batch's media (``QualityLMM.visual_tokens``); several conversations may show
            one of them.
    """
    pages = [_Page.of(model, visual, conversation) for conversation in conversations]
    hidden_CXD = _hidden_states(model, [page.embeddings() for page in pages])
    owner = [c for c, page in enumerate(pages) for _ in page.supervised]
    position = [x - 1 for page in pages for x, _ in page.supervised]
    conversation_N = torch.tensor(owner, device=model.device)
    return AnswerRows(
        hidden_ND=hidden_CXD[conversation_N, torch.tensor(position, device=model.device)],
        ids_N=torch.tensor([token for page in pages for _, token in page.supervised], device=model.device),
        conversation_N=conversation_N,
        lengths_C=torch.tensor([len(page.supervised) for page in pages], device=model.device),
    )


def heads(model: QualityLMM, visual: Sequence[Tensor], conversations: Sequence[Conversation]) -> list[Tensor]:
    """Embeddings ``[X, D]`` of each conversation up to where its last answer begins."""
    return [_Page.of(model, visual, conversation, open_end=True).embeddings() for conversation in conversations]


@torch.no_grad()
def opening_logits(model: QualityLMM, opened: Sequence[Tensor]) -> Tensor:
    """Logits ``[C, V]`` of the first token of each answer that :func:`heads` has opened."""
    hidden_CXD = _hidden_states(model, opened)
    last_C = torch.tensor([len(head) - 1 for head in opened], device=model.device)
    return model.logits(hidden_CXD[torch.arange(len(opened), device=model.device), last_C])


def text_tokens(model: QualityLMM, conversation: Conversation) -> int:
    """Tokens of a conversation without its media."""
    page = _Page(model)
    page.write(conversation, [torch.zeros(0, 0)] * (1 + max(_media(conversation), default=0)))
    return page.length


def _media(conversation: Conversation) -> list[int]:
    return [part for turn in conversation for part in turn.question if isinstance(part, int)]


def _hidden_states(model: QualityLMM, rows: Sequence[Tensor]) -> Tensor:
    """Hidden states ``[C, X, D]`` of conversations of any lengths; padding stands on the right, where no row looks."""
    padded_CXD = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return model.language_model(inputs_embeds=padded_CXD, use_cache=False).last_hidden_state


class _Page:
    """One conversation as it is laid out: texts and media in order, and what of it is supervised.

    Attributes:
        length: positions so far. supervised: position and token of all that the assistant says.
    """

    def __init__(self, model: QualityLMM) -> None:
        self._model = model
        self._pieces: list[list[int] | Tensor] = []
        self._text = ""
        self.length = 0
        self.supervised: list[tuple[int, int]] = []

    @classmethod
    def of(
        cls, model: QualityLMM, visual: Sequence[Tensor], conversation: Conversation, *, open_end: bool = False
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
        labelled = self._model.spec.compatibility.frame_labels  # such tokens bring marks of their own
        self._text += "" if labelled else IMAGE_START
        self._flush()
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
