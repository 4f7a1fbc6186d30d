"""The gate's rules as data: which expectation holds for which view, how much it matters, and what it says.

A rule names an expectation of Great Expectations and its arguments; ``validate`` runs it. A failed ``error`` stops the
line, a failed ``warning`` is reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tasks.records import Modality, Split, Task

Severity = Literal["error", "warning"]

ATTRIBUTES: Final = (
    *("sharpness", "noise", "exposure", "contrast", "colour", "compression"),
    *("stability", "smoothness"),
)
VERDICTS: Final = ("agree", "revise", "severe", "abstain", "malformed")


@dataclass(frozen=True)
class Rule:
    """One expectation on one view.

    Attributes:
        view: table or computed view.
        name: what must hold, as a key; unique within the view.
        expectation: name of the expectation, snake case.
        arguments: of the expectation.
        says: the rule as a sentence for people.
    """

    view: str
    name: str
    expectation: str
    arguments: Mapping[str, Any]
    says: str
    severity: Severity = "error"

    @property
    def key(self) -> str:
        """``view.name``."""
        return f"{self.view}.{self.name}"


@dataclass(frozen=True)
class Band:
    """A closed range."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the order."""
        if not self.low <= self.high:
            msg = f"low must not exceed high: {self.low}, {self.high}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Limits:
    """Thresholds of the rules.

    Attributes:
        tolerance: of sums and means of probabilities and scores.
        scorers: scores per opinion.
        min_side: pixels.
        pair_tolerance: how far each class of pairs may be from its declared share.
        min_assertions: assertions of a kind below which the share that review keeps is not judged.
        kept: share of the describer's assertions that review keeps.
        planted_true_kept, planted_false_kept: least and greatest share of planted assertions that review keeps.
        judges, rounds: every judge votes once in every round; a kept assertion has all these votes.
        self_votes: of the annotator on a kept assertion.
        max_revisions: ballots on revised texts.
    """

    tolerance: float
    scorers: int
    min_side: int
    pair_tolerance: float
    min_assertions: int
    kept: Band
    planted_true_kept: float
    planted_false_kept: float
    judges: int
    rounds: int
    self_votes: int
    max_revisions: int


KEYS: Final[dict[str, str]] = {
    "schema": "column",
    "candidates": "id",
    "contents": "content_id",
    "splits": "split",
    "opinions": "id",
    "assertions": "assertion_id",
    "votes": "vote",
    "reviewed": "assertion_id",
    "review_describer": "group",
    "review_true": "group",
    "review_false": "group",
    "examples": "example_id",
    "pairs": "preference",
    "flow": "thing",
    "balance": "stage",
}
"""View -> the column that names a row."""


def schema_rules() -> list[Rule]:
    """What must hold before any other view can be computed."""
    return [
        _equal("schema", "types", "found", "declared", "every table has its declared columns with their types"),
    ]


def all_rules(limits: Limits) -> list[Rule]:
    """Every rule but those of the schema."""
    keyed = ("candidates", "opinions", "assertions", "reviewed", "examples")
    return [
        *(_whole(view, KEYS[view]) for view in keyed),
        *_candidate_rules(limits),
        *_opinion_rules(limits),
        *_text_rules(limits),
        *_review_rules(limits),
        *_example_rules(limits),
        *_flow_rules(),
    ]


def _candidate_rules(limits: Limits) -> list[Rule]:
    view = "candidates"
    return [
        _unique(view, "id"),
        _whole(view, "modality"),
        _whole(view, "split"),
        _one_of(view, "modality", list(Modality), "modality is image or video"),
        _one_of(view, "split", list(Split), "split is one of the three"),
        _equal(view, "split_of_content", "split", "content_split", "a sample has the split of its content"),
        _holds(
            view, "lineage_holds", "originals stand alone; children have a parent, a known type and severity 1 to 5"
        ),
        _holds(view, "timing_holds", "images have one frame and no rate; videos have frames and a rate"),
        _between(view, "shorter_side", "both sides are large enough", low=limits.min_side),
        _between(view, "offset", "the place in the archive is valid", low=0),
        _between(view, "length", "no medium is empty", low=1),
        _matches(view, "bytes_sha256", r"^[0-9a-f]{32,64}$", "the bytes' hash is a hash"),
        _unique(view, "bytes_sha256", severity="warning"),
        _fails(view, "is_benchmark_medium", "no benchmark medium is in the train or warm-up split"),
        _between("contents", "splits", "no content is in two splits", low=1, high=1),
        _between("splits", "contents", "every split has contents", low=1, severity="warning"),
    ]


