"""Roles of the profiles, and what of them is part of a prompt's version."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.params import profile_params
from models.judges import ChatJudge, DecisionJudge
from tasks.annotation import describe, review
from tasks.annotation.exhibits import Pictures
from tasks.annotation.roles import Role, bench_of
from tasks.errors import ConfigError
from tasks.stage import build_config

ROLE: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


def test_the_paper_profile_names_the_paper_s_models(checkout: Path):
    params = profile_params(checkout, "paper")
    config = build_config(review.Config, "review", params["review"])
    assert [role.model for role in config.endpoints.judges.values()] == ["gpt-5", "gemini-2.5-flash", "qwen-vl-max"]
    told = build_config(describe.Config, "describe", params["describe"])
    assert (told.endpoints.describer.model, told.endpoints.polisher.model) == ("VQA2-Assistant", "gpt-4o-mini")
    judges, annotator = bench_of(config.endpoints)
    assert len({(judge.name, judge.model, judge.prompt_version) for judge in (*judges, *annotator)}) == 6
    assert all(isinstance(judge, ChatJudge) for judge in judges)


def test_the_embedded_profile_asks_nobody(checkout: Path):
    params = profile_params(checkout, "embedded")
    assert build_config(review.Config, "review", params["review"]).endpoints is None
    assert build_config(describe.Config, "describe", params["describe"]).endpoints is None


def test_a_version_changes_with_what_changes_answers_and_with_nothing_else():
    role, pictures = Role(**ROLE), Pictures()
    same = [replace(role, concurrency=3), replace(role, price_in=9.0), replace(role, timeout_s=5.0)]
    assert {one.version(pictures) for one in (role, *same)} == {role.version(pictures)}
    others = [replace(role, temperature=0.1), replace(role, max_output_tokens=9), replace(role, structured=False)]
    versions = {one.version(pictures) for one in (role, *others)} | {role.version(Pictures(max_side=512))}
    assert len(versions) == 5


def test_prices_are_per_million_tokens():
    assert Role(**ROLE, price_in=2.0, price_out=8.0).cost(1_000_000, 500_000) == 6.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "https://me:secret@host/v1"},
        {"model": ""},
        {"concurrency": 0},
        {"price_in": -1.0},
        {"kind": "smoke"},
        {"key_value": "sk-123"},
    ],
)
def test_wrong_roles_are_refused_by_section_and_key(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match="role"):
        build_config(Role, "review.endpoints.judges.gpt: role", ROLE | wrong)


def test_the_annotator_reads_and_is_no_judge(checkout: Path):
    params = profile_params(checkout, "embedded")["review"]
    for judges in ({}, {"annotator": ROLE}):
        with pytest.raises(ConfigError, match="at least one judge"):
            build_config(review.Config, "review", params | {"endpoints": {"judges": judges, "annotator": ROLE}})
    endpoints = {"judges": {"a": ROLE}, "annotator": ROLE | {"kind": "systemone"}}
    with pytest.raises(ConfigError, match="kind chat"):
        build_config(review.Config, "review", params | {"endpoints": endpoints})


def test_a_decision_role_makes_a_decision_judge(checkout: Path):
    params = profile_params(checkout, "embedded")["review"]
    endpoints = {"judges": {"a": ROLE | {"kind": "decisions"}}, "annotator": ROLE}
    config = build_config(review.Config, "review", params | {"endpoints": endpoints})
    assert isinstance(bench_of(config.endpoints)[0][0], DecisionJudge)


def test_the_margin_of_a_decision_role_is_part_of_its_version_and_of_no_other_s(checkout: Path):
    params = profile_params(checkout, "embedded")["review"]

    def versions(**changes: Any) -> list[str]:
        judges = {"a": ROLE | {"kind": "decisions"} | changes, "b": ROLE | changes}
        config = build_config(review.Config, "review", params | {"endpoints": {"judges": judges, "annotator": ROLE}})
        return [judge.prompt_version for judge in bench_of(config.endpoints)[0]]

    plain, wide = versions(), versions(margin=0.3)
    assert plain[0] != wide[0]
    assert plain[1] == wide[1]
    with pytest.raises(ConfigError, match="margin"):
        versions(margin=0)
