"""Offer the line's models to the registry: each with its measures, its gate, what it was made from, and a model card.

This stage writes candidates only. ``vital registry promote`` (infra/promotion.py) makes a version of one, and only if
the gate declared here holds.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from infra.model_record import Candidate, Check, content_hash, hash_file, hash_folder
from tasks.errors import ConfigError, StageError
from tasks.evaluation.model_card import CardFacts, model_card
from tasks.records import CORRELATIONS, DIFFERENCES
from tasks.shards import atomic, read_table, write_json
from tasks.stage import STAGES, Place, read_params

log = logging.getLogger(__name__)

PRETRAINED: Final = "pretrained"
ENCODER: Final = "encoder"
ZERO: Final = "zero"
WARM_UP: Final = "warm_up"
ASSISTANT: Final = "assistant"
PROBE: Final = "probe"
STUDENT: Final = "student"
KINDS: Final = (PRETRAINED, ENCODER, ZERO, WARM_UP, ASSISTANT, PROBE, STUDENT)
"""Kinds of candidate; each has a gate of its own."""

_SLICES: Final = ("image", "video", "undistorted")
_DATA: Final = (
    "artifacts/collect/candidates.parquet",
    "artifacts/distort/candidates.parquet",
    "artifacts/score/opinions.parquet",
    "artifacts/assemble/examples.parquet",
    "artifacts/validate/results.json",
)
"""Tables that the training data consist of; media are named in them by their hashes."""


@dataclass(frozen=True)
class Config:
    """The quality gates.

    Attributes:
        gates: kind of candidate -> measure -> least value. Measures are those of the candidate on held-out contents:
            ``srcc``, ``krcc``, ``plcc`` ..., ``srcc_image``, ``srcc_video``, ``srcc_undistorted``, and the paired SRCC
            differences ``gain_over_base`` (pre-trained), ``gain_over_zero``, ``gain_over_pretrained`` (the student's
            too), ``gain_over_control`` (warmed up, probe); of the assistant also ``accuracy``, ``accuracy_gain`` over
            the pre-trained model and ``accuracy_over_blind``; with ``_low`` the lower end of the bootstrap interval.
    """

    gates: dict[str, dict[str, float]]

    def __post_init__(self) -> None:
        """Check that every kind has a gate."""
        if set(self.gates) != set(KINDS) or not all(self.gates.values()):
            msg = f"gates needs at least one bound for each of {', '.join(KINDS)}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Report:
    """What is offered: per candidate, whether its gate holds and the hash of its content."""

    candidates: int
    gate_holds: dict[str, bool]
    content: dict[str, str]


@dataclass(frozen=True)
class Offer:
    """One candidate before it is measured.

    Attributes:
        name: name in the registry.
        kind: one of KINDS.
        path: folder, relative to the workspace.
        predicted_as: the model's name in the predictions.
        rivals: measure -> model it is compared with.
        parents: models it was made from.
        maker: stage that made it.
        sources: folders of the models it was made from, relative to the workspace.
    """

    name: str
    kind: str
    path: str
    predicted_as: str
    rivals: Mapping[str, str]
    parents: tuple[str, ...]
    maker: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """The tables of ``correlate`` for one reference.

    Attributes:
        reference: ``mos`` if there are human scores, else ``machine_opinion``.
        correlations: rows of CORRELATIONS. differences: rows of DIFFERENCES.
    """

    reference: str
    correlations: list[dict[str, Any]]
    differences: list[dict[str, Any]]


def run(config: Config, place: Place) -> Report:
    """Offer every model of the line; outputs ``candidates.json`` and ``cards/<name>.md``.

    Raises:
        StageError: a model has no files or no measures.
        ConfigError: a gate names a measure that its kind of candidate does not have.
    """
    agreement = read_agreement(place.artifacts("correlate"))
    params = read_params(place.root)
    data = {path: hash_file(place.root / path, path).sha256 for path in _DATA}
    candidates = [_candidate(offer, config, agreement, params, data, place) for offer in list_offers(place)]
    for candidate in candidates:
        log.info("register: %s: gate %s", candidate.name, "holds" if candidate.holds else "does not hold")
        with atomic(place.out / "cards" / f"{candidate.name}.md") as file:
            file.write(candidate.card.encode())
    offered = {candidate.name: candidate for candidate in candidates}
    write_json(
        place.out / "candidates.json", {"candidates": {name: offered[name].to_json() for name in sorted(offered)}}
    )
    return Report(
        candidates=len(offered),
        gate_holds={name: offered[name].holds for name in sorted(offered)},
        content={name: offered[name].content for name in sorted(offered)},
    )


def list_offers(place: Place) -> list[Offer]:
    """Name every model of the line that may be registered."""
    decoder = json.loads((place.artifacts("pretrain") / "recipe.json").read_text())["decoder"]
    pretrained, base = f"vital-base-{decoder}", f"base-{decoder}"
    gain, base_folder = {"gain_over_base": base}, f"artifacts/base/{decoder}"
    offers = [
        Offer(name, kind, f"artifacts/pretrain/{folder}", pretrained, gain, (base,), "pretrain", (base_folder,))
        for name, kind, folder in (("vital-base", PRETRAINED, "model"), ("vital-encoder", ENCODER, "encoder"))
    ]
    warmed = place.artifacts("warm_up")
    for other in sorted(folder.name for folder in warmed.iterdir() if (folder / "zero").is_dir()):
        zero, warm = f"vital-zero-{other}", f"vital-warm-up-{other}"
        parents, sources = ("vital-encoder", f"base-{other}"), ("artifacts/pretrain/encoder", f"artifacts/base/{other}")
        offers.append(Offer(zero, ZERO, f"artifacts/warm_up/{other}/zero", zero, {}, parents, "warm_up", sources))
        rivals = {
            "gain_over_zero": zero,
            "gain_over_pretrained": pretrained,
            "gain_over_control": f"base-warm-up-{other}",
        }
        path = f"artifacts/warm_up/{other}/warm"
        offers.append(Offer(warm, WARM_UP, path, warm, rivals, (zero, *parents), "warm_up", sources))
    assistant, gain = f"vital-assistant-{decoder}", {"gain_over_pretrained": pretrained}
    path, sources = "artifacts/assistant/model", ("artifacts/pretrain/model",)
    offers.append(Offer("vital-assistant", ASSISTANT, path, assistant, gain, ("vital-base",), "assistant", sources))
    return [*offers, _probe_offer(pretrained), _student_offer(pretrained)]


def _probe_offer(pretrained: str) -> Offer:
    rivals = {"gain_over_control": "base-probe", "gain_over_pretrained": pretrained}
    path, sources = "artifacts/linear_probe/model", ("artifacts/pretrain/encoder",)
    return Offer("vital-probe", PROBE, path, "vital-probe", rivals, ("vital-encoder",), "linear_probe", sources)


def _student_offer(pretrained: str) -> Offer:
    rivals = {"gain_over_pretrained": pretrained}
    path, sources = "artifacts/rali/student", ("artifacts/pretrain/model",)
    return Offer("vital-rali", STUDENT, path, "vital-rali", rivals, ("vital-base",), "rali", sources)


def read_agreement(folder: Path) -> Agreement:
    """Read the measures against human scores if there are some, else against the machine opinion."""
    correlations = read_table(folder / "correlations.parquet", CORRELATIONS)
    differences = read_table(folder / "differences.parquet", DIFFERENCES)
    kinds = set(correlations["target_kind"])
    if not kinds:
        raise StageError("artifacts/correlate/correlations.parquet is empty: run dvc repro correlate")
    reference = "mos" if "mos" in kinds else min(kinds)
    tables = [pd.DataFrame(table[table["target_kind"] == reference]) for table in (correlations, differences)]
    return Agreement(reference, *(table.to_dict("records") for table in tables))


def measures(offer: Offer, agreement: Agreement) -> dict[str, float | None]:
    """Collect a candidate's measures: value and interval ends, None where undefined.

    Raises:
        StageError: the model was not measured.
    """
    rows = [row for row in agreement.correlations if row["model"] == offer.predicted_as]
    found: dict[str, float | None] = {}
    for row in rows:
        if row["slice"] == "all":
            found |= _with_interval(row["statistic"], row, "value")
        elif row["slice"] in _SLICES and row["statistic"] == "srcc":
            found |= _with_interval(f"srcc_{row['slice']}", row, "value")
    if "srcc" not in found:
        msg = f"{offer.name}: correlate has no measures of {offer.predicted_as}: run dvc repro correlate"
        raise StageError(msg)
    for measure, rival in offer.rivals.items():
        for row in agreement.differences:
            key = (row["model"], row["other"], row["slice"], row["statistic"])
            if key == (offer.predicted_as, rival, "all", "srcc"):
                found |= _with_interval(measure, row, "difference")
    return found


def answered(offer: Offer, place: Place) -> dict[str, float | None]:
    """Shares of right answers to held-out questions, as ``answer`` measured them: the line's own if there are any.

    Raises:
        StageError: the model was not asked.
    """
    told = json.loads((place.artifacts("answer") / "accuracies.json").read_text())
    pretrained = offer.rivals["gain_over_pretrained"]
    wanted = {"accuracy": ("accuracies", None), "accuracy_gain": ("differences", pretrained)}
    wanted |= {"accuracy_over_blind": ("differences", "blind")}
    sources = sorted({row["source"] for row in told["accuracies"]}, key=lambda source: (source != "line", source))
    found: dict[str, float | None] = {}
    for measure, (rows, other) in wanted.items():
        key = (sources[0] if sources else None, offer.predicted_as, "all", "greedy", other)
        for row in told[rows]:
            if (row["source"], row["model"], row["slice"], row["measure"], row.get("other")) == key:
                found |= _with_interval(measure, row, "value")
    if "accuracy" not in found:
        msg = f"{offer.name}: answer has no measures of {offer.predicted_as}: run dvc repro answer"
        raise StageError(msg)
    return found


def _with_interval(measure: str, row: Mapping[str, Any], column: str) -> dict[str, float | None]:
    values = {measure: row[column], f"{measure}_low": row["low"], f"{measure}_high": row["high"]}
    return {name: None if pd.isna(value) else float(value) for name, value in values.items()}


def gate_checks(kind: str, config: Config, found: Mapping[str, float | None]) -> tuple[Check, ...]:
    """Hold the gate of a kind against the measures; what is undefined does not hold.

    Raises:
        ConfigError: the gate names a measure that does not exist for this candidate.
    """
    for measure in config.gates[kind]:
        if measure not in found:
            msg = f"params key register.gates.{kind}: there is no measure {measure!r}; there are {', '.join(found)}"
            raise ConfigError(msg)
    return tuple(Check(measure, bound, found[measure]) for measure, bound in sorted(config.gates[kind].items()))


def _candidate(
    offer: Offer, config: Config, agreement: Agreement, params: dict[str, Any], data: dict[str, str], place: Place
) -> Candidate:
    files = hash_folder(place.root / offer.path)
    if not files:
        msg = f"{offer.path} holds no files: run dvc repro {offer.maker}"
        raise StageError(msg)
    found = measures(offer, agreement)
    if offer.kind == ASSISTANT:
        found |= answered(offer, place)
    checks = gate_checks(offer.kind, config, found)
    line = list(STAGES)
    sections = [name for name in line[: line.index(offer.maker) + 1] if name in params]
    sources = {path: content_hash(hash_folder(place.root / path)) for path in offer.sources}
    overall = next(r for r in agreement.correlations if (r["model"], r["slice"]) == (offer.predicted_as, "all"))
    facts = CardFacts(
        offer.name, offer.kind, offer.parents, agreement.reference, int(overall["samples"]), int(overall["contents"])
    )
    return Candidate(
        name=offer.name,
        kind=offer.kind,
        path=offer.path,
        files=files,
        metrics=found,
        gate=checks,
        params={name: params[name] for name in sections},
        made_from={**data, **sources},
        parents=offer.parents,
        card=model_card(facts, files, found, checks),
    )
