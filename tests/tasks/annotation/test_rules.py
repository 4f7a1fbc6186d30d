"""One planted fault in a coherent plant at a time: the right rule names the right rows."""
# ruff: noqa: PD008 - .loc cannot put a list into one cell

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.annotation import validate, views
from tasks.annotation.rules import all_rules
from tasks.records import Split, Task

Frames = dict[str, pd.DataFrame]


def first(frame: pd.DataFrame, mask: Any = None) -> Any:
    """Index of the first row (that fits)."""
    return frame.index[0] if mask is None else frame.index[np.asarray(mask)][0]


def put(table: str, column: str, value: Any, where: Callable[[pd.DataFrame], Any] | None = None) -> Any:
    """A fault: one value in one row; returns the key's column and value."""

    def corrupt(frames: Frames) -> list[str]:
        frame = frames[table]
        row = first(frame, None if where is None else where(frame))
        old = frame.at[row, column]
        frame[column] = frame[column].astype(object)
        frame.at[row, column] = value(old) if callable(value) else value
        key = {"candidates": "id", "opinions": "id", "examples": "example_id"}.get(table, "assertion_id")
        return [str(frame.at[row, key])]

    return corrupt


def repeat(table: str, key: str) -> Any:
    def corrupt(frames: Frames) -> list[str]:
        frames[table] = pd.concat([frames[table], frames[table].iloc[[0]]], ignore_index=True)
        return [str(frames[table][key].iloc[0])]

    return corrupt


def drop(table: str, stage: str, key: str, where: Callable[[pd.DataFrame], Any] | None = None) -> Any:
    """A fault: a row that vanishes without a reject."""

    def corrupt(frames: Frames) -> list[str]:
        frame = frames[table]
        row = first(frame, None if where is None else where(frame))
        lost = frame.at[row, key]
        frames[table] = frame.drop(index=row).reset_index(drop=True)
        return [f"{stage} {lost[0] if isinstance(lost, np.ndarray | list) else lost}"]

    return corrupt


def plant_in_description(frames: Frames) -> list[str]:
    planted = frames["reviewed"][frames["reviewed"]["origin"] == "planted"].iloc[0]
    examples = frames["examples"]
    row = first(
        examples,
        (examples["task"] == Task.DESCRIPTION) & np.array([planted["id"] in list(ids) for ids in examples["ids"]]),
    )
    examples.at[row, "answers"] = [f"{planted['text']}. {examples.at[row, 'answers'][0]}"]
    return [examples.at[row, "example_id"]]


def move_a_content(frames: Frames) -> list[str]:
    frame = frames["candidates"]
    row = first(frame, (frame["stage"] == "distort") & (frame["split"] == Split.HELD_OUT))
    frame.at[row, "split"] = "train"
    return [frame.at[row, "content_id"]]


def move_a_child(frames: Frames) -> list[str]:
    move_a_content(frames)
    frame = frames["candidates"]
    originals = dict(zip(frame["id"], frame["split"], strict=True))
    return [r.id for r in frame.itertuples() if r.split != originals[r.content_id]]


def train_on_held_out(frames: Frames) -> list[str]:
    examples = frames["examples"]
    row = first(examples, examples["split"] == Split.HELD_OUT)
    examples.at[row, "split"] = "train"
    return [examples.at[row, "example_id"]]


def unbalance_pairs(frames: Frames) -> list[str]:
    examples = frames["examples"]
    frames["examples"] = examples[examples["preference"] != 0.5].reset_index(drop=True)
    return ["0.0", "0.5", "1.0"]


def dissent(frames: Frames) -> list[str]:
    votes, reviewed = frames["votes"], frames["reviewed"]
    kept = reviewed.loc[reviewed["kept"].astype(bool), "assertion_id"].iloc[0]
    votes.at[first(votes, votes["assertion_id"] == kept), "verdict"] = "severe"
    return [kept]


def lose_votes(where: Callable[[pd.DataFrame], Any]) -> Any:
    """A fault: votes on a kept assertion that were never cast."""

    def corrupt(frames: Frames) -> list[str]:
        votes, reviewed = frames["votes"], frames["reviewed"]
        kept = reviewed.loc[reviewed["kept"].astype(bool), "assertion_id"].iloc[0]
        frames["votes"] = votes[~((votes["assertion_id"] == kept) & where(votes))].reset_index(drop=True)
        return [kept]

    return corrupt


def move_votes(frames: Frames) -> list[str]:
    """One judge votes in the place of another."""
    votes, reviewed = frames["votes"], frames["reviewed"]
    kept = reviewed.loc[reviewed["kept"].astype(bool), "assertion_id"].iloc[0]
    judges = sorted(set(votes.loc[votes["phase"] == "cross", "judge"]))
    mine = (votes["assertion_id"] == kept) & (votes["judge"] == judges[0])
    votes.loc[mine, ["judge", "round"]] = [[judges[1], turn] for turn in (4, 5, 6)]
    return [kept]


