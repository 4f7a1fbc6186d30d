"""Stage ``validate``: the gate between annotation and training.

Great Expectations runs the rules of ``rules`` on the views of ``views`` and ``text_views``; a failed rule of severity
``error`` stops the line. The verdict is written either way: on success to ``artifacts/validate``, on failure to
``.work/last_failure/validate``, since a gate that did not hold publishes nothing.
"""

import datetime as dt
import logging
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import pandas as pd

from tasks.annotation import text_views, views
from tasks.annotation.rules import KEYS, Limits, Rule, all_rules, schema_rules
from tasks.errors import GateError
from tasks.shards import atomic, write_json
from tasks.stage import Place

log = logging.getLogger(__name__)

RESULTS, DOCS, SUMMARY = "results.json", "docs", "summary.md"
FAILURE: Final = Path(".work/last_failure/validate")
"""Where, below the workspace, the verdict of a gate that did not hold can be read."""
_NAMED: Final = 3
_SOURCE: Final = "vital"
_NO_TIME: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""The run time that Data Docs show: results depend on the inputs, so no clock may enter them."""
_TIME_TEXT: Final = _NO_TIME.strftime("%Y%m%dT%H%M%S.%fZ")
_STAMP: Final = re.compile(r"\b20\d{6}T\d{6}\.\d{6}Z")
_UUID: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
_BEACON: Final = re.compile(r"https://great-expectations-web-assets[^\"')]*/([\w.-]+\.(?:png|svg))(?:\?d=[^\"')]*)?")
_TUTORIAL_PICTURES: Final = (
    "glossary_scroller.gif",
    "validation_failed_unexpected_values.gif",
    "iterative-dev-loop.png",
)


@dataclass(frozen=True)
class Config:
    """What the gate asks for.

    Attributes:
        limits: thresholds of the rules.
        pair_shares: declared share of pairs by preference: ``better`` (1), ``worse`` (0), ``tie`` (.5).
        verdict_words: words that would tell a verdict on the whole medium in a description.
        ids_named: ids that a failed expectation names.
    """

    limits: Limits
    pair_shares: dict[str, float]
    verdict_words: tuple[str, ...]
    ids_named: int

    def __post_init__(self) -> None:
        """Check the shares."""
        if set(self.pair_shares) != {"better", "worse", "tie"} or abs(sum(self.pair_shares.values()) - 1) > 1e-9:
            msg = f"pair_shares needs better, worse and tie, which sum to 1, not {self.pair_shares}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Report:
    """Counts of the rules, and of the rows that they looked at."""

    expectations: int
    failed_errors: int
    failed_warnings: int
    contents: int
    candidates: int
    opinions: int
    assertions: int
    kept_assertions: int
    examples: dict[str, int]
    rejects: dict[str, int]


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    Attributes:
        rows: rows of the view. unexpected: rows that broke the rule. ids: the first of them.
        problem: why the rule could not be evaluated; empty if it was.
    """

    name: str
    table: str
    says: str
    severity: str
    success: bool
    rows: int
    unexpected: int
    ids: list[str]
    problem: str


def run(config: Config, place: Place) -> Report:
    """Validate; outputs ``results.json``, ``summary.md`` and ``docs/``.

    Raises:
        GateError: an expectation of severity ``error`` does not hold; names it, the number of rows and the first ids.
        StageError: a table is missing.
    """
    context = _context(place.out / DOCS)
    schema = {"schema": views.schema_view(place)}
    outcomes = _run_suites(context, schema, schema_rules(), config.ids_named)
    _check(outcomes, place)
    plant = views.load_plant(place)
    everything = make_views(plant, config)
    outcomes += _run_suites(context, everything, all_rules(config.limits), config.ids_named)
    _build_docs(context, place.out / DOCS)
    _check(outcomes, place)
    _write(outcomes, place.out)
    shutil.rmtree(place.root / FAILURE, ignore_errors=True)
    failed = [outcome for outcome in outcomes if not outcome.success]
    return Report(
        expectations=len(outcomes),
        failed_errors=0,
        failed_warnings=len(failed),
        contents=len(everything["contents"]),
        candidates=len(plant.candidates),
        opinions=len(plant.opinions),
        assertions=len(plant.assertions),
        kept_assertions=int(views.truths(plant.reviewed["kept"]).sum()),
        examples=_counts(plant.examples["task"]),
        rejects=_counts(plant.rejects["stage"]),
    )


