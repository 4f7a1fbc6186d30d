"""Stage ``describe``: single assertions about measured signals, and planted ones whose truth the recipe knows.

A sample of the pool is measured by the describer's family of estimators, or shown to an LMM behind an endpoint; what is
told in sentences is polished and split. The share is taken by a hash of the id, so a growing pool leaves old choices
alone. Planted assertions measure the review: they never become training text.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from models.signals.assertions import token_count
from models.signals.claims import FAULTS, Attribute, Claim, Degree, faulty, fine, parse_claim
from models.signals.evidence import Medium, Pixels, draw_evidence
from models.signals.scale import DESCRIBER_FAMILY, Reading, load_thresholds, measure, read
from models.signals.wording import phrase
from tasks.annotation.calls import write_costs
from tasks.annotation.fit_signals import FitConfig
from tasks.annotation.parts import counts_of, each_part, rows_of
from tasks.annotation.recipe import implied_falsehoods, implied_truths
from tasks.annotation.roles import DescribeEndpoints
from tasks.annotation.sample_pixels import load_pixels
from tasks.annotation.writers import (
    FLAWS,
    SENTENCES,
    Told,
    Writers,
    calls_about,
    describing_account,
    flaw_counts,
    foresee_descriptions,
)
from tasks.errors import ConfigError, MediaError, StageError
from tasks.pool import load_candidates
from tasks.records import ASSERTIONS, REJECTS, Origin, RowSchema
from tasks.shards import TableParts, digest, frame_of, write_json, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

SEEN: Final = RowSchema("seen", pa.schema([("id", pa.string()), ("bytes_sha256", pa.string())]), ("id",))
"""Samples that have been looked at; stays in the work folder."""

_TABLES: Final = {"rejects": REJECTS, "seen": SEEN, "flaws": FLAWS, "assertions": ASSERTIONS}
"""Of the work folder, ``assertions`` last: a part of it says that the others have theirs."""
_EARLIER: Final = "earlier"
"""Part of the work that an earlier run has done."""


@dataclass(frozen=True)
class Config:
    """Parameters of ``describe``.

    Attributes:
        seed: of the sample and of the wording.
        share: of the candidates that are described.
        planted_share: of the children whose recipe implies a truth.
        assertions: per described sample, at most; faults come first.
        frames: consecutive frames of a clip, from its middle, that are measured; LMMs see ``endpoints.pictures``.
        strong_at: probability of a fault from which it is called strong.
        slight_at: and slight; below, the attribute is called fine.
        part_samples: samples per part of the work; a killed run repeats at most the parts in hand.
        fit: recipe of the thresholds (``tasks.annotation.fit_signals``).
        endpoints: LMMs that describe and polish instead of measurement; null for measurement.
        processes: worker processes.
    """

    seed: int
    share: float
    planted_share: float
    assertions: int
    frames: int
    strong_at: float
    slight_at: float
    part_samples: int
    fit: FitConfig
    endpoints: DescribeEndpoints | None = None
    processes: int = 2

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 <= self.planted_share <= 1):
            raise ValueError("share and planted_share must lie in [0, 1]")
        if not 0 < self.slight_at < self.strong_at < 1:
            raise ValueError("0 < slight_at < strong_at < 1 must hold")
        if min(self.assertions, self.frames, self.part_samples) < 1:
            raise ValueError("assertions, frames and part_samples must be at least 1")


@dataclass(frozen=True)
class Report:
    """What was described; ``candidates`` = ``described`` + ``rejected``.

    Attributes:
        described: samples with at least one assertion, planted ones included.
        dropped: sentences of descriptions that became no assertion, by the rule that they broke.
        mean_tokens: words and punctuation marks per describer assertion (the paper reports 14.83 of its own tokens).
        by_attribute: describer assertions.
    """

    candidates: int
    described: int
    rejected: int
    rejects_by_reason: dict[str, int]
    describer_assertions: int
    dropped: dict[str, int]
    planted_true: int
    planted_false: int
    mean_tokens: float
    distinct_texts: int
    faults_told: float
    by_attribute: dict[str, int]


@dataclass(frozen=True)
class _Job:
    place: Place
    part: str
    rows: list[dict[str, Any]]
    config: Config
    told: dict[str, Told] | None = None


def run(config: Config, place: Place) -> Report:
    """Write ``assertions.parquet`` and ``rejects.parquet``; of LMMs also ``malformed.json``.

    Raises:
        ConfigError: the thresholds were fitted by another recipe than the params file names.
        StageError: an input is missing, or LMMs told nothing of any sample.
    """
    check_fit(config.fit)
    candidates = rows_of(load_candidates(place))
    told = [row for row in candidates if is_described(row, config) or is_planted(row, config)]
    chosen = {row["id"] for row in told}
    parts = _parts(place.work)
    known = _take_over(place, told)
    fresh = sorted((row for row in told if row["id"] not in known), key=lambda row: (row["bytes_sha256"], row["id"]))
    jobs = []
    for start in range(0, len(fresh), config.part_samples):
        rows = fresh[start : start + config.part_samples]
        part = digest(*(row["id"] for row in rows))
        if not parts["assertions"].has(part):
            jobs.append(_Job(place, part, rows, config))
    left = sum(len(job.rows) for job in jobs)
    with tqdm(total=len(told), initial=len(told) - left, desc="describe", unit="sample") as bar:
        if config.endpoints is None:
            each_part(_describe_part, jobs, config.processes, bar)
        else:
            described = [row for row in told if is_described(row, config)]
            account = describing_account(config.endpoints, (row["id"] for row in described))
            _ask_parts(config.endpoints, jobs, account, bar)
            write_costs(place, "describe", calls_about(place, config.endpoints, described), account)
    flaws = flaw_counts(rows_of(parts["flaws"].read()))
    if config.endpoints is not None:
        write_json(place.out / "malformed.json", flaws)
    skipped = [
        _reject(row["id"], "not_sampled", "descriptions are made of a sample")
        for row in candidates
        if row["id"] not in chosen
    ]
    frame = parts["assertions"].read()
    refused = pd.concat([parts["rejects"].read(), frame_of(REJECTS, skipped)], ignore_index=True)
    write_table(place.out / "assertions.parquet", ASSERTIONS, frame)
    write_table(place.out / "rejects.parquet", REJECTS, refused)
    report = _report(len(candidates), rows_of(frame), rows_of(refused), flaws.get(SENTENCES, {}))
    if config.endpoints is not None:
        _check_told(report, sum(is_described(row, config) for row in told), flaws)
    return report


def _check_told(report: Report, described: int, flaws: dict[str, dict[str, int]]) -> None:
    """Say what writers did not do; if that is everything, it is no result."""
    broken = {writer: rules for writer, rules in flaws.items() if writer != SENTENCES}
    told = "; ".join(f"{writer}: {_counted(rules)}" for writer, rules in broken.items())
    if described and not report.describer_assertions:
        dropped = f"sentences dropped: {_counted(report.dropped)}" if report.dropped else "no sentence was told"
        msg = (
            f"describe: LMMs told nothing usable of any of {described} samples ({told or dropped}): "
            "change describe.endpoints; answers that were paid are kept"
        )
        raise StageError(msg)
    if told:
        log.warning("describe: of %d samples some answers broke a rule (%s); see malformed.json", described, told)


def _counted(rules: dict[str, int]) -> str:
    return ", ".join(f"{rule} {count}" for rule, count in rules.items())


def check_fit(fit: FitConfig) -> None:
    """Refuse thresholds that were fitted on other evidence than the params file says.

    Raises:
        ConfigError: naming the command that mends it.
    """
    if load_thresholds().evidence != fit.evidence:
        msg = "describe.fit.evidence is not what models/signals/thresholds.json was fitted on: "
        msg += "run python -m tasks.annotation.fit_signals"
        raise ConfigError(msg)


def is_described(row: dict[str, Any], config: Config) -> bool:
    """Whether a candidate belongs to the described sample: a function of its id and the seed."""
    return _draw(config.seed, "described", row["id"]) < config.share


def is_planted(row: dict[str, Any], config: Config) -> bool:
    """Whether planted assertions are made about a candidate."""
    if not isinstance(row["distortion"], str) or not implied_truths(row["distortion"], int(row["severity"])):
        return False
    return _draw(config.seed, "planted", row["id"]) < config.planted_share


def _draw(seed: int, *parts: str) -> float:
    text = "\0".join((str(seed), *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def claims_of(reading: Reading, config: Config, seed: str) -> list[Claim]:
    """What the describer has to say: faults by probability, then attributes that are fine, up to the limit."""
    attributes = [name for name, faults in FAULTS.items() if faults[0] in reading]
    worst = {name: max(FAULTS[name], key=lambda fault: reading[fault]) for name in attributes}
    order = sorted(attributes, key=lambda name: (-max(reading[worst[name]], config.slight_at), _draw(0, seed, name)))
    claims = []
    for name in order[: config.assertions]:
        probability = reading[worst[name]]
        if probability < config.slight_at:
            claims.append(fine(name))
        else:
            degree = Degree.STRONG if probability >= config.strong_at else Degree.SLIGHT
            claims.append(faulty(worst[name], degree))
    return claims


def foresee(config: Config, root: Path) -> list[str]:
    """What descriptions would ask of endpoints and pay, one line; nothing for measured ones."""
    if config.endpoints is None:
        return []
    if not all((root / "artifacts" / stage / "candidates.parquet").is_file() for stage in ("collect", "distort")):
        return ["the number of calls is known when collect and distort have run"]
    place = Place(root, root, root)
    described = [row for row in rows_of(load_candidates(place)) if is_described(row, config)]
    return [foresee_descriptions(config.endpoints, place, described)]


def _ask_parts(endpoints: DescribeEndpoints, jobs: Sequence[_Job], account: str, bar: tqdm) -> None:
    """Ask for the descriptions of each part's samples, then go on as with measured ones."""
    if not jobs:
        return
    place, config = jobs[0].place, jobs[0].config
    writers = Writers.at(place, endpoints, account)
    for job in jobs:
        wanted = [row for row in job.rows if is_described(row, config)]
        bar.update(_describe_part(replace(job, told=writers.describe(job.part, wanted))))


