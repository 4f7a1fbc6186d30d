"""What a run is told before it starts."""

import json
from pathlib import Path

import pytest
import yaml

from flows import preflight
from flows.preflight import check_configs, check_targets
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
    monkeypatch.setattr(preflight, "_problem", lambda text: asked.append(json.loads(text)) or "")
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
