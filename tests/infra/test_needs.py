"""What a profile needs of a machine is told line by line, and only while it is missing."""

from pathlib import Path

import pytest

from infra import needs
from infra.errors import InfraError
from infra.needs import missing_keys, missing_needs
from infra.params import profile_names, profile_needs, profile_params
from tasks.stage import STAGES, build_config, load_stage


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("SOME_KEY", raising=False)
    monkeypatch.setattr(needs, "gpu_memories_gb", list)


def test_a_missing_key_is_named_until_it_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    wanted = {"endpoints": [{"role": "judge", "model": "gpt-5", "key": "SOME_KEY"}]}
    assert missing_needs(wanted, tmp_path) == ["key of gpt-5 (judge): set SOME_KEY in the environment"]
    monkeypatch.setenv("SOME_KEY", "x")
    assert missing_needs(wanted, tmp_path) == []


def test_every_unset_key_of_a_role_is_named_once_although_no_profile_declares_it(monkeypatch: pytest.MonkeyPatch):
    role = {"base_url": "https://x/v1", "model": "m", "key": "SOME_KEY"}
    params = {
        "collect": {"pool": "photos"},
        "describe": {"endpoints": {"describer": role, "polisher": role | {"key": "OTHER_KEY"}}},
        "review": {"endpoints": {"judges": {"a": role | {"key": None}, "b": role}, "annotator": {"base_url": "x"}}},
        "score": {"endpoints": None},
    }
    monkeypatch.setenv("OTHER_KEY", " ")
    some = "key of describe.describer, review.judges.b: set SOME_KEY in the environment"
    other = "key of describe.polisher: set OTHER_KEY in the environment"
    assert missing_keys(params, {}) == [some, other]
    assert missing_keys(params, {"endpoints": [{"role": "judge", "model": "m", "key": "SOME_KEY"}]}) == [other]
    monkeypatch.setenv("SOME_KEY", "x")
    assert missing_keys(params, {}) == [other]


def test_a_snapshot_counts_when_its_config_is_in_the_cache(tmp_path: Path):
    wanted = {"snapshots": [{"name": "org/model", "why": "the base"}]}
    (told,) = missing_needs(wanted, tmp_path)
    assert told.startswith("hub snapshot org/model (the base)")
    folder = tmp_path / "hub" / "models--org--model" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert missing_needs(wanted, tmp_path) == []


@pytest.mark.parametrize(("memories", "told"), [([], 1), ([140.0] * 7 + [80.0], 1), ([143.8] * 8, 0)])
def test_gpus_count_when_they_are_large_enough(memories: list[float], told: int, monkeypatch, tmp_path: Path):  # noqa: ANN001
    monkeypatch.setattr(needs, "gpu_memories_gb", lambda: memories)
    assert len(missing_needs({"gpus": {"count": 8, "memory_gb": 141, "why": "training"}}, tmp_path)) == told


def test_a_need_of_an_unknown_kind_is_refused(tmp_path: Path):
    with pytest.raises(InfraError, match="unknown key 'disks'"):
        missing_needs({"disks": []}, tmp_path)


def test_the_embedded_profile_needs_nothing(checkout: Path):
    assert profile_needs(checkout, "embedded") == {}


@pytest.mark.parametrize("profile", ["embedded", "embedded-long", "paper"])
def test_every_section_of_a_profile_is_its_stages_config(profile: str, checkout: Path):
    assert profile in profile_names(checkout)
    params = profile_params(checkout, profile)
    for stage in STAGES:
        build_config(load_stage(stage).Config, stage, params[stage])
    missing_needs(profile_needs(checkout, profile), checkout)


def test_the_papers_numbers_are_in_its_profile(checkout: Path):
    params = profile_params(checkout, "paper")
    assert params["score"]["scorers"] == ["fast_vqa", "dover", "q_align", "topiq_nr", "liqe", "qualiclip"]
    training = params["pretrain"]["training"]
    assert (training["learning_rate"], training["weight_decay"], training["warm_up_share"]) == (2e-5, 0.05, 0.03)
    assert training["steps"] * training["batch_examples"] == 4_580_000
    assert (training["engine"], training["processes"], training["precision"]) == ("zero2", 8, "bfloat16")
    assert training["batch_examples"] / training["processes"] == 2
    assert params["pretrain"]["losses"]["prefix_weight"] == 0.01
    assert params["warm_up"]["max_examples"] == 4000
    assert params["review"]["rounds"] == 3
