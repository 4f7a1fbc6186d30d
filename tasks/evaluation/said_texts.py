"""Reasoning texts that a subject says about media: several a medium, each with a seed, told as they come."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from models.sampling import Sampling
from tasks.errors import MediaError, StageError
from tasks.evaluation.subjects.asking import Rejected, ask_each, seed_of
from tasks.evaluation.subjects.course import Drawing, describe
from tasks.evaluation.subjects.opening import Opened
from tasks.evaluation.subjects.protocol import Shown
from tasks.text_sieve import Leaks, TextSieve

_STAGE: Final = "texts"


@dataclass(frozen=True)
class TextPlan:
    """What is asked of a subject about each medium.

    Attributes:
        per_medium: texts; the second and later ones have seeds of their own.
        sampling: how they are drawn. seed: of all of them.
        leaks: what becomes of sentences that give a verdict away.
    """

    per_medium: int
    sampling: Sampling
    seed: int
    leaks: Leaks

    def __post_init__(self) -> None:
        """Check that several texts can differ.

        Raises:
            StageError: they cannot.
        """
        if self.per_medium > 1 and self.sampling.greedy:
            raise StageError("greedy answers are all the same: several texts a medium need a --temperature")


@dataclass(frozen=True)
class SaidText:
    """A text about a medium.

    Attributes:
        number: of the medium's texts, from 0. question: what was asked. modality: of the medium.
        seed: by which it can be drawn again; None of a greedy one.
        text: without what gives the verdict away, unless leaks are kept. dropped: sentences that were taken out.
    """

    path: Path
    number: int
    question: str
    modality: str
    seed: int | None
    text: str
    dropped: int


class TextLog(Protocol):
    """Where texts are kept as they come."""

    def known(self, path: Path, number: int) -> bool:
        """Whether this text was said, or lost, before."""
        ...

    def said(self, text: SaidText) -> None:
        """Keep a text."""
        ...

    def lost(self, path: Path, number: int | None, error: MediaError) -> None:
        """Keep why there is none; ``number`` is None where nothing can be asked about the medium."""
        ...


class Teller:
    """Asks one subject.

    Attributes:
        sieve: what was found in the texts so far.

    Args:
        names: what each medium is called; its seeds hang on that, not on where the folder lies.
    """

    def __init__(self, opened: Opened, plan: TextPlan, names: Mapping[Path, str], log: TextLog) -> None:
        self._opened, self._plan, self._names, self._log = opened, plan, names, log
        self.sieve = TextSieve(_STAGE, plan.leaks)

    def tell(self, paths: Sequence[Path], batch: int) -> Iterator[Path]:
        """Ask about media in their order, so many at a time; each is yielded when all of it is kept.

        What the log knows is not asked again; what a kill can cost is the answers that are on their way.
        """
        for path, outcome in zip(paths, ask_each(self._opened.subject, paths, self._ask, batch), strict=True):
            if isinstance(outcome, Rejected):
                self._log.lost(path, None, outcome.error)
            yield path

    def _ask(self, media: Sequence[Shown]) -> list[None]:
        for number in range(self._plan.per_medium):
            left = [medium for medium in media if not self._log.known(medium.path, number)]
            if left:
                self._ask_once(left, number)
        return [None] * len(media)

    def _ask_once(self, media: Sequence[Shown], number: int) -> None:
        course, sampling = self._opened.course, self._plan.sampling
        drawing = Drawing(sampling, [self._seed(medium, number) for medium in media])
        answers = describe(self._opened.subject, course, media, drawing)
        seeds = drawing.answering(0, course.description_tokens).draws.seeds
        for medium, answer, seed in zip(media, answers, seeds, strict=True):
            question = course.description_of(medium).question
            self._keep(medium, (number, None if sampling.greedy else seed), question, answer.strip())

    def _seed(self, medium: Shown, number: int) -> int:
        return seed_of(Path(self._names[medium.path]), self._plan.seed, number)

    def _keep(self, medium: Shown, drawn: tuple[int, int | None], question: str, answer: str) -> None:
        number, seed = drawn
        if not answer:
            return self._log.lost(medium.path, number, MediaError("empty", "the answer is empty"))
        said = self.sieve.sieved(answer, self._names[medium.path], self._opened.subject.name)
        if said is None:
            error = MediaError("nothing_left", f"every sentence gives a verdict away: {answer[:80]!r}")
            return self._log.lost(medium.path, number, error)
        text = SaidText(medium.path, number, question, medium.modality, seed, said.text, said.dropped)
        return self._log.said(text)
