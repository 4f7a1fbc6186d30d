"""The queue of a study: what runs, why, and in which order; no Prefect server is asked."""

import json
from pathlib import Path

import pytest
from tiny_study import make_frame, make_result

from flows.study import Due, queue
from infra.study_files import read_study
from infra.trials import INPUTS, Conditions, params_hash, workspace_of

NOW = Conditions(dict.fromkeys(INPUTS, "0"), "c")
SCORES = [0.1, 0.2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_frame(tmp_path / "checkout")


def told(root: Path, now: Conditions = NOW, *, new_code: bool = False) -> dict[str, str]:
    study = read_study(root, "tiny")
    found: list[Due] = queue(study, study.trials((), [0]), root, now, new_code=new_code)
    return {one.trial.name: one.reason for one in found}


def test_what_has_no_result_runs_and_what_has_one_does_not(root: Path):
    assert told(root) == dict.fromkeys(("full-seed0", "level-seed0", "zoo-seed0"), "no result")
    for trial in ("full-seed0", "level-seed0", "zoo-seed0"):
        make_result(root, trial, SCORES)
    assert told(root) == dict.fromkeys(("full-seed0", "level-seed0", "zoo-seed0"), "")


def test_a_trial_whose_weights_are_gone_runs_again_if_another_still_starts_from_them(root: Path):
    make_result(root, "full-seed0", SCORES)
    assert told(root)["full-seed0"] == "zoo-seed0 starts from it"
    study = read_study(root, "tiny")
    full = study.trials()[0]
    weights = workspace_of(full, root) / "artifacts" / "pretrain"
    weights.mkdir(parents=True)
    (weights / "recipe.json").write_text("{}")
    assert told(root)["full-seed0"] == "zoo-seed0 starts from it", "weights of who knows what"
    made = {"params": params_hash(full, study.params_of(full, root)), "inputs": dict(NOW.inputs)}
    (workspace_of(full, root) / ".work").mkdir()
    (workspace_of(full, root) / ".work" / "made_of.json").write_text(json.dumps(made))
    assert told(root)["full-seed0"] == ""
    make_result(root, "zoo-seed0", SCORES)
    (weights / "recipe.json").unlink()
    assert told(root)["full-seed0"] == ""


def test_stale_results_run_again_and_those_of_other_code_when_asked(root: Path):
    for trial in ("full-seed0", "level-seed0", "zoo-seed0"):
        make_result(root, trial, SCORES)
    make_result(root, "level-seed0", SCORES, params="0")
    assert told(root)["level-seed0"] == "settings changed"
    later = Conditions(NOW.inputs, "d")
    assert told(root, later) == {"full-seed0": "", "level-seed0": "settings changed", "zoo-seed0": ""}
    assert told(root, later, new_code=True)["zoo-seed0"] == "code changed"
    moved = Conditions(NOW.inputs | {"base": "1"}, "c")
    assert told(root, moved)["full-seed0"] == "base changed"
