"""How many media go through a frozen encoder at once, so that memory does not grow with their number."""

from collections.abc import Iterator, Sequence
from typing import Final

from models.vision_encoder import VisualInput

TILES: Final = 64
"""Hidden states of one layer for so many tiles are .27 GB at InternViT-300M's size in float32, and its widest, in the
middle of a layer, 1.1 GB."""


def passes(inputs: Sequence[VisualInput], tiles: int = TILES) -> Iterator[list[VisualInput]]:
    """Media in groups of at most ``tiles`` tiles, in their order; one that has more goes alone."""
    group: list[VisualInput] = []
    room = tiles
    for medium in inputs:
        if group and len(medium.tiles_TCHW) > room:
            yield group
            group, room = [], tiles
        group.append(medium)
        room -= len(medium.tiles_TCHW)
    if group:
        yield group