def _parts(folder: Path) -> dict[str, TableParts]:
    return {name: TableParts(folder / name, rows) for name, rows in _TABLES.items()}


def _take_over(place: Place, told: Sequence[dict[str, Any]]) -> set[str]:
    """Keep what the last run with the same code and parameters said of samples that are still the same.

    Returns:
        Their ids.
    """
    parts = _parts(place.work)
    if not parts["assertions"].has(_EARLIER):
        if place.before is None:
            return set()
        old = {name: table.read() for name, table in _parts(place.before).items()}
        bytes_of = dict(zip(old["seen"]["id"], old["seen"]["bytes_sha256"], strict=True))
        known = {row["id"] for row in told if bytes_of.get(row["id"]) == row["bytes_sha256"]}
        for name, table in parts.items():
            table.add(_EARLIER, old[name].loc[[key in known for key in old[name]["id"]]])
    return set(parts["seen"].read_part(_EARLIER)["id"])


def _describe_part(job: _Job) -> int:
    told: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    flaws: list[dict[str, Any]] = []
    for row in job.rows:
        answer = (job.told or {}).get(row["id"])
        if answer is None:
            try:
                pixels = load_pixels(job.place, row, job.config.frames)  # of planted ones too: judges will look at them
            except MediaError as error:
                refused.append(_reject(row["id"], error.reason, str(error)))
                continue
            measured = job.told is None and is_described(row, job.config)
            answer = Told(_describe(pixels, row, job.config) if measured else "", {})
        texts, broken = answer.assertions(str(row["modality"]), job.config.assertions)
        flaws += [{"id": row["id"], "writer": key[0], "flaw": key[1], "count": n} for key, n in broken.items()]
        records = [_assertion(row, text, attribute, Origin.DESCRIBER, None) for text, attribute in texts]
        if is_planted(row, job.config):
            records += planted(row, job.config, {record["text"] for record in records})
        if not records:
            refused.append(_reject(row["id"], *answer.reject))
        told += [record | {"position": position} for position, record in enumerate(records)]
    _store_part(job, {"rejects": refused, "seen": job.rows, "flaws": flaws, "assertions": told})
    return len(job.rows)


