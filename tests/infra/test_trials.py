"""Workspaces of trials, what makes a result stale, and results that appear whole."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from tiny_study import STUDY, make_frame, make_result, write_study

from infra.errors import InfraError
from infra.study_files import read_study
from infra.trials import (
    INPUTS,
    Conditions,
    adopt_result,
    conditions,
    drop_shared,
    find_twin,
    has_other_code,
    has_weights,
    idle_start,
    params_hash,
    prepare_trial,
    read_media,
    read_result,
    sole_run,
    staleness,
    studies_home,
    workspace_of,
)
from tasks.stage import RESUMABLE
from tasks.training.config import TrainingConfig

NOW = Conditions(dict.fromkeys(INPUTS, "0"), "c")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_frame(tmp_path / "checkout")


@pytest.fixture
def line(root: Path) -> Path:
    for name in INPUTS:
        (root / "artifacts" / name).mkdir(parents=True)
        (root / "artifacts" / name / "table").write_text(name)
    return root


def test_without_a_finished_line_there_is_nothing_to_build_on(root: Path):
    with pytest.raises(InfraError, match=r"artifacts/collect is missing.*run `vital run` first"):
        conditions(root)


def test_conditions_are_dvcs_hashes_and_move_with_data_and_code(line: Path):
    before = conditions(line)
    assert before == conditions(line)
    # DVC names a folder by the MD5 of its listing: [{"md5": md5("score"), "relpath": "table"}]
    assert before.inputs["score"] == "ddecbfec12b27199a7a1924a666f9775.dir"
    (line / "artifacts/score/table").write_text("other")
    after = conditions(line)
    assert {name for name in INPUTS if before.inputs[name] != after.inputs[name]} == {"score"}
    assert after.code == before.code
    (line / "models").unlink()
    (line / "models").mkdir()
    for file in (Path(__file__).resolve().parents[2] / "models").rglob("*.py"):
        copied = line / file.relative_to(Path(__file__).resolve().parents[2])
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(file.read_bytes() + b"\n" * (file.name == "losses.py"))
    for file in (Path(__file__).resolve().parents[2] / "models").glob("niqe_pristine.safetensors"):
        (line / "models" / file.name).write_bytes(file.read_bytes())
    assert conditions(line).code != before.code


def test_a_workspace_sees_the_checkouts_annotation_and_what_it_starts_from(line: Path):
    study, now = read_study(line, "tiny"), conditions(line)
    full, level, zoo = study.trials((), [1])
    for trial in (full, level, zoo):
        place = prepare_trial(study, trial, line, now)
        assert place == prepare_trial(study, trial, line, now) == workspace_of(trial, line)
        assert (place / "artifacts/score/table").read_text() == "score"
        assert yaml.safe_load((place / "params.yaml").read_text()) == study.params_of(trial, line)
        stages = yaml.safe_load((place / "dvc.yaml").read_text())["stages"]
        assert list(stages) == list(trial.variant.stages)
        deps = [Path(dep) for stage in stages.values() for dep in stage["deps"]]
        assert all(dep.is_absolute() and dep.exists() for dep in deps if dep.parts[0] != "artifacts")
    (workspace_of(full, line) / "artifacts/pretrain").mkdir()
    (workspace_of(full, line) / "artifacts/pretrain/recipe.json").write_text("{}")
    assert (workspace_of(zoo, line) / "artifacts/pretrain/recipe.json").read_text() == "{}"
    shared = {(workspace_of(trial, line) / ".work/shared").resolve() for trial in (full, level, zoo)}
    assert len(shared) == 1
    (line / "artifacts/score/table").write_text("other")
    prepare_trial(study, full, line, conditions(line))
    assert (workspace_of(full, line) / ".work/shared").resolve() not in shared, "other data, other prepared media"


def test_data_of_another_machine_are_the_same_up_to_rounding(root: Path):
    study = read_study(root, "tiny")
    level = study.trials(["level"])[0]
    result = make_result(root, "level-seed0", [0.5])
    targets = {"m1": 0.2, "m2": 0.7}
    media = {"id": [*targets], "target": [*targets.values()]}
    (root / "metrics/studies/tiny/media-12345678.json").write_text(json.dumps(media))
    near = {medium: target + 0.0049 for medium, target in targets.items()}

    def reason(held_out: dict[str, float], annotation: str = "", **inputs: str) -> str:
        now = Conditions(NOW.inputs | {"score": "1"} | inputs, "c", annotation, held_out)
        return staleness(result, study, level, root, now)

    assert reason(near) == ""
    assert reason({medium: target - 0.0051 for medium, target in targets.items()}) == "score changed"
    assert reason({**near, "another": 0.5}) == "score changed"
    assert reason(near, base="1") == "score, base changed"
    result["annotation"] = "tolerant"
    assert reason(near, "strict") == "score changed", "annotated by other numbers"
    assert reason(near, "tolerant") == ""


def test_a_result_is_stale_by_settings_and_data_and_not_by_code(root: Path):
    study = read_study(root, "tiny")
    level = study.trials(["level"])[0]
    result = make_result(root, "level-seed0", [0.5])
    assert read_result(level, root) == result
    assert staleness(result, study, level, root, NOW) == ""
    moved = Conditions(NOW.inputs | {"score": "1", "base": "2"}, "d")
    assert staleness(result, study, level, root, moved) == "score, base changed"
    assert staleness(result, study, level, root, None) == ""
    assert has_other_code(result, moved)
    assert not has_other_code(result, NOW)
    assert not has_other_code(result, None)
    params = yaml.safe_load((root / "params.yaml").read_text())
    for section, stale in (("report", False), ("warm_up", False), ("predict", True), ("pretrain", True)):
        changed = copy.deepcopy(params)
        key = {"report": "title", "warm_up": "max_examples", "predict": "batch", "pretrain": "views"}[section]
        changed[section][key] = "x" if section == "report" else 3
        (root / "params.yaml").write_text(yaml.safe_dump(changed))
        assert staleness(result, study, level, root, NOW) == ("settings changed" if stale else ""), section


def test_keys_that_say_how_a_stage_computes_make_no_result_stale(root: Path):
    study = read_study(root, "tiny")
    zoo = study.trials(["zoo"], [0])[-1]
    params = study.params_of(zoo, root)
    before = params_hash(zoo, params)
    resumable = {f.name for f in dataclasses.fields(TrainingConfig) if f.metadata == RESUMABLE}
    for stage in ("pretrain", "warm_up"):
        for field in dataclasses.fields(TrainingConfig):
            changed = copy.deepcopy(params)
            changed[stage]["training"][field.name] = "other"
            assert (params_hash(zoo, changed) == before) == (field.name in resumable), field.name
    for key in ("media", "streaming"):
        changed = copy.deepcopy(params)
        changed["pretrain"][key] = "other"
        assert params_hash(zoo, changed) == before


def test_a_trial_takes_over_what_another_study_has_trained_with_the_same_numbers(root: Path):
    tiny = read_study(root, "tiny")
    write_study(root, STUDY | {"variants": {"all": {}, "full": STUDY["variants"]["level"]}}, "other")
    other = read_study(root, "other")
    alike, unlike, second = other.trials()[0], other.trials()[1], other.trials()[2]
    assert find_twin(other, alike, root, NOW) is None
    folder = root / "metrics/studies/tiny"
    result = make_result(root, "full-seed0", [0.5], stages=["pretrain"], settings={}, seconds={"pretrain": 1.0})
    (folder / "media-12345678.json").write_text('{"id": ["a"]}')
    assert find_twin(other, unlike, root, NOW) is None, "other numbers"
    assert find_twin(other, second, root, NOW) is None, "another seed"
    assert find_twin(tiny, tiny.trials()[0], root, NOW) is None, "its own"
    assert find_twin(other, alike, root, Conditions(NOW.inputs, "d")) is None, "other code"
    assert find_twin(other, alike, root, Conditions(NOW.inputs | {"score": "1"}, "c")) is None, "other data"
    found = find_twin(other, alike, root, NOW)
    assert found == result
    adopt_result(found, other, alike, root)
    adopted = read_result(alike, root)
    assert adopted is not None
    assert adopted["trained_as"] == "tiny/full-seed0"
    assert (adopted["study"], adopted["variant"], adopted["models"]) == ("other", "all", result["models"])
    assert adopted["settings"] == other.settings_of(alike)
    assert read_media("other", "12345678", root) == {"id": ["a"]}
    assert staleness(adopted, other, alike, root, NOW) == ""


def test_weights_are_trusted_only_if_the_trial_would_train_them_today(root: Path):
    study = read_study(root, "tiny")
    full = study.trials(["full"], [0])[0]
    place = workspace_of(full, root)
    (place / "artifacts/pretrain").mkdir(parents=True)
    (place / "artifacts/pretrain/recipe.json").write_text("{}")
    assert not has_weights(study, full, root, NOW), "nobody says what they are made of"
    (place / ".work").mkdir()
    made = {"params": params_hash(full, study.params_of(full, root)), "inputs": dict(NOW.inputs)}
    (place / ".work/made_of.json").write_text(json.dumps(made))
    assert has_weights(study, full, root, NOW)
    assert has_weights(study, full, root, None)
    assert not has_weights(study, full, root, Conditions(NOW.inputs | {"base": "1"}, "c"))
    (place / ".work/made_of.json").write_text(json.dumps(made | {"params": "0"}))
    assert not has_weights(study, full, root, NOW)


def test_what_a_trial_starts_from_is_part_of_its_settings(root: Path):
    study = read_study(root, "tiny")
    zoo = study.trials(["zoo"], [0])[-1]
    before = params_hash(zoo, study.params_of(zoo, root))
    changed = copy.deepcopy(STUDY)
    changed["variants"]["full"] = {"settings": {"pretrain": {"views": 1}}}
    write_study(root, changed)
    study = read_study(root, "tiny")
    assert params_hash(zoo, study.params_of(zoo, root)) != before


@pytest.mark.parametrize("text", ["{", "[]", '{"study": "tiny"}'])
def test_a_file_that_is_no_result_is_named(root: Path, text: str):
    study = read_study(root, "tiny")
    assert read_result(study.trials()[0], root) is None
    path = root / "metrics/studies/tiny/full-seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InfraError, match=r"full-seed0\.json.*remove it"):
        read_result(study.trials()[0], root)


def test_weights_stay_as_long_as_an_unfinished_trial_of_the_seed_starts_from_them(root: Path):
    full, level, zoo, full_1, *_ = read_study(root, "tiny").trials()
    assert not idle_start(full, [level, zoo])
    assert idle_start(full, [level])
    assert idle_start(full_1, [level, zoo])
    assert idle_start(level, [zoo])


def test_a_study_has_one_run_at_a_time(root: Path):
    with sole_run("tiny", root):
        with pytest.raises(InfraError, match="another run of the study tiny is at work"), sole_run("tiny", root):
            pass
        with sole_run("other", root):
            pass
    with sole_run("tiny", root):
        pass


def test_shared_media_go_unless_another_study_is_in_the_middle_of_something(root: Path):
    home = studies_home(root)
    (home / "shared" / "k").mkdir(parents=True)
    (home / "other" / "full-seed0").mkdir(parents=True)
    drop_shared("tiny", root)
    assert (home / "shared" / "k").is_dir()
    (home / "other" / "full-seed0").rmdir()
    (home / "other" / "lock").touch()
    drop_shared("tiny", root)
    assert not (home / "shared").exists()
    assert json.dumps(sorted(p.name for p in home.iterdir())) == '["other"]'
