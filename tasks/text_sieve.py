"""Reasoning texts on their way in: what gives a verdict away is taken out or counted, what cannot be used is told."""

from collections import Counter
from typing import Literal, NamedTuple

from models.reasoning_text import leaks, without_verdict

Leaks = Literal["drop", "keep"]
"""``drop`` takes out sentences that give the verdict away, ``keep`` counts them."""


class Sieved(NamedTuple):
    """A text that may be learnt from; ``dropped`` is how many of its sentences were taken out."""

    text: str
    dropped: int


class TextSieve:
    """Takes out, or tells, what gives a verdict away; refuses what is left with nothing.

    Attributes:
        leaks: found so far, per kind. sentences: that were taken out for them.
        rejects: REJECTS rows of what was refused.

    Args:
        stage: under whose name rejects stand. mode: what becomes of a sentence that leaks.
    """

    def __init__(self, stage: str, mode: Leaks) -> None:
        self._stage, self._keep = stage, mode == "keep"
        self.leaks: Counter[str] = Counter()
        self.sentences = 0
        self.rejects: list[dict[str, str]] = []

    def sieved(self, text: str, key: str, source: str) -> Sieved | None:
        """What is left of a text about the medium ``key``; None, and a reject, if nothing is."""
        self.leaks.update(str(leak.kind) for leak in leaks(text))
        body = without_verdict(text)
        said = Sieved(text, 0) if self._keep else Sieved(body.text, len(body.dropped))
        self.sentences += said.dropped
        if said.text.strip():
            return said
        self.refuse(key, "nothing_left", f"{source}: every sentence of it leaks")
        return None

    def refuse(self, key: str, reason: str, detail: str) -> None:
        """Count what cannot be used."""
        self.rejects.append({"stage": self._stage, "id": key, "reason": reason, "detail": detail})
