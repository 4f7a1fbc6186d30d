"""Where a trial runs, what it depends on, and what became of it.

A trial has a workspace of its own below ``.work/studies/``, which sees the checkout's annotation through links, so the
stages of training run there as they do anywhere: resumable, with the proof of freezing. Its result is one JSON file
below ``metrics/studies/``, written whole. Results travel with the repository; workspaces go when they are done.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from infra.dvc_tree import folder_listing, listing_hash
from infra.errors import InfraError
from infra.git import Git
from infra.params import Params
from infra.study_files import TRAINING, Study, Trial, base_params
from infra.text_files import replace_text, settle_text

INPUTS: Final = ("collect", "distort", "score", "review", "assemble", "validate", "base")
"""Artifacts of the checkout that every trial reads."""
ANNOTATED: Final = frozenset({"distort", "score", "review", "assemble", "validate"})
"""Those whose bytes hang on the machine that made them: codecs and processors round differently."""
_ANNOTATING: Final = frozenset({*ANNOTATED, "collect", "describe"})
ALIKE: Final = 0.005
"""Targets of media that differ by no more, a fortieth of a level, are one annotation made on two machines; ours."""
MEASURES: Final = ".work/measures.json"
"""What the measuring step leaves in a trial's workspace."""
MEASURING: Final = "tasks/evaluation/trial.py"

_MEASURED_BY: Final = {"predict": ("batch", "threads", "max_reject_share"), "correlate": ("readouts", "sampling")}
"""Sections, and their keys, that the measuring step reads."""
_READOUT: Final = "expectation"
"""Of the readouts that ``correlate`` knows, the one that a trial's models have."""
_ASKED_BY: Final = ("max_media", "repeats", "temperature", "top_p", "seed", "max_reject_share")
"""Keys of ``reason`` that decide what two-stage models are asked in that step."""
_SAME_NUMBERS: Final = {
    "training": ("engine", "checkpoint_every", "processes", "recompute", "frozen_precision", "peak_flops"),
    "pretrain": ("media", "streaming"),
}
"""Keys that say how a stage computes, not what: no result hangs on them."""
_MADE_OF: Final = ".work/made_of.json"
_RESULTS: Final = "metrics/studies"

Result = dict[str, Any]


@dataclass(frozen=True)
class Conditions:
    """What lies under all trials of a checkout right now.

    Attributes:
        inputs: artifact -> its hash, as DVC has it.
        code: hash of the code that trains and measures.
        annotation: hash of the numbers by which the pool was annotated.
        held_out: target of each held-out medium.
    """

    inputs: Mapping[str, str]
    code: str
    annotation: str = ""
    held_out: Mapping[str, float] = field(default_factory=dict[str, float])


def studies_home(checkout: Path) -> Path:
    """Folder of all workspaces of trials."""
    return checkout / ".work" / "studies"


def workspace_of(trial: Trial, checkout: Path) -> Path:
    """A trial's workspace, which may not exist."""
    return studies_home(checkout) / trial.study / trial.name


@contextmanager
def sole_run(study: str, checkout: Path) -> Iterator[None]:
    """Hold the study: two runs of it would train in the same workspaces.

    Raises:
        InfraError: another process holds it.
    """
    folder = studies_home(checkout) / study
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another run of the study {study} is at work: wait for it, or end it"
            raise InfraError(msg) from error
        yield


def missing_inputs(checkout: Path) -> list[str]:
    """Artifacts that a finished line would have and this checkout has not."""
    return [name for name in INPUTS if not any((checkout / "artifacts" / name).glob("*"))]


