"""What the dry run foresees, and what is told of one sample afterwards."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import told_pool
from click.testing import CliRunner
from lmm_server import Lmm, agreeable, serving, text_of
from told_pool import section

from models.signals.claims import parse_claim
from tasks.annotation import review
from tasks.annotation.forecast import forecast
from tasks.annotation.story import tell
from tasks.errors import StageError
from tasks.evaluation.data_facts import paid_calls
from tasks.records import ASSERTIONS, CANDIDATES
from tasks.shards import frame_of, read_table, write_table
from tasks.stage import Place, build_config
from vital.review_commands import show


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving(Lmm(brain=revising)) as lmm:
        yield lmm


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CANARY_KEY", "sk-canary")
    told_pool.build(tmp_path, images=2, assertions=2, clip=False)
    return tmp_path


def revising(body: dict[str, Any]) -> str:
    """One judge wants every fault to be slight, and is content then; the rest agree."""
    text = text_of(body)
    if "yes, no or unsure" in text:
        return json.dumps({"answer": "no" if "Are they right?" in text else "yes", "reason": "looked again"})
    said = json.loads(text.partition("as JSON: ")[2].partition("\n")[0])["statement"]
    wanted = {"sharpness": "Sharpness is slightly reduced", "noise": "Slight noise is visible"}
    attribute = review_attribute(said)
    if body["model"] == "gpt-1" and attribute in wanted and said != wanted[attribute]:
        return json.dumps({"verdict": "revise", "revision": wanted[attribute], "reason": "less"})
    return agreeable(body)


def review_attribute(text: str) -> str:
    claim = parse_claim(text)
    return str(claim.attribute) if claim else ""


def settings(lmm: Lmm, **changes: Any) -> review.Config:
    return build_config(review.Config, "review", section(lmm.address, **changes))


def reviewed(root: Path, lmm: Lmm) -> review.Report:
    where = root / ".work" / "review"
    return review.run(settings(lmm), Place(root, where, root / "artifacts" / "review"))


def test_the_dry_run_counts_before_anything_is_asked(root: Path, lmm: Lmm):
    config = settings(lmm)
    assert config.endpoints is not None
    found = forecast(config.endpoints, Place(root, root, root), config.rounds, config.max_revisions)
    assert {one.role: (one.least, one.most) for one in found} == {
        "gpt": (12, 36),
        "gemini": (12, 36),
        "qwen": (12, 36),
        "annotator": (12, 12),
    }
    gpt = found[0]
    assert gpt.tokens_in > 12 * 1100
    assert gpt.cost == pytest.approx((gpt.tokens_in * 2 + gpt.tokens_out * 8) / 1e6)
    assert gpt.most_cost > gpt.cost
    assert lmm.seen == {}
    told = review.foresee(config, root)
    assert told[0].startswith("48 calls (at most 120)")


def test_the_dry_run_halves_the_cost_of_batches_and_finds_nothing_left_after_the_review(root: Path, lmm: Lmm):
    place, live, batch = Place(root, root, root), settings(lmm), settings(lmm, mode="batch")
    assert live.endpoints is not None
    assert batch.endpoints is not None
    costs = [sum(one.cost for one in forecast(who, place, 3, 2)) for who in (live.endpoints, batch.endpoints)]
    assert costs[1] == pytest.approx(costs[0] / 2)
    reviewed(root, lmm)
    assert sum(one.most for one in forecast(live.endpoints, place, 3, 2)) == 0


def test_a_story_has_votes_revisions_self_review_outcome_and_costs(root: Path, lmm: Lmm):
    reviewed(root, lmm)
    ids = told_pool.build(root, images=2, assertions=2, clip=False)
    stories = [tell(Place(root, root, root), name) for name in ids]
    assertions = [assertion for story in stories for assertion in story.assertions]
    assert len(assertions) == 4
    assert sum(story.calls for story in stories) == sum(lmm.paid.values())
    assert all(story.cost > 0 for story in stories)
    for assertion in assertions:
        assert assertion.kept
        assert assertion.ballots[0].text == assertion.text
        assert [ballot.phase for ballot in assertion.ballots][-1] == "self"
        assert len(assertion.ballots[-1].votes) == 3
        votes = [vote for ballot in assertion.ballots for vote in ballot.votes]
        assert all(vote["cost"] is not None and vote["latency_s"] is not None for vote in votes)
        if review_attribute(assertion.text) in ("sharpness", "noise") and assertion.final_text != assertion.text:
            assert [ballot.text for ballot in assertion.ballots] == [assertion.text, *[assertion.final_text] * 2]


def test_what_a_review_has_cost_is_left_for_the_card(root: Path, lmm: Lmm):
    reviewed(root, lmm)
    ids = told_pool.build(root, images=2, assertions=2, clip=False)
    stories = [tell(Place(root, root, root), name) for name in ids]
    roles = {row["role"]: row for row in paid_calls(root, ["describe", "review"])}
    assert set(roles) == {"gpt", "gemini", "qwen", "annotator"}
    assert sum(row["all"]["calls"] for row in roles.values()) == sum(lmm.paid.values())
    assert sum(row["all"]["cost"] for row in roles.values()) == pytest.approx(sum(story.cost for story in stories))
    assert all(row["new"] == row["all"] for row in roles.values())


def test_the_command_tells_it_to_people_and_programs(root: Path, lmm: Lmm):
    reviewed(root, lmm)
    name = told_pool.build(root, images=2, assertions=2, clip=False)[0]
    said = CliRunner().invoke(show, [name[:10], "--workspace", str(root)], catch_exceptions=False)
    assert said.exit_code == 0
    assert "gpt (gpt-1-2026-11-01) round 1: " in said.output
    assert "self-review: " in said.output
    assert "=> kept (unanimous)" in said.output
    assert "paid calls, cost" in said.output
    machine = json.loads(CliRunner().invoke(show, [name, "--workspace", str(root), "--json"]).output)
    assert machine["id"] == name


def test_a_path_means_the_original_and_children_are_told_by_id(root: Path, lmm: Lmm):
    first, second = (read_table(root / "artifacts/collect/candidates.parquet", CANDIDATES).to_dict("records"))[:2]
    collected, made = (root / "artifacts" / stage / "candidates.parquet" for stage in ("collect", "distort"))
    child = second | {"parent_id": first["id"], "source": first["source"], "distortion": "jpeg", "severity": 3}
    write_table(collected, CANDIDATES, frame_of(CANDIDATES, [first]))
    write_table(made, CANDIDATES, frame_of(CANDIDATES, [child]))
    shutil.copytree(collected.parent / "media", made.parent / "media")
    reviewed(root, lmm)
    place = Place(root, root, root)
    assert tell(place, first["source"]).id == first["id"]
    assert (tell(place, child["id"]).id, tell(place, child["id"][:12]).distortion) == (child["id"], "jpeg")
    described = root / "artifacts" / "describe" / "assertions.parquet"
    texts = read_table(described, ASSERTIONS)
    write_table(described, ASSERTIONS, texts[texts["id"] == child["id"]])
    with pytest.raises(StageError, match=f"no reviewed sample is called .*, for example one of {child['id'][:12]}$"):
        tell(place, first["source"])


def test_an_unknown_or_ambiguous_id_says_what_there_is(root: Path, lmm: Lmm):
    reviewed(root, lmm)
    with pytest.raises(StageError, match="no reviewed sample is called 'zzz': give more of an id, for example one of"):
        tell(Place(root, root, root), "zzz")
    with pytest.raises(StageError, match="no reviewed sample is called ''"):
        tell(Place(root, root, root), "")
