import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.vision_encoder import VisualInput
from tasks.errors import MediaError, StageError
from tasks.records import Split, Task
from tasks.training.batches import Batch, BatchConfig, Material, Mixture, RankShare
from tasks.training.examples import Example
from tasks.training.trainer import TrainingConfig

SHARES = {"single": 0.5, "pair": 0.25, "distortion": 0.2, "description": 0.05}
CONFIG = TrainingConfig(
    engine="single", seed=3, threads=1, precision="float32", steps=50, batch_examples=8, micro_batches=2,
    learning_rate=0.05, weight_decay=0.05, warm_up_share=0.2, clip_norm=1.0, checkpoint_every=7,
)  # fmt: skip
COMPANIONS = BatchConfig(order="companions", grouping="dealt", normalise="examples")
SHUFFLED = dataclasses.replace(COMPANIONS, order="shuffled")
orders = st.sampled_from([COMPANIONS, SHUFFLED])


class Grey:
    """A source whose media tell their number and their visit; some are found to be broken when they are read."""

    broken: frozenset[str] = frozenset()
    ahead = 2

    def __init__(self, rotten: Sequence[str] = ()) -> None:
        self.rotten, self.foreseen = frozenset(rotten), [[("", 0)]]

    def foresee(self, wanted: Sequence[tuple[str, int]]) -> None:
        self.foreseen.append(list(wanted))

    def read(self, medium_id: str, visit: int) -> VisualInput:
        assert (medium_id, visit) in self.foreseen[-1]
        if medium_id in self.rotten:
            raise MediaError("truncated", "it ends early")
        return VisualInput(torch.full((1, 3, 2, 2), float(visit * 100 + int(medium_id[1:]))))


class Tokens:
    """Lengths that follow from the ids: media of ten times their number, answers of their number of letters."""

    def sequence(self, example: Example) -> int:
        return 10 * max(int(medium[1:]) for medium in example.ids)

    def answer(self, example: Example) -> int:
        return sum(map(len, example.answers))


def _examples(counts: Mapping[str, int]) -> list[Example]:
    made = []
    for task, count in counts.items():
        for i in range(count):
            pair = task == "pair"
            made.append(
                Example(
                    example_id=f"{task}{i}",
                    task=Task(task),
                    split=Split.TRAIN,
                    ids=(f"m{i}", f"m{i + 1}") if pair else (f"m{i}",),
                    answers=("good", "poor") if pair else ("x" * (i + 1),),
                    targets_S5=np.eye(5)[[1, 3]]
                    if pair
                    else (np.eye(5)[[1]] if task == "single" else np.zeros((0, 5))),
                    preference=1.0 if pair else float("nan"),
                )
            )
    return made


COUNTS = {"single": 20, "pair": 12, "distortion": 15, "description": 3}
ALL = _examples(COUNTS)


def _mixture(
    batches: BatchConfig = COMPANIONS,
    config: TrainingConfig = CONFIG,
    share: RankShare | None = None,
    source: Grey | None = None,
) -> Mixture:
    material = Material(ALL, source or Grey(), SHARES, batches, Tokens())
    return Mixture(material, config, share) if share else Mixture(material, config)


def _ids(batches: Sequence[Batch]) -> list[str]:
    return [example for batch in batches for example in batch.example_ids]


@pytest.mark.parametrize("batches", [COMPANIONS, SHUFFLED], ids=["companions", "shuffled"])
def test_a_run_mixes_tasks_by_share_and_sees_each_example_once_an_epoch(batches: BatchConfig):
    mixture = _mixture(batches)
    seen = [example for step in range(CONFIG.steps) for example in _ids(mixture.step(step))]
    tasks = Counter(name.rstrip("0123456789") for name in seen)
    assert tasks == {"single": 200, "pair": 100, "distortion": 80, "description": 20}
    singles = [name for name in seen if name.startswith("single")]
    for epoch in range(10):
        assert len(set(singles[20 * epoch : 20 * epoch + 20])) == 20
    assert singles[:20] != singles[20:40]


