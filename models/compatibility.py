"""Where the authors' released code departs from the paper and from upstream InternVL: flags, all off by default.

Their weights were trained with these departures and expect them: they are on when such weights are loaded
(:func:`models.published.from_released`) and stored beside the model. Our own models are trained without.
"""

from dataclasses import dataclass
from typing import Any, Final

from models.errors import ModelError


@dataclass(frozen=True)
class Compatibility:
    """One departure per flag (jzhws/VITAL-Series at 729097b; papers' facts are in docs/models.md).

    Attributes:
        unpermuted_motion: the memory of the motion features ``[M, T]`` is read as ``[T, M]`` before their projector, so
            that a token mixes channels and times. Off: one token per frame.
        area_tiling: an image's grid of tiles is the one nearest in pixel *area*. Off: nearest in aspect ratio
            (upstream).
        doubled_single_tile: an image of one tile is shown as two. Off: once (upstream).
        frame_stride: 0 is off. Otherwise the motion stream is every ``frame_stride``-th frame of the whole groups of
            four such frames, and a key frame (one at every full second) becomes a tile only if it is in the stream. 8
            repeats their training, 1 and 4 their evaluation with all and with less tokens.
        imagenet_motion: motion frames have ImageNet's normalisation. Off: the spec's, which is Kinetics'.
        frame_labels: every key frame and the motion stream of a video are images of their own in the prompt, after
            ``Frame-1:`` and so on, and ``Motion Feature:``. Off: one image without text between the tokens.
        evaluation_sentences: the sentence that is forced at scoring is theirs (``this image``, ``overall quality of
            this video``). Off: the sentence of training.
    """

    unpermuted_motion: bool = False
    area_tiling: bool = False
    doubled_single_tile: bool = False
    frame_stride: int = 0
    imagenet_motion: bool = False
    frame_labels: bool = False
    evaluation_sentences: bool = False

    def __post_init__(self) -> None:
        if self.frame_stride < 0:
            msg = f"frame_stride must be 0 (off) or a number of frames, not {self.frame_stride}"
            raise ModelError(msg)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Compatibility":
        """Rebuild flags from stored values; an unknown key is an error."""
        try:
            return cls(**values)
        except TypeError as error:
            msg = f"this folder's compatibility flags do not fit this version of the project: {error}"
            raise ModelError(msg) from error


OFF: Final = Compatibility()
"""The paper and upstream InternVL."""

RELEASED: Final = Compatibility(
    unpermuted_motion=True,
    area_tiling=True,
    doubled_single_tile=True,
    frame_stride=8,
    imagenet_motion=True,
    frame_labels=True,
    evaluation_sentences=True,
)
"""The released code as it trains."""
