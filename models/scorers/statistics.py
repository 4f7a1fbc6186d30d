"""Fixed measurements that the built-in networks start from: spectra, residues, scene statistics, tones.

None has a weight. All are made of operations that ONNX knows. Pictures are float RGB in [-1, 1].

Shape legend: N pictures, C channels, H height, W width, L places in a picture, F figures.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_LUMA: Final = (0.299, 0.587, 0.114)
_LEAST: Final = 1e-5
"""Added to energies before their logarithm: far below one grey level's."""
_FLAT: Final = 0.02
"""Products of normalised neighbours well below this count as none."""


def opponent_matrix() -> Tensor:
    """RGB -> luma, red minus green, yellow minus blue (the latter two at half weight), ``[3, 3]``."""
    return torch.tensor([_LUMA, (0.5, -0.5, 0.0), (0.25, 0.25, -0.5)])


def opponent(unit_NCHW: Tensor) -> Tensor:
    """Luma, red minus green and yellow minus blue, ``[N, 3, H, W]``."""
    return functional.conv2d(unit_NCHW, opponent_matrix().to(unit_NCHW)[:, :, None, None])


def halved(x_NCHW: Tensor) -> Tensor:
    """Mean of every 2 x 2 pixels; an odd last row or column is left out."""
    return functional.avg_pool2d(x_NCHW, 2)


def log_energy(energy: Tensor) -> Tensor:
    """Natural logarithm of an energy of unit pixels."""
    return torch.log(energy + _LEAST)


def cosine_basis(side: int) -> Tensor:
    """Orthonormal cosine functions as rows, ``[side, side]``, low frequencies first (DCT-II)."""
    index = torch.arange(side, dtype=torch.float64)
    rows = torch.cos(torch.pi / side * (index[None, :] + 0.5) * index[:, None]) * (2 / side) ** 0.5
    rows[0] = rows[0] / 2**0.5
    return rows.float()


def block_basis(side: int = 8) -> Tensor:
    """The 2-D cosine functions of a block as convolution kernels, ``[side * side, 1, side, side]``."""
    rows = cosine_basis(side)
    return torch.einsum("ih,jw->ijhw", rows, rows).reshape(side * side, 1, side, side)


