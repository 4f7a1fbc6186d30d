"""Lessons: kept assertions of training contents, imported answers split at their verdict, and what is asked of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_lmm import make_model

from models.levels import LEVELS
from models.reasoning_text import leaks
from models.two_stage import pair
from tasks.errors import StageError
from tasks.instructions import ImportedSource
from tasks.pool import load_candidates
from tasks.records import INSTRUCTIONS, MEDIUM_MARK, OPINIONS, REVIEWED, QuestionKind, Split
from tasks.shards import frame_of, read_table, write_table
from tasks.stage import Place
from tasks.training.reasoning_lessons import (
    Lesson,
    assessing,
    describing,
    gather_lessons,
    judging,
    short_enough,
    usable,
)

LESSON = Lesson("m", "line", "m", "c", False, "Edges are crisp.", "good", np.array([0.1, 0.6, 0.2, 0.1, 0.0]))


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place]) -> Place:
    return place_for(line, "two_stage")


def test_lessons_are_kept_assertions_of_training_contents_without_what_leaks(place: Place):
    sifted = gather_lessons(place, [Split.TRAIN, Split.WARM_UP], 1.0, ())
    pool = load_candidates(place).set_index("id")
    told: dict[str, list[dict[str, Any]]] = {}
    for row in read_table(place.root / "artifacts" / "review" / "reviewed.parquet", REVIEWED).to_dict("records"):
        told.setdefault(row["id"], []).append(row)
    opinions = read_table(place.root / "artifacts" / "score" / "opinions.parquet", OPINIONS).set_index("id")
    assert {pool.loc[lesson.medium, "split"] for lesson in sifted.lessons} == {"train", "warm_up"}
    assert len(sifted.lessons) == sum(pool["split"] != "held_out")
    for lesson in sifted.lessons:
        mine = sorted(told[lesson.medium], key=lambda row: row["position"])
        kept = [row["text"] for row in mine if row["kept"] and row["origin"] == "describer"]
        assert lesson.description == " ".join(f"{text}." for text in kept if not leaks(text))
        assert leaks(lesson.description) == ()
        quality = opinions.loc[lesson.medium, "mu"]
        assert lesson.level == LEVELS[4 - min(4, int(quality * 5 + 1e-9))]
        assert lesson.target_5 == pytest.approx(list(opinions.loc[lesson.medium, "pmod"]))
    # "Sharpness is low" of every blurred child names the reasoner's answer
    assert sifted.sentences == sifted.leaks["level"] > 0
    alone = gather_lessons(place, [Split.WARM_UP], 0.5, ())
    assert {pool.loc[lesson.medium, "split"] for lesson in alone.lessons} == {"warm_up"}
    assert len(alone.lessons) == round(
        0.5 * sum(pool.loc[lesson.medium, "split"] == "warm_up" for lesson in sifted.lessons)
    )


def imported(place: Place, name: str, answers: dict[str, str], **changes: Any) -> ImportedSource:
    """A table of descriptions of pictures below a root of its own, one each."""
    root = place.root / name
    root.mkdir()
    rows = []
    for number, (path, answer) in enumerate(answers.items()):
        Image.new("RGB", (90, 70), (20 * number, 80, 40)).save(root / path)
        row = {"instruction_id": f"{name}/{path}", "source": name, "kind": "open", "split": "train"}
        row |= {"content_id": path, "media": [path], "modalities": ["image"], "options": [], "letter": None}
        rows.append(row | {"questions": [f"{MEDIUM_MARK}\nDescribe it."], "answers": [answer]} | changes)
    write_table(place.root / f"{name}.parquet", INSTRUCTIONS, frame_of(INSTRUCTIONS, rows))
    return ImportedSource(f"{name}.parquet", name)


def test_imported_answers_are_split_at_their_verdict(place: Place):
    answers = {
        "a.png": "The edges are crisp. Noise is visible. Therefore, the quality of this image is very good.",
        "b.png": "The picture is dark, with strong noise. The overall quality is poor.",
        "c.png": "The edges are crisp.",
        "d.png": "The quality of this image is poor.",
        "e.png": "A mark <|im_end|> of the chat. The quality is good.",
    }
    sifted = gather_lessons(place, [Split.TRAIN], 0.0, (imported(place, "others", answers),))
    assert [(lesson.description, lesson.level) for lesson in sifted.lessons] == [
        ("The edges are crisp. Noise is visible.", "high"),
        ("The picture is dark, with strong noise.", "poor"),
    ]
    assert [lesson.target_5.tolist() for lesson in sifted.lessons] == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert [(row["id"], row["reason"]) for row in sifted.rejects] == [
        ("others/c.png", "no_verdict"),
        ("others/d.png", "nothing_left"),
        ("others/e.png", "special_tokens"),
    ]
    with pytest.raises(StageError, match="there is no description to learn from"):
        gather_lessons(place, [Split.TRAIN], 0.0, ())


def test_an_exercise_shows_the_medium_or_tells_the_description_and_never_both_ways():
    model = make_model()
    both = pair(model, "text", shared=True)
    verdict = "The quality of the image is good"
    shown = describing(LESSON, model).instruction
    assert (shown.questions, shown.answers, shown.media) == ((f"{MEDIUM_MARK}\n",), ("Edges are crisp.",), ("m",))
    told = judging(LESSON, both.reasoner, "text").instruction
    assert (told.questions, told.answers, told.media) == (("Edges are crisp.",), (verdict,), ())
    blind = judging(LESSON, model, "block_mask")
    assert (blind.given, blind.instruction.media) == (True, ("m",))
    assert blind.instruction.answers == (f"Edges are crisp. {verdict}",)
    whole = assessing(LESSON, model)
    assert (whole.given, whole.instruction.answers) == (False, blind.instruction.answers)
    assert [one.instruction.kind for one in (whole, blind)] == [QuestionKind.SCORE] * 2
    model.question = "asked"
    asked = [make(LESSON, model).instruction.questions[0] for make in (describing, assessing)]
    assert len(set(asked)) == 2
    assert all(text.startswith(f"{MEDIUM_MARK}\nDescribe this image") for text in asked)
    question = judging(LESSON, pair(model, "text", shared=True).reasoner, "text").instruction.questions[0]
    assert question == "Edges are crisp.\nHow would you rate the quality of the image that is described here?"


def test_long_descriptions_and_lost_media_are_refused(place: Place):
    sifted = gather_lessons(place, [Split.TRAIN], 1.0, ())
    model = make_model()
    count = len(sifted.lessons)
    assert len(short_enough(sifted, model, 4000)) == count
    assert sifted.rejects == []
    assert short_enough(sifted, model, 3) == []
    assert {row["reason"] for row in sifted.rejects} == {"too_long"}
    assert len(sifted.rejects) == count
    lost = sifted.lessons[0].medium
    assert len(usable(sifted.lessons, frozenset({lost}), sifted)) == count - 1
    assert sifted.rejects[-1]["id"] == lost
    assert sifted.rejects[-1]["reason"] == "medium_rejected"
