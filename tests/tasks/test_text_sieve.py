"""What is taken out of a text on its way in, and what is counted."""

from tasks.text_sieve import Sieved, TextSieve


def test_sentences_that_give_the_verdict_away_are_dropped_and_counted():
    sieve = TextSieve("here", "drop")
    assert sieve.sieved("Edges are soft. The quality is poor.", "a", "people") == Sieved("Edges are soft.", 1)
    assert sieve.sieved("Edges are soft.", "a", "people") == Sieved("Edges are soft.", 0)
    assert (sieve.sentences, sieve.rejects) == (1, [])
    assert sieve.leaks["level"] == 1


def test_kept_leaks_are_counted_alone():
    sieve = TextSieve("here", "keep")
    assert sieve.sieved("Edges are soft. It scores 7/10.", "a", "people") == Sieved(
        "Edges are soft. It scores 7/10.", 0
    )
    assert sieve.sentences == 0
    assert sieve.leaks["score"] == 1


def test_a_text_with_nothing_but_a_verdict_is_a_reject_of_its_medium():
    sieve = TextSieve("here", "drop")
    assert sieve.sieved("An excellent photo.", "a", "people") is None
    (reject,) = sieve.rejects
    assert (reject["stage"], reject["id"], reject["reason"]) == ("here", "a", "nothing_left")
    assert reject["detail"].startswith("people: ")