def _store_part(job: _Job, rows: dict[str, list[dict[str, Any]]]) -> None:
    for name, table in _parts(job.place.work).items():
        schema = _TABLES[name]
        table.add(job.part, frame_of(schema, ({key: row[key] for key in schema.columns} for row in rows[name])))


def _describe(pixels: Pixels, row: dict[str, Any], config: Config) -> str:
    """Measure one sample, and tell it in sentences."""
    thresholds = load_thresholds()
    evidence = draw_evidence(Medium(pixels), thresholds.evidence, row["id"], Origin.DESCRIBER, 0)
    reading = read(measure(DESCRIBER_FAMILY, evidence), DESCRIBER_FAMILY, thresholds)
    seed = f"{config.seed}/{row['id']}"
    return ". ".join(phrase(claim, evidence.medium, seed) for claim in claims_of(reading, config, seed)) + "."


def planted(row: dict[str, Any], config: Config, taken: set[str]) -> list[dict[str, Any]]:
    """Planted assertions about one child: a truth, and falsehoods, in words that no other assertion of it has."""
    cell = str(row["distortion"]), int(row["severity"])
    records = []
    used = set(taken)
    for truth, claims in ((True, implied_truths(*cell)), (False, implied_falsehoods(*cell))):
        for claim in claims:
            text = _unused_phrase(claim, row, config, used)
            used.add(text)
            records.append(_assertion(row, text, claim.attribute, Origin.PLANTED, truth))
    return records


