"""A judge that asks decision endpoints: a probability per option, nothing written, nothing to parse.

It is never shown the assertion. It is asked which of all claims about the assertion's attribute describes the medium,
in three paraphrases with the options in three orders, one a round; the assertion is then compared with the answer. An
answer without information abstains. Unproven for quality votes: chat judges stay the paper's default.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from models.judges.asking import Asker, Asking, DecisionQuestion, DecisionReply, Reply, Shown, not_asked
from models.judges.prompts import DECISIONS, told_attribute
from models.judges.protocol import Assertion, Verdict, Vote
from models.signals.claims import FAULTS, Attribute, Claim, Degree, faulty, fine, parse_claim
from models.signals.wording import phrase

UNSURE: Final = "unsure"
_RULES: Final = "2"


@dataclass(frozen=True)
class Certainty:
    """What probabilities must show; below ``margin`` the judge abstains.

    Attributes:
        severe_at: probability of the best option from which a claim two steps away counts as a severe deviation.
        margin: by which the best option must exceed both chance (one over the number of options) and the next best, so
            that a tie is no verdict.
    """

    severe_at: float = 0.7
    margin: float = 0.15

    def __post_init__(self) -> None:
        if not (0 < self.severe_at <= 1 and 0 < self.margin < 1):
            raise ValueError("severe_at must lie in (0, 1] and margin in (0, 1)")


class DecisionJudge(Asking):
    """A judge by probabilities.

    Args:
        name: of the judge.
        model: as it is asked for.
        version: of pictures and settings.
        certainty: what an answer must show to be a verdict.
        ask: how a question is asked.
    """

    def __init__(self, name: str, model: str, version: str, certainty: Certainty, ask: Asker = not_asked) -> None:
        words = hashlib.sha256("/".join((*DECISIONS, _RULES, repr(certainty))).encode()).hexdigest()[:8]
        super().__init__(name, model, f"decisions-{words}-{version}", ask)
        self._certainty = certainty

    def question(self, assertion: Assertion, medium: Shown, round_number: int) -> DecisionQuestion:
        """Ask which claim about the attribute holds."""
        claim = parse_claim(assertion.text)
        attribute = claim.attribute if claim else Attribute.SHARPNESS  # ``read`` abstains then, whatever is answered
        wording = DECISIONS[(round_number - 1) % len(DECISIONS)]
        instructions = wording.replace("{medium}", assertion.medium).replace("{attribute}", told_attribute(attribute))
        options = {name: phrase(it, assertion.medium, "option") for name, it in claims_about(attribute).items()}
        told = [*options.items(), (UNSURE, f"It cannot be told from this {assertion.medium}")]
        shift = (round_number - 1) % len(told)
        return DecisionQuestion(instructions, dict(told[shift:] + told[:shift]), medium)

    def read(self, assertion: Assertion, reply: Reply) -> Vote:
        """Compare the assertion with the claim that is most probable."""
        claim = parse_claim(assertion.text)
        if claim is None:
            return Vote(Verdict.ABSTAIN, None, "no measurable claim", reply.model)
        options = {*claims_about(claim.attribute), UNSURE}
        if reply.problem is not None or not isinstance(reply, DecisionReply) or set(reply.probabilities) != options:
            refused = reply.problem in ("refusal", "refused by the server")
            problem = str(reply.problem) if refused else "no probabilities of the options"
            return Vote(Verdict.MALFORMED, None, problem, reply.model)
        verdict, better = self._compare(claim, reply.probabilities)
        revision = phrase(better, assertion.medium, assertion.text) if better else None
        told = ", ".join(f"{name} {share:.2f}" for name, share in sorted(reply.probabilities.items()))
        return Vote(verdict, revision, f"probabilities: {told}", reply.model)

    def _compare(self, claim: Claim, probabilities: Mapping[str, float]) -> tuple[Verdict, Claim | None]:
        best, following = sorted(probabilities, key=lambda name: -probabilities[name])[:2]
        needed = max(1 / len(probabilities), probabilities[following]) + self._certainty.margin
        if best == UNSURE or probabilities[best] < needed:
            return Verdict.ABSTAIN, None
        found = claims_about(claim.attribute)[best]
        if found == claim:
            return Verdict.AGREE, None
        if _steps(found, claim) > 1 and probabilities[best] >= self._certainty.severe_at:
            return Verdict.SEVERE, None
        return Verdict.REVISE, found


def claims_about(attribute: Attribute) -> dict[str, Claim]:
    """Option value -> claim, from fine to strong."""
    claims = {"fine": fine(attribute)}
    for fault in FAULTS[attribute]:
        claims |= {f"{degree.name.lower()}_{fault}": faulty(fault, degree) for degree in (Degree.SLIGHT, Degree.STRONG)}
    return claims


def _steps(one: Claim, other: Claim) -> int:
    """How far two claims about an attribute are apart: degrees of one fault, or by way of fine to the other fault."""
    if one.fault is None or other.fault is None or one.fault is other.fault:
        return abs(one.degree - other.degree)
    return one.degree + other.degree
