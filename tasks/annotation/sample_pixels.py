"""What is looked at of a sample: for measurement a run of consecutive frames, for LMMs pictures of the whole medium."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from models.signals.evidence import Pixels
from tasks.media import ADMITTED, decode_image, decode_video, watch_video
from tasks.pool import read_media
from tasks.records import Modality
from tasks.stage import Place

Made = TypeVar("Made")


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


def made_of_pictures(
    place: Place, row: Mapping[str, Any], frames: int, make: Callable[[Pixels], Made]
) -> tuple[Made, ...]:
    """What ``make`` makes of an image, or of ``frames`` frames spread over a whole clip, one in memory at a time.

    Args:
        place: of the stage.
        row: a candidate.
        frames: of a clip, at most.
        make: is given ``[H, W, 3]``.

    Raises:
        MediaError: the bytes cannot be decoded.
    """
    data = read_media(place, row)
    if row["modality"] != Modality.VIDEO:
        return (make(decode_image(data, ADMITTED)),)
    made: dict[int, Made] = {}

    def chosen(total: int) -> Sequence[int]:
        made.clear()  # asked again if the clip turns out to have another number of frames
        return spread(total, frames)

    watch_video(data, chosen, lambda index, pixels: made.__setitem__(index, make(pixels)), ADMITTED)
    return tuple(made[index] for index in sorted(made))


def spread(total: int, count: int) -> list[int]:
    """Indices of at most ``count`` frames of ``total``, at the centres of equal spans of all of them."""
    count = min(total, count)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
