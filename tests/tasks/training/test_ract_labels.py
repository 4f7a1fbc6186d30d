"""Labels: what of an answer is learnt, what is refused, and that a text holds nothing of its data set's scale."""

import dataclasses
from typing import Any

import pytest

from models.rewards import Degradation, Score
from tasks.training.ract_labels import LabelRule, Labels, label_lessons, labelled_tasks
from tasks.training.teaching_tasks import TeachingTask

RULE = LabelRule("text", 1, 1.0, 80, "drop", None, 8)


def answered(text: str, **values: Any) -> dict[str, Any]:
    return {"source": "set", "id": "a", "number": 0, "text": text, "dropped": 0, **values}


def task(medium: str, quality: float, kind: str = "score") -> TeachingTask:
    truth = Score(quality) if kind == "score" else Degradation("blur", "slight")
    return TeachingTask(f"{kind} {medium}", "line", (medium,), is_video=False, truth=truth)


def test_the_thought_is_kept_and_what_gives_quality_away_is_not():
    labels = Labels(RULE, "free")
    labels.take(answered('<think>Edges are soft. Sharpness is low.</think><answer>{"rating": 2.1}</answer>'))
    assert [row["text"] for row in labels.rows] == ["Edges are soft."]
    assert (labels.dropped, labels.leaks) == (1, {"level": 1})
    kept = Labels(dataclasses.replace(RULE, leaks="keep"), "free")
    kept.take(answered('<think>Sharpness is low.</think><answer>{"rating": 2.1}</answer>'))
    assert [row["text"] for row in kept.rows] == ["Sharpness is low."]
    assert (kept.dropped, kept.leaks) == (0, {"level": 1})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Edges are soft.", "no_thought"),
        ('<think></think><answer>{"rating": 2.1}</answer>', "no_thought"),
        ('<think>Edges are soft.</think><answer>{"rating": 2.1}', "no_thought"),
        ('<think>The quality is poor.</think><answer>{"rating": 2.1}</answer>', "nothing_left"),
    ],
)
def test_what_holds_no_text_is_refused_with_its_reason(text: str, reason: str):
    labels = Labels(RULE, "free")
    labels.take(answered(text))
    assert not labels.rows
    assert [row["reason"] for row in labels.rejects] == [reason]


def test_two_scales_make_the_same_lessons_of_text_and_others_of_scores():
    rows = [answered("Edges are soft.", id="a"), answered("Noise is visible.", id="b")]
    mild, harsh = ({("set", name): task(name, quality) for name, quality in some} for some in (
        (("a", 0.9), ("b", 0.2)), (("a", 0.45), ("b", 0.1))
    ))  # fmt: skip
    told = [label_lessons(rows, tasks, RULE, "short", "free") for tasks in (mild, harsh)]
    assert told[0] == told[1]
    assert [one.answers for one in told[0]] == [
        ("<think>Edges are soft.</think>",),
        ("<think>Noise is visible.</think>",),
    ]
    scored = dataclasses.replace(RULE, content="text_and_score")
    first, second = (label_lessons(rows, tasks, scored, "short", "free")[0].answers[0] for tasks in (mild, harsh))
    assert first == '<think>Edges are soft.</think><answer>{"rating": 4.60}</answer>'  # 1 + 4 x .9
    assert second.endswith('{"rating": 2.80}</answer>')


def test_every_medium_is_asked_once_and_a_score_is_only_taken_where_there_is_one():
    tasks = [task("a", 0.9), task("a", 0.0, "degradation"), task("b", 0.0, "degradation")]
    assert [one.media[0] for one in labelled_tasks(tasks, RULE)] == ["a", "b"]
    assert {one.kind for one in labelled_tasks(tasks, RULE)} == {"score"}
    scored = dataclasses.replace(RULE, content="text_and_score")
    assert [(one.media[0], one.truth) for one in labelled_tasks(tasks, scored)] == [("a", Score(0.9))]
    fewer, more = (
        labelled_tasks([task(str(n), 0.5) for n in range(9)], dataclasses.replace(RULE, max_media=m)) for m in (3, 5)
    )
    assert {one.media for one in fewer} < {one.media for one in more}


@pytest.mark.parametrize("values", [{"per_medium": 0}, {"most_tokens": 0}, {"batch": 0}, {"temperature": 0.0}])
def test_rules_are_checked(values: dict[str, Any]):
    with pytest.raises(ValueError, match="at least 1"):
        dataclasses.replace(RULE, **values)
