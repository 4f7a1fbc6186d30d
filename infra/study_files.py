"""Study files: which variants of training are compared, over which seeds; each variant and seed is a trial.

A study is data (``infra/studies/NAME.yaml``): settings that all its trials share, and per variant the settings that
differ, which are laid on the checkout's ``params.yaml``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from infra.errors import InfraError
from infra.params import EMBEDDED, Params, apply_settings, merge, profile_params

FOLDER: Final = "infra/studies"
TRAINING: Final = ("pretrain", "warm_up", "two_stage")
"""Stages that a trial may run, in their order; those that it runs take its seed."""

_KEYS: Final = {"purpose", "seeds", "models", "control", "differences", "size", "figures", "settings", "variants"}
_VARIANT_KEYS: Final = {"settings", "stages", "start_from"}
SIZES: Final = ("pretrain_contents", "pretrain_examples", "warm_up_examples")
"""Sizes that a study may be about."""


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        settings: sections with values on top of the study's own.
        stages: what a trial runs, of ``TRAINING``.
        start_from: variant whose pre-training of the same seed is taken; None if the trial runs its own.
    """

    name: str
    settings: Mapping[str, Any]
    stages: tuple[str, ...]
    start_from: str | None = None


@dataclass(frozen=True)
class Trial:
    """One variant under one seed."""

    study: str
    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Of its result and of its workspace."""
        return f"{self.variant.name}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        purpose: one sentence for people.
        seeds: of every variant.
        models: models of a trial that the tables tell of, by their names in the predictions; all if empty.
        control: row of the table that the others are compared with, ``VARIANT/MODEL``.
        differences: further pairs of rows that are compared, first minus second.
        size: what a curve is drawn over, one of ``SIZES``; None if the study is about no size.
        figures: means over media that the table tells besides, of trials that run ``two_stage``: names of figures of
            the stage ``reason``.
        settings: what all variants share.
        variants: by name, in the order of the table; one that another starts from comes before it.
    """

    name: str
    purpose: str
    seeds: tuple[int, ...]
    models: tuple[str, ...]
    control: str
    variants: Mapping[str, Variant]
    differences: tuple[tuple[str, str], ...] = ()
    size: str | None = None
    figures: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def trials(self, only: Collection[str] = (), seeds: Sequence[int] = ()) -> list[Trial]:
        """The queue: seed after seed, so that a queue that is cut short has whole comparisons.

        Args:
            only: names of variants; all if empty. What they start from is in the queue, too.
            seeds: of the study's; all if empty.

        Raises:
            InfraError: a variant or a seed is not of this study.
        """
        if unknown := sorted(set(only) - set(self.variants)):
            msg = f"study {self.name} has no variant {unknown[0]!r}; it has {', '.join(self.variants)}"
            raise InfraError(msg)
        if strange := sorted(set(seeds) - set(self.seeds)):
            msg = f"study {self.name} has no seed {strange[0]}; it has {', '.join(map(str, self.seeds))}"
            raise InfraError(msg)
        wanted = set(only or self.variants)
        wanted |= {start for name in wanted if (start := self.variants[name].start_from)}
        chosen = [variant for name, variant in self.variants.items() if name in wanted]
        return [Trial(self.name, variant, seed) for seed in (seeds or self.seeds) for variant in chosen]

    def start_of(self, trial: Trial) -> Trial | None:
        """The trial whose pre-training this one takes."""
        start = trial.variant.start_from
        return None if start is None else Trial(self.name, self.variants[start], trial.seed)

    def settings_of(self, trial: Trial) -> Params:
        """What a trial changes in ``params.yaml``, its seed included."""
        start = trial.variant.start_from
        before = self.variants[start].settings.get("pretrain", {}) if start else {}
        seeds = {stage: {"training": {"seed": trial.seed}} for stage in TRAINING}
        return merge(merge(merge(self.settings, {"pretrain": before} if before else {}), trial.variant.settings), seeds)

    def params_of(self, trial: Trial, checkout: Path) -> Params:
        """All sections of a trial.

        Raises:
            InfraError: a setting names a section or a key that ``params.yaml`` does not have.
        """
        try:
            return apply_settings(base_params(checkout), self.settings_of(trial))
        except InfraError as error:
            msg = f"study {self.name}, variant {trial.variant.name}: {error}"
            raise InfraError(msg) from error


