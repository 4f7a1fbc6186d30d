"""Texts that are too long: nothing is cut in silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.rali.text_length import fit_text


def words(text: str) -> list[int]:
    return [sum(map(ord, word)) for word in text.split()]


def test_a_text_that_fits_is_one_run():
    fitted = fit_text("it is dark", words, 3, "error")
    assert fitted.runs == [words("it is dark")]
    assert (fitted.tokens, fitted.lost) == (3, 0)


def test_chunks_are_whole_sentences_and_lose_nothing():
    text = "One two three. Four five. Six. Seven eight nine ten."
    fitted = fit_text(text, words, 5, "chunks")
    assert fitted.runs == [words("One two three. Four five."), words("Six. Seven eight nine ten.")]
    assert (fitted.tokens, fitted.lost) == (10, 0)


def test_head_and_tail_keep_the_conclusion():
    text = "a b c d e f g"
    fitted = fit_text(text, words, 5, "head_tail")
    assert fitted.runs == [words("a b e f g")]
    assert fitted.lost == 2


def test_too_long_and_empty_texts_are_errors():
    with pytest.raises(ModelError, match="7 tokens, the text tower takes 5"):
        fit_text("a b c d e f g", words, 5, "error")
    with pytest.raises(ModelError, match="without a token"):
        fit_text("  ", words, 5, "chunks")


@given(st.lists(st.sampled_from(["a", "bb", "ccc.", "d!"]), min_size=1, max_size=60), st.integers(2, 9))
def test_no_run_is_too_long_and_chunks_hold_every_token_in_order(parts: list[str], limit: int):
    text = " ".join(parts)
    chunks, ends = fit_text(text, words, limit, "chunks"), fit_text(text, words, limit, "head_tail")
    assert [token for run in chunks.runs for token in run] == words(text)
    assert all(0 < len(run) <= limit for run in (*chunks.runs, *ends.runs))
    assert sum(map(len, ends.runs)) + ends.lost == len(words(text))