def conditions(checkout: Path, held_out: Callable[[Path], Mapping[str, float]] | None = None) -> Conditions:
    """Hash what trials depend on.

    Args:
        held_out: gives what :class:`Conditions` says; without it, a result from another machine is one of other data.

    Raises:
        InfraError: the checkout holds no finished line.
    """
    if missing := missing_inputs(checkout):
        msg = (
            f"artifacts/{missing[0]} is missing, and trials train and are measured on what the line of this checkout "
            "has made: run `vital run` first"
        )
        raise InfraError(msg)
    inputs = {name: listing_hash(folder_listing(checkout / "artifacts" / name)) for name in INPUTS}
    sha = hashlib.sha256()
    for path in _code(checkout):
        sha.update(f"{path}\0".encode() + hashlib.sha256((checkout / path).read_bytes()).digest())
    return Conditions(inputs, sha.hexdigest()[:16], _annotation(checkout), held_out(checkout) if held_out else {})


def _annotation(checkout: Path) -> str:
    sections = {name: section for name, section in base_params(checkout).items() if name in _ANNOTATING}
    return _digest(sections)


def _code(checkout: Path) -> list[str]:
    """Files of code that the pipeline declares for the stages of a trial, and the measuring step."""
    stages = yaml.safe_load((checkout / "dvc.yaml").read_text())["stages"]
    deps = {dep for name in (*TRAINING, "predict", "correlate", "reason") for dep in stages[name].get("deps", [])}
    return sorted({dep for dep in deps if dep.startswith(("models/", "tasks/"))} | {MEASURING})


def params_hash(trial: Trial, params: Params) -> str:
    """Hash of every number that a trial's result depends on."""
    stages = {"pretrain", *trial.variant.stages}
    read = {name: _telling(name, params[name]) for name in sorted(stages)}
    measured_by = dict(_MEASURED_BY) | ({"reason": _ASKED_BY} if "two_stage" in stages else {})
    read |= {name: {key: params[name][key] for key in keys} for name, keys in measured_by.items()}
    read["correlate"] |= {"readouts": {_READOUT: params["correlate"]["readouts"][_READOUT]}}
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]


def _telling(stage: str, section: Mapping[str, Any]) -> Params:
    """A section without the keys that change no number."""
    kept = {key: value for key, value in section.items() if key not in _SAME_NUMBERS.get(stage, ())}
    training = {key: value for key, value in section["training"].items() if key not in _SAME_NUMBERS["training"]}
    return kept | {"training": training}


def prepare_trial(study: Study, trial: Trial, checkout: Path, now: Conditions) -> Path:
    """Make a trial's workspace, or bring it up to date; what a killed run left there is kept.

    Raises:
        InfraError: a setting is unknown, or the workspace cannot be written.
    """
    root, params = workspace_of(trial, checkout), study.params_of(trial, checkout)
    shared = studies_home(checkout) / "shared" / _digest([dict(now.inputs), now.code])
    try:
        for folder in (root / "artifacts", root / ".work", shared):
            folder.mkdir(parents=True, exist_ok=True)
        settle_text(root / "params.yaml", yaml.safe_dump(params, sort_keys=False))
        settle_text(root / "dvc.yaml", yaml.safe_dump(_pipeline(trial, checkout), sort_keys=False))
        links = {f"artifacts/{name}": checkout / "artifacts" / name for name in INPUTS} | {".work/shared": shared}
        if (start := study.start_of(trial)) is not None:
            links["artifacts/pretrain"] = workspace_of(start, checkout) / "artifacts" / "pretrain"
        for name, target in links.items():
            _link(root / name, target)
    except OSError as error:
        msg = f"cannot write the workspace {root}: {error.strerror or error}"
        raise InfraError(msg) from error
    return root


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() != target:
        link.unlink()
    if not link.is_symlink():
        link.symlink_to(target)


def _pipeline(trial: Trial, checkout: Path) -> dict[str, Any]:
    """The stages of a trial, as the checkout declares them, with the code by absolute path."""
    declared = yaml.safe_load((checkout / "dvc.yaml").read_text())["stages"]
    stages: dict[str, Any] = {}
    for name in trial.variant.stages:
        deps = declared[name].get("deps", [])
        located = [dep if dep.startswith("artifacts/") else str(checkout / dep) for dep in deps]
        stages[name] = {"cmd": f"python -m tasks {name}", "deps": located, "params": [name]}
    return {"stages": stages}


