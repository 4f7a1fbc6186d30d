"""What a stage is: a name, a frozen config, a pure core, and ``run(config, place) -> report``.

This module gives every stage the same frame: its section of the params file becomes its config (unknown keys are
errors), its work goes to an ignored folder keyed by the hash of its dependencies and parameters, so a killed stage
continues, and its outputs appear in ``artifacts/<stage>`` in one rename (DESIGN laws 3 and 7).
"""

import dataclasses
import hashlib
import importlib
import json
import logging
import os
import re
import resource
import shutil
import time
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from tasks import group
from tasks.errors import ConfigError, StageError
from tasks.shards import sweep, write_json

log = logging.getLogger(__name__)

STAGES: Final[dict[str, str]] = {
    "collect": "tasks.annotation.collect",
    "distort": "tasks.annotation.distort",
    "score": "tasks.annotation.score",
    "describe": "tasks.annotation.describe",
    "review": "tasks.annotation.review",
    "assemble": "tasks.annotation.assemble",
    "validate": "tasks.annotation.validate",
    "pretrain": "tasks.training.pretrain",
    "warm_up": "tasks.training.warm_up",
    "assistant": "tasks.training.assistant",
    "linear_probe": "tasks.training.linear_probe",
    "two_stage": "tasks.training.two_stage",
    "teach": "tasks.training.teach",
    "ract": "tasks.training.ract",
    "explain": "tasks.training.explain",
    "rali": "tasks.training.rali",
    "predict": "tasks.evaluation.predict",
    "answer": "tasks.evaluation.answer",
    "reason": "tasks.evaluation.reason",
    "cross_swap": "tasks.evaluation.cross_swap",
    "correlate": "tasks.evaluation.correlate",
    "report": "tasks.evaluation.report",
    "register": "tasks.evaluation.register",
}
"""The line, in order: stage name -> module."""

ANNOTATION: Final = tuple(name for name, module in STAGES.items() if module.startswith("tasks.annotation."))
"""The stages that make the data set, in order."""

_DONE: Final = "report.json"
"""Of a work folder: its presence says that the stage has finished there."""

_CODE: Final = Path(__file__).resolve().parents[1]
_CODE_FOLDERS: Final = ("infra", "models", "tasks")

STEPS: Final[dict[str, str]] = {"compare": "tasks.evaluation.compare"}
"""What a flow does between stages with a section of its own: no ``dvc.yaml`` names what it depends on."""

RECIPES: Final[dict[str, str]] = {"base": "tasks.training.base"}
"""Stages with a pipeline file of their own: they make what the line starts from."""


RESUMABLE: Final = {"resumable": True}
"""Metadata of a config's field that says how work is done, not what comes out: a killed stage goes on under another
value."""


SHARED: Final = "shared"
"""Folder, or link to one, in a workspace's ``.work`` where several workspaces keep what is the same in all of them."""


@dataclass(frozen=True)
class Place:
    """Where a stage reads and writes.

    Attributes:
        root: the workspace; every input path in a config is relative to it.
        work: folder that survives a kill; what is found there was made from the same dependencies and parameters.
        out: folder, inside ``work``, whose content becomes ``artifacts/<stage>``.
        before: work of the last finished run with the same code and parameters over other data; None if there is none.
            What it says of an item that has not changed may be taken over: cost follows change (DESIGN law 4).
    """

    root: Path
    work: Path
    out: Path
    before: Path | None = None

    def artifacts(self, stage: str) -> Path:
        """Published outputs of an earlier stage."""
        folder = self.root / "artifacts" / stage
        if not folder.is_dir():
            msg = f"artifacts/{stage} is missing: run dvc repro {stage}, or dvc pull if somebody has pushed it"
            raise StageError(msg)
        return folder

    @property
    def kept_media(self) -> Path:
        """Where prepared media are kept: beside those of workspaces that share theirs (a study's), or with the work.

        Parts are named by what they hold; who lets workspaces share a folder sees to it that they have the same code.
        """
        shared = self.root / ".work" / SHARED
        return (shared if shared.is_dir() else self.work) / "media"

    def telemetry(self, stage: str) -> Path:
        """Where the course of a stage's run is logged for people who watch it; never an output."""
        return self.root / ".work" / "telemetry" / stage


