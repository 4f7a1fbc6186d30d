"""Reasoning text as the label of a data set: which media the set has, and what its teacher says of them.

A teacher trained on one data set alone has that set's habits of scoring in its scores; what it says it sees has none of
them. So the text is what data sets have in common (RACT, arXiv 2510.11369), once sentences that give quality away are
dropped from it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tqdm import tqdm

from models.drawn_answers import Policy, text_of
from models.rewards import Score, Tags, read_answer
from models.teaching import AskStyle, answer, thought_block
from tasks.errors import StageError
from tasks.instructions import Instruction
from tasks.records import EXPLANATIONS, Modality
from tasks.shards import TableParts, digest, frame_of
from tasks.text_sieve import Leaks, TextSieve
from tasks.training.batches import MediumSource
from tasks.training.rollouts import Course, opened_questions
from tasks.training.teaching_tasks import TeachingTask


@dataclass(frozen=True)
class LabelRule:
    """How labels are made.

    Attributes:
        content: ``text``, what the teacher thinks alone, or ``text_and_score``, with the data set's own score behind it
            as the answer.
        per_medium: texts of a medium, each with a seed of its own.
        temperature: of their drawing, above 0. most_tokens: of a drawn answer.
        leaks: ``drop`` takes out sentences that give quality away, ``keep`` counts them.
        max_media: of each data set, by a hash of their ids; None takes all.
        batch: media that are asked about together; it changes no text.
    """

    content: Literal["text", "text_and_score"]
    per_medium: int
    temperature: float
    most_tokens: int
    leaks: Leaks
    max_media: int | None
    batch: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.per_medium < 1 or self.most_tokens < 1 or self.batch < 1 or self.temperature <= 0.0:
            raise ValueError("per_medium, most_tokens and batch must be at least 1, and temperature above 0")


class Labels:
    """What teachers have said, and what of it cannot be used.

    Attributes:
        rows: of EXPLANATIONS; their source is the data set.
    """

    def __init__(self, rule: LabelRule, tags: Tags) -> None:
        self._tags: Tags = tags
        self._sieve = TextSieve("ract", rule.leaks)
        self.rows: list[dict[str, Any]] = []

    @property
    def leaks(self) -> Counter[str]:
        """What gave quality away, per kind."""
        return self._sieve.leaks

    @property
    def dropped(self) -> int:
        """Sentences that were taken out for it."""
        return self._sieve.sentences

    @property
    def rejects(self) -> list[dict[str, str]]:
        """Rows of REJECTS."""
        return self._sieve.rejects

    @property
    def distinct(self) -> float:
        """Share of different texts."""
        return round(len({row["text"] for row in self.rows}) / len(self.rows), 6)

    def take(self, row: Mapping[str, Any]) -> None:
        """Keep the thought of an answer, or tell why there is none that can be learnt."""
        reading, about = read_answer(str(row["text"]), "score", self._tags), f"{row['source']}, answer {row['number']}"
        if not reading.thought:
            why = reading.failure or "no think block"
            self._sieve.refuse(str(row["id"]), "no_thought", f"{about}: it is not laid out ({why})")
        elif (said := self._sieve.sieved(reading.thought, str(row["id"]), about)) is not None:
            self.rows.append({**row, "text": said.text, "dropped": said.dropped})


def labelled_tasks(tasks: Sequence[TeachingTask], rule: LabelRule) -> list[TeachingTask]:
    """One question after the score for each medium of a data set, at most ``rule.max_media`` of them.

    A medium whose quality is not known, since its set tells degradations alone, has no truth that a score could be
    taken from; with ``text_and_score`` it is left out.
    """
    known = {one.media[0]: one for one in tasks if one.kind == "score"}
    if rule.content == "text":
        for one in tasks:
            for medium in one.media:
                asked = TeachingTask(f"score {medium}", one.source, (medium,), one.is_video, Score(0.5))
                known.setdefault(medium, asked)
    chosen = sorted(known, key=lambda medium: digest("ract", medium))[: rule.max_media]
    return [known[medium] for medium in sorted(chosen)]


@dataclass(frozen=True)
class Writer:
    """A teacher that writes labels.

    Attributes:
        policy: draws its answers, at the temperature of the rule.
        style: how it is asked. tags: how it lays answers out. seed: of the draws.
    """

    policy: Policy
    style: AskStyle
    tags: Tags
    rule: LabelRule
    seed: int

    def write(
        self,
        data_set: str,
        tasks: Sequence[TeachingTask],
        media: MediumSource,
        contents: Mapping[str, str],
        parts: TableParts,
    ) -> Labels:
        """Say something about the media of a data set; what a run before the kill has said is taken over.

        Args:
            tasks: see :func:`labelled_tasks`. contents: content of each medium.
            parts: where answers are kept as they were drawn.

        Raises:
            StageError: no answer holds a text that can be learnt.
        """
        labels = Labels(self.rule, self.tags)
        with tqdm(total=len(tasks), desc=f"ract: labels of {data_set}", unit="medium") as bar:
            for start in range(0, len(tasks), self.rule.batch):
                some = tasks[start : start + self.rule.batch]
                part = digest(data_set, [task.task_id for task in some])
                if not parts.has(part):
                    course = Course({one.task_id: one for one in some}, media, [])
                    rows = [
                        {"source": data_set, "content_id": contents[row["id"]], **row} for row in self._draw(course)
                    ]
                    parts.add(part, frame_of(EXPLANATIONS, rows))
                for row in parts.read_part(part).to_dict("records"):
                    labels.take({str(key): value for key, value in row.items()})
                bar.update(len(some))
        if not labels.rows:
            commonest = Counter(row["reason"] for row in labels.rejects).most_common(1)
            why = commonest[0][0] if commonest else "it has no medium"
            msg = f"the teacher has said nothing of {data_set} that can be learnt (mostly {why}): lengthen its training"
            raise StageError(msg)
        return labels

    def _draw(self, course: Course) -> Iterator[dict[str, Any]]:
        tasks = list(course.tasks.values())
        drawn = opened_questions(self.policy, course, [task.instruction(self.style, self.tags) for task in tasks])
        for number in range(self.rule.per_medium):
            seeds = [int(digest(self.seed, task.task_id, number)[:12], 16) for task in tasks]
            rows = self.policy.draw(drawn.opened, self.rule.most_tokens, seeds)
            for task, seed, row in zip(tasks, seeds, rows, strict=True):
                yield {
                    "id": task.media[0],
                    "modality": str(Modality.VIDEO if task.is_video else Modality.IMAGE),
                    "number": number,
                    "text": text_of(self.policy.model, row),
                    "dropped": 0,
                    "seed": seed,
                    "temperature": self.policy.temperature,
                    "top_p": 1.0,
                }


def label_lessons(
    rows: Sequence[Mapping[str, Any]],
    tasks: Mapping[tuple[str, str], TeachingTask],
    rule: LabelRule,
    style: AskStyle,
    tags: Tags,
) -> list[Instruction]:
    """Labels as conversations; with ``text`` no number of the data set is in them.

    Args:
        tasks: by data set and medium.
    """
    lessons = []
    for row in rows:
        task = tasks[row["source"], row["id"]]
        said = thought_block(row["text"], tags) if rule.content == "text" else answer(row["text"], task.truth, tags)
        asked = task.instruction(style, tags)
        lessons.append(
            Instruction(
                instruction_id=f"{row['source']} {row['id']} {row['number']}",
                source=str(row["source"]),
                kind=asked.kind,
                content_id=None,
                media=asked.media,
                modalities=asked.modalities,
                questions=asked.questions,
                answers=(said,),
                options=(),
                letter=None,
            )
        )
    return lessons
