"""``python -m infra.pipeline_deps``: which code each stage depends on, and whether its pipeline file says so.

A stage must be stale when code that it runs has changed, so every first-party module that it imports, directly or
through others, is among its deps. This command lists what is missing or idle; ``--write`` puts it right. Deps that are
not Python files (data, weights, artifacts) are written by hand and left alone. Needs the development tools (grimp).
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grimp
from ruamel.yaml import YAML

from infra.workspace import CHECKOUT

FRAME: Final = frozenset(
    {"tasks", "tasks.stage", "tasks.group", "tasks.errors", "models", "models.errors"}
    | {"tasks.training.cost", "tasks.training.telemetry"}
)
"""Modules whose changes cannot change a table: the frame of every stage, the classes of its errors, and telemetry."""

FRAME_PACKAGES: Final = ("infra",)
"""Packages of that kind: adapters bring the same bytes from elsewhere."""

PIPELINES: Final = {
    "dvc.yaml": frozenset[str](),
    "infra/base/dvc.yaml": frozenset(
        {"tasks.media", "tasks.video", "tasks.records", "tasks.shards"}
        | {"models.checkpoint", "models.levels", "models.quality_lmm"}
    ),
}
"""Pipeline file -> modules that are frame there. ``base`` makes its media itself: how the line stores media and tables
does not reach its weights; neither does how a model is saved and read out. Deps are relative to the checkout's root."""

_ROOTS: Final = ("tasks", "models", "infra")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Difference:
    """What a stage's deps lack, and which Python files among them it does not import.

    Paths are relative to the checkout's root.
    """

    pipeline: str
    stage: str
    missing: tuple[str, ...]
    idle: tuple[str, ...]


def differences(root: Path = CHECKOUT) -> list[Difference]:
    """Compare every stage's deps with what its module imports; only stages that differ are returned."""
    graph, found = grimp.build_graph(*_ROOTS, cache_dir=None), []
    for pipeline, frame in PIPELINES.items():
        stages: dict[str, Any] = YAML().load(root / pipeline)["stages"]
        for name, stage in stages.items():
            module = stage_module(name, graph)
            if module is None:
                continue
            files = (_file_of(imported, root) for imported in code_of(module, graph, frame))
            wanted = {file for file in files if not _says_nothing(root / file)}
            declared = {str(dependency) for dependency in stage.get("deps", [])}
            missing = {file for file in wanted if not _covered(file, declared)}
            idle = {dependency for dependency in declared if dependency.endswith(".py")} - wanted
            if missing or idle:
                found.append(Difference(pipeline, name, tuple(sorted(missing)), tuple(sorted(idle))))
    return found


def stage_module(stage: str, graph: grimp.ImportGraph) -> str | None:
    """Name of the module in ``tasks/<phase>/`` that is called like the stage; None until somebody writes it."""
    found = [name for name in graph.modules if name.startswith("tasks.") and name.split(".")[2:] == [stage]]
    return found[0] if found else None


def code_of(module: str, graph: grimp.ImportGraph, frame: frozenset[str] = frozenset()) -> set[str]:
    """Modules that a module imports, directly or not, with their packages and itself; without the frame."""
    reached, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in graph.modules or name in frame or _is_frame(name):
            continue
        reached.add(name)
        waiting += graph.find_modules_directly_imported_by(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return reached


def _is_frame(module: str) -> bool:
    return module in FRAME or module.partition(".")[0] in FRAME_PACKAGES


def _file_of(module: str, root: Path) -> str:
    path = module.replace(".", "/")
    return f"{path}.py" if (root / f"{path}.py").is_file() else f"{path}/__init__.py"


def _says_nothing(file: Path) -> bool:
    """An empty ``__init__.py`` has nothing that could change a result."""
    return file.name == "__init__.py" and not file.read_text().strip()


def _covered(file: str, declared: set[str]) -> bool:
    return any(file == dependency or file.startswith(f"{dependency}/") for dependency in declared)


def write(found: list[Difference], root: Path = CHECKOUT) -> None:
    """Put the deps right; comments and order of the pipeline files stay, code comes after data, sorted."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 120, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    for pipeline in {difference.pipeline for difference in found}:
        content = yaml.load(root / pipeline)
        for difference in found:
            if difference.pipeline == pipeline:
                deps = content["stages"][difference.stage].setdefault("deps", [])
                code = {str(dependency) for dependency in deps if str(dependency).endswith(".py")}
                code = (code | set(difference.missing)) - set(difference.idle)
                deps[:] = [dependency for dependency in deps if not str(dependency).endswith(".py")] + sorted(code)
        yaml.dump(content, root / pipeline)


def main() -> int:
    """Print the differences, or put them right; the exit code is 1 if some are left."""
    parser = argparse.ArgumentParser(prog="python -m infra.pipeline_deps", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the pipeline files right")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = differences()
    for difference in found:
        for sign, files in (("+", difference.missing), ("-", difference.idle)):
            for file in files:
                log.info("%s %s: %s %s", difference.pipeline, difference.stage, sign, file)
    if arguments.write:
        write(found)
        return 0
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
