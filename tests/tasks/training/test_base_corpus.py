"""The law of the base's corpus, scanned over everything that it can say."""

import re

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from models.distortions import IMAGE_TYPES, SEVERITY_WORDS, VIDEO_TYPES
from models.levels import LEVELS, level_token_ids
from tasks.records import Modality
from tasks.training.base import domain_tokenizer
from tasks.training.base_corpus import (
    PROPERTIES,
    SEVERITIES,
    keys_of,
    medium_prompts,
    medium_sentences,
    medium_turn,
    statements,
    text_turns,
    vocabulary,
)
from tasks.training.base_phrases import DISTORTIONS
from tasks.training.base_signals import IMAGE_PROPERTIES, VIDEO_PROPERTIES

NOUNS = sorted({noun for item in PROPERTIES for noun in item.nouns}, key=len, reverse=True)
LEVEL_WORD = re.compile(rf"\b({'|'.join(LEVELS)})\b", re.IGNORECASE)
VERDICT = re.compile(
    r"\b(quality|overall|score|rating|rated|mos|excellent|bad|better|worse|best|worst|distort\w*|pristine|\d+)\b",
    re.IGNORECASE,
)
FOLLOWS = {text.replace("{medium}", m) for item in PROPERTIES for text in item.follows for m in Modality}
PROPERTY_SENTENCE = re.compile(
    rf"^(The )?({'|'.join(NOUNS)})( of the (image|video))? is ({'|'.join(LEVELS)})({'|'.join(FOLLOWS)})$",
    re.IGNORECASE,
)


def test_no_medium_is_ever_told_a_verdict_or_a_distortion_of_the_line():
    said = [*medium_sentences(), *medium_prompts()]
    assert len(said) > 400
    for text in said:
        assert not VERDICT.search(text), text
        for name in DISTORTIONS:
            assert name.lower() not in text.lower(), text


def test_level_words_are_adjectives_of_measured_properties_only():
    with_levels = [text for text in medium_sentences() if LEVEL_WORD.search(text)]
    assert len(with_levels) > 200
    for text in with_levels:
        assert PROPERTY_SENTENCE.match(text), text
        assert len(LEVEL_WORD.findall(text)) == 1
    assert not any(LEVEL_WORD.search(text) for text in medium_prompts())


def test_text_without_a_medium_tells_no_level():
    for turn in text_turns():
        text = re.sub("high sharpen", "", turn.prompt + " " + turn.answer, flags=re.IGNORECASE)  # the type's own name
        assert not LEVEL_WORD.search(text), turn


def test_drawn_conversations_consist_of_listed_statements():
    rng = np.random.default_rng(0)
    for modality in Modality:
        listed = {text[0].upper() + text[1:] for text in medium_sentences()}
        for _ in range(400):
            fifths = {key: int(rng.integers(5)) for key in keys_of(modality)}
            turn = medium_turn(fifths, modality, rng, listing_share=0.3)
            for part in turn.answer.split(". "):
                assert part[0].upper() + part[1:] in listed
            said = {text[0].upper() + text[1:] for key in fifths for text in statements(key, fifths[key], modality)}
            assert all(part[0].upper() + part[1:] in said for part in turn.answer.split(". ")), "told must be measured"


def test_a_listing_tells_the_level_of_every_property_once():
    rng = np.random.default_rng(1)
    for modality in Modality:
        fifths = {key: int(rng.integers(5)) for key in keys_of(modality)}
        sentences = medium_turn(fifths, modality, rng, listing_share=1.0).answer.split(". ")
        told = [key for key in fifths for text in sentences if text in statements(key, fifths[key], modality)]
        assert sorted(told) == sorted(fifths)
        assert all(text.rsplit(" ", 1)[1] in LEVELS for text in sentences)


def test_every_property_is_measured_and_every_fifth_has_its_own_level_word():
    assert [item.key for item in PROPERTIES] == [*IMAGE_PROPERTIES, *VIDEO_PROPERTIES]
    for item in PROPERTIES:
        assert len(set(item.shades)) == 5
        for fifth, level in enumerate(LEVELS):
            texts = statements(item.key, fifth, item.modalities[0])
            assert f"The {item.nouns[0]} of the {item.modalities[0]} is {level}" in texts
            assert {word for text in texts for word in LEVEL_WORD.findall(text)} == {level}


def test_names_and_degrees_are_those_of_the_line():
    assert set(DISTORTIONS) == {kind.words for kind in (*IMAGE_TYPES.values(), *VIDEO_TYPES.values())}
    assert SEVERITIES == SEVERITY_WORDS
    phrases = {turn.answer for turn in text_turns()}
    assert {f"{severity} {name}" for severity in SEVERITIES for name in DISTORTIONS} <= phrases


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return domain_tokenizer(2048)


def test_tokenizer_says_levels_distortions_and_degrees_in_whole_words(tokenizer: PreTrainedTokenizerFast):
    assert len(level_token_ids(tokenizer)) == 5
    words = {word for text in (*DISTORTIONS, *SEVERITIES) for word in text.split() if word.isalpha()}
    for word in words | set(vocabulary()):
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1, word
    assert len(tokenizer) <= 2048


def test_forced_sentences_differ_from_property_sentences_in_one_token(tokenizer: PreTrainedTokenizerFast):
    for modality in Modality:
        ours = tokenizer.encode(f"The quality of the {modality} is good", add_special_tokens=False)
        told = tokenizer.encode(f"The sharpness of the {modality} is good", add_special_tokens=False)
        assert [a == b for a, b in zip(ours, told, strict=True)].count(False) == 1
