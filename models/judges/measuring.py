"""Judges that check assertions by measurement: the embedded profile's, and its annotator's self-review.

A measuring judge owns one family of estimators. It reads the claim out of the sentence, measures the claimed attribute
in this round's pixels, and compares: no knowledge of who wrote the sentence, how, or what others voted.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from models.errors import ModelError
from models.judges.protocol import Assertion, Verdict, Vote
from models.signals.claims import ATTRIBUTE_OF, FAULTS, Attribute, Claim, Degree, Fault, faulty, fine, parse_claim
from models.signals.evidence import Evidence
from models.signals.scale import DESCRIBER_FAMILY, JUDGE_FAMILIES, Reading, Thresholds, attributes_of, measure, read
from models.signals.wording import phrase

RULES_VERSION: Final = "1"
_KEPT_READINGS: Final = 32


@dataclass(frozen=True)
class Bands:
    """Where probabilities become verdicts.

    Attributes:
        agree_at: from this probability a fault counts as there, and up to it as absent.
        severe_at: a fault as probable as this contradicts "fine" severely; one as improbable as 1 - this contradicts
            "strong" severely.
    """

    agree_at: float
    severe_at: float

    def __post_init__(self) -> None:
        if not 0.5 <= self.agree_at <= self.severe_at < 1:
            raise ValueError("bands need .5 <= agree_at <= severe_at < 1")


def check_claim(claim: Claim, reading: Reading, bands: Bands) -> tuple[Verdict, Claim | None]:
    """Compare a claim with what was measured.

    Returns:
        The verdict, and the claim to put in its place if the verdict is REVISE.
    """
    worst = max(FAULTS[claim.attribute], key=lambda fault: reading[fault])
    if claim.fault is None:
        return _check_fine(worst, reading[worst], bands)
    if worst is not claim.fault and reading[worst] >= bands.severe_at:
        return Verdict.SEVERE, None
    check = _check_strong if claim.degree is Degree.STRONG else _check_slight
    return check(claim.fault, reading[claim.fault], bands)


def _check_fine(worst: Fault, probability: float, bands: Bands) -> tuple[Verdict, Claim | None]:
    if probability >= bands.severe_at:
        return Verdict.SEVERE, None
    if probability > bands.agree_at:
        return Verdict.REVISE, faulty(worst, Degree.SLIGHT)
    return Verdict.AGREE, None


def _check_strong(fault: Fault, probability: float, bands: Bands) -> tuple[Verdict, Claim | None]:
    if probability <= 1 - bands.severe_at:
        return Verdict.SEVERE, None
    if probability < bands.agree_at:
        return Verdict.REVISE, faulty(fault, Degree.SLIGHT)
    return Verdict.AGREE, None


def _check_slight(fault: Fault, probability: float, bands: Bands) -> tuple[Verdict, Claim | None]:
    if probability > bands.severe_at:
        return Verdict.REVISE, faulty(fault, Degree.STRONG)
    if probability < 1 - bands.severe_at:
        return Verdict.REVISE, fine(ATTRIBUTE_OF[fault])
    return Verdict.AGREE, None


class _Readings:
    """Readings of the last few evidences: one look is measured once, however many assertions it is asked about."""

    def __init__(self, family: str, thresholds: Thresholds) -> None:
        self._family, self._thresholds = family, thresholds
        self._kept: OrderedDict[tuple[str, Attribute], Reading] = OrderedDict()

    def of(self, evidence: Evidence, attribute: Attribute) -> Reading:
        key = (evidence.key, attribute)
        if key not in self._kept:
            found = measure(self._family, evidence, (attribute,))
            self._kept[key] = read(found, self._family, self._thresholds)
            while len(self._kept) > _KEPT_READINGS * len(Attribute):
                self._kept.popitem(last=False)
        return self._kept[key]


class MeasuringJudge:
    """A judge by one family of estimators."""

    def __init__(self, family: str, thresholds: Thresholds, bands: Bands, name: str | None = None) -> None:
        if family not in thresholds.curves:
            msg = f"unknown estimator family {family!r}; known are {', '.join(thresholds.curves)}"
            raise ModelError(msg)
        self._bands, self._readings = bands, _Readings(family, thresholds)
        self._name, self._model = name or family, f"measured-{family}"
        self._version = _version(thresholds, bands)

    @property
    def name(self) -> str:
        """The judge's name: its family, unless given."""
        return self._name

    @property
    def model(self) -> str:
        """``measured-<family>``."""
        return self._model

    @property
    def prompt_version(self) -> str:
        """Version of rules, thresholds and bands."""
        return self._version

    def vote(self, assertion: Assertion, evidence: Evidence, round_number: int) -> Vote:  # noqa: ARG002 - the evidence is the round's
        """Measure what the assertion claims."""
        claim = parse_claim(assertion.text)
        if claim is None or claim.attribute not in attributes_of(evidence.medium):
            return Vote(Verdict.ABSTAIN, None, "no measurable claim")
        reading = self._readings.of(evidence, claim.attribute)
        verdict, better = check_claim(claim, reading, self._bands)
        revision = phrase(better, assertion.medium, assertion.text) if better else None
        return Vote(verdict, revision, _told(reading))


