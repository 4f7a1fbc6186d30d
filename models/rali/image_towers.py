"""Image towers: tiles of a medium to a point of the joint space, the only network that a student keeps.

``clip`` is CLIP's vision model of any size (ViT-L/14 at the paper's), a plain transformers folder. ``compact`` is for
small machines: what every block of 14 x 14 pixels measures (log energies of its cosine spectrum in rings and
directions, of luma and of colour, and its means) passes one small network, and the blocks of a frame are pooled.

Shape legend: ``N`` media, ``M`` tiles of each, ``X`` tiles of all, ``S`` side, ``L`` blocks of a tile, ``F`` figures of
a block, ``H`` hidden, ``Y`` frames of all media, ``D`` joint space.
"""

from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection

from models.errors import ModelError
from models.rali.clip_folder import load_part
from models.rali.views import TileView
from models.scorers import statistics as measured
from models.scorers.blocks import Standardised, unit_pixels

Pooling = Literal["cls", "mean", "mixed"]
"""What CLIP's vision model says of a tile: its class token; the mean of its patches; or the mean of class token, patch
mean and patch maximum, each projected."""

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's normalisation of pixels in [0, 1] (its preprocessor_config.json)."""

_BLOCK: Final = 14
_RINGS: Final = 7
_COLOUR_RINGS: Final = 3
FIGURES: Final = 3 * _RINGS + 2 * 3 * _COLOUR_RINGS + 3
"""What is measured of a block."""


class ImageTower(Protocol):
    """What the student and its training ask of a tower, which is a module."""

    @property
    def width(self) -> int:
        """Dimensions of the joint space."""
        ...

    def measure(self, tiles_XHWC: Tensor) -> Tensor:
        """What no weight has a part in, of uint8 tiles one by one: the same before and after training."""
        ...

    def judge(self, measured_NM: Tensor) -> Tensor:
        """Embeddings ``[N, D]`` of what was measured of the ``M`` tiles of each medium."""
        ...


