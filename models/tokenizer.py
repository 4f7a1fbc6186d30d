"""The tokenizer of the tiny family: byte-level BPE learnt on the domain's sentences, with InternVL's chat tokens.

Every word that a model must be able to say in one step (the level words above all) becomes one token with its leading
space; anything else, in any script, is still representable, down to bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from models.errors import ModelError
from models.levels import LEVELS, level_token_ids

END_OF_TEXT: Final = "<|endoftext|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
IMAGE_START: Final = "<img>"
IMAGE_END: Final = "</img>"
IMAGE_CONTEXT: Final = "<IMG_CONTEXT>"
SPECIAL_TOKENS: Final = (END_OF_TEXT, TURN_START, TURN_END, IMAGE_START, IMAGE_END, IMAGE_CONTEXT)
"""Qwen2's and InternVL's names, so code for the paper's tokenizers reads this one too."""

_REPEATS: Final = 1_000  # outweighs every count in a corpus, so required words are merged first and whole


def build_tokenizer(
    sentences: Iterable[str], required_words: Sequence[str], vocabulary: int
) -> PreTrainedTokenizerFast:
    """Learn the tokenizer.

    Args:
        sentences: the domain's text.
        required_words: words that must be one token after a space; the five level words always are.
        vocabulary: upper bound of the number of tokens, special tokens and 256 bytes included.

    Raises:
        ModelError: a required word does not fit into ``vocabulary`` tokens.
    """
    required = sorted({*required_words, *LEVELS})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_weighted(sentences, required), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START, IMAGE_START, IMAGE_END, IMAGE_CONTEXT],
        clean_up_tokenization_spaces=False,
    )
    for word in required:
        if len(fast.encode(f" {word}", add_special_tokens=False)) != 1:
            msg = f"{vocabulary} tokens are too few: {word!r} is not one token"
            raise ModelError(msg)
    level_token_ids(fast)
    return fast


def _weighted(sentences: Iterable[str], required: Sequence[str]) -> Iterator[str]:
    yield from sentences
    for word in required:
        yield f" {word}" * _REPEATS
