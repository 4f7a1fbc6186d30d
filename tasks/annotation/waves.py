"""Many hearings at once: all ballots that are open at a time are put to the endpoints together, as one wave.

A part of a review takes at most ``max_revisions`` + 2 waves, which is what batch files need and what keeps every role's
concurrency busy in live mode.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from models.judges import Asking, Vote
from tasks.annotation.answers import AnswerBook
from tasks.annotation.desk import Asked, Inquiry
from tasks.annotation.exhibits import ShownMedia
from tasks.annotation.protocol import Ask, Hearing, Rules, hear, next_ballot

Sample = dict[str, Any]


def hear_together(
    samples: Sequence[tuple[Sample, Hearing]],
    rules: Rules,
    media: ShownMedia,
    book: AnswerBook[Vote],
    answer: Callable[[AnswerBook[Vote], list[Inquiry[Vote]]], None],
) -> None:
    """Take several samples through the protocol, wave by wave.

    Args:
        samples: with their hearings, which are filled.
        rules: whose judges all are of the asking kind.
        media: what is shown.
        book: answers.
        answer: sees to it that the book knows the answers to some inquiries.
    """
    sessions = [(sample, hear(hearing, sample, rules)) for sample, hearing in samples]
    ballots = [next_ballot(session, None) for _, session in sessions]
    while any(ballots):
        wave = [
            inquiry_of(ask, sample, media)
            for (sample, _), asks in zip(sessions, ballots, strict=True)
            for ask in asks or ()
        ]
        answer(book, wave)
        for index, (_, session) in enumerate(sessions):
            asks = ballots[index]
            if asks is not None:
                votes = [cast("Vote", book.known(ask.question)) for ask in asks]
                ballots[index] = next_ballot(session, votes)


def inquiry_of(ask: Ask, sample: Sample, media: ShownMedia) -> Inquiry[Vote]:
    """How a vote is asked for, and read."""
    judge = cast("Asking", ask.seat.judge)

    def word() -> Asked:
        return judge.question(ask.assertion, media.of(sample), ask.seat.turn)

    return Inquiry(ask.question, word, lambda reply: judge.read(ask.assertion, reply))
