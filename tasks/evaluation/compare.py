"""Compare what annotation has made with the last version of the data set, and record it if the limits hold.

The last step of a re-annotation (flows/reannotation.py), after the gate of ``validate``. Not a stage: what it is
compared with lies in the registry, which no ``dvc.lock`` names. All tables are read from DVC's cache, under the hashes
that are recorded.
"""

import dataclasses
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.data_set import (
    DataSet,
    DataSetEntry,
    cached_path,
    confirm_data_set,
    data_set_name,
    last_version,
    read_data_set,
    record_data_set,
)
from infra.errors import InfraError
from infra.git import Git
from infra.model_record import Check
from infra.registry import DEFAULT_STAGE, Found, Registry
from infra.registry_commit import next_version
from infra.workspace import CHECKOUT
from tasks.errors import GateError
from tasks.evaluation.data_facts import OPINION_TABLE, PAID, Locate, data_facts, paid_calls, read_samples, stage_costs
from tasks.evaluation.drift_pages import card, write_pages
from tasks.evaluation.opinion_drift import DriftLimits, DriftOptions, drift_checks, drift_of, measures_of
from tasks.records import OPINIONS
from tasks.shards import read_table
from tasks.stage import ANNOTATION, read_params, stage_config

log = logging.getLogger(__name__)

SECTION: Final = "compare"
"""Section of the params file."""

REPORT: Final = Path(".work/drift")
"""Where, below the workspace, the last comparison lies, whether its limits held or not."""


@dataclass(frozen=True)
class Config:
    """How a re-annotation is compared with the last version.

    Attributes:
        limits: beyond them nothing is recorded.
        bins: of PSI, filled equally by the last version.
        examples: samples named per move between two levels.
    """

    limits: DriftLimits
    bins: int
    examples: int

    def __post_init__(self) -> None:
        """Check what the options ask for."""
        self.options  # noqa: B018 - built to be checked

    @property
    def options(self) -> DriftOptions:
        """How versions are compared."""
        return DriftOptions(self.bins, self.examples)


@dataclass(frozen=True)
class Comparison:
    """What annotation has made, beside the accepted version.

    Attributes:
        name: of the data set. data_set: what was made.
        last: the accepted version; None if there is none yet.
        unchanged: it consists of the same bytes.
        report: drift, limits and facts; empty if unchanged.
    """

    name: str
    data_set: DataSet
    last: Found | None
    unchanged: bool
    report: dict[str, Any]

    @property
    def checks(self) -> tuple[Check, ...]:
        """The limits, each with what was found; none for a first version."""
        return tuple(Check(**check) for check in self.report.get("checks", ()))

    def __str__(self) -> str:
        if self.unchanged:
            return f"{self.last} has the same data already: nothing to record"
        if self.last is None:
            return f"{self.name} has no version yet: nothing to compare with, this is the first"
        found = ", ".join(f"{name} {value:.4g}" for name, value in self.report["measures"].items())
        return f"{self.name} beside {self.last}: {found}"


def compare_with_last(workspace: Path, checkout: Path = CHECKOUT) -> Comparison:
    """Compare a workspace's annotation with the accepted version, and leave the report in ``REPORT``.

    Raises:
        ConfigError: the params section is wrong.
        StageError: a table is missing.
        InfraError: annotation has not run to its end, or the last version's tables cannot be reached.
    """
    config: Config = stage_config(SECTION, read_params(workspace))
    name, registry = data_set_name(workspace, checkout), Registry.open(None, checkout)
    last = last_version(name, registry)
    record = None if last is None else registry.record(last).candidate
    data_set = read_data_set(workspace, ANNOTATION, () if record is None else record.files)
    if record is not None and record.content == data_set.content:
        return Comparison(name, data_set, last, unchanged=True, report={})
    with tempfile.TemporaryDirectory(prefix="vital-drift-") as folder:
        before = None
        if last is not None:
            registry.fetch_part(last, PAID, Path(folder))
            before = Path(folder).joinpath
        report = _report(name, (workspace, data_set), config, before)
    report["last"] = None if last is None else str(last)
    write_pages(workspace / REPORT, report)
    return Comparison(name, data_set, last, unchanged=False, report=report)


def foresee(config: Config, workspace: Path, checkout: Path = CHECKOUT) -> list[str]:
    """What a re-annotation would be compared with, by which limits, and what it would record; a line each."""
    name = data_set_name(workspace, checkout)
    limits = ", ".join(f"{limit} {value:g}" for limit, value in dataclasses.asdict(config.limits).items())
    try:
        last = last_version(name, Registry.open(None, checkout))
        fresh = f"{name}@{next_version(Git(checkout), name)} in stage {DEFAULT_STAGE}"
    except InfraError as error:
        return [f"nothing can be compared or recorded: {error}"]
    report = f"the report is left in {workspace / REPORT}"
    if last is None:
        return [f"{name} has no version yet, so there is nothing to compare with; {report}", f"records {fresh}"]
    return [
        f"opinions are compared with {last} by the limits {limits}; {report}",
        f"records {fresh} if they hold, nothing if not, or if {last} has the same data already",
    ]


def record_version(comparison: Comparison, workspace: Path, checkout: Path = CHECKOUT) -> str:
    """Record what was compared as the accepted version.

    Returns:
        What became of it, in one line.

    Raises:
        GateError: a limit does not hold; the accepted version stays.
        InfraError: the registry or the store does not work.
    """
    if comparison.unchanged and comparison.last is not None:
        confirm_data_set(comparison.last, checkout)
        return str(comparison)
    if unmet := [str(check) for check in comparison.checks if not check.holds]:
        msg = (
            f"opinions have drifted from {comparison.last} beyond the limits of params.yaml, section {SECTION}: "
            f"{', '.join(unmet)}; {comparison.last} stays (vital opinions drift shows what moved)"
        )
        raise GateError(msg)
    report = comparison.report
    entry = DataSetEntry(
        name=comparison.name,
        last=report["last"],
        metrics={**report["facts"]["counts"], **(report["measures"] or {})},
        gate=comparison.checks,
        sections=(*ANNOTATION, SECTION),
        card=card(report, comparison.data_set.files),
        report=report,
    )
    return record_data_set(comparison.data_set, entry, workspace, checkout)


def _report(name: str, made: tuple[Path, DataSet], config: Config, before: Locate | None) -> dict[str, Any]:
    workspace, data_set = made

    def locate(path: str) -> Path:
        return cached_path(workspace, data_set, path)

    facts = data_facts(locate, data_set.listing, before)
    drift = None
    if before is not None:
        old, new = (read_table(found(OPINION_TABLE), OPINIONS) for found in (before, locate))
        drift = drift_of(old, new, config.options, read_samples(locate))
    checks = () if drift is None else drift_checks(drift, config.limits)
    return {
        "name": name,
        "drift": drift,
        "measures": None if drift is None else measures_of(drift),
        "checks": [dataclasses.asdict(check) for check in checks],
        "facts": {
            **facts,
            "costs": stage_costs(workspace, ANNOTATION),
            "calls": paid_calls(workspace, ANNOTATION),
        },
    }
