"""Questions to a quality LMM or a reasoner of texts, laid out with what each position is: medium, words, layout.

Shape legend: ``X`` positions, ``D`` decoder width, ``K`` visual tokens, ``T`` tokens of a text, ``N`` questions, ``V``
vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import ModelError
from models.instruments.attention_share import GROUPS
from models.text_reasoner import Reasoner
from models.tokenizer import TURN_END, TURN_START

Span = tuple[int, int]


@dataclass(frozen=True)
class Opened:
    """A question up to where its answer goes on.

    Attributes:
        embeddings_XD: in the decoder's space; the last position predicts what follows.
        groups: position by group (``attention_share.GROUPS``).
    """

    embeddings_XD: Tensor
    groups: Mapping[str, Sequence[int]]


def open_question(
    model: Reasoner, tokens_KD: Tensor | None, question: str, opening: str = "", description: str = ""
) -> Opened:
    """Lay a question out.

    Args:
        tokens_KD: of the medium; None shows none. question: user text. opening: how the answer begins.
        description: the part of either that is a model's own words.

    Raises:
        ModelError: the description is in neither.
    """
    inside_question = _found(description, question)
    inside_opening = _found(description, opening) if inside_question is None else None
    if description and inside_question is None and inside_opening is None:
        raise ModelError("the description is part of neither the question nor the opening of the answer")
    pieces: list[Tensor] = []
    labels: list[str] = []
    *before, last = model.layout(tokens_KD, question)
    for piece in before:
        pieces.append(piece if isinstance(piece, Tensor) else _embedded(model, piece)[0])
        labels += ["image" if isinstance(piece, Tensor) else "other"] * len(pieces[-1])
    if not isinstance(last, str):
        raise ModelError("a question must end in text")
    start = len(last) - len(f"{question}{TURN_END}\n{TURN_START}assistant\n")
    spans = {"prompt": (start, start + len(question))}
    if inside_question is not None:
        spans["description"] = (start + inside_question[0], start + inside_question[1])
    for text, marked in ((last, spans), (opening, {"description": inside_opening} if inside_opening else {})):
        if text:
            embedded_TD, offsets = _embedded(model, text)
            pieces.append(embedded_TD)
            labels += [_label(offset, marked) for offset in offsets]
    return Opened(torch.cat(pieces), {name: [x for x, label in enumerate(labels) if label == name] for name in GROUPS})


def _found(part: str, whole: str) -> Span | None:
    start = whole.find(part) if part else -1
    return None if start < 0 else (start, start + len(part))


def _embedded(model: Reasoner, text: str) -> tuple[Tensor, list[Span]]:
    """Embeddings ``[T, D]`` of a text, and which characters each token covers."""
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor(encoded["input_ids"], device=model.device)
    return model.language_model.embed_tokens(ids), [(int(a), int(b)) for a, b in encoded["offset_mapping"]]


def _label(covered: Span, spans: Mapping[str, Span]) -> str:
    """The group of a token: the description first, which may lie within the prompt."""
    for name in ("description", "prompt"):
        if name in spans and covered[0] < spans[name][1] and covered[1] > spans[name][0]:
            return name
    return "other"


def padded(opened: Sequence[Opened]) -> tuple[Tensor, Tensor]:
    """Questions of any lengths, padded on the right ``[N, X, D]``, and their last positions ``[N]``."""
    rows = [one.embeddings_XD for one in opened]
    last_N = torch.tensor([len(row) - 1 for row in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), last_N


@torch.no_grad()
def next_logits(model: Reasoner, opened: Sequence[Opened]) -> Tensor:
    """Logits ``[N, V]`` of what follows each question."""
    rows_NXD, last_N = padded(opened)
    hidden_NXD = model.language_model(inputs_embeds=rows_NXD, use_cache=False).last_hidden_state
    return model.logits(hidden_NXD[torch.arange(len(opened), device=last_N.device), last_N])