def _unused_phrase(claim: Claim, row: dict[str, Any], config: Config, used: set[str]) -> str:
    for attempt in range(1000):
        text = phrase(claim, str(row["modality"]), f"{config.seed}/planted/{row['id']}/{attempt}")
        if text not in used:
            return text
    msg = f"every wording of {claim} is used up for {row['id']}"
    raise StageError(msg)


def _assertion(
    row: dict[str, Any],
    text: str,
    attribute: Attribute,
    origin: Origin,
    truth: bool | None,  # noqa: FBT001 - a column's value
) -> dict[str, Any]:
    return {
        "assertion_id": digest(row["id"], text),
        "id": row["id"],
        "position": 0,
        "attribute": str(attribute),
        "text": text,
        "origin": str(origin),
        "planted_truth": truth,
    }


def _reject(key: str, reason: str, detail: str) -> dict[str, Any]:
    return {"stage": "describe", "id": key, "reason": reason, "detail": detail}


def _report(
    candidates: int, assertions: list[dict[str, Any]], rejects: list[dict[str, Any]], dropped: dict[str, int]
) -> Report:
    ours = [row for row in assertions if row["origin"] == Origin.DESCRIBER]
    claims = [parse_claim(row["text"]) for row in ours]
    truths = sum(bool(row["planted_truth"]) for row in assertions if row["origin"] == Origin.PLANTED)
    return Report(
        candidates=candidates,
        described=len({row["id"] for row in assertions}),
        rejected=len(rejects),
        rejects_by_reason=counts_of(row["reason"] for row in rejects),
        describer_assertions=len(ours),
        dropped=dropped,
        planted_true=truths,
        planted_false=len(assertions) - len(ours) - truths,
        mean_tokens=_mean([token_count(row["text"]) for row in ours]),
        distinct_texts=len({row["text"] for row in ours}),
        faults_told=_mean([claim is not None and claim.fault is not None for claim in claims]),
        by_attribute=counts_of(row["attribute"] for row in ours),
    )


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0
