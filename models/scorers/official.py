"""The paper's six official scorers: pyiqa's TOPIQ-NR, LIQE, QualiCLIP and Q-Align, and our own FAST-VQA and DOVER.

Nothing is ever downloaded here: a missing file is an error that says what to put where. pyiqa's code is under the
PolyForm Noncommercial licence; the built-in scorers are the default.
"""

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.errors import MissingWeightsError, ModelError
from models.scorers.protocol import Calibration, Excerpt, Pixels, Sampling, Scorer, check_frames
from models.scorers.runtime import RunsByTorch, in_format, passes

_PYIQA_HOST: Final = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main"
_CLIP_HOST: Final = "https://openaipublic.azureedge.net/clip/models"
_FAST_VQA_HOST: Final = "https://github.com/VQAssessment/FAST-VQA-and-FasterVQA/releases/download/v2.0.0"
_DOVER_HOST: Final = "https://github.com/VQAssessment/DOVER/releases/download/v0.1.0"
_TOPIQ: Final = "cfanet_nr_koniq_res50-9a73138b.pth"
_VIT_B_32: Final = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_RN50: Final = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"


@dataclass(frozen=True)
class WeightFile:
    """One file a scorer needs: where it belongs on this machine, where it comes from, and how it is recognised.

    Attributes:
        path: its place; of a hub snapshot the file that names its revision (``refs/main``).
        origin: URL of the file, or page of the snapshot.
        licence: under which it is published.
        sha256: published hash, all of its 64 digits or the first ones; empty if none is known.
        megabytes: about its size.
    """

    path: Path
    origin: str
    licence: str = ""
    sha256: str = ""
    megabytes: int = 0

    @property
    def instruction(self) -> str:
        """One line for people."""
        return f"put {self.path.name} into {self.path.parent} (from {self.origin})"


@dataclass(frozen=True)
class OfficialFile:
    """A published file: its place below the cache it belongs to, and what :class:`WeightFile` says of it.

    Hashes: pyiqa's names end in the first digits of theirs, OpenAI's URLs contain them; the others are not published.
    """

    below: str
    origin: str
    megabytes: int
    sha256: str = ""
    licence: str = ""


@dataclass(frozen=True)
class OfficialModel:
    """A published scorer.

    Attributes:
        modality: what it was made for.
        licence: of the weights or their code.
        metric: its name in pyiqa; None if the implementation is ours.
        lowest, highest: its declared range, mapped linearly to [0, 1].
        files: its weight files; a file without a licence of its own has the model's.
    """

    modality: str
    licence: str
    metric: str | None
    lowest: float
    highest: float
    files: tuple[OfficialFile, ...]


OFFICIAL: Final[dict[str, OfficialModel]] = {
    "fast_vqa": OfficialModel(
        "video", "MIT", None, 0.0, 1.0,
        (OfficialFile("hub/vital/FAST_VQA_B_1_4.pth", f"{_FAST_VQA_HOST}/FAST_VQA_B_1_4.pth", 127),),
    ),
    "dover": OfficialModel(
        "video", "S-Lab, non-commercial", None, 0.0, 1.0,
        (OfficialFile("hub/vital/DOVER.pth", f"{_DOVER_HOST}/DOVER.pth", 225),),
    ),
    "q_align": OfficialModel(
        "image and video", "MIT (weights: Llama 2 community)", "qalign", 1.0, 5.0,
        (OfficialFile("hf/models--q-future--one-align/refs/main", "https://huggingface.co/q-future/one-align", 16400),),
    ),
    "topiq_nr": OfficialModel(
        "image", "PolyForm Noncommercial", "topiq_nr", 0.0, 1.0,
        (OfficialFile(f"hub/pyiqa/{_TOPIQ}", f"{_PYIQA_HOST}/{_TOPIQ}", 181, "9a73138b"),),
    ),
    "liqe": OfficialModel(
        "image", "PolyForm Noncommercial", "liqe", 1.0, 5.0,
        (
            OfficialFile("hub/pyiqa/liqe_koniq.pt", f"{_PYIQA_HOST}/liqe_koniq.pt", 354),
            OfficialFile("hub/clip/ViT-B-32.pt", f"{_CLIP_HOST}/{_VIT_B_32}/ViT-B-32.pt", 354, _VIT_B_32, "MIT"),
        ),
    ),
    "qualiclip": OfficialModel(
        "image", "CC BY-NC 4.0", "qualiclip", 0.0, 1.0,
        (
            OfficialFile("hub/pyiqa/QualiCLIP.pth", f"{_PYIQA_HOST}/QualiCLIP.pth", 390),
            OfficialFile("hub/clip/RN50.pt", f"{_CLIP_HOST}/{_RN50}/RN50.pt", 256, _RN50, "MIT"),
        ),
    ),
    "fast_vqa_m": OfficialModel(
        "video", "MIT", None, 0.0, 1.0,
        (OfficialFile("hub/vital/FAST_VQA_M_1_4.pth", f"{_FAST_VQA_HOST}/FAST_VQA_M_1_4.pth", 110),),
    ),
}  # fmt: skip
"""Name -> record: the paper's six in its order, then FAST-VQA's light sister, which is not one of them."""

_OUR_REVISION: Final = 1
"""Raise it when what our own implementations score may change: their views, their constants, their numbers."""