class Report(Protocol):
    """What a stage returns: a frozen dataclass of counts and measures that depend on the inputs alone."""

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]


class StageModule(Protocol):
    """What a stage's module offers."""

    Config: type

    def run(self, config: Any, place: Place) -> Report:
        """Do the work and return the counts."""
        ...


def load_stage(name: str) -> StageModule:
    """Import a stage's module by name.

    Raises:
        ConfigError: there is no stage of that name.
    """
    module = {**STAGES, **STEPS, **RECIPES}.get(name)
    if module is None:
        msg = f"unknown stage {name!r}; the stages are {', '.join([*STAGES, *RECIPES])}"
        raise ConfigError(msg)
    return typing.cast("StageModule", importlib.import_module(module))


def build_config(kind: type, section: str, values: dict[str, Any]) -> Any:
    """Build the frozen dataclass ``kind`` from a params section; nested dataclasses and lists become typed values.

    Raises:
        ConfigError: a key is unknown, missing, or has the wrong type; the message names section and key.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        msg = f"params section {section!r}: unknown key {unknown[0]!r}; known keys are {', '.join(sorted(fields))}"
        raise ConfigError(msg)
    built: dict[str, Any] = {}
    for name, field in fields.items():
        if name in values:
            built[name] = _convert(hints[name], f"{section}.{name}", values[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            msg = f"params section {section!r}: key {name!r} is missing"
            raise ConfigError(msg)
    try:
        return kind(**built)
    except ValueError as error:
        msg = f"params section {section!r}: {error}"
        raise ConfigError(msg) from error


def _convert(hint: Any, where: str, value: Any) -> Any:  # noqa: PLR0911 - one return per kind of type hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return build_config(hint, where, value)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(arguments, where, value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], where, item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {_convert(arguments[0], where, k): _convert(arguments[1], f"{where}.{k}", v) for k, v in value.items()}
    if origin is typing.Literal and value in arguments:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    msg = f"params key {where}: expected {getattr(hint, '__name__', hint)}, found {value!r}"
    raise ConfigError(msg)


def _convert_union(arguments: tuple[Any, ...], where: str, value: Any) -> Any:
    for argument in arguments:
        if argument is type(None) and value is None:
            return None
        if argument is not type(None) and value is not None:
            return _convert(argument, where, value)
    msg = f"params key {where}: found {value!r}, expected one of {arguments}"
    raise ConfigError(msg)


def lasting(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a section without those of ``RESUMABLE`` fields: what unfinished work depends on."""
    hints = typing.get_type_hints(kind)
    kept: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in values and not field.metadata.get("resumable", False):
            value, hint = values[field.name], hints[field.name]
            nested = isinstance(value, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint)
            kept[field.name] = lasting(hint, value) if nested else value
    return kept


def read_params(root: Path) -> dict[str, Any]:
    """Read the workspace's params file.

    Raises:
        ConfigError: it is missing or is not a mapping of sections.
    """
    path = root / "params.yaml"
    try:
        params = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        msg = f"{path} is missing: run from the root of the checkout or of a workspace"
        raise ConfigError(msg) from error
    except yaml.YAMLError as error:
        msg = f"{path} is not valid YAML: {error}"
        raise ConfigError(" ".join(msg.split())) from error
    if not isinstance(params, dict):
        msg = f"{path} must be a mapping of sections"
        raise ConfigError(msg)
    return params


def stage_config(name: str, params: dict[str, Any]) -> Any:
    """Build one stage's config from the params file's content."""
    if name not in params:
        msg = f"params.yaml has no section {name!r}"
        raise ConfigError(msg)
    return build_config(load_stage(name).Config, name, params[name])


