"""The aesthetic backbone's parts by hand; its numbers are in DOVER's golden file."""

import pytest
import torch

from models.errors import ModelError
from models.scorers.convnext_3d import Block, ChannelNorm, ConvNeXt3D


@pytest.fixture(scope="module")
def network() -> ConvNeXt3D:
    return ConvNeXt3D()


def test_channels_are_normalised_at_every_position() -> None:
    x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 2, 2)
    normal = ChannelNorm(2)(x)
    assert normal[0, :, 0, 1, 1].tolist() == pytest.approx([-1.0, 1.0], abs=1e-5)


def test_a_block_adds_what_its_scale_lets_through() -> None:
    block, x = Block(4, 3), torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(block(x), x)
    torch.nn.init.zeros_(block.gamma)
    assert torch.equal(block(x), x)


def test_every_second_of_three_blocks_looks_at_neighbours_in_time(network: ConvNeXt3D) -> None:
    assert [[block.dwconv.kernel_size[0] for block in stage] for stage in network.stages] == [
        [1, 3, 1], [1, 3, 1], [1, 3, 1] * 3, [1, 3, 1],
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(3, 64, 64), (2, 60, 64), (2, 64, 0)])
def test_clips_that_are_no_multiples_of_the_stride_are_refused(size: tuple[int, int, int], network: ConvNeXt3D) -> None:
    with pytest.raises(ModelError, match="multiples"):
        network(torch.zeros(1, 3, *size))
