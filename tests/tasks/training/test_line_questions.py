"""The line's questions: true of review, recipes and opinions, balanced, deterministic, and stable in growth."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.distortions import CELLS, VIDEO_TYPES, strength, words
from models.signals.claims import CLAIMS, Claim, Degree, Fault
from models.signals.wording import phrase
from tasks.question_text import options_in
from tasks.records import MEDIUM_MARK, QuestionKind
from tasks.training.line_questions import FAMILIES, QuestionRule, dialogues, line_questions, measured

RULE = QuestionRule(seed=3, option_order="fixed", compare_share=1.0, dialogue_share=1.0, turns=3, held_out_questions=4)
SHUFFLED = dataclasses.replace(RULE, option_order="shuffled")


def medium(key: str, **changes: Any) -> dict[str, Any]:
    row = {"id": key, "content_id": f"content {key}", "split": "train", "modality": "image"}
    return row | {"distortion": None, "severity": 0} | changes


def assertion(key: str, text: str, **changes: Any) -> dict[str, Any]:
    row = {"id": key, "text": text, "kept": True, "origin": "describer", "position": 0}
    return row | changes


def example(task: str, ids: Sequence[str], answers: Sequence[str], preference: float | None = None) -> dict[str, Any]:
    return {"task": task, "ids": list(ids), "answers": list(answers), "preference": preference}


def right(row: dict[str, Any]) -> tuple[str, str]:
    """The question and the words of its right option."""
    stem, options = options_in(row["questions"][0])
    assert options == row["options"]
    assert row["answers"] == [row["letter"]]
    return stem, options[ord(row["letter"]) - ord("A")]


def asked(claim: Claim, key: str, rule: QuestionRule = RULE) -> dict[str, str]:
    """Question -> right answer of all that is asked about one claim."""
    modality = "video" if claim.attribute in ("stability", "smoothness") else "image"
    rows = line_questions(
        {key: medium(key, modality=modality)}, [assertion(key, phrase(claim, modality, key))], [], rule
    )
    return dict(right(row) for row in rows if row["options"])


@pytest.mark.parametrize("rule", [RULE, SHUFFLED])
@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_answers_follow_the_claim(claim: Claim, rule: QuestionRule):
    told = [asked(claim, f"m{number}", rule) for number in range(12)]
    polar = [(stem, answer) for found in told for stem, answer in found.items() if answer in ("Yes", "No")]
    assert len(polar) == 12
    fault_words = ("blurry", "lack", "noisy", "noise visible", "too", "underexposed", "overexposed", "flat", "dull")
    fault_words += ("faded", "oversaturated", "artifacts visible", "blocky", "shake", "shaky", "stutter", "jerky")
    for stem, answer in polar:
        asks_for_fault = any(word in stem for word in fault_words)
        assert (answer == "Yes") is (asks_for_fault is (claim.fault is not None)), stem
    assert len({answer for _, answer in polar}) == 2  # both polarities are drawn
    degrees = {answer for found in told for stem, answer in found.items() if stem.startswith("How")}
    assert len(degrees) == 1
    (degree,) = degrees
    if claim.fault is None:
        assert degree in ("High", "Hardly any", "Balanced", "Sufficient", "Natural", "Hardly", "Steady", "Fluent")
    if claim.fault is Fault.BLUR:
        assert degree == ("Low" if claim.degree is Degree.STRONG else "Slightly reduced")


def test_refused_planted_and_contradicting_assertions_are_not_asked_about():
    texts = [
        assertion("a", "Sharpness is low", kept=False),
        assertion("a", "Noise is strong", origin="planted"),
        assertion("a", "The lighting is sufficient"),
        assertion("a", "The scene is dimly lit", position=1),
    ]
    rows = line_questions({"a": medium("a")}, texts, [], RULE)
    assert [row["kind"] for row in rows] == [QuestionKind.OPEN]
    assert rows[0]["answers"] == ["The lighting is sufficient. The scene is dimly lit."]


@pytest.mark.parametrize(("kind", "severity"), CELLS)
def test_a_recipe_is_asked_about_truly(kind: str, severity: int):
    modality = "video" if kind in VIDEO_TYPES else "image"
    media = {"a": medium("a", distortion=kind, severity=severity, modality=modality)}
    rows = line_questions(media, [], [example("distortion", ["a"], [words(kind, severity)])], RULE)
    told = dict(right(row) for row in rows)
    name = (
        words(kind, severity)
        .removeprefix(("slight", "mild", "relatively severe", "severe", "very severe")[strength(kind, severity) - 1])
        .strip()
    )
    applied = next(stem for stem in told if stem.startswith("Was "))
    assert told[applied] == ("Yes" if applied == f"Was {name} applied to the {modality}?" else "No")
    step = {1: "Slight", 2: "Slight", 3: "Moderate", 4: "Strong", 5: "Strong"}[strength(kind, severity)]
    assert told[f"How strong is the {name} of the {modality}?"] == step
    families = [family for family, kinds in FAMILIES.items() if kind in kinds]
    assert [told[stem] for stem in told if stem.startswith("Which kind")] == families


def test_opinions_and_pairs_are_asked_about():
    media = {key: medium(key) for key in "ab"}
    taught = [
        example("single", ["a"], ["The quality of the image is good"]),
        example("pair", ["a", "b"], ["x", "y"], 1.0),
        example("pair", ["b", "a"], ["y", "x"], 0.0),
        example("pair", ["a", "b"], ["x", "y"], 0.5),
        example("description", ["a"], ["Edges are crisp"]),
    ]
    rows = line_questions(media, [], taught, RULE)
    assert Counter(row["kind"] for row in rows) == {"score": 1, "compare": 2}
    score = next(row for row in rows if row["kind"] == "score")
    assert (score["answers"], score["options"], score["letter"]) == (["The quality of the image is good"], [], None)
    compared = {tuple(row["media"]): right(row) for row in rows if row["kind"] == "compare"}
    assert compared == {
        ("a", "b"): ("Which image has the better quality?", "The first image"),
        ("b", "a"): ("Which image has the better quality?", "The second image"),
    }
    assert all(row["questions"][0].count(MEDIUM_MARK) == len(row["media"]) for row in rows)


def pool(count: int) -> tuple[dict[str, Any], list[Any], list[Any]]:
    media = {f"m{n}": medium(f"m{n}", distortion=CELLS[n % 100][0], severity=CELLS[n % 100][1]) for n in range(count)}
    texts = [assertion(key, text) for key in media for text in ("Sharpness is low", "The lighting is sufficient")]
    taught = [example("distortion", [key], ["x"]) for key in media]
    return media, texts, taught


def test_growth_leaves_earlier_questions_alone_and_yes_is_no_more_likely_than_no():
    few, many = line_questions(*pool(40), RULE), line_questions(*pool(100), RULE)
    ids = {row["instruction_id"] for row in many}
    assert {row["instruction_id"] for row in few} <= ids
    assert len(ids) == len(many)
    polar = Counter(right(row)[1] for row in many if row["kind"] == "yes_no")
    assert 0.4 < polar["Yes"] / polar.total() < 0.6


def test_shuffled_options_take_their_letters_with_them():
    fixed, shuffled = (line_questions(*pool(60), rule) for rule in (RULE, SHUFFLED))
    same = [{(tuple(row["media"]), *right(row)) for row in rows if row["options"]} for rows in (fixed, shuffled)]
    assert same[0] == same[1]
    which = Counter(row["letter"] for row in shuffled if row["kind"] == "which" and right(row)[1] == "Blur")
    assert len(which) > 2
    assert {row["letter"] for row in fixed if row["kind"] == "which" and right(row)[1] == "Blur"} == {"A"}


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 30))
def test_dialogues_hold_every_question_once(turns: int, count: int):
    rule = dataclasses.replace(RULE, turns=turns)
    rows = line_questions(*pool(count), rule)
    talks = dialogues(rows, rule)
    told = [
        (talk["media"][0], question.replace(f"{MEDIUM_MARK}\n", ""), answer)
        for talk in talks
        for question, answer in zip(talk["questions"], talk["answers"], strict=True)
    ]
    wanted = [(row["media"][0], row["questions"][0].replace(f"{MEDIUM_MARK}\n", ""), row["answers"][0]) for row in rows]
    assert sorted(told) == sorted(wanted)
    for talk in talks:
        assert 1 <= len(talk["answers"]) <= turns
        assert [question.count(MEDIUM_MARK) for question in talk["questions"]] == [1] + [0] * (len(talk["answers"]) - 1)
        assert talk["letter"] in (None, talk["answers"][-1])
    assert len({talk["instruction_id"] for talk in talks}) == len(talks)


def test_measuring_takes_a_bounded_number_of_each_kind_that_has_options():
    rows = line_questions(*pool(30), RULE)
    chosen = measured(rows, RULE)
    assert Counter(row["kind"] for row in chosen) == {"yes_no": 4, "what_how": 4, "which": 4}
    assert measured(list(reversed(rows)), RULE) == chosen


def test_shares_choose_pairs_and_media():
    media = {f"m{n}": medium(f"m{n}") for n in range(200)}
    taught = [example("pair", [f"m{n}", f"m{n + 1}"], ["x", "y"], 1.0) for n in range(0, 200, 2)]
    asked = {
        share: line_questions(media, [], taught, dataclasses.replace(RULE, compare_share=share))
        for share in (0.0, 0.3, 1.0)
    }
    assert [len(rows) for rows in (asked[0.0], asked[1.0])] == [0, 100]
    assert 15 < len(asked[0.3]) < 45
    rows = line_questions(*pool(100), RULE)
    long = [
        sum(len(talk["answers"]) > 1 for talk in dialogues(rows, dataclasses.replace(RULE, dialogue_share=share)))
        for share in (0.0, 0.3, 1.0)
    ]
    assert long[0] == 0
    assert 0.1 * long[2] < long[1] < 0.6 * long[2]


@pytest.mark.parametrize(
    ("name", "value"), [("turns", 0), ("held_out_questions", 0), ("compare_share", 1.1), ("dialogue_share", -0.1)]
)
def test_rules_have_ranges(name: str, value: float):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(RULE, **{name: value})
