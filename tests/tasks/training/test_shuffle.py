import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.training.shuffle import Shuffle

entropies = st.lists(st.integers(0, 2**32), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(st.one_of(st.integers(1, 300), st.integers(65_530, 150_000)), entropies)
@example(65_536, [0])
@example(65_537, [0])
@example(131_072, [1, 2])
@example(131_073, [1, 2])
def test_every_number_stands_at_exactly_one_position(size: int, entropy: list[int]):
    order = Shuffle(size, entropy)(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))


@settings(deadline=None, max_examples=30)
@given(st.integers(65_537, 2**40), entropies, st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_position_is_found_alone_as_among_others(size: int, entropy: list[int], picked: list[int]):
    positions = np.array(picked) % size
    together = Shuffle(size, entropy)(positions)
    assert together.tolist() == [int(Shuffle(size, entropy)(positions[i : i + 1])[0]) for i in range(len(positions))]
    assert together.min() >= 0
    assert together.max() < size
    assert len(set(together.tolist())) == len(set(positions.tolist()))


@pytest.mark.parametrize("size", [66_000, 131_072, 200_001])
def test_the_order_looks_random(size: int):
    """Against what a uniform permutation gives, at about four standard deviations."""
    order = Shuffle(size, [7, 1])(np.arange(size))
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 4 / np.sqrt(size)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(size)
    assert np.sum(np.diff(order) == 1) < 8  # of neighbours that stay neighbours, one is expected
    counts = np.histogram2d(np.arange(size), order, bins=32)[0]
    expected = size / 32**2
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = 31**2
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_another_epoch_is_another_order():
    size = 100_000
    one, other = (Shuffle(size, [7, 1, epoch])(np.arange(size)) for epoch in range(2))
    assert np.sum(one == other) < 10  # of positions with the same number, one is expected
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(size)