class SelfPrompt(StrEnum):
    """The three equivalent ways in which the annotator is asked again about its own assertion."""

    AFFIRM = "affirm"
    DENY = "deny"
    CHOOSE = "choose"


SELF_PROMPTS: Final[Mapping[SelfPrompt, str]] = {
    SelfPrompt.AFFIRM: 'Look at the {medium} again. Is the following statement true of it? "{text}"',
    SelfPrompt.DENY: 'Somebody says that it is wrong to state "{text}" about this {medium}. Are they right?',
    SelfPrompt.CHOOSE: (
        "Which describes the {attribute} of this {medium} best: it is fine, it has a slight fault, or it has "
        'a strong fault? Then say whether your choice is consistent with "{text}".'
    ),
}
"""Wordings for an annotator that reads; a measuring annotator computes the same three questions."""


class MeasuringAnnotator:
    """The embedded describer, asked again by one reworded prompt, on fresh pixels."""

    def __init__(self, prompt: SelfPrompt, thresholds: Thresholds, bands: Bands) -> None:
        self._prompt, self._bands = prompt, bands
        self._readings = _Readings(DESCRIBER_FAMILY, thresholds)
        self._version = f"{prompt}-{_version(thresholds, bands)}"

    @property
    def name(self) -> str:
        """``annotator``."""
        return "annotator"

    @property
    def model(self) -> str:
        """``measured-<family>`` of the describer."""
        return f"measured-{DESCRIBER_FAMILY}"

    @property
    def prompt_version(self) -> str:
        """The prompt, and the version of rules, thresholds and bands."""
        return self._version

    def vote(self, assertion: Assertion, evidence: Evidence, round_number: int) -> Vote:  # noqa: ARG002 - the evidence is the round's
        """Say whether the assertion still holds."""
        claim = parse_claim(assertion.text)
        if claim is None or claim.attribute not in attributes_of(evidence.medium):
            return Vote(Verdict.ABSTAIN, None, "no measurable claim")
        reading = self._readings.of(evidence, claim.attribute)
        holds = _ANSWERS[self._prompt](claim, reading, self._bands)
        return Vote(Verdict.AGREE if holds else Verdict.SEVERE, None, _told(reading))


def _affirms(claim: Claim, reading: Reading, bands: Bands) -> bool:
    return check_claim(claim, reading, bands)[0] is Verdict.AGREE


def _refuses_denial(claim: Claim, reading: Reading, bands: Bands) -> bool:
    """The denial of a fault is that all is fine; the denial of "fine" is a strong fault."""
    if claim.fault is not None:
        return check_claim(fine(claim.attribute), reading, bands)[0] is not Verdict.AGREE or (
            claim.degree is Degree.SLIGHT and _affirms(claim, reading, bands)
        )
    return not any(_affirms(faulty(fault, Degree.STRONG), reading, bands) for fault in FAULTS[claim.attribute])


def _chooses_alike(claim: Claim, reading: Reading, bands: Bands) -> bool:
    """Choose one of fine, slight, strong by thirds of the scale between the bands; a neighbour is consistent."""
    worst = max(FAULTS[claim.attribute], key=lambda fault: reading[fault])
    chosen = sum(reading[worst] > limit for limit in (bands.agree_at, bands.severe_at))
    same_fault = claim.fault is None or chosen == Degree.NONE or worst is claim.fault
    return same_fault and abs(chosen - claim.degree) <= 1


_ANSWERS: Final = {
    SelfPrompt.AFFIRM: _affirms,
    SelfPrompt.DENY: _refuses_denial,
    SelfPrompt.CHOOSE: _chooses_alike,
}


def embedded_judges(thresholds: Thresholds, bands: Bands) -> tuple[MeasuringJudge, ...]:
    """The three judges of the embedded profile."""
    return tuple(MeasuringJudge(family, thresholds, bands) for family in JUDGE_FAMILIES)


def embedded_annotator(thresholds: Thresholds, bands: Bands) -> tuple[MeasuringAnnotator, ...]:
    """The annotator under its three reworded prompts."""
    return tuple(MeasuringAnnotator(prompt, thresholds, bands) for prompt in SelfPrompt)


def _version(thresholds: Thresholds, bands: Bands) -> str:
    text = f"{thresholds.version} {bands.agree_at} {bands.severe_at}"
    return f"rules-{RULES_VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _told(reading: Reading) -> str:
    return "measured probability of " + ", ".join(f"{fault} {value:.2f}" for fault, value in reading.items())