def make_views(plant: views.Plant, config: Config) -> dict[str, pd.DataFrame]:
    """Compute every view but the schema's."""
    from models.distortions import IMAGE_TYPES, VIDEO_TYPES  # noqa: PLC0415 - the gate of other tables needs no codecs

    hashes = views.read_hashes(views.BENCHMARK_HASHES)
    shares = {1.0: config.pair_shares["better"], 0.0: config.pair_shares["worse"], 0.5: config.pair_shares["tie"]}
    return {
        "candidates": views.candidates_view(plant, hashes, frozenset([*IMAGE_TYPES, *VIDEO_TYPES])),
        "contents": views.contents_view(plant),
        "splits": views.splits_view(plant),
        "opinions": views.opinions_view(plant),
        "assertions": text_views.assertions_view(plant, config.verdict_words),
        "votes": text_views.votes_view(plant),
        "reviewed": text_views.reviewed_view(plant, config.verdict_words),
        **text_views.review_views(plant, config.limits.min_assertions),
        "examples": text_views.examples_view(plant, config.verdict_words),
        "pairs": text_views.pairs_view(plant, shares),
        "flow": views.flow_view(plant),
        "balance": views.balance_view(plant),
    }


def evaluate(frames: Mapping[str, pd.DataFrame], rules: Sequence[Rule], ids_named: int) -> list[Outcome]:
    """Run the rules as one Great Expectations suite per view.

    Args:
        frames: view -> frame.
        rules: of those views.
        ids_named: ids that an outcome names.
    """
    return _run_suites(_context(None), frames, rules, ids_named)


def _context(docs: Path | None) -> Any:
    """A quiet context in memory, whose Data Docs site, if any, is at ``docs``."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx  # noqa: PLC0415 - 4 to 13 s that only this stage pays
    from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: PLC0415

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    if docs is not None:
        shutil.rmtree(docs, ignore_errors=True)
        context.add_data_docs_site(site_name="validate", site_config=_site(docs))
    context.data_sources.add_pandas(_SOURCE)
    return context


def _run_suites(
    context: Any, frames: Mapping[str, pd.DataFrame], rules: Sequence[Rule], ids_named: int
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about how Great Expectations calls it
        for view in dict.fromkeys(rule.view for rule in rules):
            own = [rule for rule in rules if rule.view == view]
            found = _run_suite(context, _plain_frame(frames[view], own), own, ids_named)
            outcomes += [_outcome(rule, found[rule.name], len(frames[view]), ids_named) for rule in own]
    return outcomes


def _run_suite(context: Any, frame: pd.DataFrame, rules: Sequence[Rule], ids_named: int) -> dict[str, Any]:
    """Results of the rules of one view, by the rules' names."""
    import great_expectations as gx  # noqa: PLC0415 - as in _context
    from great_expectations.core.run_identifier import RunIdentifier  # noqa: PLC0415

    view = rules[0].view
    suite = context.suites.add(gx.ExpectationSuite(name=view, expectations=[_expectation(rule) for rule in rules]))
    asset = context.data_sources.get(_SOURCE).add_dataframe_asset(view)
    batch = asset.add_batch_definition_whole_dataframe("whole")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=view, data=batch, suite=suite))
    result = definition.run(
        batch_parameters={"dataframe": frame},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [KEYS[view]],
            "partial_unexpected_count": ids_named,
        },
        run_id=RunIdentifier(run_name="validate", run_time=_NO_TIME),
    )
    return {cast("Any", entry.expectation_config).meta["name"]: entry for entry in result.results}


def _build_docs(context: Any, docs: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in _run_suites
        context.build_data_docs()
    _make_deterministic(docs)


def _site(docs: Path) -> Any:
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": store,
        "site_index_builder": index,
    }


def _expectation(rule: Rule) -> Any:
    """Build the expectation class that the rule names."""
    import great_expectations.expectations as gxe  # noqa: PLC0415 - as in _context

    kind = getattr(gxe, "".join(part.capitalize() for part in rule.expectation.split("_")))
    severity = "critical" if rule.severity == "error" else "warning"
    return kind(**rule.arguments, severity=severity, description=rule.says, meta={"name": rule.name})


