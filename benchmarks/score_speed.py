"""Time the six built-in scorers on one photograph, beside the project's NIQE and pyiqa's, and a clip end to end.

    python benchmarks/score_speed.py [--threads N] [--clip FILE]

Each time is the least of several runs after a warm-up; views (crops, resizing) are included, decoding is not, except
where a file is scored.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyiqa
import skimage.data
import torch
from PIL import Image
from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.niqe import niqe
from tasks.annotation.opinions import load_scorers, opinion_of

SIZE = (1024, 768)
RUNS = 7


def least_ms(work: Callable[[], object], runs: int = RUNS) -> float:
    """Least wall time of ``work`` in milliseconds, after one run that does not count."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times[1:])


def pyiqa_niqe() -> Callable[[np.ndarray], float] | None:
    """NIQE of pyiqa if its parameter file is on this machine; it is never downloaded here."""
    if not (Path(DEFAULT_CACHE_DIR) / "niqe_modelparameters.mat").is_file():
        return None
    metric = pyiqa.create_metric("niqe", device="cpu")
    return lambda pixels: metric(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255.0).item()


def main() -> None:
    """Print one line per scorer, their sum, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, help="threads inside one forward pass")
    parser.add_argument("--clip", type=Path, help="a video to score end to end")
    arguments = parser.parse_args()
    photo = np.array(Image.fromarray(skimage.data.astronaut()).resize(SIZE, Image.Resampling.BICUBIC))
    scorers = load_scorers(threads=arguments.threads)
    total = 0.0
    for scorer in scorers:
        spent = least_ms(lambda scorer=scorer: scorer.raw(photo[None]))
        total += spent
        print(f"{scorer.name:22s} {spent:8.1f} ms")
    print(f"{'all six':22s} {total:8.1f} ms  {1000 / total:.1f} images/s at {SIZE[0]}x{SIZE[1]}")
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=90)
    print(f"{'JPEG to opinion':22s} {least_ms(lambda: opinion_of(buffer.getvalue(), scorers)):8.1f} ms")
    own = least_ms(lambda: niqe(photo), 3)
    print(f"{'our NIQE':22s} {own:8.1f} ms  {own / total:.2f} x the six")
    if (peer := pyiqa_niqe()) is not None:
        theirs = least_ms(lambda: peer(photo), 3)
        print(f"{'pyiqa NIQE':22s} {theirs:8.1f} ms  {theirs / total:.2f} x the six")
    if arguments.clip:
        data = arguments.clip.read_bytes()
        print(f"{arguments.clip.name:22s} {least_ms(lambda: opinion_of(data, scorers), 2):8.1f} ms, decoding included")


if __name__ == "__main__":
    main()