def _opinion_rules(limits: Limits) -> list[Rule]:
    view, tolerance = "opinions", limits.tolerance
    return [
        _unique(view, "id"),
        _holds(view, "candidate_known", "every opinion is about a candidate"),
        _holds(view, "bytes_known", "the scored bytes are the candidate's"),
        _between(view, "score_count", "every scorer gave a score", low=limits.scorers, high=limits.scorers),
        _holds(view, "scorers_agree", "all opinions have the same scorers, with a version and a score each"),
        _between(view, "score_min", "no score is below 0", low=0, high=1),
        _between(view, "score_max", "no score is above 1", low=0, high=1),
        _between(view, "mu_error", "mu is the mean of the scores", high=tolerance),
        _between(view, "sigma_error", "sigma is the population standard deviation of the scores", high=tolerance),
        _between(view, "pmod_sum_error", "PMOD sums to 1", high=tolerance),
        _between(view, "pmod_mean_error", "PMOD keeps the (clamped) mean", high=tolerance),
        _between(view, "pmod_min", "no PMOD entry is negative", low=0, high=1),
        _holds(view, "clamp_told", "mu_clamped says whether mu is outside what five bins can express"),
    ]


def _text_rules(limits: Limits) -> list[Rule]:
    view = "assertions"
    return [
        _unique(view, "assertion_id"),
        _one_of(view, "modality", list(Modality), "every assertion is about a candidate"),
        _one_of(view, "attribute", ATTRIBUTES, "the attribute is one of the vocabulary"),
        _holds(view, "attribute_fits", "motion attributes are told of videos only"),
        _one_of(view, "origin", ("describer", "planted"), "the origin is known"),
        _holds(view, "truth_fits", "planted assertions have a truth, others have none"),
        _holds(view, "is_bare_sentence", "an assertion is one sentence without its full stop"),
        _fails(view, "tells_verdict", "no assertion tells a verdict on the whole"),
        _unique("votes", "vote"),
        _holds("votes", "assertion_known", "every vote is about an assertion"),
        _one_of("votes", "phase", ("cross", "self"), "the phase is cross or self"),
        _one_of("votes", "verdict", VERDICTS, "the verdict is one of the protocol's"),
        _holds("votes", "revision_fits", "a vote proposes a text exactly if it asks for a revision"),
        _between("votes", "round", "rounds count from 1", low=1, high=max(limits.rounds, limits.self_votes)),
        _between(
            "votes", "attempt", "a text is revised as often as declared at most", low=0, high=limits.max_revisions
        ),
    ]


def _review_rules(limits: Limits) -> list[Rule]:
    view, rate, votes = "reviewed", "kept_share", limits.judges * limits.rounds
    return [
        _unique(view, "assertion_id"),
        _whole(view, "kept"),
        _holds(view, "reason_fits", "an assertion is kept exactly if its reason is unanimity"),
        _holds(view, "unanimous", "every vote of a kept assertion's last ballots agrees"),
        _between(view, "judges", "every judge voted on a kept assertion's text", low=limits.judges, high=limits.judges),
        _between(view, "cross_votes", "a kept assertion's text has a vote per judge and round", low=votes, high=votes),
        _between(
            view,
            "self_votes",
            "the annotator confirmed a kept assertion as often as declared",
            low=limits.self_votes,
            high=limits.self_votes,
        ),
        _fails(view, "kept_tells_verdict", "no kept text tells a verdict on the whole"),
        _between(
            "review_describer", rate, "review keeps a sane share of the descriptions", limits.kept.low, limits.kept.high
        ),
        _between("review_true", rate, "review keeps planted truths", limits.planted_true_kept, 1.0, severity="warning"),
        _between(
            "review_false",
            rate,
            "review rejects planted falsehoods",
            0.0,
            limits.planted_false_kept,
            severity="warning",
        ),
    ]


