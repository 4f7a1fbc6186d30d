"""The protocol as a dialogue: whoever answers, the ballots are the same."""

from typing import Any

from models.judges import Assertion, Outcome, Verdict, Vote
from models.signals.evidence import Evidence
from tasks.annotation.protocol import Hearing, Matter, Rules, hear, next_ballot

SAMPLE = {"id": "s", "bytes_sha256": "ab" * 32, "modality": "image"}
AGREE, SEVERE = Vote(Verdict.AGREE, None, ""), Vote(Verdict.SEVERE, None, "")


class Silent:
    """A judge that is never asked itself."""

    def __init__(self, name: str) -> None:
        self.name, self.model, self.prompt_version = name, "m", "1"

    def vote(self, assertion: Assertion, evidence: Evidence, round_number: int) -> Vote:
        raise NotImplementedError


RULES = Rules([Silent("a"), Silent("b")], [Silent("annotator")] * 3, rounds=3, max_revisions=2)


def matter(text: str) -> Matter:
    return Matter({"assertion_id": text, "id": "s", "origin": "describer"}, text)


def walk(hearing: Hearing, answer: Any) -> list[int]:
    """Go through a hearing; sizes of its ballots."""
    session, votes, sizes = hear(hearing, SAMPLE, RULES), None, []
    while (asks := next_ballot(session, votes)) is not None:
        sizes.append(len(asks))
        votes = [answer(ask) for ask in asks]
    return sizes


def test_two_ballots_when_all_agree():
    hearing = Hearing([matter("Edges are soft"), matter("Noise is strong")])
    assert walk(hearing, lambda _: AGREE) == [12, 6]
    assert {one.outcome for one in hearing.matters} == {Outcome.UNANIMOUS}
    assert len(hearing.votes) == 18
    assert {vote["model"] for vote in hearing.votes} == {"m"}


def test_a_revision_is_voted_on_again_and_is_what_is_kept():
    def answer(ask: Any) -> Vote:
        soft = ask.assertion.text == "Edges are soft" and ask.seat.judge.name == "b"
        return Vote(Verdict.REVISE, "Edges are slightly soft", "", "b-2026") if soft else AGREE

    hearing = Hearing([matter("Edges are soft")])
    assert walk(hearing, answer) == [6, 6, 3]
    assert hearing.matters[0].text == "Edges are slightly soft"
    assert {vote["model"] for vote in hearing.votes if vote["verdict"] == "revise"} == {"b-2026"}


def test_what_is_discarded_sees_no_self_review_and_nothing_pending_ends_it():
    hearing = Hearing([matter("Edges are soft")])
    assert walk(hearing, lambda _: SEVERE) == [6]
    assert walk(Hearing([]), lambda _: AGREE) == []


def test_endless_revisions_end_without_consensus():
    def answer(ask: Any) -> Vote:
        return Vote(Verdict.REVISE, f"{ask.assertion.text} indeed", "")

    hearing = Hearing([matter("Edges are soft")])
    assert walk(hearing, answer) == [6, 6, 6]
    assert hearing.matters[0].outcome is Outcome.NO_CONSENSUS