class CompactTower(nn.Module):
    """Measured blocks, one small network for all of them, pooled over each frame and averaged over frames.

    Args:
        view: whose tiles it takes. width: of the joint space. hidden: of the network of a block.

    Raises:
        ModelError: the tiles are not made of whole blocks.
    """

    basis: Tensor
    bands: Tensor
    wide: Tensor

    def __init__(self, view: TileView, width: int, hidden: int) -> None:
        super().__init__()
        if view.side % _BLOCK:
            msg = f"a compact tower takes tiles of whole blocks of {_BLOCK} pixels, not of {view.side}"
            raise ModelError(msg)
        self.tiles = view.tiles
        self.width, self.hidden = width, hidden
        self.register_buffer("basis", measured.cosine_basis(_BLOCK), persistent=False)
        self.register_buffer("bands", measured.frequency_bands(_BLOCK, _RINGS), persistent=False)
        self.register_buffer("wide", measured.frequency_bands(_BLOCK, _COLOUR_RINGS), persistent=False)
        self.standard = Standardised(FIGURES)
        self.roles = nn.Parameter(torch.zeros(2, hidden))  # thumbnails and native tiles mean different things
        self.inner = nn.Linear(FIGURES, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.attention = nn.Linear(hidden, 1)
        self.pooling = nn.Linear(3 * hidden, 2 * hidden)
        self.joint = nn.Linear(2 * hidden, width)

    def measure(self, tiles_XHWC: Tensor) -> Tensor:
        """Figures ``[X, L, F]`` of blocks: no weights."""
        planes_X3SS = measured.opponent(unit_pixels(tiles_XHWC))
        blocks = planes_X3SS.unflatten(3, (-1, _BLOCK)).unflatten(2, (-1, _BLOCK)).transpose(3, 4).flatten(4, 5)
        blocks_X3LB = blocks.flatten(2, 3)
        spectra = self.basis @ blocks_X3LB.unflatten(3, (_BLOCK, _BLOCK)) @ self.basis.T
        energy_X3LB = spectra.flatten(3) ** 2
        luma = measured.log_energy(energy_X3LB[:, 0] @ self.bands)
        colours = [measured.log_energy(energy_X3LB[:, plane] @ self.wide) for plane in (1, 2)]
        means_XL3 = blocks_X3LB.mean(dim=3).transpose(1, 2)
        return torch.cat([luma, *colours, means_XL3], dim=2)

    def fit_to(self, tiles_XHWC: Tensor) -> None:
        """Take from sample tiles what is normal for a block."""
        self.standard.fit(self.measure(tiles_XHWC))

    def forward(self, tiles_NMHWC: Tensor) -> Tensor:
        """Embeddings ``[N, D]`` of media, frame by frame as ``TileView`` lays their tiles."""
        return self._pooled(self.measure(tiles_NMHWC.flatten(0, 1)), tiles_NMHWC.shape[0])

    def judge(self, measured_NM: Tensor) -> Tensor:
        """Embeddings ``[N, D]`` of figures ``[N, M, L, F]``."""
        return self._pooled(measured_NM.flatten(0, 1), measured_NM.shape[0])

    def _pooled(self, measured_XLF: Tensor, count: int) -> Tensor:
        figures = self.standard(measured_XLF).unflatten(0, (-1, self.tiles))  # [frames, tiles of a frame, L, F]
        roles = torch.cat([self.roles[:1], self.roles[1:].expand(self.tiles - 1, -1)])
        hidden = functional.gelu(self.inner(figures) + roles[:, None])
        blocks_YLH = functional.gelu(self.outer(hidden)).flatten(1, 2)
        attended_YH = (blocks_YLH * torch.softmax(self.attention(blocks_YLH), dim=1)).sum(dim=1)
        pooled = torch.cat([blocks_YLH.mean(dim=1), measured.spread(blocks_YLH, 1), attended_YH], dim=1)
        frames_NYH = functional.gelu(self.pooling(pooled)).unflatten(0, (count, -1))
        return self.joint(frames_NYH.mean(dim=1))


class ClipTower(nn.Module):
    """CLIP's vision model with its projection; a medium's embedding is the mean of its tiles' unit embeddings.

    Args:
        clip: transformers' model.
        pooling: what it says of a tile.
    """

    def __init__(self, clip: CLIPVisionModelWithProjection, pooling: Pooling) -> None:
        super().__init__()
        self.clip = clip
        self.pooling: Pooling = pooling
        self.register_buffer("mean", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(CLIP_STD)[:, None, None], persistent=False)

    @classmethod
    def from_pretrained(cls, folder: Path, pooling: Pooling) -> "ClipTower":
        """Read CLIP's folder (the whole model's, or its vision part); nothing is fetched.

        Raises:
            MissingWeightsError: it is incomplete.
            ModelError: it is no CLIP.
        """
        clip: CLIPVisionModelWithProjection = load_part(CLIPVisionModelWithProjection, folder)
        return cls(clip, pooling).eval()

    @property
    def width(self) -> int:
        """Dimensions of the joint space."""
        return int(self.clip.config.projection_dim)

    @property
    def side(self) -> int:
        """Side of the tiles it takes."""
        return int(cast("Any", self.clip.config.image_size))

    def measure(self, tiles_XHWC: Tensor) -> Tensor:
        """Nothing is measured without weights: the tiles themselves."""
        return tiles_XHWC

    def judge(self, measured_NM: Tensor) -> Tensor:
        """Embeddings ``[N, D]`` of tiles."""
        return self(measured_NM)

    def forward(self, tiles_NMHWC: Tensor) -> Tensor:
        """Embeddings ``[N, D]``."""
        pixels = tiles_NMHWC.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
        normal = (pixels - self.get_buffer("mean")) / self.get_buffer("deviation")
        tokens = self.clip.vision_model(pixel_values=normal.to(self.clip.dtype)).last_hidden_state
        normed = self.clip.vision_model.post_layernorm(tokens)
        said = {"cls": [normed[:, 0]], "mean": [normed[:, 1:].mean(dim=1)]}
        parts = said.get(self.pooling) or [*said["cls"], *said["mean"], normed[:, 1:].amax(dim=1)]
        projected = [functional.normalize(self.clip.visual_projection(part).float(), dim=1) for part in parts]
        return torch.stack(projected).mean(dim=0).unflatten(0, tiles_NMHWC.shape[:2]).mean(dim=1)
