"""A stage is one verb by the same name everywhere, and its pipeline file names the code that it runs."""

import importlib.util
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from infra.pipeline_deps import code_of, differences
from tasks.stage import RECIPES, STAGES, STEPS, build_config, load_stage

EVERY = {**STAGES, **RECIPES}


def pipeline(checkout: Path, stage: str) -> dict[str, Any]:
    file = "dvc.yaml" if stage in STAGES else f"infra/{stage}/dvc.yaml"
    return yaml.safe_load((checkout / file).read_text())["stages"]


def test_the_line_and_its_pipeline_file_name_the_same_stages_in_the_same_order(checkout: Path):
    assert list(pipeline(checkout, "collect")) == list(STAGES)
    assert all(list(pipeline(checkout, recipe)) == [recipe] for recipe in RECIPES)


def test_params_have_a_section_for_each_stage_and_step_and_no_other(checkout: Path):
    assert set(yaml.safe_load((checkout / "params.yaml").read_text())) == {*EVERY, *STEPS}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_a_flow_has_module_section_and_tests_of_its_name_and_is_no_stage(step: str, checkout: Path):
    module, params = STEPS[step], yaml.safe_load((checkout / "params.yaml").read_text())
    assert module.rpartition(".")[2] == step
    build_config(load_stage(step).Config, step, params[step])
    assert (checkout / "tests" / Path(*module.split(".")[:-1]) / f"test_{step}.py").is_file()
    assert step not in EVERY


@pytest.mark.parametrize("stage", EVERY)
def test_a_stage_has_module_section_command_output_metrics_and_tests_of_its_name(stage: str, checkout: Path):
    module = EVERY[stage]
    assert module.rpartition(".")[2] == stage
    assert importlib.util.find_spec(module) is not None
    declared = pipeline(checkout, stage)[stage]
    assert f"python -m tasks {stage}" in declared["cmd"]
    assert stage in declared["params"]
    outs = [out if isinstance(out, str) else next(iter(out)) for out in declared["outs"]]
    assert outs == [f"artifacts/{stage}"]
    assert declared["metrics"] == [{f"metrics/{stage}.json": {"cache": False}}]
    assert (checkout / "tests" / Path(*module.split(".")[:-1]) / f"test_{stage}.py").is_file()


def test_register_declares_the_sections_that_its_candidates_carry(checkout: Path):
    declared = pipeline(checkout, "register")["register"]["params"]
    made_by_training = list(STAGES)[: list(STAGES).index("linear_probe") + 1]
    assert declared == ["register", *made_by_training]


@pytest.mark.parametrize("stage", EVERY)
def test_the_section_of_a_stage_is_its_config(stage: str, checkout: Path):
    params = yaml.safe_load((checkout / "params.yaml").read_text())
    build_config(load_stage(stage).Config, stage, params[stage])


def test_pipeline_files_name_the_code_that_stages_import():
    told = [f"{found.pipeline} {found.stage}: +{found.missing} -{found.idle}" for found in differences()]
    assert told == [], "run python -m infra.pipeline_deps --write"


def test_code_of_a_module_counts_packages_and_leaves_the_frame_out():
    graph = grimp.ImportGraph()
    for name in ("tasks.a.one", "tasks.a", "tasks.two", "tasks.three", "tasks.errors", "infra.store"):
        graph.add_module(name)
    graph.add_import(importer="tasks.a.one", imported="tasks.two")
    graph.add_import(importer="tasks.a.one", imported="tasks.errors")
    graph.add_import(importer="tasks.two", imported="infra.store")
    graph.add_import(importer="tasks.a", imported="tasks.three")
    assert code_of("tasks.a.one", graph) == {"tasks.a.one", "tasks.a", "tasks.two", "tasks.three"}
    assert code_of("tasks.a.one", graph, frozenset({"tasks.two"})) == {"tasks.a.one", "tasks.a", "tasks.three"}