def execute(name: str, root: Path, *, pipeline: str = "dvc.yaml") -> dict[str, Any]:
    """Run one stage of the workspace at ``root`` and publish its outputs; the command behind every DVC stage.

    A stage whose module offers ``processes(config)`` and asks for more than one is run by that many: those that a
    launcher has started, or, if this process is alone, those that it starts.

    Returns:
        The stage's report, which is also written to ``metrics/<stage>.json``.
    """
    params = read_params(root)
    config = stage_config(name, params)
    module, here = load_stage(name), group.current()
    wanted = module.processes(config) if hasattr(module, "processes") else 1  # type: ignore[attr-defined]
    if wanted == here.size:
        return _execute_here(name, (config, params), root, pipeline)
    if here.size > 1:
        msg = f"the launcher started {here.size} processes and {name} runs in {wanted}: see its key processes in params"
        raise ConfigError(msg)
    group.launch(["-m", "tasks", name, "--pipeline", pipeline], wanted, root)
    return json.loads((root / "metrics" / f"{name}.json").read_text())


def _execute_here(name: str, settings: tuple[Any, dict[str, Any]], root: Path, pipeline: str) -> dict[str, Any]:
    """The stage in this process, or in all of its group, of whom the leader keeps the folders and publishes."""
    started = time.monotonic()
    config, params = settings
    here = group.current()
    place, finished = here.led(lambda: _prepare(name, params, root, pipeline))
    if not finished:
        report = dataclasses.asdict(typing.cast("Any", load_stage(name).run(config, place)))
        usages = here.gather(_usage())
        if here.leads:
            write_json(place.work / _DONE, report)
            _telemetry(name, root, time.monotonic() - started, usages)
    elif here.leads:
        log.info("%s: finished before with the same inputs and parameters; publishing it again", name)
    values = here.led(lambda: json.loads((place.work / _DONE).read_text()))
    if here.leads:
        _publish(name, root, place.out, values)
        if place.before is not None:
            shutil.rmtree(place.before)
    return values


def _prepare(name: str, params: dict[str, Any], root: Path, pipeline: str) -> tuple[Place, bool]:
    """Make the work folder; returns the place, and whether the work in it is finished."""
    home = root / ".work" / name
    dependencies, others = _dependencies(name, root, pipeline, params)
    own = lasting(load_stage(name).Config, params[name])
    key = _work_key(name, dependencies, {name: own, **{other: params.get(other) for other in others}})
    behind_url = any(isinstance(dependency, str) for dependency in dependencies.values())
    place = Place(root, home / key, home / key / "out", _keep_before(home, key, aside=behind_url))
    place.out.mkdir(parents=True, exist_ok=True)
    sweep(place.work)
    return place, (place.work / _DONE).is_file()


def _keep_before(home: Path, key: str, *, aside: bool) -> Path | None:
    """Remove earlier work, except what was finished with the same code and parameters: the newest of that is returned.

    Args:
        home: of the stage's work folders, named ``<recipe>-<data>``.
        key: of this run.
        aside: finished work under this very key is of other data: what lies behind a URL is not part of the key, and
            DVC says that it has changed.
    """
    recipe = key.partition("-")[0]
    if aside and (home / key / _DONE).is_file():
        shutil.rmtree(home / f"{recipe}-aside", ignore_errors=True)
        (home / key).rename(home / f"{recipe}-aside")
    others = [old for old in home.glob("*") if old.name != key]
    finished = [old for old in others if old.name.startswith(f"{recipe}-") and (old / _DONE).is_file()]
    before = max(finished, key=lambda old: (old / _DONE).stat().st_mtime, default=None)
    for old in others:
        if old != before:
            shutil.rmtree(old)
    return before


