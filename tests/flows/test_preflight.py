"""What a run is told before it starts."""

import json
from pathlib import Path

import pytest
import yaml

from flows import preflight, stages
from flows.preflight import check_configs, check_keys, check_targets
from tasks.errors import ConfigError
from tasks.stage import STAGES


@pytest.fixture
def params(checkout: Path) -> dict:
    return yaml.safe_load((checkout / "params.yaml").read_text())


def test_targets():
    assert check_targets(None) == list(STAGES)
    assert check_targets(["score"]) == ["score"]
    with pytest.raises(ConfigError, match="unknown stage 'scores'; the stages are collect, "):
        check_targets(["scores"])


@pytest.mark.slow
def test_every_wrong_section_of_the_real_line_is_named(params: dict, tmp_path: Path):
    del params["assemble"]
    params["pretrain"]["training"]["stepz"] = 3
    params["score"]["nonsense"] = 1
    with pytest.raises(ConfigError) as caught:
        check_configs(params, ["collect", "assemble", "pretrain"], tmp_path)
    told = str(caught.value)
    assert "params section 'pretrain.training': unknown key 'stepz'" in told
    assert "params.yaml has no section 'assemble'" in told
    assert "nonsense" not in told  # score is no target
    assert "\n" not in told


def test_sections_that_a_stage_ran_with_are_not_checked_again(
    params: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[dict] = []
    monkeypatch.setattr(preflight, "_problem", lambda text: asked.extend(json.loads(text)) or "")
    stages = {name: {"params": {"params.yaml": {name: params[name]}}} for name in STAGES}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    check_configs(params, list(STAGES), tmp_path)
    assert asked == []
    params["review"]["more"] = 1
    check_configs(params, list(STAGES), tmp_path)
    assert asked == [{"review": params["review"]}]


@pytest.mark.parametrize("lock", ["stages: [", "3", "stages: {collect: {cmd: not run yet}}"])
def test_a_lock_that_says_nothing_is_no_obstacle(
    lock: str, params: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    monkeypatch.setattr(preflight, "_problem", lambda text: asked.append(text) or "")
    (tmp_path / "dvc.lock").write_text(lock)
    check_configs(params, ["collect"], tmp_path)
    assert len(asked) == 1


def test_keys_are_looked_for_of_the_stages_that_may_run_alone(params: dict, monkeypatch: pytest.MonkeyPatch):
    role = {"base_url": "https://x/v1", "model": "m", "key": "SOME_KEY"}
    params["describe"]["endpoints"] = {"describer": role}
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"nothing was run: key of describe.describer: set SOME_KEY in the environ"):
        check_keys(params, ["collect", "describe"])
    check_keys(params, ["collect", "review"])
    monkeypatch.setenv("SOME_KEY", "x")
    check_keys(params, ["describe"])


def test_what_may_run_is_what_is_stale_and_what_reads_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(stages, "find_stale", lambda _root: {"score"})
    upstream = {"describe": {"score"}, "review": {"describe"}}
    monkeypatch.setattr(stages, "upstream_stages", lambda _root: {name: upstream.get(name, set()) for name in STAGES})
    assert stages.Line(tmp_path, list(STAGES)).due() == ["score", "describe", "review"]
    assert stages.Line(tmp_path, ["collect", "review"]).due() == []


def test_sections_of_several_runs_are_checked_in_one_process_and_each_wrong_one_is_named(params: dict):
    good, bad = params["pretrain"], params["pretrain"] | {"trained": []}
    preflight.check_sections([])
    preflight.check_sections([{"pretrain": good}, {"pretrain": good}])
    with pytest.raises(ConfigError, match=r"trained must name.*warm_up.*unknown key 'colour'"):
        preflight.check_sections([{"pretrain": bad}, {"pretrain": good, "warm_up": params["warm_up"] | {"colour": 1}}])
