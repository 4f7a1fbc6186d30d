"""How a subject comes to its verdict about a medium: the questions that it is asked, in their order.

Three courses. ``judge`` asks for the verdict alone. ``one_answer`` has a model describe and judge in one answer, as
Q-Instruct's models do ("one-stage" in "Building Reasonable Inference for Vision-Language Models in Blind Image Quality
Assessment"). ``two_stage`` has it describe, and judge from its description without the medium. In all three a verdict
from the text alone can be asked for, which is what contradiction compares.

Shape legend: ``N`` media.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from models.errors import ModelError
from models.levels import LEVELS
from models.sampling import Draws, Sampling
from tasks.evaluation.subjects.protocol import Answering, Asked, Shown, Subject

Way = Literal["judge", "one_answer", "two_stage"]

DESCRIPTION: Final = "{description}"
_STREAMS: Final = 2
"""Random streams of one medium: of its description and of its verdict."""


@dataclass(frozen=True)
class Course:
    """What is asked, ``{medium}`` standing for image or video, and ``{levels}`` for the words, best first.

    Attributes:
        way: how the verdict comes about.
        describe: user text that asks for a description.
        judge: user text that asks for a verdict about the medium.
        judge_text: user text that asks for a verdict about ``{description}`` alone.
        opening: forced before the level word; empty leaves the answer free.
        words: levels, best first.
        avoid: openings that a description may not have.
        description_tokens, verdict_tokens: the most that is answered.
    """

    way: Way
    describe: str
    judge: str
    judge_text: str
    opening: str = "The quality of the {medium} is"
    words: tuple[str, ...] = LEVELS
    avoid: tuple[str, ...] = ()
    description_tokens: int = 128
    verdict_tokens: int = 16

    def __post_init__(self) -> None:
        """Check the texts.

        Raises:
            ModelError: ``judge_text`` has no place for the description.
        """
        if self.judge_text.count(DESCRIPTION) != 1:
            msg = f"the question about a text must hold {DESCRIPTION} once, not: {self.judge_text}"
            raise ModelError(msg)

    def description_of(self, medium: Shown) -> Asked:
        """Asks for a description."""
        return Asked(self._about(self.describe, medium), medium, avoid=self.avoid)

    def verdict_of(self, medium: Shown, description: str) -> Asked:
        """Asks for the verdict that this course ends in, up to the level word.

        Args:
            description: what the subject said before; unused where the verdict is asked for alone.
        """
        opening = self.opening_of(medium)
        if self.way == "judge":
            return Asked(self._about(self.judge, medium), medium, opening)
        if self.way == "two_stage":
            return self.text_verdict_of(medium, description)
        return Asked(self._about(self.describe, medium), medium, f"{description} {opening}".strip(), description)

    def text_verdict_of(self, medium: Shown, description: str) -> Asked:
        """Asks for the verdict from a description alone; of ``medium`` only its kind is told."""
        question = self._about(self.judge_text, medium).replace(DESCRIPTION, description)
        return Asked(question, None, self.opening_of(medium), description)

    def opening_of(self, medium: Shown) -> str:
        """What is forced before the level word about a medium."""
        return self._about(self.opening, medium)

    def _about(self, text: str, medium: Shown) -> str:
        return text.replace("{medium}", medium.modality).replace("{levels}", ", ".join(self.words))


@dataclass(frozen=True)
class Said:
    """What a subject said about a medium.

    Attributes:
        description: empty if none was asked for. verdict: the sentence or text that holds it, its opening included.
    """

    description: str
    verdict: str


@dataclass(frozen=True)
class Drawing:
    """How media are asked.

    Attributes:
        sampling: of descriptions and verdicts. seeds: of each medium; each of its answers has a stream of its own.
    """

    sampling: Sampling
    seeds: Sequence[int]

    def answering(self, stream: int, tokens: int) -> Answering:
        """Of one kind of answer."""
        return Answering(tokens, Draws(self.sampling, [_STREAMS * seed + stream for seed in self.seeds]))


def say(subject: Subject, course: Course, media: Sequence[Shown], drawing: Drawing) -> list[Said]:
    """Descriptions, where the course has any, and verdicts of media, both drawn."""
    if course.way == "judge":
        return verdicts(subject, course, media, [""] * len(media), drawing)
    told = describe(subject, course, media, drawing)
    if course.way == "one_answer" and not course.opening:  # a free answer holds both
        return [Said(text, text) for text in told]
    return verdicts(subject, course, media, told, drawing)


def describe(subject: Subject, course: Course, media: Sequence[Shown], drawing: Drawing) -> list[str]:
    """Descriptions of media; of ``one_answer`` what stands before its opening, if it has one."""
    asked = [course.description_of(medium) for medium in media]
    texts = subject.answers(asked, drawing.answering(0, course.description_tokens))
    if course.way != "one_answer" or not course.opening:
        return texts
    return [text.split(course.opening_of(medium))[0].strip() for text, medium in zip(texts, media, strict=True)]


def verdicts(
    subject: Subject, course: Course, media: Sequence[Shown], descriptions: Sequence[str], drawing: Drawing
) -> list[Said]:
    """Verdicts after descriptions that were said before."""
    asked = [course.verdict_of(medium, text) for medium, text in zip(media, descriptions, strict=True)]
    texts = subject.answers(asked, drawing.answering(1, course.verdict_tokens))
    openings = [course.opening_of(medium) for medium in media]
    return [
        Said(description, f"{opening} {text}".strip())
        for description, opening, text in zip(descriptions, openings, texts, strict=True)
    ]


def without_opening(course: Course) -> Course:
    """The same course with free answers, for subjects that cannot be made to begin in a given way."""
    return replace(course, opening="")
