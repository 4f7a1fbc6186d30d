"""The dry run of a review that was stopped: what is left is what is asked then."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import told_pool
from lmm_server import Lmm, agreeable, moody, serving, text_of
from told_pool import section

from tasks.annotation import review
from tasks.annotation.forecast import Forecast, forecast
from tasks.annotation.spending import BudgetReachedError
from tasks.records import ASSERTIONS, CANDIDATES
from tasks.shards import read_table, write_table
from tasks.stage import Place, build_config


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving(Lmm(brain=agreeing)) as lmm:
        yield lmm


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CANARY_KEY", "sk-canary")
    told_pool.build(tmp_path, images=2, assertions=3, clip=False)
    return tmp_path


def self_review(body: dict[str, Any]) -> str | None:
    text = text_of(body)
    if "yes, no or unsure" not in text:
        return None
    return json.dumps({"answer": "no" if "Are they right?" in text else "yes", "reason": "looked again"})


def agreeing(body: dict[str, Any]) -> str:
    return self_review(body) or agreeable(body)


def severe(body: dict[str, Any]) -> str:
    return self_review(body) or json.dumps({"verdict": "severe", "revision": None, "reason": "no"})


def revised_once(root: Path) -> Any:
    """A brain that agrees with one assertion of each sample at once and revises the others once."""
    rows = read_table(root / "artifacts" / "describe" / "assertions.parquet", ASSERTIONS)
    first = set(rows.loc[rows["position"] > 0, "text"])

    def brain(body: dict[str, Any]) -> str:
        found = self_review(body)
        if found is None:
            said = json.loads(text_of(body).partition("as JSON: ")[2].partition("\n")[0])["statement"]
            if said in first:
                return json.dumps({"verdict": "revise", "revision": f"{said} here", "reason": "more"})
        return found or agreeable(body)

    return brain


def run(root: Path, lmm: Lmm, **changes: Any) -> int:
    """Review, or begin to; returns how many calls were made."""
    before, where = sum(lmm.seen.values()), root / ".work" / "review"
    settings = build_config(review.Config, "review", section(lmm.address, **changes))
    try:
        review.run(settings, Place(root, where, where / "out"))
    except BudgetReachedError:
        assert changes
    return sum(lmm.seen.values()) - before


def left(root: Path, lmm: Lmm) -> tuple[int, int, dict[str, Forecast]]:
    """Calls that are left, at least and at most, and by role."""
    settings = build_config(review.Config, "review", section(lmm.address))
    assert settings.endpoints is not None
    place = Place(root, root, root)
    found = forecast(settings.endpoints, place, settings.rounds, settings.max_revisions)
    return sum(one.least for one in found), sum(one.most for one in found), {one.role: one for one in found}


def test_matters_that_are_unanimous_already_are_followed_to_their_self_review(root: Path, lmm: Lmm):
    lmm.brain = revised_once(root)
    assert run(root, lmm, budget={"max_calls": 54}) == 54  # the first ballot of six assertions
    least, most, roles = left(root, lmm)
    assert roles["annotator"].least == roles["annotator"].most == 6 * 3
    assert roles["gpt"].least == 4 * 3
    assert least == 4 * 9 + 6 * 3
    assert most == 4 * 9 * 2 + 6 * 3
    assert run(root, lmm) == least
    assert left(root, lmm)[:2] == (0, 0)


@pytest.mark.parametrize("calls", [1, 20, 60])
def test_what_is_left_after_a_stop_is_exact_if_all_agree(root: Path, lmm: Lmm, calls: int):
    assert run(root, lmm, budget={"max_calls": calls}) == calls
    least, most, _ = left(root, lmm)
    assert least == 54 + 18 - calls
    assert most >= least
    assert run(root, lmm) == least


@pytest.mark.parametrize("calls", [1, 30, 70])
def test_the_most_is_never_exceeded_whatever_judges_answer(root: Path, lmm: Lmm, calls: int):
    for brain in (revised_once(root), moody):
        lmm.brain = brain
        run(root, lmm, budget={"max_calls": calls})
        _, most, roles = left(root, lmm)
        cost = sum(one.most_cost for one in roles.values())
        spent = run(root, lmm)
        assert spent <= most
        assert cost >= spent * 900 * 2 / 1e6
        (root / ".work").rename(root / f".work-{brain.__name__}")
        (root / "store").rename(root / f"store-{brain.__name__}")


def test_an_assertion_that_a_judge_has_thrown_out_costs_nothing_more(root: Path, lmm: Lmm):
    lmm.brain = severe
    run(root, lmm, budget={"max_calls": 54})
    assert left(root, lmm)[:2] == (0, 0)


def test_a_content_that_occurs_twice_is_counted_once(root: Path, lmm: Lmm):
    told_pool.build(root, images=1, assertions=3, clip=False)
    for stage, name, rows in (("collect", "candidates", CANDIDATES), ("describe", "assertions", ASSERTIONS)):
        path = root / "artifacts" / stage / f"{name}.parquet"
        frame = read_table(path, rows)
        twin = frame.assign(id="twin")
        if "assertion_id" in frame:
            twin = twin.assign(assertion_id="twin-" + twin["assertion_id"])
        write_table(path, rows, pd.concat([frame, twin]))
    least, most, _ = left(root, lmm)
    assert (least, most) == (27 + 9, 81 + 9)
    assert run(root, lmm) == least
