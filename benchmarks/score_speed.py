"""Time the six built-in scorers on one photograph, beside NIQE of the project and of pyiqa, the command, and a clip.

    python benchmarks/score_speed.py [--threads N] [--clip FILE] [--niqe FILE]

Each time is the least of several runs after a warm-up; views (crops, resizing) are included, decoding is not, except
where a file is scored. pyiqa's NIQE needs its parameter file on this machine, or the same numbers by ``--niqe``, an
``.npz`` with ``mu_pris_param`` and ``cov_pris_param``; nothing is downloaded here. ``vital score`` is a process
of its own, in CPU seconds, and a ratio to a process that does nothing but import the libraries that decode and score.
"""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyiqa
import skimage.data
import torch
from arguments import existing_file, positive
from PIL import Image
from pyiqa.utils.download_util import DEFAULT_CACHE_DIR
from scipy.io import savemat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.niqe import niqe
from tasks.annotation.opinions import load_scorers, opinion_of

SIZE = (1024, 768)
RUNS = 7
COMMAND = "from vital.cli import main; main()"
LIBRARIES = "import av, numpy, onnxruntime, PIL.Image, scipy.special"


def least_ms(work: Callable[[], object], runs: int = RUNS) -> float:
    """Least wall time of ``work`` in milliseconds, after one run that does not count."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times[1:])


def least_cpu_s(command: list[str], runs: int = 3) -> float:
    """Least CPU seconds of a process of its own, after one run that fills the file cache and does not count."""
    times = []
    for _ in range(runs + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *command], cwd=Path(__file__).resolve().parents[1], check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times[1:])


def pyiqa_niqe(params: Path | None, folder: Path) -> Callable[[np.ndarray], float] | None:
    """NIQE of pyiqa with the parameters given, or with its own file if that is on this machine."""
    path = Path(DEFAULT_CACHE_DIR) / "niqe_modelparameters.mat"
    if params is not None:
        path = folder / "niqe.mat"
        with np.load(params) as values:
            savemat(path, {"mu_prisparam": values["mu_pris_param"], "cov_prisparam": values["cov_pris_param"]})
    if not path.is_file():
        return None
    metric = pyiqa.create_metric("niqe", device="cpu", pretrained_model_path=str(path))
    return lambda pixels: metric(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255.0).item()


def main() -> None:
    """Print one line per scorer, their sum, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=positive, help="threads inside one forward pass")
    parser.add_argument("--clip", type=existing_file, help="a video to score end to end")
    parser.add_argument("--niqe", type=existing_file, help="NIQE's published parameters, for pyiqa's NIQE")
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
    with tempfile.TemporaryDirectory() as folder:
        if (peer := pyiqa_niqe(arguments.niqe, Path(folder))) is not None:
            theirs = least_ms(lambda: peer(photo), 3)
            print(f"{'pyiqa NIQE':22s} {theirs:8.1f} ms  {theirs / total:.2f} x the six")
        path = Path(folder) / "photo.jpg"
        path.write_bytes(buffer.getvalue())
        spent = least_cpu_s(["-c", COMMAND, "score", "--json", str(path)])
        ratio = spent / least_cpu_s(["-c", LIBRARIES])
        print(f"{'vital score, CPU':22s} {1000 * spent:8.1f} ms  {ratio:.2f} x the imports")
    if arguments.clip:
        data = arguments.clip.read_bytes()
        print(f"{arguments.clip.name:22s} {least_ms(lambda: opinion_of(data, scorers), 2):8.1f} ms, decoding included")


if __name__ == "__main__":
    main()
