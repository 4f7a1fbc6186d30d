"""What a review by endpoints would ask and cost, before any call is made: the dry run.

Answers that are in the store, or in a journal that a kill has left, cost nothing. The rest is counted twice, by walking
every assertion to the end of its hearing: if all who have not answered agree, and if they revise as often as they may.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from infra.dvc_store import shared_store
from models.judges import Asking, ChatQuestion, Verdict, Vote
from models.signals.evidence import Medium
from tasks.annotation.answers import answered_questions
from tasks.annotation.protocol import Ask, Hearing, Matter, Rules, hear, next_ballot
from tasks.annotation.questions import Question
from tasks.annotation.roles import ReviewEndpoints, Role, bench_of, price_share
from tasks.pool import load_candidates
from tasks.records import ASSERTIONS
from tasks.shards import read_table
from tasks.stage import Place

_MEDIUM: Final = Medium(np.zeros((8, 8, 3), np.uint8))

Guess = Callable[[Ask, int], Vote]
"""What somebody who has not answered might, on the ballot of this number."""


@dataclass
class Forecast:
    """Calls of one role that are still to be made.

    Attributes:
        least: if everybody who has not answered agrees. ``most``: if all revisions are voted on.
        tokens_in: of ``least``; ``tokens_out`` likewise, as estimated for the role.
        cost: of ``least``. ``most_cost``: of ``most``, every answer as long as it may be.
    """

    role: str
    model: str
    least: int = 0
    most: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    most_cost: float = 0.0

    def expect(self, role: Role, tokens_in: int, share: float) -> None:
        """Count a call that is made if everybody agrees."""
        expected = 0 if role.kind != "chat" else min(role.output_tokens, role.max_output_tokens)
        self.least += 1
        self.tokens_in += tokens_in
        self.tokens_out += expected
        self.cost += role.cost(tokens_in, expected) * share

    def bound(self, role: Role, tokens_in: int, share: float) -> None:
        """Count a call that is made if everything is revised that may be."""
        self.most += 1
        self.most_cost += role.cost(tokens_in, role.max_output_tokens) * share


def forecast(endpoints: ReviewEndpoints, place: Place, rounds: int, max_revisions: int) -> list[Forecast]:
    """Count what is left to ask, by role.

    Raises:
        StageError: ``describe`` has not been run.
    """
    rules = Rules(*bench_of(endpoints), rounds, max_revisions)
    assertions = read_table(place.artifacts("describe") / "assertions.parquet", ASSERTIONS).to_dict("records")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in assertions:
        groups.setdefault(str(row["id"]), []).append({str(name): value for name, value in row.items()})
    samples = [row for row in load_candidates(place).to_dict("records") if row["id"] in groups]
    contents = {str(sample["bytes_sha256"]) for sample in samples}
    known = answered_questions(shared_store(place.root), place.root / ".vital" / "journal", contents)
    counter = _Counter(endpoints, rules, known)
    for sample in samples:
        counter.count({str(name): value for name, value in sample.items()}, groups[str(sample["id"])])
    return list(counter.found.values())


class _Counter:
    def __init__(self, endpoints: ReviewEndpoints, rules: Rules, known: Mapping[Question, Vote]) -> None:
        self._endpoints, self._rules, self._known = endpoints, rules, known
        self._counted: dict[Guess, set[Question]] = {_agreeing: set(), self._revising: set()}
        self.found = {name: Forecast(name, role.model) for name, role in endpoints.roles.items()}

    def count(self, sample: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Follow all matters of a sample through the protocol, with the known answers and with guesses for the rest."""
        for guess, counted in self._counted.items():
            for ask in self._unknown(sample, rows, guess):
                if ask.question not in counted:  # contents and texts that occur twice are asked about once
                    counted.add(ask.question)
                    self._add(sample, ask, certain=guess is _agreeing)

    def _unknown(self, sample: dict[str, Any], rows: list[dict[str, Any]], guess: Guess) -> Iterator[Ask]:
        hearing = Hearing([Matter(row, row["text"]) for row in rows])
        session = hear(hearing, sample, self._rules)
        asks, attempt = next_ballot(session, None), 0
        while asks is not None:
            yield from (ask for ask in asks if ask.question not in self._known)
            votes = [self._known.get(ask.question) or guess(ask, attempt) for ask in asks]
            asks, attempt = next_ballot(session, votes), attempt + 1

    def _revising(self, ask: Ask, attempt: int) -> Vote:
        if ask.seat.judge.name == "annotator" or attempt >= self._rules.max_revisions:
            return _agreeing(ask, attempt)
        return Vote(Verdict.REVISE, f"{ask.assertion.text}~", "")  # a text that no judge can have proposed

    def _add(self, sample: dict[str, Any], ask: Ask, *, certain: bool) -> None:
        asking = cast("Asking", ask.seat.judge)
        role = self._endpoints.roles[asking.name]
        question = asking.question(ask.assertion, _MEDIUM, ask.seat.turn)
        if isinstance(question, ChatQuestion):
            characters = len(question.system) + len(question.text)
        else:
            characters = len(question.instructions) + sum(map(len, (*question.options, *question.options.values())))
        tokens_in = role.input_tokens(characters, self._endpoints.pictures.count(int(sample["frames"])))
        share = price_share(self._endpoints, role)
        if certain:
            self.found[asking.name].expect(role, tokens_in, share)
        else:
            self.found[asking.name].bound(role, tokens_in, share)


def _agreeing(_ask: Ask, _attempt: int) -> Vote:
    return Vote(Verdict.AGREE, None, "")
