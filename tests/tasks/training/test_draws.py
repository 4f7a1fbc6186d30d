from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import StageError
from tasks.records import Task
from tasks.training.draws import Companions, ShareCycle, Shuffled
from tasks.training_set import Ragged

TASKS = (Task.SINGLE, Task.PAIR, Task.DISTORTION, Task.DESCRIPTION)
weights = st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any)


def _shares(parts: Sequence[int]) -> dict[str, float]:
    return {str(task): part / 100 for task, part in zip(TASKS, parts, strict=False)}


@settings(deadline=None, max_examples=60)
@given(weights, st.integers(0, 10_000), st.integers(1, 300))
def test_at_every_slot_no_task_is_one_ahead_of_its_share(parts: list[int], start: int, slots: int):
    cycle = ShareCycle(_shares(parts))
    shares = np.array(parts) / sum(parts)
    before = cycle.counts(start)
    tasks = cycle.tasks(start, start + slots)
    counts = before + np.cumsum(tasks[:, None] == np.arange(len(parts)), axis=0)
    assert (counts.sum(axis=1) == np.arange(start + 1, start + slots + 1)).all()
    assert (counts < shares * np.arange(start + 1, start + slots + 1)[:, None] + 1 + 1e-9).all()
    assert (counts[:, shares == 0] == 0).all()
    assert np.array_equal(counts[-1], cycle.counts(start + slots))


def test_the_sequence_is_that_of_the_task_that_lags_most():
    """Worked by hand for .5 : .25 : .25: the lags at the slots are (.5, .25, .25), (0, .5, .5), (.5, -.25, .75), ..."""
    assert ShareCycle({"single": 0.5, "pair": 0.25, "description": 0.25}).tasks(0, 8).tolist() == [0, 1, 2, 0] * 2


@pytest.mark.parametrize("shares", [{}, {"single": 0.0}, {"single": -1.0, "pair": 2.0}])
def test_impossible_shares_are_refused(shares: dict[str, float]):
    with pytest.raises(StageError, match="shares must be"):
        ShareCycle(shares)


def test_shares_of_many_decimals_are_refused():
    with pytest.raises(StageError, match="at most 4 decimals"):
        ShareCycle({"single": 0.33333, "pair": 0.66667})


@settings(deadline=None, max_examples=15)
@given(weights, st.integers(0, 2**31), st.integers(1, 24), st.integers(1, 40))
def test_shuffled_draws_every_example_once_before_any_is_drawn_again(
    parts: list[int], seed: int, batch: int, size: int
):
    shares = _shares(parts)
    sizes = {Task(task): size + 3 * number for number, task in enumerate(shares)}
    order = Shuffled(sizes, shares, seed, batch)
    drawn = [turn for step in range(60) for turn in order.step(step)]
    assert len(drawn) == 60 * batch
    for task, part in zip(TASKS, parts, strict=False):
        numbers = [turn.number for turn in drawn if turn.task is task]
        assert abs(len(numbers) - len(drawn) * part / sum(parts)) < len(parts)
        for epoch in range(len(numbers) // sizes[task]):
            whole = numbers[epoch * sizes[task] : (epoch + 1) * sizes[task]]
            assert sorted(whole) == list(range(sizes[task]))
        rest = numbers[len(numbers) // sizes[task] * sizes[task] :]
        assert len(set(rest)) == len(rest)


@settings(deadline=None, max_examples=15)
@given(weights, st.integers(0, 2**31), st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_shuffled_reaches_any_step_at_once(parts: list[int], seed: int, steps: list[int]):
    shares = _shares(parts)
    sizes = {Task(task): 100_000 + number for number, task in enumerate(shares)}
    used = Shuffled(sizes, shares, seed, 16)
    for step in [*steps, *steps]:
        assert used.step(step) == Shuffled(sizes, shares, seed, 16).step(step)


def test_shuffled_shows_other_views_in_the_next_epoch_and_depends_on_the_seed():
    sizes, shares = {Task.SINGLE: 50}, {"single": 1.0}
    order = Shuffled(sizes, shares, 3, 10)
    epochs = [[turn for step in range(5 * epoch, 5 * epoch + 5) for turn in order.step(step)] for epoch in range(2)]
    first, second = ({turn.number: turn.visits for turn in epoch} for epoch in epochs)
    assert all(second[number] == (visits[0] + 1,) for number, visits in first.items())
    assert [turn.number for turn in epochs[0]] != [turn.number for turn in epochs[1]]
    assert order.step(0) != Shuffled(sizes, shares, 4, 10).step(0)


def _dealt_naively(
    media: Mapping[Task, list[tuple[int, ...]]], shares: Mapping[str, float], seed: int, shape: tuple[int, int]
) -> list[list[tuple[Task, int, tuple[int, ...]]]]:
    """The rule of ``companions`` word for word, with lists and dictionaries, and shares as running floats."""
    steps, batch = shape
    tasks = [Task(task) for task in shares]
    wanted = np.array(list(shares.values())) / sum(shares.values())
    counts, epochs = np.zeros(len(tasks)), dict.fromkeys(tasks, 0)
    left: dict[Task, list[int]] = {task: [] for task in tasks}
    shown_before: Counter[int] = Counter()
    eager = sorted(media, key=lambda task: (-max(map(len, media[task])), len(media[task])))
    plan = []
    for step in range(steps):
        due: Counter[Task] = Counter()
        for slot in range(step * batch, (step + 1) * batch):
            chosen = int(np.argmax(np.where(wanted > 0, wanted * (slot + 1) - counts, -np.inf)))
            counts[chosen] += 1
            due[tasks[chosen]] += 1
        shown: dict[int, None] = {}
        dealt = []
        for task in eager:
            for _ in range(due[task]):
                if not left[task]:
                    entropy = [seed, tasks.index(task), epochs[task]]
                    left[task] = np.random.default_rng(entropy).permutation(len(media[task])).tolist()
                    epochs[task] += 1
                fitting = [
                    one
                    for medium in shown
                    for one in sorted(left[task])
                    if medium in media[task][one] and set(media[task][one]) <= set(shown)
                ]
                number = fitting[0] if fitting else left[task][0]
                left[task].remove(number)
                dealt.append((task, number, tuple(shown_before[medium] for medium in media[task][number])))
                shown.update(dict.fromkeys(media[task][number]))
        shown_before.update(list(shown))
        plan.append(dealt)
    return plan


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_companions_follow_their_rule(data: st.DataObject):
    shares = {str(task): share for task, share in zip(TASKS, (0.5, 0.4, 0.08, 0.02), strict=True)}
    media = {}
    for task in TASKS:
        members = st.integers(0, 12)
        one = st.tuples(members, members).filter(lambda m: m[0] != m[1]) if task is Task.PAIR else st.tuples(members)
        media[task] = data.draw(st.lists(one, min_size=1, max_size=12))
    seed = data.draw(st.integers(0, 1000))
    ragged = {
        task: Ragged(np.cumsum([0, *map(len, rows)]), np.array([code for row in rows for code in row], np.int32))
        for task, rows in media.items()
    }
    order = Companions(ragged, shares, seed, 8)
    found = [[tuple(turn) for turn in order.step(step)] for step in range(12)]
    assert found == _dealt_naively(media, shares, seed, (12, 8))
    assert [tuple(turn) for turn in Companions(ragged, shares, seed, 8).step(9)] == found[9]