@settings(deadline=None, max_examples=20)
@given(orders, st.integers(0, 49), st.integers(0, 49))
def test_a_step_depends_on_its_number_alone(batches: BatchConfig, before: int, number: int):
    one, other = _mixture(batches), _mixture(batches)
    one.step(before)
    late, direct = one.step(number), other.step(number)
    assert [b.example_ids for b in late] == [b.example_ids for b in direct]
    for batch, again in zip(late, direct, strict=True):
        assert all(torch.equal(m.tiles_TCHW, n.tiles_TCHW) for m, n in zip(batch.inputs, again.inputs, strict=True))
    seeded = _mixture(batches, dataclasses.replace(CONFIG, seed=4))
    assert [_ids(seeded.step(step)) for step in range(4)] != [_ids(other.step(step)) for step in range(4)]


@settings(deadline=None, max_examples=30)
@given(orders, st.sampled_from(["dealt", "length"]), st.integers(1, 8), st.integers(1, 6), st.integers(0, 49))
def test_neither_processes_nor_micro_batches_change_the_examples_of_a_step(
    batches: BatchConfig, grouping: str, ranks: int, parts: int, number: int
):
    chosen = dataclasses.replace(batches, grouping=grouping)
    config = dataclasses.replace(CONFIG, micro_batches=parts)
    alone = _ids(_mixture(batches, dataclasses.replace(CONFIG, micro_batches=1)).step(number))
    shares = [RankShare(rank, ranks, list) for rank in range(ranks)]
    per_rank = [_mixture(chosen, config, share).step(number) for share in shares]
    assert sorted(example for rank in per_rank for example in _ids(rank)) == sorted(alone)
    sizes = [len(batch.example_ids) for rank in per_rank for batch in rank]
    assert max(sizes) - min(sizes) <= 1
    if parts <= ranks:
        assert {len(rank) for rank in per_rank} == {1}


def test_processes_keep_pace_when_batches_are_grouped_by_length():
    batches = dataclasses.replace(SHUFFLED, grouping="length")
    config = dataclasses.replace(CONFIG, micro_batches=4)
    per_rank = [_mixture(batches, config, RankShare(rank, 2, list)).step(3) for rank in range(2)]
    by_id = {example.example_id: Tokens().sequence(example) for example in ALL}
    spans = [[(min(map(by_id.get, b.example_ids)), max(map(by_id.get, b.example_ids))) for b in r] for r in per_rank]
    for first, second in zip(*spans, strict=True):  # the same micro-batch of both: neighbours in length
        assert first[1] <= second[0]
    assert spans[1][0][1] <= spans[0][1][0]


def test_more_processes_than_examples_are_refused():
    with pytest.raises(StageError, match="a step of 8 examples has none for each of 9 processes"):
        _mixture(share=RankShare(0, 9, list))


def test_lengths_are_asked_for_where_they_are_needed():
    for batches in (
        dataclasses.replace(SHUFFLED, grouping="length"),
        dataclasses.replace(SHUFFLED, normalise="tokens"),
    ):
        with pytest.raises(StageError, match="need the lengths of sequences"):
            Mixture(Material(ALL, Grey(), SHARES, batches), CONFIG)


def test_a_batch_holds_both_members_of_a_pair_and_each_medium_once():
    material = Material(_examples({"pair": 12}), Grey(), {"pair": 1.0}, COMPANIONS)
    (batch, _) = Mixture(material, CONFIG).step(3)
    assert len(batch.medium_B) == 2 * len(batch.tasks) == 8
    assert batch.example_B.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert batch.preference_E.tolist() == [1.0] * 4
    assert torch.equal(batch.targets_B5[:2], torch.eye(5)[[1, 3]])
    shown = [int(medium.tiles_TCHW.max()) for medium in batch.inputs if isinstance(medium, VisualInput)]
    numbers = [number % 100 for number in shown]
    assert len(numbers) == len(set(numbers)) == len(batch.inputs)
    for example, first, second in zip(batch.example_ids, batch.medium_B[::2], batch.medium_B[1::2], strict=True):
        number = int(example.removeprefix("pair"))
        assert (numbers[first], numbers[second]) == (number, number + 1)


def test_visits_of_companions_count_the_steps_that_showed_a_medium():
    mixture = _mixture()
    visits: Counter[str] = Counter()
    for step in range(CONFIG.steps):
        draws = mixture.draws(step)
        for draw in draws:
            assert draw.visits == tuple(visits[medium] for medium in draw.example.ids)
        visits.update({medium for draw in draws for medium in draw.example.ids})