def _example_rules(limits: Limits) -> list[Rule]:
    view = "examples"
    return [
        _unique(view, "example_id"),
        _one_of(view, "task", list(Task), "the task is one of the four"),
        _between(view, "unknown_ids", "every id of an example is a candidate", high=0),
        _between(view, "other_split", "an example's split is that of its contents", high=0),
        _between(view, "other_modality", "an example's modality is that of its samples", high=0),
        _fails(view, "trains_on_held_out", "no held-out content is in a train or warm-up example"),
        _holds(
            view, "shape_holds", "one sample (two for pairs), an answer each, targets and preference where they belong"
        ),
        _between(view, "target_error", "a target is its sample's PMOD", high=limits.tolerance),
        _holds(view, "level_agrees", "the level word of an answer is that of its target's mean"),
        _one_of(view, "preference", (0.0, 0.5, 1.0), "a preference is 0, .5 or 1"),
        _holds(view, "preference_fits", "the preferred sample of a pair has the higher mean"),
        _fails(view, "tells_verdict", "no description tells a verdict on the whole"),
        _holds(view, "distortion_told", "a distortion example names its sample's type and severity"),
        _between(view, "planted_sentences", "no planted assertion is trained on", high=0),
        _between(view, "unreviewed_sentences", "every sentence of a description was kept by review", high=0),
        _between("pairs", "deviation", "pairs are better, worse and tied as 4:4:2", high=limits.pair_tolerance),
    ]


def _flow_rules() -> list[Rule]:
    return [
        _equal(
            "flow", "in_is_out_plus_rejects", "inputs", "fates", "what a stage took in left once: passed on or rejected"
        ),
        _between("balance", "missing", "inputs of a stage = outputs + rejects", low=0, high=0),
    ]


def _rule(view: str, name: str, expectation: str, says: str, severity: Severity = "error", **arguments: Any) -> Rule:
    return Rule(view, name, f"expect_{expectation}", arguments, says, severity)


def _unique(view: str, column: str, severity: Severity = "error") -> Rule:
    says = f"{column} is there and occurs once"
    return _rule(view, f"{column}_is_unique", "column_values_to_be_unique", says, severity, column=column)


def _whole(view: str, column: str) -> Rule:
    return _rule(view, f"{column}_is_there", "column_values_to_not_be_null", f"{column} is there", column=column)


def _one_of(view: str, column: str, values: Any, says: str) -> Rule:
    plain = [value if isinstance(value, float) else str(value) for value in values]
    return _rule(view, column, "column_values_to_be_in_set", says, column=column, value_set=plain)


def _between(
    view: str,
    column: str,
    says: str,
    low: float | None = None,
    high: float | None = None,
    *,
    severity: Severity = "error",
) -> Rule:
    bounds = {"min_value": low, "max_value": high}
    return _rule(view, column, "column_values_to_be_between", says, severity, column=column, **bounds)


def _matches(view: str, column: str, regex: str, says: str) -> Rule:
    return _rule(view, column, "column_values_to_match_regex", says, column=column, regex=regex)


def _holds(view: str, column: str, says: str) -> Rule:
    return _rule(view, column, "column_values_to_be_in_set", says, column=column, value_set=[True])


def _fails(view: str, column: str, says: str) -> Rule:
    return _rule(view, column, "column_values_to_be_in_set", says, column=column, value_set=[False])


def _equal(view: str, name: str, first: str, second: str, says: str) -> Rule:
    return _rule(view, name, "column_pair_values_to_be_equal", says, column_A=first, column_B=second)
