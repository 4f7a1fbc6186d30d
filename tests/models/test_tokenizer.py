"""The tiny family's tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.levels import LEVELS, level_token_ids
from models.tokenizer import SPECIAL_TOKENS, build_tokenizer

TEXTS = ["The contrast of the image is high", "slight haze", "The light is poor. Edges are soft"]
TOKENIZER = build_tokenizer(TEXTS, ["gaussian", "blur", "image"], 700)


def test_required_and_level_words_are_single_tokens():
    assert len(set(level_token_ids(TOKENIZER))) == len(LEVELS)
    for word in ("gaussian", "blur", "image"):
        assert len(TOKENIZER.encode(f" {word}", add_special_tokens=False)) == 1


def test_chat_tokens_are_single_and_are_recognised_in_text():
    for token in SPECIAL_TOKENS:
        ids = TOKENIZER.encode(f"a{token}b", add_special_tokens=False)
        assert TOKENIZER.convert_tokens_to_ids(token) in ids
        assert len(TOKENIZER.encode(token, add_special_tokens=False)) == 1


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text_survives(text: str):
    if not any(token in text for token in SPECIAL_TOKENS):
        assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


def test_same_text_gives_the_same_tokenizer():
    assert build_tokenizer(TEXTS, ["gaussian", "blur", "image"], 700).get_vocab() == TOKENIZER.get_vocab()


def test_too_small_a_vocabulary_is_an_error():
    with pytest.raises(ModelError, match="too few"):
        build_tokenizer(TEXTS, ["extraordinarily"], 262)
