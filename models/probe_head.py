"""The paper's linear probe: two linear layers on pooled features of an encoder that stays as it is.

Shape legend: ``N`` media, ``P`` tiles, ``Q`` patches of a tile, ``C`` channels, ``T`` motion frames, ``F`` features.

The hidden states after some layers of the image encoder are concatenated, pixel-shuffled by one half and averaged over
all tokens of all tiles; the motion tokens' mean over time stands beside them, zeros for images. There is no activation
between the two layers. Not to be confused with ``models/linear_probe.py``, the ridge baseline.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import InternVLVisionModel

from models.checkpoint import require_files, require_same_tensors, shapes_of
from models.errors import ModelError
from models.levels import CENTRES, LEVELS, level_of
from models.motion import MotionExtractor
from models.passes import passes
from models.quality_lmm import VisualFeatures
from models.vision_encoder import VisualInput, VisualSpec, load_motion_extractor, save_encoder

ReadoutName = Literal["centres", "released"]

READOUTS: Final[dict[ReadoutName, NDArray[np.float64]]] = {
    "centres": CENTRES,
    "released": np.array([1.0, 0.8, 0.6, 0.4, 0.2]),
}
"""What each level counts in a score, best first: the one scale of this project, or the released code's
(P/eval/rating.py), whose scores lie in [.2, 1]."""

_LAYOUT_FILE: Final = "quality_probe.json"
_HEAD_FILE: Final = "head.safetensors"
_SHUFFLED: Final = 4
"""Pixel shuffle by one half: four patches become one token."""


def level_class(quality: float) -> int:
    """Class of a quality in [0, 1]: its level's number, best first.

    The released code takes ``floor(mos / 20)`` of a MOS in [0, 100], worst first, so that a MOS of 100 is a sixth class
    of a head with five; here it belongs to the best level.

    Raises:
        ModelError: ``quality`` is not a number in [0, 1].
    """
    return LEVELS.index(level_of(quality))


class ProbeHead(nn.Module):
    """Linear, linear, without an activation: pooled features to the five levels.

    Args:
        features: length of a pooled vector (12,544 at the paper's size).
        width: of the layer between (128 in the released code).
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(features, width)
        self.outer = nn.Linear(width, len(LEVELS))

    def start_anew(self, generator: torch.Generator) -> None:
        """Draw the weights that the released code starts with: U(0, .01); biases are 0."""
        for linear in (self.inner, self.outer):
            nn.init.uniform_(linear.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(linear.bias)

    def forward(self, pooled_NF: Tensor) -> Tensor:
        """Logits ``[N, 5]`` of the levels, best first."""
        return self.outer(self.inner(pooled_NF))


class QualityProbe(nn.Module):
    """A frozen encoder and a probe head: what it is asked is what a :class:`QualityLMM` is asked, text aside.

    Args:
        layers: the image encoder's layers after which hidden states are read, counted from 1.
        width: of the head.
        readout: what levels count in a score.

    Raises:
        ModelError: a layer does not exist, the encoder's tiles are not those of the spec, or its motion tokens mix time
            and channels, so that they have no mean over time.
    """

    def __init__(
        self,
        image_encoder: InternVLVisionModel,
        motion_extractor: MotionExtractor,
        spec: VisualSpec,
        layers: Sequence[int],
        width: int,
        readout: ReadoutName = "centres",
    ) -> None:
        super().__init__()
        self.image_encoder, self.motion_extractor = image_encoder, motion_extractor
        self.spec, self.layers = spec, tuple(layers)
        self.readout: ReadoutName = readout
        self._check()
        self.head = ProbeHead(pooled_width(image_encoder, motion_extractor, layers), width)

    def _check(self) -> None:
        depth = int(self.image_encoder.config.num_hidden_layers)
        if not self.layers or not all(1 <= layer <= depth for layer in self.layers):
            msg = f"the probe reads layers {list(self.layers)}; the image encoder has layers 1 to {depth}"
            raise ModelError(msg)
        size: Any = self.image_encoder.config.image_size
        side = int(size[0])
        if self.spec.tile_px != side:
            msg = f"the visual spec makes tiles of {self.spec.tile_px} px, the image encoder takes {side}"
            raise ModelError(msg)
        if not self.motion_extractor.config.permuted:
            raise ModelError("a probe averages motion tokens over time: it needs an extractor with permuted: true")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the encoder's weights."""
        return self.image_encoder.dtype

    # ------------------------------------------------------------------ features

    @torch.no_grad()
    def visual_features(self, inputs: Sequence[VisualInput]) -> list[VisualFeatures]:
        """Pooled features of media, on the CPU: one token for all tiles, and one for all motion frames."""
        pooled: list[VisualFeatures] = []
        for media in passes(inputs):
            tiles = torch.cat([medium.tiles_TCHW for medium in media]).to(self.image_encoder.device, self.dtype)
            per_medium = self._hidden(tiles).split([len(medium.tiles_TCHW) for medium in media])
            for part_PQC, medium in zip(per_medium, media, strict=True):
                pooled.append(VisualFeatures(shuffled_mean(part_PQC)[None, None].cpu(), self._motion(medium)))
        return pooled

    def _hidden(self, tiles_PCHW: Tensor) -> Tensor:
        """Hidden states ``[P, Q, C]`` of patches after each layer that is read, side by side; later ones never run."""
        hidden = self.image_encoder.embeddings(tiles_PCHW)
        kept: dict[int, Tensor] = {}
        for number, layer in enumerate(self.image_encoder.encoder.layer[: max(self.layers)], 1):
            hidden = layer(hidden)
            if number in self.layers:
                kept[number] = hidden[:, 1:]
        return torch.cat([kept[layer] for layer in self.layers], dim=-1)

    def _motion(self, medium: VisualInput) -> Tensor | None:
        if medium.motion_CTHW is None:
            return None
        weights = next(self.motion_extractor.parameters())
        tokens_1TM = self.motion_extractor(medium.motion_CTHW[None].to(weights.device, weights.dtype))
        return tokens_1TM.mean(dim=1).cpu()

    def gathered(self, features: Sequence[VisualFeatures]) -> Tensor:
        """What the head reads ``[N, F]``, of what :meth:`visual_features` gave; images have zeros for motion."""
        still = torch.zeros(self.motion_extractor.config.channels)
        rows = [
            torch.cat([one.tiles_PSC.flatten(), (still if one.motion_TM is None else one.motion_TM).flatten()])
            for one in features
        ]
        return torch.stack(rows)

    # ------------------------------------------------------------------ readout

    def forward(self, pooled_NF: Tensor) -> Tensor:
        """Logits ``[N, 5]`` of pooled features, best first."""
        return self.head(pooled_NF)

    @torch.no_grad()
    def level_probabilities(self, inputs: Sequence[VisualInput | VisualFeatures]) -> Tensor:
        """Probabilities ``[N, 5]`` of the five levels, best first, of media or of their pooled features."""
        pixels = [medium for medium in inputs if isinstance(medium, VisualInput)]
        pooled = iter(self.visual_features(pixels) if pixels else [])
        features = [medium if isinstance(medium, VisualFeatures) else next(pooled) for medium in inputs]
        weight = self.head.inner.weight
        return self(self.gathered(features).to(weight.device, weight.dtype)).float().softmax(-1)

    def scores(self, probabilities_N5: ArrayLike) -> NDArray[np.float64]:
        """Quality of level probabilities by this probe's readout: in [.1, .9], or in [.2, 1] with ``released``."""
        return np.asarray(probabilities_N5, dtype=np.float64) @ READOUTS[self.readout]

    # ------------------------------------------------------------------ folders

    def save_pretrained(self, folder: Path) -> None:
        """Write an encoder folder (:func:`models.vision_encoder.save_encoder`), the head, and how it reads."""
        save_encoder(self, folder)
        head = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        save_file(head, folder / _HEAD_FILE)
        layout = {"spec": dataclasses.asdict(self.spec), "layers": list(self.layers), "readout": self.readout}
        layout["width"] = self.head.inner.out_features
        (folder / _LAYOUT_FILE).write_text(json.dumps(layout, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "QualityProbe":
        """Read a folder that :meth:`save_pretrained` wrote, in evaluation mode.

        Args:
            dtype: type of all weights, whatever they were stored as.

        Raises:
            MissingWeightsError: the folder is incomplete.
            ModelError: its content does not fit this version.
        """
        require_files(folder, (_LAYOUT_FILE, _HEAD_FILE), "quality probe")
        layout: dict[str, Any] = json.loads((folder / _LAYOUT_FILE).read_text())
        if layout["readout"] not in READOUTS:
            msg = f"{folder / _LAYOUT_FILE} names the readout {layout['readout']!r}; there are {', '.join(READOUTS)}"
            raise ModelError(msg)
        spec = VisualSpec.from_json(layout["spec"])
        probe = cls(*load_encoder(folder), spec, layout["layers"], layout["width"], layout["readout"])
        state = load_file(folder / _HEAD_FILE)
        require_same_tensors(shapes_of(state), shapes_of(probe.head.state_dict()), f"the head in {folder} does not fit")
        probe.head.load_state_dict(state)
        return probe.to(dtype).eval()


def is_probe(folder: Path) -> bool:
    """Whether a model's folder holds a probe, not a whole quality LMM."""
    return (folder / _LAYOUT_FILE).is_file()


def load_encoder(folder: Path) -> tuple[InternVLVisionModel, MotionExtractor]:
    """Read an exported encoder, as float32: image encoder and motion extractor.

    Raises:
        MissingWeightsError: the folder is incomplete.
    """
    require_files(folder, ("config.json", "model.safetensors"), "encoder")
    loaded: Any = InternVLVisionModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return cast("InternVLVisionModel", loaded), load_motion_extractor(folder / "motion")


def pooled_width(image_encoder: InternVLVisionModel, motion_extractor: MotionExtractor, layers: Sequence[int]) -> int:
    """Length of a pooled vector: four times the encoder's width for every layer, and the motion channels."""
    return _SHUFFLED * int(image_encoder.config.hidden_size) * len(layers) + motion_extractor.config.channels


def shuffled_mean(patches_PQC: Tensor) -> Tensor:
    """Mean ``[4 C]`` over all tokens of square tiles after InternVL's pixel shuffle by one half.

    The mean of shuffled tokens is made of the means over every second row and column, in the order in which the shuffle
    lays them side by side: row, then column, of a patch within its token.
    """
    side = int(patches_PQC.shape[1] ** 0.5)
    cells = patches_PQC.unflatten(1, (side // 2, 2, side // 2, 2))
    return cells.mean(dim=(0, 1, 3)).flatten()