def has_weights(study: Study, trial: Trial, checkout: Path, now: Conditions | None) -> bool:
    """Whether a trial's workspace holds the weights that it would train today.

    Args:
        now: None leaves the inputs out.
    """
    root = workspace_of(trial, checkout)
    if not all((root / name).is_file() for name in (_MADE_OF, "artifacts/pretrain/recipe.json")):
        return False
    made = _read(root / _MADE_OF)
    same_data = now is None or made["inputs"] == dict(now.inputs)
    return same_data and made["params"] == params_hash(trial, study.params_of(trial, checkout))


def drop_workspace(trial: Trial, checkout: Path) -> None:
    """Remove a trial's workspace with its weights."""
    shutil.rmtree(workspace_of(trial, checkout), ignore_errors=True)


def drop_shared(study: str, checkout: Path) -> None:
    """Remove what the trials of all studies share, unless another study is in the middle of something."""
    home = studies_home(checkout)
    if not any(path.is_dir() for path in home.glob("*/*") if path.parent.name not in ("shared", study)):
        shutil.rmtree(home / "shared", ignore_errors=True)


# ------------------------------------------------------------------- results


def results_folder(study: str, checkout: Path) -> Path:
    """Where the results of a study are."""
    return checkout / _RESULTS / study


def read_result(trial: Trial, checkout: Path) -> Result | None:
    """A trial's result; None if there is none.

    Raises:
        InfraError: the file is no result.
    """
    path = results_folder(trial.study, checkout) / f"{trial.name}.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read ({error}): remove it, and run the study again"
        raise InfraError(msg) from error
    if not isinstance(result, dict) or not {"params", "inputs", "code", "media", "sizes", "models"} <= set(result):
        msg = f"{path} is no result of a trial: remove it, and run the study again"
        raise InfraError(msg)
    return result


def read_media(study: str, name: str, checkout: Path) -> dict[str, list[Any]]:
    """The media that a result's scores belong to, in their order.

    Raises:
        InfraError: the file is missing or broken.
    """
    path = results_folder(study, checkout) / f"media-{name}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read, and results of the study {study} refer to it: restore it, or remove them"
        raise InfraError(msg) from error


def staleness(result: Result, study: Study, trial: Trial, checkout: Path, now: Conditions | None) -> str:
    """Why a result is not what its trial would give today; empty if it is.

    Settings are compared with the study file and ``params.yaml``, and the inputs with those of the checkout, where
    these are at hand (``now``): by their bytes, or, where another machine has annotated the same pool, by the targets
    of the held-out media. Other code alone makes no result stale, as most changes of code change no number: see
    :func:`has_other_code`.
    """
    if result["params"] != params_hash(trial, study.params_of(trial, checkout)):
        return "settings changed"
    if now is None:
        return ""
    moved = [name for name in INPUTS if result["inputs"].get(name) != now.inputs[name]]
    if not moved or (ANNOTATED.issuperset(moved) and _is_alike(result, trial, checkout, now)):
        return ""
    return f"{', '.join(moved)} changed"


def _is_alike(result: Result, trial: Trial, checkout: Path, now: Conditions) -> bool:
    """Whether the data of a result are today's but for rounding; results from before it was kept tell no annotation."""
    if result.get("annotation", now.annotation) != now.annotation:
        return False
    media = read_media(trial.study, result["media"], checkout)
    gap = largest_gap(dict(zip(media["id"], media["target"], strict=True)), now.held_out)
    return gap is not None and gap <= ALIKE