def haar_kernels() -> Tensor:
    """Haar's wavelet of one plane: mean of 2 x 2 pixels, details along rows, along columns, diagonal, ``[4, 2, 2]``."""
    signs = [[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]
    return 0.25 * torch.tensor(signs, dtype=torch.float32)


def frequency_bands(side: int, rings: int) -> Tensor:
    """Averages over rings of a 2-D cosine spectrum in three directions, ``[side * side, 3 * rings]``.

    Rings are equal in width on the frequency's radius; directions are mostly along rows, along columns, and between.
    """
    index = torch.arange(side, dtype=torch.float64)
    down, across = index[:, None].expand(side, side), index[None, :].expand(side, side)
    radius = torch.sqrt(down**2 + across**2)
    ring = torch.clamp((radius - 1) / side * rings, 0, rings - 1).long()
    angle = torch.atan2(down, across)
    direction = torch.bucketize(angle, torch.tensor([torch.pi / 6, torch.pi / 3], dtype=torch.float64))
    band = ring * 3 + direction
    weights = functional.one_hot(band, 3 * rings).double()
    weights[0, 0] = 0.0  # the mean is no texture
    total = weights.sum(dim=(0, 1)).clamp_min(1.0)
    return (weights / total).reshape(side * side, 3 * rings).float()


def spread(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Standard deviation over ``dim`` that has a gradient at zero."""
    return torch.sqrt(((x - x.mean(dim=dim, keepdim=True)) ** 2).mean(dim=dim) + 1e-8)


def pooled(figures_NLF: Tensor, activity_NL: Tensor) -> Tensor:
    """Mean, spread and activity-weighted mean over the places of a picture, ``[N, 3F]``.

    The last tells about the places with texture: a sharp subject before a soft background is sharp.

    Args:
        figures_NLF: what is known of each place.
        activity_NL: logarithm of each place's energy.
    """
    weight_NL1 = torch.softmax(activity_NL, dim=1)[:, :, None]
    mean = figures_NLF.mean(dim=1)
    return torch.cat([mean, spread(figures_NLF, 1), (figures_NLF * weight_NL1).sum(dim=1)], dim=1)


def shares(x_NCHW: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Shares of values in soft, overlapping bins from ``low`` to ``high``; beyond, the last bin, ``[N, C * bins]``."""
    width = (high - low) / (bins - 1)
    place = torch.clamp((x_NCHW - low) / width, 0, bins - 1)
    found = [torch.relu(1.0 - (place - number).abs()).mean(dim=(2, 3)) for number in range(bins)]
    return torch.cat(found, dim=1)


def tones(unit_NCHW: Tensor) -> Tensor:
    """Light and colour: shares of dark to bright, means and spreads of colours, clipped channels, ``[N, 24]``."""
    planes = opponent(functional.avg_pool2d(unit_NCHW, 4))
    colourful = torch.sqrt(planes[:, 1:2] ** 2 + planes[:, 2:] ** 2 + 1e-6)
    every = torch.cat([planes, colourful], dim=1)
    white = torch.relu(unit_NCHW - 0.96).mean(dim=(2, 3)) * 25.0
    black = torch.relu(-0.96 - unit_NCHW).mean(dim=(2, 3)) * 25.0
    luma = planes[:, :1]
    return torch.cat(
        [
            shares(luma, -1.0, 1.0, 9),
            every.mean(dim=(2, 3)),
            spread(every, (2, 3)),
            white,
            black,
            (luma * luma * luma).mean(dim=(2, 3)),
        ],
        dim=1,
    )


def smoothed(x_NCHW: Tensor, side: int) -> Tensor:
    """Local mean over a square window; beyond the border nothing counts."""
    half = side // 2
    rows = functional.avg_pool2d(x_NCHW, (1, side), 1, (0, half), count_include_pad=False)
    return functional.avg_pool2d(rows, (side, 1), 1, (half, 0), count_include_pad=False)


def neighbours(x_NCHW: Tensor) -> tuple[Tensor, ...]:
    """Products of each value with the one to its right, below, and on both diagonals."""
    return (
        x_NCHW[:, :, :, 1:] * x_NCHW[:, :, :, :-1],
        x_NCHW[:, :, 1:] * x_NCHW[:, :, :-1],
        x_NCHW[:, :, 1:, 1:] * x_NCHW[:, :, :-1, :-1],
        x_NCHW[:, :, 1:, :-1] * x_NCHW[:, :, :-1, 1:],
    )


def scene_statistics(plane_N1HW: Tensor) -> Tensor:
    """Statistics of locally normalised luminance, its neighbours and local contrast (NIQE, BRISQUE), ``[N, 46]``."""
    centred = plane_N1HW - smoothed(smoothed(plane_N1HW, 5), 3)
    deviation = torch.sqrt(smoothed(centred**2, 7) + 1e-6)
    normal, contrast = centred / (deviation + 0.008), torch.log(deviation + 0.004)
    found = [shares(normal, -2.5, 2.5, 11), shares(contrast, -5.5, -0.5, 11), *_moments(normal)]
    for product in neighbours(normal):
        size = torch.sqrt(product.abs() + 1e-4)
        side = product / (product.abs() + _FLAT)  # a sign, but of flat places, where it would be that of rounding
        found += [
            product.mean(dim=(2, 3)),
            side.mean(dim=(2, 3)),
            size.mean(dim=(2, 3)),
            (size * side).mean(dim=(2, 3)),
        ]
    found += [
        contrast.mean(dim=(2, 3)),
        spread(contrast, (2, 3)),
        plane_N1HW.abs().mean(dim=(2, 3)),
        spread(plane_N1HW, (2, 3)),
    ]
    return torch.cat(found, dim=1)


def _moments(x_NCHW: Tensor) -> list[Tensor]:
    """Mean size, spread, third and fourth moment, ``[N, C]`` each."""
    square = x_NCHW * x_NCHW
    return [
        x_NCHW.abs().mean(dim=(2, 3)),
        spread(x_NCHW, (2, 3)),
        (square * x_NCHW).mean(dim=(2, 3)),
        (square * square).mean(dim=(2, 3)),
    ]


def differences(plane_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First differences along rows and columns, and second ones, cut to one common size of H - 2 by W - 2."""
    centre = plane_NCHW[:, :, 1:-1, 1:-1]
    right, left = plane_NCHW[:, :, 1:-1, 2:], plane_NCHW[:, :, 1:-1, :-2]
    below, above = plane_NCHW[:, :, 2:, 1:-1], plane_NCHW[:, :, :-2, 1:-1]
    return right - centre, below - centre, right + left - 2 * centre, below + above - 2 * centre


def periods(profile_NL: Tensor, period: int) -> Tensor:
    """How far the strongest of a profile's ``period`` phases stands out of all: log of their ratio, ``[N, 1]``."""
    length = profile_NL.shape[1] // period * period
    phases_NP = profile_NL[:, :length].unflatten(1, (-1, period)).mean(dim=1)
    return torch.log((phases_NP.amax(dim=1, keepdim=True) + 1e-4) / (phases_NP.mean(dim=1, keepdim=True) + 1e-4))


RESIDUES: Final = 6
"""Kernels of :func:`residue_kernels`."""


def residue_kernels() -> Tensor:
    """High-pass kernels of steganalysis that blank out the scene, ``[6, 1, 5, 5]``, of unit energy.

    Two first and two second differences, and the squares of 3 and of 5 pixels (Fridrich and Kodovsky 2012).
    """
    rows = [[0, 0, -1, 1, 0], [0, 1, -2, 1, 0]]
    kernels = torch.zeros(RESIDUES, 1, 5, 5)
    kernels[0, 0, 2] = torch.tensor(rows[0])
    kernels[1, 0, :, 2] = torch.tensor(rows[0])
    kernels[2, 0, 2] = torch.tensor(rows[1])
    kernels[3, 0, :, 2] = torch.tensor(rows[1])
    kernels[4, 0, 1:4, 1:4] = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]])
    kernels[5, 0] = torch.tensor(
        [[-1.0, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
    )
    return kernels / torch.sqrt((kernels**2).sum(dim=(2, 3), keepdim=True))


def residue_statistics(residues_NCHW: Tensor) -> Tensor:
    """Size, shape and neighbourhood of residues, ``[N, 12 C]``; unit pixels, so a grey level is 2 / 255."""
    size = residues_NCHW.abs() * 127.5
    energy = (size**2).mean(dim=(2, 3))
    mean = size.mean(dim=(2, 3))
    found = [torch.log(energy + 1e-2), mean / torch.sqrt(energy + 1e-2)]
    found += [torch.clamp(size / limit, max=1.0).mean(dim=(2, 3)) for limit in (1.0, 2.0, 4.0, 8.0)]
    norm = (residues_NCHW**2).mean(dim=(2, 3)) + 1e-6
    found += [product.mean(dim=(2, 3)) / norm for product in neighbours(residues_NCHW)]
    cells = torch.log(functional.avg_pool2d(size**2, 8) + 1e-2)
    found += [spread(cells, (2, 3)), -torch.logsumexp(-cells.flatten(2), dim=2)]
    return torch.cat(found, dim=1)