def test_companions_need_fewer_media_than_independent_draws():
    media = {}
    for batches in (COMPANIONS, SHUFFLED):
        mixture = _mixture(batches)
        plan = [mixture.draws(step) for step in range(CONFIG.steps)]
        samples = sum(len(draw.example.ids) for step in plan for draw in step)
        media[batches.order] = sum(len({m for draw in step for m in draw.example.ids}) for step in plan) / samples
    assert media["companions"] < 0.7
    assert media["companions"] < media["shuffled"] - 0.1


def test_the_media_of_the_next_steps_are_foreseen_in_order():
    source = Grey()
    mixture = _mixture(source=source)
    mixture.step(4)
    expected = [shown for step in (4, 5, 6) for part in mixture.parts(step) for shown in _first_visits(part)]
    assert source.foreseen[-1] == expected
    mixture.step(CONFIG.steps - 1)
    assert source.foreseen[-1] == [s for part in mixture.parts(CONFIG.steps - 1) for s in _first_visits(part)]


def _first_visits(part: Sequence) -> list[tuple[str, int]]:
    pairs = [pair for draw in part for pair in zip(draw.example.ids, draw.visits, strict=True)]
    return [pair for number, pair in enumerate(pairs) if pair[0] not in [medium for medium, _ in pairs[:number]]]


@settings(deadline=None, max_examples=40)
@given(orders, st.integers(0, 49), st.sets(st.integers(0, 20), min_size=1, max_size=4), st.integers(1, 3))
def test_broken_media_take_their_examples_out_and_nothing_takes_their_place(
    batches: BatchConfig, number: int, rotten: set[int], ranks: int
):
    broken = {f"m{medium}" for medium in rotten}
    whole = [draw.example for draw in _mixture(batches).draws(number)]
    expected = sorted(example.example_id for example in whole if broken.isdisjoint(example.ids))
    lost = [example.example_id for example in whole if not broken.isdisjoint(example.ids)]
    shares = [RankShare(rank, ranks, lambda _: lost) for rank in range(ranks)]
    mixtures = [_mixture(batches, share=share, source=Grey(sorted(broken))) for share in shares]
    if not expected:
        with pytest.raises(StageError, match=f"step {number}: none of its examples can be read"):
            mixtures[0].step(number)
        return
    found = [batch for mixture in mixtures for batch in mixture.step(number)]
    assert sorted(_ids(found)) == expected
    assert all(batch.example_ids for batch in found)
    assert torch.cat([batch.weight_E for batch in found]).tolist() == [1.0] * len(expected)


@settings(deadline=None, max_examples=40)
@given(orders, st.integers(0, 49), st.integers(1, 3), st.integers(1, 4), st.sets(st.integers(0, 20), max_size=3))
def test_normalised_by_tokens_every_valid_text_token_of_the_step_counts_the_same(
    batches: BatchConfig, number: int, ranks: int, parts: int, rotten: set[int]
):
    broken = {f"m{medium}" for medium in rotten}
    chosen = dataclasses.replace(batches, normalise="tokens")
    drawn = [draw.example for draw in _mixture(batches).draws(number)]
    left = [example for example in drawn if broken.isdisjoint(example.ids)]
    lost = [example.example_id for example in drawn if not broken.isdisjoint(example.ids)]
    if not left:
        return
    config = dataclasses.replace(CONFIG, micro_batches=parts)
    shares = [RankShare(rank, ranks, lambda _: lost) for rank in range(ranks)]
    found = [b for share in shares for b in _mixture(chosen, config, share, Grey(sorted(broken))).step(number)]
    texts = {e.example_id: len(e.answers[0]) for e in left if e.task in (Task.DISTORTION, Task.DESCRIPTION)}
    mean = sum(texts.values()) / max(1, len(texts))
    for example, weight in itertools.chain(*(zip(b.example_ids, b.weight_E.tolist(), strict=True) for b in found)):
        assert weight == pytest.approx(texts[example] / mean if example in texts else 1.0, rel=1e-6)
    assert sum(float(batch.weight_E.sum()) for batch in found) == pytest.approx(len(left), rel=1e-6)


def test_a_share_without_examples_is_an_error():
    with pytest.raises(StageError, match="'pair'"):
        Mixture(Material(_examples({"single": 4}), Grey(), {"single": 0.5, "pair": 0.5}, COMPANIONS), CONFIG)
