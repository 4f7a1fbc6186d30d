"""What describers and judges see of a sample: a whole image, or a run of consecutive frames."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.signals.evidence import Pixels
from tasks.media import ADMITTED, decode_image, decode_video
from tasks.pool import read_media
from tasks.records import Modality
from tasks.stage import Place


def load_pixels(place: Place, row: Mapping[str, Any], frames: int) -> Pixels:
    """``[H, W, 3]`` of an image, or ``[T, H, W, 3]``: up to ``frames`` consecutive frames from a clip's middle.

    Raises:
        MediaError: the bytes cannot be decoded.
    """
    data = read_media(place, row)
    if row["modality"] != Modality.VIDEO:
        return decode_image(data, ADMITTED)

    def middle(total: int) -> Sequence[int]:
        start = max(total - frames, 0) // 2
        return range(start, min(start + frames, total))

    return decode_video(data, middle, ADMITTED).frames_THWC
