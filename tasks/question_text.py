"""The text of a question with options: a line of its own per option behind a letter, as Q-Bench and its kin have it."""

import re
import string
from collections.abc import Sequence
from typing import Final

from tasks.records import MEDIUM_MARK

LETTERS: Final = string.ascii_uppercase
YES_NO: Final = ("Yes", "No")

_OPTION: Final = re.compile(r"^\s*\(?([A-Z])[.):]\s*(.*\S)\s*$")
"""``A. text``, ``A) text``, ``(A) text``, ``A: text``."""


def choice_text(stem: str, options: Sequence[str]) -> str:
    """A question and its options, without a word on how to answer (VITAL, prompts: Q-Bench-Video)."""
    return "\n".join([stem, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def options_in(text: str) -> tuple[str, list[str]]:
    """The question without media and options, and its options in the order of their letters.

    Returns:
        The whole text and no options unless at least two lines in a row are lettered A, B, and so on. What follows the
        options (a word on how to answer) belongs to neither.
    """
    lines = text.replace(MEDIUM_MARK, "").strip().split("\n")
    found = [_OPTION.match(line) for line in lines]
    for start, match in enumerate(found):
        if match is None or match[1] != LETTERS[0]:
            continue
        options: list[str] = []
        for letter, option in zip(LETTERS, found[start:], strict=False):
            if option is None or option[1] != letter:
                break
            options.append(option[2])
        if len(options) > 1:
            return "\n".join(lines[:start]).strip(), options
    return "\n".join(lines).strip(), []


def letter_of(text: str, options: int) -> str | None:
    """The letter that an answer chooses: its first character, None if that names no option.

    VITAL's evaluation protocol: questions are scored by the letter alone, and words after it are not read.
    """
    first = text.strip()[:1]
    return first if first and first in LETTERS[:options] else None