def keep_all(frames: Frames) -> list[str]:
    frames["reviewed"]["kept"] = True
    return ["describer"]


def lose_a_description(frames: Frames) -> list[str]:
    """A kept assertion whose example vanishes."""
    examples, reviewed = frames["examples"], frames["reviewed"]
    row = first(examples, examples["task"] == Task.DESCRIPTION)
    lost = reviewed[
        (reviewed["id"] == examples.at[row, "ids"][0]) & (reviewed["text"] == examples.at[row, "answers"][0])
    ]
    frames["examples"] = examples.drop(index=row)
    return [f"assemble {lost['assertion_id'].iloc[0]}"]


def is_task(task: Task) -> Callable[[pd.DataFrame], Any]:
    return lambda frame: frame["task"] == task


def is_kept(frame: pd.DataFrame) -> Any:
    return frame["kept"].astype(bool)


FAULTS = [
    ("candidates.id_is_unique", repeat("candidates", "id")),
    ("candidates.split", put("candidates", "split", "test")),
    ("candidates.modality", put("candidates", "modality", "audio")),
    ("candidates.split_of_content", move_a_child),
    ("contents.splits", move_a_content),
    ("candidates.lineage_holds", put("candidates", "severity", 6, lambda f: f["stage"] == "distort")),
    ("candidates.lineage_holds", put("candidates", "parent_id", "nobody", lambda f: f["stage"] == "distort")),
    ("candidates.lineage_holds", put("candidates", "distortion", "fog", lambda f: f["stage"] == "distort")),
    ("candidates.timing_holds", put("candidates", "frames", 0, lambda f: f["modality"] == "video")),
    ("candidates.shorter_side", put("candidates", "height", 4)),
    ("candidates.length", put("candidates", "length", 0)),
    ("candidates.bytes_sha256", put("candidates", "bytes_sha256", "none")),
    ("opinions.candidate_known", put("opinions", "id", "nobody")),
    ("opinions.bytes_known", put("opinions", "bytes_sha256", "0" * 32)),
    ("opinions.score_count", put("opinions", "scores", lambda s: s[:5])),
    ("opinions.scorers_agree", put("opinions", "scorers", lambda s: [*s[:5], "stranger"])),
    ("opinions.score_max", put("opinions", "scores", lambda s: [1.2, *s[1:]])),
    ("opinions.score_min", put("opinions", "scores", lambda s: [-0.1, *s[1:]])),
    ("opinions.mu_error", put("opinions", "mu", lambda mu: mu + 1e-5)),
    ("opinions.mu_error", put("opinions", "mu", np.nan)),
    ("opinions.sigma_error", put("opinions", "sigma", lambda sigma: sigma * (6 / 5) ** 0.5)),
    ("opinions.pmod_sum_error", put("opinions", "pmod", lambda p: [p[0] + 2e-6, *p[1:]])),
    ("opinions.pmod_mean_error", put("opinions", "pmod", lambda p: [p[0] + 1e-4, p[1] - 1e-4, *p[2:]])),
    ("opinions.pmod_min", put("opinions", "pmod", lambda p: [-0.01, p[1] + p[0] + 0.01, *p[2:]])),
    ("opinions.pmod_sum_error", put("opinions", "pmod", lambda p: p[:4])),
    ("opinions.clamp_told", put("opinions", "mu_clamped", lambda told: not told)),
    ("assertions.modality", put("assertions", "id", "nobody")),
    ("assertions.attribute", put("assertions", "attribute", "beauty")),
    ("assertions.attribute_fits", put("assertions", "attribute", "stability")),
    ("assertions.truth_fits", put("assertions", "planted_truth", None, lambda f: f["origin"] == "planted")),
    ("assertions.is_bare_sentence", put("assertions", "text", "It is dark. ")),
    ("assertions.tells_verdict", put("assertions", "text", "The overall look is fine")),
    ("reviewed.kept_tells_verdict", put("reviewed", "text", "Its Quality is low", is_kept)),
    ("reviewed.reason_fits", put("reviewed", "reason", "severe_deviation", is_kept)),
    ("reviewed.unanimous", dissent),
    ("reviewed.cross_votes", lose_votes(lambda votes: votes["phase"] == "cross")),
    ("reviewed.cross_votes", lose_votes(lambda votes: (votes["judge"] == "spectral") & (votes["round"] == 2))),
    ("reviewed.cross_votes", dissent),
    ("reviewed.self_votes", lose_votes(lambda votes: votes["phase"] == "self")),
    ("reviewed.self_votes", lose_votes(lambda votes: (votes["phase"] == "self") & (votes["round"] == 3))),
    ("reviewed.judges", lose_votes(lambda votes: votes["judge"] == "spatial")),
    ("reviewed.judges", move_votes),
    ("review_describer.kept_share", keep_all),
    ("examples.unknown_ids", put("examples", "ids", ["nobody"], is_task(Task.SINGLE))),
    ("examples.other_split", train_on_held_out),
    ("examples.trains_on_held_out", train_on_held_out),
    ("examples.other_modality", put("examples", "modality", "video", is_task(Task.DISTORTION))),
    ("examples.shape_holds", put("examples", "targets", [], is_task(Task.SINGLE))),
    ("examples.shape_holds", put("examples", "preference", 1.0, is_task(Task.SINGLE))),
    ("examples.target_error", put("examples", "targets", [[0.2] * 5], is_task(Task.SINGLE))),
    ("examples.level_agrees", put("examples", "answers", ["The quality of the image is bad"], is_task(Task.SINGLE))),
    ("examples.preference", put("examples", "preference", 2.0, is_task(Task.PAIR))),
    ("examples.preference_fits", put("examples", "preference", lambda p: 1 - p, lambda f: f["preference"] == 1.0)),
    (
        "examples.tells_verdict",
        put("examples", "answers", ["The quality of the image is poor."], is_task(Task.DESCRIPTION)),
    ),
    ("examples.planted_sentences", plant_in_description),
    (
        "examples.unreviewed_sentences",
        put("examples", "answers", ["There is fog."], is_task(Task.DESCRIPTION)),
    ),
    ("examples.distortion_told", put("examples", "answers", ["slight fog"], is_task(Task.DISTORTION))),
    ("pairs.deviation", unbalance_pairs),
    ("flow.in_is_out_plus_rejects", drop("opinions", "score", "id")),
    ("flow.in_is_out_plus_rejects", lose_a_description),
    ("flow.in_is_out_plus_rejects", drop("reviewed", "review", "assertion_id", is_kept)),
    ("flow.in_is_out_plus_rejects", drop("examples", "assemble", "ids", is_task(Task.SINGLE))),
    ("flow.in_is_out_plus_rejects", drop("rejects", "assemble", "id", lambda f: f["stage"] == "assemble")),
    ("flow.in_is_out_plus_rejects", drop("rejects", "describe", "id", lambda f: f["stage"] == "describe")),
]