def base_params(checkout: Path) -> Params:
    """What all variants are laid on; the file is read once, and again when it has changed."""
    stat = (checkout / "params.yaml").stat()
    return _read_params(checkout, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read_params(checkout: Path, changed_ns: int, size: int) -> Params:
    del changed_ns, size  # they tell one content of the file from another
    return profile_params(checkout, EMBEDDED)


def study_names(checkout: Path) -> list[str]:
    """Names of the studies."""
    return sorted(path.stem for path in (checkout / FOLDER).glob("*.yaml"))


def read_study(checkout: Path, name: str) -> Study:
    """Read a study file.

    Raises:
        InfraError: there is no such study, or the file does not describe one; the message says what is wrong.
    """
    if name not in study_names(checkout):
        msg = f"unknown study {name!r}; the studies are {', '.join(study_names(checkout)) or 'none'}"
        raise InfraError(msg)
    path = checkout / FOLDER / f"{name}.yaml"
    try:
        values: dict[str, Any] = dict(yaml.safe_load(path.read_text()))
        _refuse_unknown(values, _KEYS, "the study")
        variants = {key: _variant(key, value) for key, value in values["variants"].items()}
        study = Study(
            name=name,
            purpose=str(values["purpose"]),
            seeds=tuple(int(seed) for seed in values["seeds"]),
            models=tuple(values.get("models", ())),
            control=str(values["control"]),
            variants=variants,
            differences=tuple((str(first), str(second)) for first, second in values.get("differences", ())),
            size=values.get("size"),
            figures=tuple(map(str, values.get("figures", ()))),
            settings=values.get("settings", {}),
        )
        _check(study)
    except KeyError as error:
        msg = f"study {name}: {path} lacks the key {error}"
        raise InfraError(msg) from error
    except (OSError, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        msg = f"study {name}: {path} does not describe a study: {' '.join(str(error).split())}"
        raise InfraError(msg) from error
    return study


def _variant(name: str, values: Mapping[str, Any] | None) -> Variant:
    values = values or {}
    _refuse_unknown(values, _VARIANT_KEYS, f"variant {name}")
    stages = tuple(values.get("stages", ("pretrain",)))
    return Variant(name, values.get("settings", {}), stages, values.get("start_from"))


def _refuse_unknown(values: Mapping[str, Any], known: Collection[str], what: str) -> None:
    if unknown := sorted(set(values) - set(known)):
        msg = f"{what} has the unknown key {unknown[0]!r}; known keys are {', '.join(sorted(known))}"
        raise ValueError(msg)


def _check(study: Study) -> None:
    """Refuse what no trial could be made of."""
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise ValueError("seeds must name one seed at least, and each once")
    if study.size is not None and study.size not in SIZES:
        msg = f"size {study.size!r} is none of {', '.join(SIZES)}"
        raise ValueError(msg)
    before: set[str] = set()
    for variant in study.variants.values():
        if not variant.stages or list(variant.stages) != [stage for stage in TRAINING if stage in variant.stages]:
            msg = f"variant {variant.name}: stages must be of {', '.join(TRAINING)}, in this order"
            raise ValueError(msg)
        if variant.start_from is None and "pretrain" not in variant.stages:
            msg = f"variant {variant.name}: without pretrain among its stages it needs start_from"
            raise ValueError(msg)
        if variant.start_from is not None:
            _check_start(study, variant, before)
        before.add(variant.name)
    for row in (study.control, *(row for pair in study.differences for row in pair)):
        if row.partition("/")[0] not in study.variants or not row.partition("/")[2]:
            msg = f"{row!r} is no row of the study: write VARIANT/MODEL"
            raise ValueError(msg)


def _check_start(study: Study, variant: Variant, before: Collection[str]) -> None:
    start = str(variant.start_from)
    if start not in before or "pretrain" not in study.variants[start].stages:
        msg = f"variant {variant.name}: start_from {start!r} must name a variant before it that runs pretrain"
        raise ValueError(msg)
    if "pretrain" in variant.stages or "pretrain" in variant.settings:
        msg = f"variant {variant.name} starts from {start}, so it neither runs nor sets pretrain"
        raise ValueError(msg)
