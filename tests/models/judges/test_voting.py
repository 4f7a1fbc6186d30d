import itertools

import pytest

from models.judges import Decision, Outcome, Verdict, Vote, chosen_revision, decide, decide_self_review

AGREE, SEVERE = Vote(Verdict.AGREE, None, ""), Vote(Verdict.SEVERE, None, "")
ABSTAIN, MALFORMED = Vote(Verdict.ABSTAIN, None, ""), Vote(Verdict.MALFORMED, None, "not JSON")
REVISE = Vote(Verdict.REVISE, "Sharpness is slightly reduced", "")
ALL = (AGREE, REVISE, SEVERE, ABSTAIN, MALFORMED)


def expected(votes: tuple[Vote, ...], attempt: int, limit: int) -> Decision:
    """The protocol again, in words: the first rule that applies."""
    if SEVERE in votes:
        return Decision(Outcome.SEVERE)
    if MALFORMED in votes:
        return Decision(Outcome.MALFORMED)
    if ABSTAIN in votes:
        return Decision(Outcome.ABSTAINED)
    if REVISE not in votes:
        return Decision(Outcome.UNANIMOUS)
    return Decision(Outcome.NO_CONSENSUS) if attempt == limit else Decision(None, REVISE.revision)


@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_every_ballot_of_four_votes(attempt: int):
    ballots = list(itertools.product(ALL, repeat=4))
    assert len(ballots) == 625
    for votes in ballots:
        assert decide(votes, attempt, 2) == expected(votes, attempt, 2)


def test_only_nine_agreements_of_nine_keep():
    assert decide([AGREE] * 9, 0, 2).outcome is Outcome.UNANIMOUS
    for other in (REVISE, SEVERE, ABSTAIN, MALFORMED):
        for place in range(9):
            votes = [AGREE] * 9
            votes[place] = other
            assert decide(votes, 0, 2).outcome is not Outcome.UNANIMOUS


def test_order_of_votes_matters_to_ties_only():
    for votes in itertools.permutations([AGREE, REVISE, MALFORMED]):
        assert decide(votes, 0, 2) == Decision(Outcome.MALFORMED)


def test_the_revision_of_most_votes_is_adopted_and_ties_go_to_the_first():
    a, b = (Vote(Verdict.REVISE, text, "") for text in ("First text", "Second text"))
    assert chosen_revision([a, b, b, AGREE]) == "Second text"
    assert chosen_revision([AGREE, b, a]) == "Second text"
    assert chosen_revision([a, b]) == "First text"


def test_no_revision_is_voted_on_beyond_the_limit():
    assert decide([REVISE], 0, 0).outcome is Outcome.NO_CONSENSUS
    assert decide([REVISE], 1, 2).revision == REVISE.revision
    assert decide([REVISE], 2, 2).outcome is Outcome.NO_CONSENSUS


def test_self_review_keeps_only_what_is_confirmed_every_time():
    for votes in itertools.product(ALL, repeat=3):
        kept = decide_self_review(votes) is Outcome.UNANIMOUS
        assert kept == (set(votes) == {AGREE})


def test_empty_ballots_and_ill_formed_votes_are_errors():
    with pytest.raises(ValueError, match="needs votes"):
        decide([], 0, 2)
    with pytest.raises(ValueError, match="needs votes"):
        decide_self_review([])
    for verdict, revision in ((Verdict.REVISE, None), (Verdict.AGREE, "text"), (Verdict.MALFORMED, "text")):
        with pytest.raises(ValueError, match="revision exactly"):
            Vote(verdict, revision, "")
