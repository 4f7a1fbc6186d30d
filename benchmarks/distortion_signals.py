"""Measure what every generated distortion does: each type's own signal at each strength, and whether it rises.

``python benchmarks/distortion_signals.py`` prints means over four photographs of scikit-image, three seeds each, and a
moving cut of one of them for the video types; ``--photos FOLDER`` takes other photographs. ``rising`` counts the runs
(photograph and seed) whose signal rises with every step of strength; levels of equal strength are not compared.
``--cover 16 40 100`` prints instead how many image cells so many photographs draw with 8 children each.
"""

import argparse
import hashlib
import io
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from arguments import existing_folder, natural
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from models.distortions import IMAGE_CELLS, IMAGE_TYPES, LEVELS, VIDEO_TYPES, distort_clip, distort_image, strength
from models.distortions.signals import SIGNALS, signal
from tasks.annotation.distort import draw_cells

Pixels = NDArray[np.uint8]

SIDE = 400
SEEDS = (3, 11, 42)
POOLS = 20
CHILDREN = 8


def photographs(folder: Path | None) -> list[Pixels]:
    """Photographs of at most 400 pixels a side: cut, not scaled."""
    if folder is None:
        found = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        found = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return [np.ascontiguousarray(pixels[:SIDE, :SIDE]) for pixels in found]


def moving(photo: Pixels, frames: int = 24) -> Pixels:
    """A clip: a window that moves over the photograph."""
    return np.stack([np.ascontiguousarray(photo[60:204, 2 * t + 20 : 2 * t + 212]) for t in range(frames)])


def runs(kind: str, photos: list[Pixels]) -> Iterator[list[list[float]]]:
    """Per photograph and seed the signals by strength, weakest first; levels of one strength stand together."""
    strengths = sorted({strength(kind, level) for level in LEVELS} - {0})
    for photo, seed in itertools.product(photos, SEEDS):
        original = moving(photo) if kind in VIDEO_TYPES else photo
        levels = {level: measured(original, kind, level, seed) for level in LEVELS if strength(kind, level)}
        yield [[levels[level] for level in levels if strength(kind, level) == one] for one in strengths]


def measured(original: Pixels, kind: str, level: int, seed: int) -> float:
    """The signal of one child."""
    if kind in IMAGE_TYPES:
        return signal(original, distort_image(original, kind, level, seed), kind)
    with av.open(io.BytesIO(distort_clip(iter(original), 24.0, kind, level, seed))) as container:
        clip = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return signal(original, clip, kind)


def rises(groups: list[list[float]]) -> bool:
    """Whether every signal is above all signals of weaker levels."""
    return all(max(weaker) < min(stronger) for weaker, stronger in itertools.pairwise(groups))


def covered(photographs: int, pool: int) -> int:
    """How many of the image cells the photographs of one pool draw."""
    names = [hashlib.sha256(f"{pool}/{number}".encode()).hexdigest() for number in range(photographs)]
    return len({cell for name in names for cell in draw_cells(name, IMAGE_CELLS, CHILDREN, 1)})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=existing_folder, help="folder of photographs (default: four of scikit-image)")
    kinds = {"choices": tuple(SIGNALS), "default": list(SIGNALS), "metavar": "TYPE"}
    parser.add_argument("--types", nargs="*", **kinds, help="types to measure (default: all 29)")
    parser.add_argument(
        "--cover", type=natural, nargs="*", default=[], help="numbers of photographs: print cells drawn"
    )
    told = parser.parse_args()
    for count in told.cover:
        mean = statistics.fmean(covered(count, pool) for pool in range(POOLS))
        print(f"{count} photographs draw {mean:.2f} of {len(IMAGE_CELLS)} cells (mean over {POOLS} pools)")
    if told.cover:
        return
    photos = photographs(told.photos)
    if not photos:
        parser.error(f"argument --photos: {told.photos} holds no photographs")
    print(f"{'type':24}{'signal by strength, weakest first':52}{'rising':>8}")
    for kind in told.types:
        found = list(runs(kind, photos if kind in IMAGE_TYPES else photos[:1]))
        means = [np.mean([one for run in found for one in run[step]]) for step in range(len(found[0]))]
        values = "".join(f"{value:10.4g}" for value in means)
        print(f"{kind:24}{values:52}{sum(map(rises, found)):>4}/{len(found)}", flush=True)


if __name__ == "__main__":
    main()
