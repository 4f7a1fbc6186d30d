"""Groups of media: nothing is lost, nothing is turned around, and no group is larger than it has to be."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.passes import passes
from models.vision_encoder import VisualInput


@given(st.lists(st.integers(1, 12), max_size=30), st.integers(1, 20))
def test_groups_keep_order_and_bound(counts: list[int], tiles: int):
    media = [VisualInput(torch.full((count, 1, 1, 1), float(n)), None) for n, count in enumerate(counts)]
    groups = list(passes(media, tiles))
    assert [medium for group in groups for medium in group] == media
    sizes = [sum(len(medium.tiles_TCHW) for medium in group) for group in groups]
    assert all(size <= tiles or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
    starts = [len(group[0].tiles_TCHW) for group in groups]
    assert all(size + start > tiles for size, start in zip(sizes, starts[1:], strict=False))