class PyiqaScorer(RunsByTorch):
    """One of pyiqa's metrics as a Scorer; the raw score is the mean over the frames.

    Frames of one medium share forward passes, media do not: photographs differ in size, and the shape of a pass, on
    which the last digits depend, must not depend on what else is scored.
    """

    def __init__(self, name: str, metric: Any) -> None:
        model = OFFICIAL[name]
        super().__init__(metric)
        self._name = name
        self._calibration = Calibration((model.lowest, model.highest), (0.0, 1.0))

    @property
    def name(self) -> str:
        """Key in ``OFFICIAL``."""
        return self._name

    @property
    def version(self) -> str:
        """Version of pyiqa, and the weight file."""
        return official_version(self._name)

    @property
    def sampling(self) -> Sampling:
        """Single frames."""
        return Sampling.FRAMES

    def raw(self, frames_THWC: Pixels) -> float:
        """Mean of the metric over the frames, in its own range.

        Raises:
            ModelError: the frames have another shape or type, or the metric does not give a score per frame.
        """
        check_frames(frames_THWC)
        runtime, scores = self._runtime, []
        with passes(runtime):
            for start in range(0, len(frames_THWC), runtime.rows):
                frames_NHWC = frames_THWC[start : start + runtime.rows]
                found = self._network(in_format(_unit(frames_NHWC).to(runtime.device), runtime))
                if found.numel() != len(frames_NHWC):
                    msg = f"{self._name} does not score {len(frames_NHWC)} frames in a pass: score.torch.rows must be 1"
                    raise ModelError(msg)
                scores += found.float().flatten().tolist()
        return float(np.mean(scores))

    def score(self, frames_THWC: Pixels) -> float:
        """Raw score mapped linearly from the declared range to [0, 1]; values beyond it are cut off."""
        return self._calibration(self.raw(frames_THWC))

    def score_many(self, media: Sequence[Pixels]) -> list[float]:
        """Scores of several media, one after the other."""
        return [self.score(frames_THWC) for frames_THWC in media]


def weight_files(name: str) -> tuple[WeightFile, ...]:
    """The files an official scorer needs, at their places on this machine (TORCH_HOME and HF_HUB_CACHE count)."""
    model = OFFICIAL[name]
    return tuple(
        WeightFile(_place(file.below), file.origin, file.licence or model.licence, file.sha256, file.megabytes)
        for file in model.files
    )


def official_version(name: str) -> str:
    """Version of an official scorer: its implementation's and its weight file's name."""
    import importlib.metadata  # noqa: PLC0415

    file = weight_files(name)[0].path.parts[-1]
    if OFFICIAL[name].metric is None:
        return f"vital-{_OUR_REVISION}+{file}"
    return f"pyiqa-{importlib.metadata.version('pyiqa')}+{file}"


def load_official(name: str) -> Scorer:
    """Load an official scorer, through pyiqa or by our own implementation.

    Raises:
        ModelError: there is none of this name, or a file does not fit.
        MissingWeightsError: the first file that is missing.
    """
    model = OFFICIAL.get(name)
    if model is None:
        msg = f"{name!r} is not one of the official scorers"
        raise ModelError(msg)
    for file in weight_files(name):
        if not file.path.exists():
            msg = f"{name} needs its official weights: {file.instruction}"
            raise MissingWeightsError(msg)
    if model.metric is None:
        return _load_ours(name)
    options = {"backbone_pretrain": False} if name == "topiq_nr" else {}
    try:
        return PyiqaScorer(name, _create_metric(model.metric, options))
    except (RuntimeError, KeyError, OSError, pickle.UnpicklingError) as error:
        msg = f"{name}: the weights do not load ({' '.join(str(error).split())[:200]}): replace the files"
        raise ModelError(msg) from error


def official_sampling(name: str) -> Sampling | Excerpt:
    """What an official scorer sees of a medium, without its weights."""
    if OFFICIAL[name].metric is not None:
        return Sampling.FRAMES
    from models.scorers.dover import dover_sampling  # noqa: PLC0415 - torch, which only official scorers pay for
    from models.scorers.fast_vqa import fast_vqa_sampling  # noqa: PLC0415

    return dover_sampling() if name == "dover" else fast_vqa_sampling(name)


def _unit(frames_NHWC: Pixels) -> Any:
    """Frames as a tensor ``[N, 3, H, W]`` of [0, 1]."""
    import torch  # noqa: PLC0415 - only official scorers pay for it

    return torch.from_numpy(np.ascontiguousarray(frames_NHWC)).permute(0, 3, 1, 2).float() / 255.0


def _load_ours(name: str) -> Scorer:
    from models.scorers.dover import load_dover  # noqa: PLC0415 - torch, which only official scorers pay for
    from models.scorers.fast_vqa import load_fast_vqa  # noqa: PLC0415

    path = weight_files(name)[0].path
    return load_dover(path) if name == "dover" else load_fast_vqa(name, path)


def _create_metric(metric: str, options: dict[str, Any]) -> Any:
    import pyiqa  # noqa: PLC0415 - 5 s that only the paper profile pays

    if metric == "qalign":
        _restore_mask_inversion()
    return pyiqa.create_metric(metric, device="cpu", **options)


def _restore_mask_inversion() -> None:
    """Give transformers 5.17 and later the method that pyiqa's Q-Align still calls."""
    import torch  # noqa: PLC0415
    from transformers import PreTrainedModel  # noqa: PLC0415

    if hasattr(PreTrainedModel, "invert_attention_mask"):
        return

    def invert_attention_mask(model: Any, mask: torch.Tensor) -> torch.Tensor:
        wide = mask[:, None, :, :] if mask.dim() == 3 else mask[:, None, None, :]
        return (1.0 - wide.to(model.dtype)) * torch.finfo(model.dtype).min

    PreTrainedModel.invert_attention_mask = invert_attention_mask  # type: ignore[attr-defined]


def _place(below: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    if below.startswith("hf/"):
        home = Path(os.environ.get("HF_HOME", cache / "huggingface"))
        return Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / below.removeprefix("hf/")
    return Path(os.environ.get("TORCH_HOME", cache / "torch")) / below