@pytest.mark.parametrize(("rule", "fault"), FAULTS, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(FAULTS)])
def test_a_fault_breaks_its_rule_on_its_rows(
    coherent: views.Plant, config: validate.Config, rule: str, fault: Callable[[Frames], list[str]]
):
    frames = {
        field.name: getattr(coherent, field.name).copy(deep=True)
        for field in dataclasses.fields(coherent)
        if field.name != "reported"
    }
    ids = fault(frames)
    made = validate.make_views(views.Plant(**frames, reported=coherent.reported), config)
    own = [r for r in all_rules(config.limits) if r.view == rule.partition(".")[0]]
    outcome = next(o for o in validate.evaluate(made, own, 20) if o.name == rule)
    assert not outcome.success
    assert outcome.problem == ""
    assert outcome.severity == "error"
    assert set(ids) <= set(outcome.ids)
    assert outcome.unexpected in {len(ids), 2 * len(ids)}  # a repeated key is two rows


def test_planted_words_that_review_also_gave_to_the_describer_are_no_fault(
    coherent: views.Plant, config: validate.Config
):
    reviewed = coherent.reviewed.copy(deep=True)
    ours = reviewed[(reviewed["origin"] == "describer") & reviewed["kept"].astype(bool)]
    other = first(reviewed, (reviewed["origin"] == "planted") & reviewed["id"].isin(ours["id"]))
    reviewed.at[other, "text"] = ours.loc[ours["id"] == reviewed.at[other, "id"], "text"].iloc[0]
    made = validate.make_views(dataclasses.replace(coherent, reviewed=reviewed), config)
    assert made["examples"]["planted_sentences"].sum() == 0
    assert made["examples"]["unreviewed_sentences"].sum() == 0


def test_a_tiny_pool_is_not_judged_by_shares(coherent: views.Plant, config: validate.Config):
    examples = coherent.examples[coherent.examples["task"] != Task.PAIR].reset_index(drop=True)
    few = dataclasses.replace(config, limits=dataclasses.replace(config.limits, min_assertions=10_000))
    made = validate.make_views(dataclasses.replace(coherent, examples=examples), few)
    assert (made["pairs"]["deviation"] == 0).all()
    assert made["review_describer"]["kept_share"].isna().all()
    own = [r for r in all_rules(few.limits) if r.view in {"pairs", "review_describer", "review_true", "review_false"}]
    assert all(outcome.success for outcome in validate.evaluate(made, own, 5))


def test_more_revisions_are_allowed_by_params(coherent: views.Plant, config: validate.Config):
    votes = coherent.votes.copy()
    votes.loc[votes["phase"] == "cross", "attempt"] = 3
    made = validate.make_views(dataclasses.replace(coherent, votes=votes), config)
    for allowed, holds in ((2, False), (3, True)):
        limits = dataclasses.replace(config.limits, max_revisions=allowed)
        own = [rule for rule in all_rules(limits) if rule.key == "votes.attempt"]
        assert [outcome.success for outcome in validate.evaluate(made, own, 5)] == [holds]