def _publish(name: str, root: Path, out: Path, report: dict[str, Any]) -> None:
    """Make ``out`` the stage's published folder in one rename; the bytes are shared by hard links, not copied.

    What was published before is renamed away first: removed in its place, it could be seen, and left, in part.
    """
    target, fresh, old = (root / "artifacts" / part for part in (name, f".{name}.new", f".{name}.old"))
    for rest in (fresh, old):
        shutil.rmtree(rest, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(out, fresh, copy_function=os.link)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    failure = root / ".work" / "last_failure" / name
    if failure.exists():  # of a run before this one
        shutil.rmtree(failure)
    write_json(root / "metrics" / f"{name}.json", report)


def _usage() -> tuple[float, float]:
    """CPU seconds of this process and its children, and the peak memory of the largest of them, MB."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages), max(usage.ru_maxrss for usage in usages) / 1024


def _telemetry(name: str, root: Path, seconds: float, usages: list[tuple[float, float]]) -> None:
    """Write what the stage cost: wall time, CPU time of all its processes, and the peak memory of the largest of them.

    Processes still running when the stage ends are not counted. The peak is that of one process, not a sum: the system
    keeps no record of when each process was at its peak, and memory that they share would be counted many times.
    """
    values = {
        "wall_s": round(seconds, 3),
        "cpu_s": round(sum(cpu for cpu, _ in usages), 3),
        "peak_mb": round(max(peak for _, peak in usages), 1),
    }
    write_json(root / ".work" / "telemetry" / f"{name}.json", values)


def resolved(dependency: object, params: dict[str, Any]) -> str:
    """What a pipeline file declares, with the params that it names in the place of ``${section.key}``, as DVC has it.

    Raises:
        ConfigError: there is no such key.
    """

    def value(found: "re.Match[str]") -> str:
        at: Any = params
        for key in found[1].split("."):
            if not isinstance(at, dict) or key not in at:
                msg = f"{dependency} names {found[1]}, and params.yaml has no such key"
                raise ConfigError(msg)
            at = at[key]
        return str(at)

    return re.sub(r"\$\{([\w.]+)\}", value, str(dependency))


def _dependencies(
    name: str, root: Path, pipeline: str, params: dict[str, Any]
) -> tuple[dict[str, Path | str], list[str]]:
    """What the pipeline file declares that a stage depends on.

    Returns:
        Dependencies, as they are written there -> file, folder or URL; and params sections beside the stage's own.
    """
    stages = yaml.safe_load((root / pipeline).read_text())["stages"]
    if name not in stages:
        msg = f"{pipeline} has no stage {name!r}"
        raise ConfigError(msg)
    home = (root / pipeline).parent / stages[name].get("wdir", ".")
    declared = [resolved(dependency, params) for dependency in stages[name].get("deps", [])]
    others = [section for section in stages[name].get("params", []) if isinstance(section, str) and section != name]
    return {text: text if "://" in text else (home / text).resolve() for text in declared}, others


def _work_key(name: str, dependencies: dict[str, Path | str], sections: dict[str, object]) -> str:
    """``<recipe>-<data>``: hashes of code and params that the stage reads, and of the data on this machine."""
    read = sections[name] if len(sections) == 1 else sections
    recipe, data = hashlib.sha256(json.dumps(read, sort_keys=True).encode()), hashlib.sha256()
    for declared, path in dependencies.items():
        if isinstance(path, str):
            data.update(declared.encode() + b"\0")
            continue
        if not path.exists():
            msg = f"{declared} is missing, and {name} depends on it: run dvc repro {name}, or dvc pull"
            raise StageError(msg)
        sha = recipe if any(path.is_relative_to(_CODE / top) for top in _CODE_FOLDERS) else data
        sha.update(declared.encode() + b"\0")
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            if "__pycache__" in file.parts:
                continue
            called = os.fsencode(str(file.relative_to(path.parent)))
            try:
                with file.open("rb") as handle:
                    sha.update(called + hashlib.file_digest(handle, "sha256").digest())
            except PermissionError:  # collect records it of a pool; another stage fails where it opens it
                sha.update(called + b"\0")
    return f"{recipe.hexdigest()[:16]}-{data.hexdigest()[:16]}"
