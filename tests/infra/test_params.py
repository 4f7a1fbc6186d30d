"""Profiles and settings lie on top of params.yaml; unknown names are refused with the known ones."""

from pathlib import Path

import pytest
import yaml

from infra.errors import InfraError
from infra.params import EMBEDDED, apply_settings, merge, parse_settings, profile_names, profile_params


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "infra" / "profiles").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text(
        "collect: {pool: data/pool, limits: {side: 16, bytes: 9}}\nscore: {names: [a, b]}\n"
    )
    (tmp_path / "infra" / "profiles" / "paper.yaml").write_text("collect: {limits: {side: 32}}\nscore: {names: [c]}\n")
    return tmp_path


def test_a_profile_replaces_what_it_names_and_nothing_else(small: Path):
    assert profile_names(small) == [EMBEDDED, "paper"]
    assert profile_params(small, "paper") == {
        "collect": {"pool": "data/pool", "limits": {"side": 32, "bytes": 9}},
        "score": {"names": ["c"]},
    }


def test_an_unknown_profile_is_told_with_the_known_ones(small: Path):
    with pytest.raises(InfraError, match="unknown profile 'huge'; the profiles are embedded, paper"):
        profile_params(small, "huge")


def test_a_profile_with_an_unknown_section_is_refused(small: Path):
    (small / "infra" / "profiles" / "odd.yaml").write_text("scores: {}\n")
    with pytest.raises(InfraError, match=r"profile odd: .* no section 'scores'"):
        profile_params(small, "odd")


def test_merging_leaves_both_sides_as_they_were():
    base, overlay = {"a": {"b": [1]}}, {"a": {"c": [2]}}
    merged = merge(base, overlay)
    merged["a"]["b"].append(3)
    merged["a"]["c"].append(3)
    assert (base, overlay) == ({"a": {"b": [1]}}, {"a": {"c": [2]}})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("pretrain.steps=5", {"pretrain": {"steps": 5}}),
        ("a.b.c=[1, x]", {"a": {"b": {"c": [1, "x"]}}}),
        ("a.b=", {"a": {"b": None}}),
        ("a.b=s3://x/y=z", {"a": {"b": "s3://x/y=z"}}),
    ],
)
def test_settings_are_yaml(text: str, parsed: dict):
    assert parse_settings([text]) == parsed


def test_settings_of_one_section_add_up():
    assert parse_settings(["a.b=1", "a.c=2"]) == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("text", ["steps=5", "pretrain.steps", ".x=1", "a.=1", "a.b=[1"])
def test_a_setting_of_another_form_is_refused(text: str):
    with pytest.raises(InfraError, match="setting"):
        parse_settings([text])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"score": {"name": []}}, "unknown key; the keys of score are names"),
        ({"none": {"x": 1}}, "unknown section"),
        ({"score": 3}, "expected keys with values, found 3"),
    ],
)
def test_an_unknown_key_or_section_is_told_with_the_known_ones(settings: dict, told: str, small: Path):
    with pytest.raises(InfraError, match=told):
        apply_settings(profile_params(small, EMBEDDED), settings)


def test_every_profile_of_the_project_lies_on_its_params(checkout: Path):
    sections = set(yaml.safe_load((checkout / "params.yaml").read_text()))
    for name in profile_names(checkout):
        assert set(profile_params(checkout, name)) == sections
