"""The backbone's geometry by hand: which windows, which fragments, which regions; its numbers are in the goldens."""

import pytest
import torch

from models.errors import ModelError
from models.scorers.video_swin import PatchMerging, SwinForm, WindowAttention, layout_of


def test_windows_come_slab_by_slab_and_join_to_the_same_grid() -> None:
    layout = layout_of((4, 4, 6), (2, 2, 3), shifted=False)
    grid = torch.arange(2 * 4 * 4 * 6 * 5.0).view(2, 4, 4, 6, 5)
    windows = layout.cut(grid)
    assert windows.shape == (2, 2, 4, 12, 5)
    assert torch.equal(windows[0, 1, 3], grid[0, 2:4, 2:4, 3:6].reshape(12, 5))
    assert torch.equal(layout.join(windows), grid)
    assert layout.regions_SAL is None


def test_gates_are_the_city_block_distance_of_fragments() -> None:
    gates = layout_of((1, 4, 4), (1, 2, 2), shifted=False).gates_APP
    assert gates.unique().tolist() == [0.0]  # two cells over four tokens: a window is a fragment
    shifted = layout_of((1, 4, 4), (1, 2, 2), shifted=True).gates_APP
    assert shifted[0].tolist() == [[0, 1, 1, 2], [1, 0, 2, 1], [1, 2, 0, 1], [2, 1, 1, 0]]
    assert layout_of((16, 56, 56), (8, 7, 7), shifted=False).gates_APP[0].unique().tolist() == [0.0]
    assert layout_of((16, 56, 56), (8, 7, 7), shifted=False).gates_APP[9].unique().tolist() == [0.0, 1.0, 2.0]


def test_only_shifted_windows_have_regions_and_a_grid_of_one_window_is_not_shifted() -> None:
    layout = layout_of((2, 4, 4), (4, 2, 2), shifted=True)
    assert (layout.window, layout.shift) == ((2, 2, 2), (0, 1, 1))
    assert layout.regions_SAL is not None
    assert [len(window.unique()) for window in layout.regions_SAL[0]] == [1, 2, 2, 4]
    assert layout.apart(0)[0].unique().tolist() == [0.0]
    assert layout.apart(0)[3].unique().tolist() == [-100.0, 0.0]
    assert layout_of((2, 4, 4), (4, 4, 4), shifted=True).regions_SAL is None
    with pytest.raises(ModelError, match="no regions"):
        layout_of((2, 4, 4), (4, 4, 4), shifted=True).apart(0)


def test_the_bias_is_gated_between_two_tables() -> None:
    attention = WindowAttention(4, 2, (1, 2, 2), gated=True)
    torch.nn.init.constant_(attention.relative_position_bias_table, 10.0)
    torch.nn.init.constant_(attention.fragment_position_bias_table, 3.0)
    layout = layout_of((1, 4, 4), (1, 2, 2), shifted=True)
    bias = attention._bias(layout, 4)
    assert bias.shape == (4, 2, 4, 4)
    assert bias[0, 0].tolist()[0] == [3.0, 10.0, 10.0, 17.0]  # within, neighbours, diagonal: 2 * 10 - 3


def test_relative_positions_index_the_table_by_time_row_and_column() -> None:
    index = WindowAttention(4, 1, (2, 2, 2), gated=False).get_buffer("relative_position_index")
    assert index.shape == (8, 8)
    assert index[0, 0] == 13  # the middle of 27
    assert index[7, 0] == 26  # later, lower and further right by one each
    assert index[0, 7] == 0
    assert index[1, 0] - index[0, 0] == 1
    assert index[2, 0] - index[0, 0] == 3
    assert index[4, 0] - index[0, 0] == 9


def test_merging_takes_the_rows_of_a_neighbourhood_first() -> None:
    merging = PatchMerging(1)
    merging.norm, merging.reduction = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    merged = merging(torch.arange(4.0).view(1, 1, 2, 2, 1))
    assert merged.flatten().tolist() == [0.0, 2.0, 1.0, 3.0]


@pytest.mark.parametrize("size", [(3, 128, 128), (20, 128, 128), (4, 96, 128), (4, 128, 130), (0, 128, 128), (4, 0, 0)])
def test_clips_that_windows_do_not_tile_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match="do not tile"):
        SwinForm((4, 4, 4), (False,) * 4).check(*size)


@pytest.mark.parametrize("size", [(2, 128, 128), (16, 128, 256), (8, 128, 128)])
def test_parts_of_a_window_in_time_and_several_in_space_are_seen(size: tuple[int, int, int]) -> None:
    SwinForm((4, 4, 4), (False,) * 4).check(*size)
