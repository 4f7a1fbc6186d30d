"""Words that may come next, as tokens of one tokenizer, and tokens as text."""

from collections.abc import Sequence
from typing import Final

from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from models.errors import ModelError

_BEFORE: Final = "is"
"""What words are tokenised after: some tokenizers mark the beginning of a text as if a space stood there."""


def next_word_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """Token of each word as it stands after an opening: with its leading space, however a tokenizer marks that.

    Raises:
        ModelError: a word is not one token in this tokenizer, or two words share one.
    """
    ids: list[int] = []
    before = list(tokenizer.encode(_BEFORE, add_special_tokens=False))
    for word in words:
        tokens = list(tokenizer.encode(f"{_BEFORE} {word}", add_special_tokens=False))
        if tokens[: len(before)] == before:
            tokens = tokens[len(before) :]
        if len(tokens) != 1:
            msg = f"the word {word!r} is {len(tokens)} tokens in this tokenizer: name words that are one each"
            raise ModelError(msg)
        ids += tokens
    if len(set(ids)) < len(ids):
        msg = f"the words {', '.join(words)} share tokens: this tokenizer cannot tell them apart"
        raise ModelError(msg)
    return ids


def token_texts(tokenizer: PreTrainedTokenizerBase, ids_LK: NDArray) -> tuple[tuple[str, ...], ...]:
    """Each token as text, spaces and special tokens as they are."""
    return tuple(tuple(str(tokenizer.decode([int(token)])) for token in row) for row in ids_LK)
