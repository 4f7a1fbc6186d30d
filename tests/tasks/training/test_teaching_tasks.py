"""What there is to ask: the line's own truths, imported ones, and what cannot be used."""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from models.rewards import IMAGE_A, IMAGE_B, KINDS, Degradation, Score
from tasks.errors import StageError
from tasks.instructions import ImportedSource
from tasks.pool import load_candidates
from tasks.records import Split
from tasks.stage import Place
from tasks.training.teaching_tasks import TeachingTask, gather_tasks, usable

SHARES = dict.fromkeys(KINDS, 1.0)
BOTH = (Split.TRAIN, Split.WARM_UP)


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place]) -> Place:
    return place_for(line, "teach")


def by_kind(tasks: list[TeachingTask], kind: str) -> list[TeachingTask]:
    return [task for task in tasks if task.kind == kind]


def test_the_line_asks_after_opinions_recipes_and_decided_pairs(place: Place):
    gathered = gather_tasks(place, BOTH, (), SHARES)
    rows = {row["id"]: row for row in load_candidates(place).to_dict("records")}
    assert not gathered.rejects
    assert len({task.task_id for task in gathered.tasks}) == len(gathered.tasks)
    for task in by_kind(gathered.tasks, "score"):
        row = rows[task.media[0]]
        quality = 0.6 if task.is_video else 0.85 if row["severity"] == 0 else 0.8 - 0.13 * row["severity"]
        assert task.truth == Score(pytest.approx(quality, abs=1e-6))
        assert row["split"] in BOTH
    told = Counter(task.truth for task in by_kind(gathered.tasks, "degradation"))
    assert set(told.values()) == {6}
    assert Degradation("blur", "moderate") in told
    assert Degradation(None, None) in told
    assert len(told) == 5
    pairs = by_kind(gathered.tasks, "pair")
    assert {task.truth for task in pairs} == {IMAGE_A, IMAGE_B}
    for task in pairs:
        first, second = (rows[medium]["severity"] for medium in task.media)
        assert task.truth == (IMAGE_A if first < second else IMAGE_B)


def test_thoughts_are_reviewed_texts_without_what_gives_quality_away(place: Place):
    tasks = gather_tasks(place, BOTH, (), SHARES).tasks
    thoughts = {task.thought for task in tasks if task.kind == "score" and not task.is_video}
    assert thoughts == {"Edges are crisp. The lighting is sufficient.", "The lighting is sufficient."}  # "low" leaks
    assert all("Noise is strong" not in task.thought for task in tasks)
    assert all(task.thought.startswith("Image A: ") for task in by_kind(tasks, "pair"))


def test_a_kind_without_a_share_is_left_out_and_one_without_questions_is_an_error(place: Place):
    assert {task.kind for task in gather_tasks(place, BOTH, (), {"score": 1.0, "pair": 0.0}).tasks} == {"score"}
    source = table(place, "rated", {"a.png": {"quality": 0.4}})
    with pytest.raises(StageError, match="ask for questions of the kind pair"):
        gather_tasks(place, (), (source,), {"score": 1.0, "pair": 1.0})


def table(place: Place, name: str, rows: dict[str, dict[str, Any]], **declared: Any) -> ImportedSource:
    """A table of pictures below a root of its own."""
    root = place.root / name
    root.mkdir()
    for number, path in enumerate(rows):
        Image.new("RGB", (90, 70), (20 * number, 80, 40)).save(root / path)
    frame = pd.DataFrame([{"path": path, "modality": "image"} | row for path, row in rows.items()])
    frame.to_parquet(place.root / f"{name}.parquet")
    return ImportedSource(f"{name}.parquet", name, **declared)


def test_imported_tables_tell_quality_or_degradation(place: Place):
    rated = table(place, "rated", {"a.png": {"quality": 0.4}, "b.png": {"quality": 1.5}, "c.png": {"quality": None}})
    words = {"distortion_class": "noise", "severity": "serious"}
    none = {"distortion_class": None, "severity": None}
    odd = {"distortion_class": "rain", "severity": "serious"}
    degraded = table(place, "degraded", {"a.png": words, "b.png": none, "c.png": odd})
    gathered = gather_tasks(place, (), (rated, degraded), {"score": 1.0, "degradation": 1.0})
    found = {task.task_id: task.truth for task in gathered.tasks}
    assert found == {
        "score 0:a.png": Score(0.4),
        "degradation 1:a.png": Degradation("noise", "serious"),
        "degradation 1:b.png": Degradation(None, None),
    }
    assert {row["id"]: row["reason"] for row in gathered.rejects} == dict.fromkeys(
        ("score 0:b.png", "score 0:c.png", "degradation 1:c.png"), "no_truth"
    )
    shown = gathered.frame.set_index("id")
    assert shown.loc["1:a.png", "shard"] == "degraded/a.png"


def test_tables_are_checked(place: Place):
    good = table(place, "rated", {"a.png": {"quality": 0.4}})
    told = hashlib.sha256((place.root / "rated.parquet").read_bytes()).hexdigest()
    assert gather_tasks(place, (), (ImportedSource(good.table, good.root, told),), {"score": 1.0}).tasks
    cases = [
        (ImportedSource("none.parquet", "rated"), "is missing"),
        (ImportedSource("rated.parquet", "nowhere"), "is no folder"),
        (ImportedSource("rated.parquet", "rated", "0" * 64), "is not the table"),
        (table(place, "plain", {"a.png": {"mos": 3.0}}), "needs the columns"),
    ]
    for source, message in cases:
        with pytest.raises(StageError, match=message):
            gather_tasks(place, (), (source,), {"score": 1.0})


def test_a_broken_medium_takes_its_questions_out_and_nothing_takes_their_place(place: Place):
    gathered = gather_tasks(place, BOTH, (), SHARES)
    broken = by_kind(gathered.tasks, "pair")[0].media[0]
    kept = usable(gathered, frozenset({broken}))
    lost = [task.task_id for task in gathered.tasks if broken in task.media]
    assert len(kept) == len(gathered.tasks) - len(lost)
    assert sorted(row["id"] for row in gathered.rejects) == sorted(lost)
    assert {row["reason"] for row in gathered.rejects} == {"medium_rejected"}


def test_a_question_is_a_conversation_that_shows_its_media_first(place: Place):
    tasks = gather_tasks(place, BOTH, (), SHARES).tasks
    pair = by_kind(tasks, "pair")[0].instruction("short", "free")
    (turn,) = pair.conversation({medium: number for number, medium in enumerate(pair.media)})
    assert turn.question[0:4] == ("Image A: ", 0, "\nImage B: ", 1)
    assert turn.answer.endswith(("<answer>Image A</answer>", "<answer>Image B</answer>"))
