"""Study files: what they say, what a trial's settings are, and what no trial could be made of."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import STUDY, make_frame, write_study

from infra.errors import InfraError
from infra.study_files import read_study, study_names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_frame(tmp_path / "checkout")


def test_the_queue_goes_seed_after_seed_and_brings_what_a_variant_starts_from(root: Path):
    study = read_study(root, "tiny")
    assert [trial.name for trial in study.trials()] == [
        "full-seed0", "level-seed0", "zoo-seed0", "full-seed1", "level-seed1", "zoo-seed1",
    ]  # fmt: skip
    assert [trial.name for trial in study.trials(["zoo"], [1])] == ["full-seed1", "zoo-seed1"]
    zoo = study.trials(["zoo"], [1])[-1]
    assert study.start_of(zoo) == study.trials(["full"], [1])[0]
    assert study.start_of(study.trials()[0]) is None


def test_the_params_of_a_trial_are_the_checkouts_the_studys_the_variants_and_its_seed(root: Path):
    study = read_study(root, "tiny")
    base = yaml.safe_load((root / "params.yaml").read_text())
    by_name = {trial.name: study.params_of(trial, root) for trial in study.trials()}
    level = by_name["level-seed1"]["pretrain"]
    assert level["losses"] == base["pretrain"]["losses"] | {"target": "level"}
    assert level["training"] == base["pretrain"]["training"] | {"steps": 3, "seed": 1}
    assert by_name["zoo-seed1"]["warm_up"]["training"]["seed"] == 1
    assert {name: by_name["full-seed0"][name] for name in base if name not in ("pretrain", "warm_up")} == {
        name: base[name] for name in base if name not in ("pretrain", "warm_up")
    }


def test_a_trial_that_starts_from_another_has_its_pre_training_settings(root: Path):
    changed = copy.deepcopy(STUDY)
    changed["variants"]["zoo"]["start_from"] = "level"
    write_study(root, changed)
    study = read_study(root, "tiny")
    zoo = study.trials(["zoo"], [0])[-1]
    assert study.params_of(zoo, root)["pretrain"]["losses"]["target"] == "level"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("colour",), 1, "unknown key 'colour'"),
        (("variants", "level", "stage"), ["pretrain"], "variant level has the unknown key 'stage'"),
        (("seeds",), [], "one seed at least"),
        (("seeds",), [1, 1], "each once"),
        (("seeds",), ["a"], "does not describe a study"),
        (("size",), "weight", "size 'weight' is none of"),
        (("control",), "full", "write VARIANT/MODEL"),
        (("differences",), [["full/x", "none/x"]], "'none/x' is no row"),
        (("variants", "zoo", "start_from"), "later", "must name a variant before it"),
        (("variants", "zoo", "settings"), {"pretrain": {"decoder": "x"}}, "neither runs nor sets pretrain"),
        (("variants", "zoo", "start_from"), None, "it needs start_from"),
        (("variants", "level", "stages"), ["predict"], "stages must be of pretrain, warm_up"),
        (("variants",), None, "does not describe a study"),
    ],
)
def test_a_file_of_which_no_trial_could_be_made_is_refused_in_one_line(
    root: Path, path: tuple[str, ...], value: Any, told: str
):
    changed = copy.deepcopy(STUDY)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    write_study(root, changed)
    with pytest.raises(InfraError, match=told) as caught:
        read_study(root, "tiny")
    assert "\n" not in str(caught.value)


def test_what_the_file_lacks_is_named(root: Path):
    write_study(root, {name: value for name, value in STUDY.items() if name != "purpose"})
    with pytest.raises(InfraError, match="lacks the key 'purpose'"):
        read_study(root, "tiny")
    (root / "infra/studies/tiny.yaml").write_text("- [")
    with pytest.raises(InfraError, match="does not describe a study"):
        read_study(root, "tiny")


def test_unknown_names_are_told_with_those_that_there_are(root: Path):
    with pytest.raises(InfraError, match="unknown study 'huge'; the studies are tiny"):
        read_study(root, "huge")
    study = read_study(root, "tiny")
    with pytest.raises(InfraError, match="no variant 'levels'; it has full, level, zoo"):
        study.trials(["levels"])
    with pytest.raises(InfraError, match="no seed 7; it has 0, 1"):
        study.trials((), [7])
    changed = copy.deepcopy(STUDY)
    changed["variants"]["level"]["settings"] = {"pretrain": {"loses": {}}}
    write_study(root, changed)
    study = read_study(root, "tiny")
    with pytest.raises(InfraError, match=r"study tiny, variant level: setting pretrain\.loses: unknown key"):
        study.params_of(study.trials(["level"])[0], root)


def test_the_projects_own_studies_can_be_read(checkout: Path):
    assert set(study_names(checkout)) == {"ablations", "pretrain_size", "two_stage", "warm_up_size", "zoo"}
    for name in study_names(checkout):
        study = read_study(checkout, name)
        assert all(study.params_of(trial, checkout) for trial in study.trials())