def _plain_frame(frame: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """The columns that the rules and the key need, without list columns, which Great Expectations cannot hash."""
    wanted = [KEYS[rules[0].view]]
    for rule in rules:
        wanted += [rule.arguments[name] for name in ("column", "column_A", "column_B") if name in rule.arguments]
    return pd.DataFrame(frame[list(dict.fromkeys(wanted))]).reset_index(drop=True)


def _outcome(rule: Rule, entry: Any, rows: int, ids_named: int) -> Outcome:
    found = entry.result or {}
    problem = ""
    if entry.exception_info.get("raised_exception", True):  # a dictionary per metric if something went wrong
        causes = [info["exception_message"] for info in entry.exception_info.values() if isinstance(info, dict)]
        problem = " ".join(str(causes[0] if causes else entry.exception_info.get("exception_message")).split())
    broken = found.get("unexpected_index_list") or []
    key = KEYS[rule.view]
    ids = [str(row[key]) for row in broken]
    return Outcome(
        name=rule.key,
        table=rule.view,
        says=rule.says,
        severity=rule.severity,
        success=bool(entry.success) and not problem,
        rows=rows,
        unexpected=int(found.get("unexpected_count") or 0),
        ids=sorted(dict.fromkeys(ids))[:ids_named],
        problem=problem,
    )


def _make_deterministic(docs: Path) -> None:
    """Take clocks, random ids, and pictures from elsewhere out of the site; equal inputs give equal bytes."""
    for picture in _TUTORIAL_PICTURES:
        (docs / "static" / "images" / picture).unlink(missing_ok=True)
    for page in sorted(docs.rglob("*.html")):
        text = page.read_text()
        for number, found in enumerate(dict.fromkeys(_UUID.findall(text))):
            text = text.replace(found, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{page.relative_to(docs)} {number}")))
        up = "../" * (len(page.relative_to(docs).parts) - 1)
        text = _BEACON.sub(rf"{up}static/images/logo-long.png", text)
        page.write_text(_STAMP.sub(_TIME_TEXT, text))


def _check(outcomes: Sequence[Outcome], place: Place) -> None:
    """Stop at failed errors: the verdict moves to where it can be read, and nothing is left to publish.

    Raises:
        GateError: as :func:`run`.
    """
    failed = [outcome for outcome in outcomes if not outcome.success and outcome.severity == "error"]
    for outcome in outcomes:
        if not outcome.success and outcome.severity == "warning":
            log.warning("validate: %s", describe(outcome))
    if not failed:
        return
    _write(outcomes, place.out)
    shutil.rmtree(place.root / FAILURE, ignore_errors=True)
    (place.root / FAILURE).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(place.out, place.root / FAILURE)
    shutil.rmtree(place.root / "artifacts" / "validate", ignore_errors=True)  # an earlier pass is not this data's
    told = "; ".join(describe(outcome) for outcome in failed[:_NAMED])
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    msg = f"the gate does not hold: {told}{more}. All results: {FAILURE}/{SUMMARY}"
    raise GateError(msg)


def describe(outcome: Outcome) -> str:
    """One line: expectation, rows, ids."""
    if outcome.problem:
        return f"{outcome.name} ({outcome.says}) could not be evaluated: {outcome.problem}"
    ids = ", ".join(outcome.ids) + (", ..." if outcome.unexpected > len(outcome.ids) else "")
    return f"{outcome.name} ({outcome.says}) fails on {outcome.unexpected} of {outcome.rows} rows: {ids}"


def _results(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    failed = {s: sum(not o.success and o.severity == s for o in outcomes) for s in ("error", "warning")}
    return {
        "success": failed["error"] == 0,
        "evaluated": len(outcomes),
        "failed_errors": failed["error"],
        "failed_warnings": failed["warning"],
        "expectations": [asdict(outcome) for outcome in outcomes],
    }


def _write(outcomes: Sequence[Outcome], folder: Path) -> None:
    results = _results(outcomes)
    write_json(folder / RESULTS, results)
    with atomic(folder / SUMMARY) as file:
        file.write(summary(results).encode())


def summary(results: Mapping[str, Any]) -> str:
    """Markdown for people: the verdict, what failed, and every expectation."""
    verdict = "passed" if results["success"] else "**failed**"
    counts = f"{results['failed_errors']} errors and {results['failed_warnings']} warnings failed"
    lines = ["# Validation", "", f"The gate {verdict}: {results['evaluated']} expectations, {counts}.", ""]
    outcomes = [Outcome(**entry) for entry in results["expectations"]]
    lines += [f"- {outcome.severity}: {describe(outcome)}" for outcome in outcomes if not outcome.success]
    lines += ["", "| expectation | says | severity | rows | unexpected | result |", "|---|---|---|---:|---:|---|"]
    lines += [
        f"| {o.name} | {o.says} | {o.severity} | {o.rows} | {o.unexpected} | {'holds' if o.success else 'fails'} |"
        for o in outcomes
    ]
    return "\n".join(lines) + "\n"


def _counts(column: Any) -> dict[str, int]:
    return {str(key): int(count) for key, count in sorted(column.value_counts().items())}
