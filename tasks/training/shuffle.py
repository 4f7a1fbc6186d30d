"""A random order that is computed position by position: no list of millions of numbers is drawn, stored or sent.

A Feistel network over the smallest power of two that holds all numbers is a bijection whatever its round function is;
numbers that it sends outside are sent on until they fall inside (cycle walking: Black and Rogaway, CT-RSA 2002). So the
example at any position of any epoch costs the same few operations.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TABLE: Final = 1 << 16
"""Up to this size the order is drawn as a table: halves of a few bits would mix badly, and the table is small."""
_ROUNDS: Final = 8
"""Even, so that both halves end where they began; four make a Feistel network pseudo-random (Luby and Rackoff 1988)."""
_MIX: Final = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
"""Multipliers of MurmurHash3's 64-bit finaliser (public domain)."""
_FOLD: Final = np.uint64(33)


class Shuffle:
    """A bijection of ``0 ... size - 1``, fixed by its entropy."""

    def __init__(self, size: int, entropy: Sequence[int]) -> None:
        self._size = size
        self._table = np.random.default_rng(entropy).permutation(size) if size <= _TABLE else None
        bits = (size - 1).bit_length()
        self._widths = np.uint64(bits // 2), np.uint64(bits - bits // 2)
        self._keys = np.random.SeedSequence(entropy).generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers at ``positions``, each of which is below ``size``."""
        if self._table is not None:
            return self._table[positions]
        found = self._permute(positions.astype(np.uint64))
        while (outside := np.flatnonzero(found >= self._size)).size:
            found[outside] = self._permute(found[outside])
        return found.astype(np.int64)

    def _permute(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """One pass of the network over all numbers of ``bits`` bits."""
        wide, narrow = self._widths[1], self._widths[0]
        left, right = numbers >> wide, numbers & _ones(wide)
        for key in self._keys:
            left, right = right, (left ^ _mixed(right, key)) & _ones(narrow)
            wide, narrow = narrow, wide
        return (left << wide) | right


def _ones(bits: np.uint64) -> np.uint64:
    return (np.uint64(1) << bits) - np.uint64(1)


def _mixed(numbers: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    mixed = numbers + key
    for factor in _MIX:
        mixed = (mixed ^ (mixed >> _FOLD)) * factor
    return mixed ^ (mixed >> _FOLD)
