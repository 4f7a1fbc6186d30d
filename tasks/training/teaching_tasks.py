"""What a teacher learns from: questions about media whose answers are known, of the line and of imported tables.

The line knows three: the machine opinion of a medium (score), what was done to an image (degradation), and which of
two images its opinions hold for better (pair). What review kept of a medium, without the sentences that give its
quality away, is the thought of an example answer. An imported table has a medium in every row, and either its quality
in [0, 1] or the name and severity of its degradation.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from models.levels import expectation
from models.reasoning_text import without_verdict
from models.rewards import CLASSES, IMAGE_A, IMAGE_B, KINDS, SEVERITIES, Degradation, Kind, Score, Tags, Truth
from models.teaching import AskStyle, answer, degradation_of, question, shown
from tasks.errors import StageError
from tasks.instructions import LINE, ImportedSource, Instruction, check_source, external_media, media_frame
from tasks.pool import load_candidates
from tasks.records import MEDIUM_MARK, Modality, QuestionKind, Split, Task
from tasks.reviewed_texts import reviewed_texts
from tasks.stage import Place
from tasks.training.examples import open_examples
from tasks.training_set import FOLDER

STAGE: Final = "teach"

_QUESTION_KINDS: Final[dict[Kind, QuestionKind]] = {
    "score": QuestionKind.SCORE,
    "degradation": QuestionKind.WHICH,
    "pair": QuestionKind.COMPARE,
}
_QUALITY, _DEGRADED = {"quality"}, {"distortion_class", "severity"}


@dataclass(frozen=True)
class TeachingTask:
    """A question about media, and what is true.

    Attributes:
        task_id: distinct among all. source: ``line``, or the table that it comes from.
        media: keys, in the order in which they are shown.
        thought: what an example answer says before it answers; empty where nothing is known.
    """

    task_id: str
    source: str
    media: tuple[str, ...]
    is_video: bool
    truth: Truth
    thought: str = ""

    @property
    def kind(self) -> Kind:
        """What is asked."""
        return self.truth.kind

    def instruction(self, style: AskStyle, tags: Tags) -> Instruction:
        """The question with its example answer, as a conversation."""
        modality = str(Modality.VIDEO if self.is_video else Modality.IMAGE)
        asked = shown(self.kind, MEDIUM_MARK) + question(self.kind, style, is_video=self.is_video)
        return Instruction(
            instruction_id=self.task_id,
            source=self.source,
            kind=_QUESTION_KINDS[self.kind],
            content_id=None,
            media=self.media,
            modalities=(modality,) * len(self.media),
            questions=(asked,),
            answers=(answer(self.thought, self.truth, tags),),
            options=(),
            letter=None,
        )


@dataclass
class Gathered:
    """Everything that there is to ask about.

    Attributes:
        tasks: in the order of their ids. frame: rows of media, theirs and others. rejects: rows of REJECTS.
    """

    tasks: list[TeachingTask] = field(default_factory=list)
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, task_id: str, reason: str, detail: str) -> None:
        """Count something that cannot be asked about."""
        self.rejects.append({"stage": STAGE, "id": task_id, "reason": reason, "detail": detail})


def gather_tasks(
    place: Place,
    splits: Sequence[Split],
    sources: Sequence[ImportedSource],
    shares: Mapping[str, float],
    chosen: frozenset[str] | None = None,
) -> Gathered:
    """Questions of the kinds that have a share.

    Args:
        splits: of the line's contents; none for imported tables alone.
        chosen: media of the line; questions that show another one are left out. None takes all.

    Raises:
        StageError: a split leaks, a table cannot be read, or a kind with a share has no question.
    """
    pool, gathered = load_candidates(place), Gathered()
    found = [one for one in _of_line(place, pool, splits) if chosen is None or chosen.issuperset(one.media)]
    frames = []
    for number, source in enumerate(sources):
        imported = list(_of_table(place, source, number, gathered))
        shows = [task.instruction("short", "free") for task in imported]
        frames.append(external_media(shows, source.root))
        found += imported
    gathered.tasks = sorted((one for one in found if shares.get(one.kind, 0.0) > 0.0), key=lambda one: one.task_id)
    gathered.frame = media_frame(pool, frames)
    counts = Counter(one.kind for one in gathered.tasks)
    lacking = [kind for kind in KINDS if shares.get(kind, 0.0) > 0.0 and not counts[kind]]
    if lacking:
        msg = f"shares ask for questions of the kind {lacking[0]}, and there is none: name other splits or sources"
        raise StageError(msg)
    return gathered


def usable(gathered: Gathered, broken: frozenset[str]) -> list[TeachingTask]:
    """Questions whose media decode; the others are refused, and nothing takes their place."""
    kept = []
    for task in gathered.tasks:
        if broken.isdisjoint(task.media):
            kept.append(task)
        else:
            gathered.refuse(task.task_id, "medium_rejected", f"{task.source}: a medium of it does not decode")
    return kept


# ----------------------------------------------------------------------------- line


def _of_line(place: Place, pool: pd.DataFrame, splits: Sequence[Split]) -> Iterator[TeachingTask]:
    thoughts, images = _thoughts(place), frozenset(pool.loc[pool["modality"] == Modality.IMAGE, "id"])
    for split in splits:
        examples = open_examples(place.artifacts("assemble") / FOLDER, split, {Task.SINGLE: 1.0, Task.PAIR: 1.0})
        for one in examples:
            if one.task is Task.SINGLE:
                medium, quality = one.ids[0], min(1.0, max(0.0, float(expectation(one.targets_S5[0]))))
                thought, is_video = thoughts.get(medium, ""), medium not in images
                yield TeachingTask(f"score {medium}", LINE, one.ids, is_video, Score(quality), thought)
            elif one.preference in (0.0, 1.0) and images.issuperset(one.ids):
                better = IMAGE_A if one.preference == 1.0 else IMAGE_B
                yield TeachingTask(f"pair {one.example_id}", LINE, one.ids, False, better, _both(one.ids, thoughts))
        yield from _degradations(pool, split, thoughts)


def _degradations(pool: pd.DataFrame, split: Split, thoughts: Mapping[str, str]) -> Iterator[TeachingTask]:
    """What was done to each image of a split; an original is taken for an image to which nothing was done."""
    mine = pd.DataFrame(pool[(pool["split"] == split) & (pool["modality"] == Modality.IMAGE)])
    for row in mine.to_dict("records"):
        kind = row["distortion"] if isinstance(row["distortion"], str) else None
        truth = degradation_of(kind, int(row["severity"]))
        if truth is not None:
            key, thought = row["id"], thoughts.get(row["id"], "")
            yield TeachingTask(f"degradation {key}", LINE, (key,), is_video=False, truth=truth, thought=thought)


def _both(ids: Sequence[str], thoughts: Mapping[str, str]) -> str:
    """The thought about a pair; empty where one of its images is not described."""
    told = [thoughts.get(medium, "") for medium in ids]
    names = (IMAGE_A.image, IMAGE_B.image)
    return " ".join(f"{name}: {text}" for name, text in zip(names, told, strict=True)) if all(told) else ""


def _thoughts(place: Place) -> dict[str, str]:
    """What review kept of each medium (planted assertions never), in order, without what gives its quality away."""
    return {medium: without_verdict(text).text for medium, text in reviewed_texts(place).items()}


# --------------------------------------------------------------------------- imports


def _of_table(place: Place, source: ImportedSource, number: int, gathered: Gathered) -> Iterator[TeachingTask]:
    """Rows of a table with ``path``, ``modality``, and ``quality`` or ``distortion_class`` and ``severity``.

    Raises:
        StageError: table or root is missing, the table is not the declared one, or it has other columns.
    """
    frame = _read(place, source)
    scored = set(frame.columns) >= _QUALITY
    for row in frame.to_dict("records"):
        kind = "score" if scored else "degradation"
        task_id = f"{kind} {number}:{row['path']}"
        truth = _score(row["quality"]) if scored else _degradation(row["distortion_class"], row["severity"])
        if truth is None:
            gathered.refuse(task_id, "no_truth", f"{source.table}: what it says of it is no {kind}")
        else:
            video = row["modality"] == Modality.VIDEO
            yield TeachingTask(task_id, source.table, (f"{number}:{row['path']}",), video, truth)


def _read(place: Place, source: ImportedSource) -> pd.DataFrame:
    path = place.root / source.table
    if not path.is_file():
        msg = f"{source.table} is missing: teach.sources names it"
        raise StageError(msg)
    check_source(place, source)
    frame = pd.read_parquet(path)
    columns = set(frame.columns)
    if not ({"path", "modality"} <= columns and (columns >= _QUALITY or columns >= _DEGRADED)):
        msg = f"{source.table} needs the columns path, modality, and quality or distortion_class and severity"
        raise StageError(msg)
    if frame["path"].duplicated().any():
        msg = f"{source.table} has two rows for one path"
        raise StageError(msg)
    return frame


def _score(quality: Any) -> Score | None:
    value = float(quality) if isinstance(quality, int | float) else math.nan
    return Score(value) if 0.0 <= value <= 1.0 else None


def _degradation(name: Any, severity: Any) -> Degradation | None:
    if not isinstance(name, str) and not isinstance(severity, str):
        return Degradation(None, None)
    return Degradation(name, severity) if name in CLASSES and severity in SEVERITIES else None
