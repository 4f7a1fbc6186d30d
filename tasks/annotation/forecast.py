"""What a review by endpoints would ask and cost, before any call is made: the dry run.

Answers that are in the store, or in a journal that a kill has left, cost nothing. The rest is counted twice: if every
judge agrees at once, and if every assertion is revised as often as it may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from infra.dvc_store import shared_store
from models.judges import Asking, ChatQuestion, Vote
from models.signals.evidence import Medium
from tasks.annotation.answers import answered_questions
from tasks.annotation.protocol import Ask, Hearing, Matter, Rules, hear, next_ballot
from tasks.annotation.questions import Question
from tasks.annotation.roles import ReviewEndpoints, Role, bench_of
from tasks.pool import load_candidates
from tasks.records import ASSERTIONS
from tasks.shards import read_table
from tasks.stage import Place

_MEDIUM: Final = Medium(np.zeros((8, 8, 3), np.uint8))


@dataclass
class Forecast:
    """Calls of one role that are still to be made.

    Attributes:
        least: if everybody agrees at once. ``most``: if all revisions are voted on.
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

    def add(self, role: Role, tokens_in: int, *, certain: bool, share: float) -> None:
        """Count one call."""
        self.most += 1
        self.most_cost += role.cost(tokens_in, role.max_output_tokens) * share
        if certain:
            expected = 0 if role.kind != "chat" else min(role.output_tokens, role.max_output_tokens)
            self.least += 1
            self.tokens_in += tokens_in
            self.tokens_out += expected
            self.cost += role.cost(tokens_in, expected) * share


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
        self.found = {name: Forecast(name, role.model) for name, role in endpoints.roles.items()}

    def count(self, sample: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Follow the known answers through the protocol, and count from the first ballot that lacks one."""
        hearing = Hearing([Matter(row, row["text"]) for row in rows])
        session, votes = hear(hearing, sample, self._rules), None
        while (asks := next_ballot(session, votes)) is not None:
            missing = [ask for ask in asks if ask.question not in self._known]
            if missing:
                self._rest(sample, asks, missing)
                return
            votes = [self._known[ask.question] for ask in asks]

    def _rest(self, sample: dict[str, Any], asks: Sequence[Ask], missing: Sequence[Ask]) -> None:
        distinct = {ask.question: ask for ask in missing}.values()
        for ask in distinct:
            self._add(sample, ask, certain=True)
        if asks[0].seat.judge.name == "annotator":
            return
        texts = {ask.assertion.text: ask for ask in asks}.values()
        for ask in texts:
            for judge in self._rules.annotator:
                self._add(sample, ask, certain=True, judge=judge)
        for _ in range(self._rules.max_revisions):
            for ask in {(ask.assertion.text, ask.seat): ask for ask in asks}.values():
                self._add(sample, ask, certain=False)

    def _add(self, sample: dict[str, Any], ask: Ask, *, certain: bool, judge: Any = None) -> None:
        asking = cast("Asking", judge or ask.seat.judge)
        role = self._endpoints.roles[asking.name]
        question = asking.question(ask.assertion, _MEDIUM, ask.seat.turn)
        if isinstance(question, ChatQuestion):
            characters = len(question.system) + len(question.text)
        else:
            characters = len(question.instructions) + sum(map(len, (*question.options, *question.options.values())))
        pictures = self._endpoints.pictures.count(int(sample["frames"]))
        batched = self._endpoints.mode == "batch" and role.kind == "chat"
        share = self._endpoints.batches.price_share if batched else 1.0
        self.found[asking.name].add(role, role.input_tokens(characters, pictures), certain=certain, share=share)
