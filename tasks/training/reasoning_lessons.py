"""What two-stage tuning learns from: descriptions of media without their verdict, and the verdict apart.

The line's own lessons are the reviewed and kept assertions of a medium, in their order as one text, with the medium's
opinion. Those of an imported table are answers that describe a medium and end in a verdict on the whole: the answer is
split there. What gives the verdict away is dropped from a description (``models.reasoning_text``); whatever cannot be
used is a reject with a reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.conversations import text_tokens
from models.levels import LEVELS, Level
from models.questions import question_of
from models.reasoning_text import leaks, verdict_of, without_verdict
from models.tokenizer import SPECIAL_TOKENS
from models.two_stage import Reasoner, ReasonerInput, described, told, verdict_sentence
from tasks.errors import StageError
from tasks.instructions import LINE, ImportedSource, Instruction, imported_instructions, media_frame
from tasks.pool import load_candidates
from tasks.records import MEDIUM_MARK, Modality, QuestionKind, Split, Task
from tasks.reviewed_texts import reviewed_texts
from tasks.stage import Place
from tasks.training.examples import open_examples
from tasks.training_set import FOLDER

Role = Literal["describe", "judge", "assess"]
"""What an exercise asks for: the description, the verdict, or both in one answer."""


@dataclass(frozen=True)
class Lesson:
    """One description of one medium, and what it is worth.

    Attributes:
        lesson_id: of the medium (line) or of the imported conversation.
        source: ``line``, or the name of the imported data set.
        medium: key of the medium. content_id: what it shows.
        description: without what leaks. level: of the opinion's mean, or of the verdict.
        target_5: the opinion's distribution, or all on the verdict's level.
    """

    lesson_id: str
    source: str
    medium: str
    content_id: str
    is_video: bool
    description: str
    level: Level
    target_5: NDArray[np.float64]

    @property
    def verdict(self) -> str:
        """The forced sentence with the level word."""
        return verdict_sentence(self.level, is_video=self.is_video)


@dataclass
class Sifted:
    """What became of everything that could have been a lesson.

    Attributes:
        lessons: in the order of their ids. frame: rows of media, these and others.
        rejects: rows of REJECTS. leaks: leaks in dropped sentences, per kind. sentences: dropped sentences.
    """

    lessons: list[Lesson] = field(default_factory=list)
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    leaks: Counter[str] = field(default_factory=Counter)
    sentences: int = 0

    def body(self, text: str) -> str:
        """A text without what leaks, which is counted."""
        body = without_verdict(text)
        self.sentences += len(body.dropped)
        self.leaks.update(str(leak.kind) for sentence in body.dropped for leak in leaks(sentence))
        return body.text

    def refuse(self, lesson_id: str, source: str, reason: str, detail: str) -> None:
        """Count something that cannot be used."""
        told_of = {"stage": "two_stage", "id": lesson_id, "reason": reason, "detail": f"{source}: {detail}"}
        self.rejects.append(told_of)


def gather_lessons(
    place: Place, splits: Sequence[Split], line_share: float, sources: Sequence[ImportedSource]
) -> Sifted:
    """Lessons of the line and of imported tables.

    Args:
        splits: of the line's contents. line_share: share of the line's lessons that are used, by the order of their
            ids.

    Raises:
        StageError: a split leaks, a table is not for training, or nothing is left to learn from.
    """
    sifted, pool = Sifted(), load_candidates(place)
    line = sorted(_of_line(place, pool, splits, sifted), key=lambda lesson: lesson.lesson_id)
    imported, frames = imported_instructions(place, sources)
    others = [lesson for one in imported if (lesson := _of_instruction(one, sifted)) is not None]
    sifted.lessons = [*line[: round(line_share * len(line))], *others]
    sifted.frame = media_frame(pool, frames)
    if not sifted.lessons:
        raise StageError("there is no description to learn from: raise two_stage.line_share, or name sources")
    return sifted


def _of_line(place: Place, pool: pd.DataFrame, splits: Sequence[Split], sifted: Sifted) -> Iterator[Lesson]:
    """A lesson for each described medium of the splits."""
    texts = reviewed_texts(place)
    for split in splits:
        opinions = {
            one.ids[0]: one for one in open_examples(place.artifacts("assemble") / FOLDER, split, {Task.SINGLE: 1.0})
        }
        for row in pd.DataFrame(pool[pool["split"] == split]).to_dict("records"):
            if row["id"] not in texts:
                continue
            text, opinion = sifted.body(texts[row["id"]]), opinions.get(row["id"])
            if opinion is None:
                sifted.refuse(row["id"], LINE, "no_opinion", "nobody has scored it")
            elif not text:
                sifted.refuse(row["id"], LINE, "nothing_left", "every sentence of its description leaks")
            else:
                is_video, level = row["modality"] == Modality.VIDEO, opinion.answers[0].rsplit(" ", 1)[-1]
                target = opinion.targets_S5[0]
                yield Lesson(row["id"], LINE, row["id"], row["content_id"], is_video, text, _level(level), target)


def _level(word: str) -> Level:
    return next(level for level in LEVELS if level == word)


def _of_instruction(one: Instruction, sifted: Sifted) -> Lesson | None:
    """Split an answer at its verdict."""
    answer = one.answers[0]
    level = verdict_of(answer)
    checks = (
        ("not_open", one.kind is not QuestionKind.OPEN, "it has options, or asks for a score"),
        ("several_turns", len(one.answers) != 1, f"{len(one.answers)} questions"),
        ("several_media", len(one.media) != 1, f"{len(one.media)} media"),
        (
            "special_tokens",
            any(token in answer for token in (*SPECIAL_TOKENS, MEDIUM_MARK)),
            "marks of the chat layout",
        ),
        ("no_verdict", level is None, "no sentence names one level of the whole"),
    )
    broken = next(((reason, detail) for reason, is_so, detail in checks if is_so), None)
    if broken is None and level is not None:
        if text := sifted.body(answer):
            key, content = one.media[0], one.content_id or one.media[0]
            target = np.array([float(level == other) for other in LEVELS])
            is_video = one.modalities[0] == Modality.VIDEO
            return Lesson(one.instruction_id, one.source, key, content, is_video, text, level, target)
        broken = "nothing_left", "every sentence of it leaks"
    if broken is not None:
        sifted.refuse(one.instruction_id, one.source, *broken)
    return None


# ------------------------------------------------------------------------ exercises


@dataclass(frozen=True)
class Exercise:
    """A lesson in one of its roles.

    Attributes:
        instruction: the conversation.
        given: whether the description stands in the answer without being learnt, and the verdict cannot see the
            medium (``block_mask``).
    """

    role: Role
    lesson: Lesson
    instruction: Instruction
    given: bool = False


def describing(lesson: Lesson, model: Reasoner) -> Exercise:
    """Medium -> description."""
    return Exercise("describe", lesson, _showing(lesson, "describe", model, lesson.description))


def assessing(lesson: Lesson, model: Reasoner) -> Exercise:
    """Medium -> description and verdict."""
    return Exercise("assess", lesson, _showing(lesson, "assess", model, described(lesson.description, lesson.verdict)))


def judging(lesson: Lesson, model: Reasoner, reads: ReasonerInput) -> Exercise:
    """Description -> verdict."""
    if reads == "block_mask":
        answer = described(lesson.description, lesson.verdict)
        return Exercise("judge", lesson, _showing(lesson, "judge", model, answer), given=True)
    question = told(lesson.description, lesson.verdict, model, is_video=lesson.is_video)[0].question[0]
    return Exercise("judge", lesson, _instruction(lesson, "judge", str(question), lesson.verdict, shows=False))


def _showing(lesson: Lesson, role: Role, model: Reasoner, answer: str) -> Instruction:
    task = "assessment" if role == "assess" else "perception"
    asked = question_of(task, model.question, is_video=lesson.is_video)
    return _instruction(lesson, role, f"{MEDIUM_MARK}\n{asked}", answer, shows=True)


def _instruction(lesson: Lesson, role: Role, question: str, answer: str, *, shows: bool) -> Instruction:
    return Instruction(
        instruction_id=f"{role} {lesson.lesson_id}",
        source=lesson.source,
        kind=QuestionKind.OPEN if role == "describe" else QuestionKind.SCORE,
        content_id=lesson.content_id,
        media=(lesson.medium,) if shows else (),
        modalities=(str(Modality.VIDEO if lesson.is_video else Modality.IMAGE),) if shows else (),
        questions=(question,),
        answers=(answer,),
        options=(),
        letter=None,
    )


def short_enough(sifted: Sifted, model: Reasoner, max_tokens: int) -> list[Lesson]:
    """Lessons whose description and verdict have at most ``max_tokens`` tokens; the others are refused."""
    kept = []
    for lesson in sifted.lessons:
        tokens = text_tokens(model, told(lesson.description, lesson.verdict, model, is_video=lesson.is_video))
        if tokens <= max_tokens:
            kept.append(lesson)
        else:
            sifted.refuse(lesson.lesson_id, lesson.source, "too_long", f"{tokens} tokens, and {max_tokens} are allowed")
    return kept


def usable(lessons: Sequence[Lesson], broken: frozenset[str], sifted: Sifted) -> list[Lesson]:
    """Lessons whose medium decodes; the others are refused."""
    for lesson in lessons:
        if lesson.medium in broken:
            sifted.refuse(lesson.lesson_id, lesson.source, "medium_rejected", "its medium does not decode")
    return [lesson for lesson in lessons if lesson.medium not in broken]


def counted(lessons: Sequence[Lesson]) -> Mapping[str, dict[str, int]]:
    """Lessons per source and per level."""
    levels = Counter(lesson.level for lesson in lessons)
    return {
        "source": dict(sorted(Counter(lesson.source for lesson in lessons).items())),
        "level": {level: levels[level] for level in LEVELS if levels[level]},
    }