def largest_gap(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float | None:
    """By how much two annotations of the same media differ in a target at most; None if the media are not the same."""
    if not ours or ours.keys() != theirs.keys():
        return None
    return max(abs(target - theirs[medium]) for medium, target in ours.items())


def has_other_code(result: Result, now: Conditions | None) -> bool:
    """Whether a result was made by other code than the checkout's; False where that is not known."""
    return now is not None and result["code"] != now.code


def write_result(study: Study, trial: Trial, checkout: Path, now: Conditions, seconds: Mapping[str, float]) -> Path:
    """Gather what a finished trial has left in its workspace into its result; the file appears whole."""
    root, params = workspace_of(trial, checkout), study.params_of(trial, checkout)
    measured = _read(root / MEASURES)
    folder = results_folder(trial.study, checkout)
    folder.mkdir(parents=True, exist_ok=True)
    media = json.dumps(measured["media"], sort_keys=True)
    name = hashlib.sha256(media.encode()).hexdigest()[:8]
    settle_text(folder / f"media-{name}.json", f"{media}\n")
    reports = {stage: _read(root / "metrics" / f"{stage}.json") for stage in trial.variant.stages}
    git = Git.around(checkout)
    result: Result = {
        "study": trial.study,
        "variant": trial.variant.name,
        "seed": trial.seed,
        "stages": list(trial.variant.stages),
        "start_from": trial.variant.start_from,
        "settings": study.settings_of(trial),
        "params": params_hash(trial, params),
        "inputs": dict(now.inputs),
        "code": now.code,
        "annotation": now.annotation,
        "commit": git.try_run("describe", "--always", "--dirty", "--abbrev=12") if git else None,
        "steps": {stage: params[stage]["training"]["steps"] for stage in trial.variant.stages},
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        "frozen_sha256": {stage: report["frozen_sha256"] for stage, report in reports.items()},
        "sizes": _sizes(reports),
        "media": name,
        "models": measured["models"],
    }
    settle_text(root / _MADE_OF, json.dumps({name: result[name] for name in ("params", "inputs")}))
    return _publish(result, trial, checkout)


def _publish(result: Result, trial: Trial, checkout: Path) -> Path:
    folder = results_folder(trial.study, checkout)
    path = folder / f"{trial.name}.json"
    replace_text(path, json.dumps(result, indent=1, sort_keys=True) + "\n")
    _drop_idle_media(folder)
    return path


def find_twin(study: Study, trial: Trial, checkout: Path, now: Conditions) -> Result | None:
    """A result of another study that has the trial's stages, numbers, data and code; None if there is none."""
    wanted = (params_hash(trial, study.params_of(trial, checkout)), list(trial.variant.stages), dict(now.inputs))
    for path in sorted((checkout / _RESULTS).glob(f"*/*-seed{trial.seed}.json")):
        if path.parent.name != trial.study:
            found = _read(path)
            if (found.get("params"), found.get("stages"), found.get("inputs")) == wanted and found["code"] == now.code:
                return found
    return None


def adopt_result(found: Result, study: Study, trial: Trial, checkout: Path) -> Path:
    """Write what :func:`find_twin` found as the trial's own result; ``trained_as`` says whose it was.

    Returns:
        The result's path.
    """
    folder = results_folder(trial.study, checkout)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"media-{found['media']}.json"
    settle_text(folder / name, (results_folder(found["study"], checkout) / name).read_text())
    names = {"study": trial.study, "variant": trial.variant.name, "start_from": trial.variant.start_from}
    of_twin = f"{found['study']}/{found['variant']}-seed{found['seed']}"
    told = {"settings": study.settings_of(trial), "trained_as": found.get("trained_as", of_twin)}
    return _publish(found | names | told, trial, checkout)


def _sizes(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    if "pretrain" in reports:
        report = reports["pretrain"]
        sizes |= {"pretrain_contents": report["contents"], "pretrain_examples": sum(report["examples"].values())}
    if "warm_up" in reports:
        sizes["warm_up_examples"] = sum(reports["warm_up"]["examples"].values())
    return sizes


def _drop_idle_media(folder: Path) -> None:
    """Remove lists of media that no result refers to any more."""
    used = {_read(path).get("media") for path in folder.glob("*-seed*.json")}
    for path in folder.glob("media-*.json"):
        if path.stem.removeprefix("media-") not in used:
            path.unlink()


def idle_start(trial: Trial, unfinished: Sequence[Trial]) -> bool:
    """Whether no unfinished trial starts from this one, so that its weights may go."""
    return not any(other.variant.start_from == trial.variant.name and other.seed == trial.seed for other in unfinished)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
