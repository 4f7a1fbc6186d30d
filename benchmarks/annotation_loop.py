"""Ratio of our scoring to pyiqa's own loop, in which every metric reads every picture anew.

    python benchmarks/annotation_loop.py [--pictures N] [--rounds N] [--params FOLDER]

The peer is used as its documentation says: ``metric = pyiqa.create_metric(name, device="cpu")``, then ``metric(path)``
per picture. Ours are ``scores_of`` in one thread, and the stage ``score`` with all that belongs to it: reading the
pool, threads, opinion store, tables. Both sides see the same JPEGs of 12 megapixels, made here, and give the same
scores (checked). Sides take turns; each time is the least of its rounds, by the clock and in processor seconds of all
threads, which a machine with other work upsets less.

*Decode-bound*: six measures that cost next to nothing (of every 32nd pixel), registered on both sides, so that reading
is all there is. The ratio is a product, and the parts are printed:

- sharing: one decode for six scorers instead of six, 6x by definition;
- reading: pyiqa decodes with Pillow, copies to RGB, makes float32 tensors of 12 bytes a pixel, and looks for their
  extremes to check the range. Ours decodes with Pillow to uint8, 3 bytes a pixel; the check that refuses half a JPEG,
  which Pillow does not, is ours alone and is paid for here. No reduced decoding (draft mode): scorers see all pixels;
- threads: the stage uses all cores, one medium each. (pyiqa's tensors are computed by torch's threads already.)

A *video*, since pyiqa has no loop for one, is decoded by OpenCV once per metric, as its users do; they are spared what
we do not spare ourselves: frames that nobody wants are grabbed but not converted, and nothing after the last wanted
one is decoded. *Compute-bound*: pyiqa's own metrics that need no download (NIQE where ``--params`` names a folder with
``niqe_pris_params.npz``), the same objects on both sides, at 1024x768: sharing and threads are worth little there.
"""

import argparse
import copy
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyiqa
import scipy.io
import skimage.data
import torch
import yaml
from arguments import folder_with, positive
from PIL import Image
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from pyiqa.utils.img_util import imread2tensor
from pyiqa.utils.registry import ARCH_REGISTRY

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.distortions.clips import encode
from models.scorers import Sampling, Scorer, register_scorer
from tasks.annotation import score
from tasks.annotation.opinions import FrameRule, scores_of
from tasks.media import decode_image
from tasks.records import CANDIDATES, OPINIONS
from tasks.shards import digest, frame_of, read_table, write_archive, write_table
from tasks.stage import Place, build_config

CHECKOUT: Final = Path(__file__).resolve().parents[1]
LARGE, SMALL, FILM = (4000, 3000), (1024, 768), (1280, 720)
PHOTOS: Final = ("astronaut", "coffee", "chelsea", "rocket")
RULE: Final = FrameRule(frames=4, clips=1)
STEP: Final = 32
MEASURES: Final[dict[str, Callable[[np.ndarray], float]]] = {
    "mean_gradient": lambda rgb: float(np.abs(np.diff(rgb, axis=1)).mean()),
    "mean_slope": lambda rgb: float(np.abs(np.diff(rgb, axis=0)).mean()),
    "brightness": lambda rgb: float(rgb.mean()),
    "contrast": lambda rgb: float(rgb.std()),
    "saturation": lambda rgb: float(np.ptp(rgb, axis=2).mean()),
    "highlights": lambda rgb: float((rgb > 0.9).mean()),
}
"""Measures in [0, 1] of a reduced picture ``[h, w, 3]`` in [0, 1]."""


@ARCH_REGISTRY.register()
class CheapMeasure(torch.nn.Module):
    """One of the measures as pyiqa's users add a metric."""

    def __init__(self, measure: str) -> None:
        super().__init__()
        self._measure = MEASURES[measure]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Measure ``[B, 3, H, W]`` in [0, 1]; one value per picture."""
        reduced = x[..., ::STEP, ::STEP].permute(0, 2, 3, 1).numpy()
        return torch.tensor([self._measure(rgb) for rgb in reduced])


class CheapScorer:
    """One of the measures as VITAL's users add a scorer."""

    version, sampling = "1", Sampling.FRAMES

    def __init__(self, name: str) -> None:
        self.name = name

    def raw(self, frames_THWC: np.ndarray) -> float:
        """Mean over the frames."""
        reduced = frames_THWC[:, ::STEP, ::STEP] / np.float32(255)
        return float(np.mean([MEASURES[self.name](rgb) for rgb in reduced]))

    def score(self, frames_THWC: np.ndarray) -> float:
        """The measure is in [0, 1] already."""
        return self.raw(frames_THWC)


class PeerScorer:
    """A metric object of pyiqa as a scorer of ours; a copy for each thread, since some keep state (PIQE its masks)."""

    version, sampling = "1", Sampling.FRAMES

    def __init__(self, name: str, metric: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.name, self._metric, self._own = name, metric, threading.local()

    def raw(self, frames_THWC: np.ndarray) -> float:
        """Mean over the frames."""
        if not hasattr(self._own, "metric"):
            self._own.metric = copy.deepcopy(self._metric)
        frames = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
        return float(np.mean([self._own.metric(frame[None] / 255.0).item() for frame in frames]))

    def score(self, frames_THWC: np.ndarray) -> float:
        """A score in [0, 1]; no calibration, but the stage takes no others."""
        return unit_score(self.raw(frames_THWC))


class Ready:
    """What is registered for a scorer that exists already."""

    def __init__(self, scorer: Scorer) -> None:
        self.name, self._scorer = scorer.name, scorer

    def __call__(self) -> Scorer:
        """The scorer."""
        return self._scorer


def unit_score(value: float) -> float:
    """Values of pyiqa's metrics, 0 to about 100, as shares."""
    return min(max(value / 100, 0.0), 1.0)


def photographs(count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEGs of enlarged photographs with a little grain."""
    rng, files = np.random.default_rng(0), []
    for number in range(count):
        photo = Image.fromarray(getattr(skimage.data, PHOTOS[number % len(PHOTOS)])()[..., :3])
        pixels = np.asarray(photo.resize(size, Image.Resampling.BICUBIC)) + rng.normal(0, 3, (size[1], size[0], 1))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def film(frames: int, start: int) -> bytes:
    """An H.264 clip that pans over a photograph, from column ``start``."""
    width, height = FILM
    wide = Image.fromarray(skimage.data.coffee()).resize((start + width + 2 * frames, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(wide)[:, start:]
    return encode((np.ascontiguousarray(pixels[:, 2 * t : 2 * t + width]) for t in range(frames)), 25.0, crf=23)


class Pool:
    """Media on disk for the peer, and as candidates for the stage."""

    def __init__(self, root: Path, media: Sequence[bytes], suffix: str, scorers: Sequence[str]) -> None:
        self._root, self._video = root, suffix == ".mp4"
        self.names = [f"m{number:03d}" for number in range(len(media))]
        self.paths = [str(root / (name + suffix)) for name in self.names]
        self.data = dict(zip(self.names, media, strict=True))
        placed = write_archive(root / "artifacts" / "collect" / "media" / "a.tar", self.data.items())
        for path, data in zip(self.paths, media, strict=True):
            Path(path).write_bytes(data)
        rows = [self._row(name) | vars(placed[name]) for name in self.names]
        for stage, records in (("collect", rows), ("distort", [])):
            write_table(root / "artifacts" / stage / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, records))
        section = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["score"]
        section |= {"scorers": list(scorers), "frames": RULE.frames, "clips": RULE.clips}
        self._config = build_config(score.Config, "score", section)

    def _row(self, name: str) -> dict[str, Any]:
        kind = (
            {"modality": "video", "mime": "video/mp4"} if self._video else {"modality": "image", "mime": "image/jpeg"}
        )
        numbers = {"width": 1, "height": 1, "frames": 1, "fps": 0.0, "duration_s": 0.0, "severity": 0, "seed": 0}
        names = {"id": name, "content_id": name, "split": "train", "source": name}
        return dict.fromkeys(CANDIDATES.columns) | names | numbers | kind | {"bytes_sha256": digest(self.data[name])}

    def run_stage(self) -> np.ndarray:
        """Scores ``[N, S]`` by the stage, with an empty opinion store."""
        shutil.rmtree(self._root / ".vital", ignore_errors=True)
        place = Place(self._root, self._root / "work", self._root / "work" / "out")
        place.out.mkdir(parents=True, exist_ok=True)
        score.run(self._config, place)
        return np.stack(read_table(place.out / "opinions.parquet", OPINIONS)["scores"].to_list())


def by_peer(metrics: Sequence[Any], paths: Sequence[str]) -> np.ndarray:
    """Values ``[N, S]`` by pyiqa's loop: per metric, per picture."""
    return np.array([[metric(path).item() for path in paths] for metric in metrics]).T


def by_peer_on_videos(metrics: Sequence[Any], paths: Sequence[str]) -> np.ndarray:
    """Values ``[N, S]``, mean over the frames that we score: per metric, per video, decoded by OpenCV."""
    return np.array([[np.mean([metric(f).item() for f in frames_of(path)]) for path in paths] for metric in metrics]).T


def by_peer_as_shares(metrics: Sequence[Any], paths: Sequence[str]) -> np.ndarray:
    """Scores ``[N, S]`` by pyiqa's loop, of its own metrics."""
    return np.vectorize(unit_score)(by_peer(metrics, paths))


def frames_of(path: str) -> list[Image.Image]:
    """The frames of a video that our rule names."""
    video = cv2.VideoCapture(path)
    wanted = RULE.singles(int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    frames = []
    for index in range(wanted[-1] + 1):
        video.grab()
        if index in wanted:
            frames.append(Image.fromarray(cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)))
    video.release()
    return frames


def take_turns(
    sides: dict[str, Callable[[], np.ndarray]], rounds: int, within: float
) -> dict[str, tuple[float, float]]:
    """Least seconds of each side, by the clock and of the processors; all must give the same scores.

    Raises:
        RuntimeError: they do not.
    """
    least = dict.fromkeys(sides, (float("inf"), float("inf")))
    scores: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, work in sides.items():
            start, used = time.perf_counter(), time.process_time()
            scores[name] = work()
            clock, processors = time.perf_counter() - start, time.process_time() - used
            least[name] = min(least[name][0], clock), min(least[name][1], processors)
    first, *others = scores.values()
    for other in others:
        if (np.abs(first - other) > within * np.maximum(1, np.abs(first))).any():
            raise RuntimeError("the two sides do not give the same scores")
    return least


@dataclass(frozen=True)
class Contest:
    """What is compared: the peer's metrics and the same as our scorers, and how the peer is asked.

    Attributes:
        within: how far scores may lie apart, as a share of the larger of 1 and the score.
    """

    title: str
    metrics: Sequence[Any]
    scorers: Sequence[Scorer]
    peer: Callable[[Sequence[Any], Sequence[str]], np.ndarray]
    within: float

    def hold(self, pool: Pool, rounds: int) -> None:
        """Print what the three ways take, and their ratios."""
        sides = {
            "pyiqa's loop": lambda: self.peer(self.metrics, pool.paths),
            "ours, one thread": lambda: np.stack([scores_of(data, self.scorers, RULE) for data in pool.data.values()]),
            f"ours, stage score, {os.cpu_count()} threads": pool.run_stage,
        }
        least = take_turns(sides, rounds, self.within)
        print(f"\n{self.title}: {len(self.metrics)} metrics, {len(pool.paths)} media")
        print(f"  {'':34s} {'seconds':>8s} {'ratio':>8s} {'processor seconds':>18s} {'ratio':>8s}")
        slowest = least["pyiqa's loop"]
        for name, (clock, used) in least.items():
            print(f"  {name:34s} {clock:8.3f} {slowest[0] / clock:7.1f}x {used:18.3f} {slowest[1] / used:7.1f}x")


def least_ms(work: Callable[[], object], runs: int) -> float:
    """Least wall time in milliseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def print_parts(pool: Pool, metrics: Sequence[Any], scorers: Sequence[Scorer], runs: int) -> None:
    """Print what one picture costs, step by step."""
    path, data = pool.paths[0], pool.data[pool.names[0]]
    tensor, pixels = imread2tensor(path, rgb=True)[None], decode_image(data)[None]
    steps: dict[str, Callable[[], object]] = {
        "Pillow alone decodes": lambda: Image.open(path).load(),
        "pyiqa reads: Pillow, RGB, float32": lambda: imread2tensor(path, rgb=True),
        "pyiqa checks the range": lambda: metrics[0].is_valid_input(tensor),
        "pyiqa's six measures": lambda: [metric.net(tensor) for metric in metrics],
        "ours reads: Pillow, check, uint8": lambda: decode_image(data),
        "our six measures": lambda: [scorer.score(pixels) for scorer in scorers],
    }
    spent = {name: least_ms(work, runs) for name, work in steps.items()}
    for name, milliseconds in spent.items():
        print(f"  {name:34s} {milliseconds:8.1f} ms")
    theirs = spent["pyiqa reads: Pillow, RGB, float32"] + spent["pyiqa checks the range"]
    reading = theirs / spent["ours reads: Pillow, check, uint8"]
    print(f"  sharing {len(metrics)} x, reading {reading:.1f} x: {len(metrics) * reading:.1f} x without threads")


def real_metrics(params: Path | None, folder: Path) -> dict[str, Any]:
    """Metrics of pyiqa that need no download, by name."""
    found = {name: pyiqa.create_metric(name, device="cpu") for name in ("piqe", "entropy")}
    if params is not None:
        given = np.load(params / "niqe_pris_params.npz")
        names = {"mu_prisparam": given["mu_pris_param"], "cov_prisparam": given["cov_pris_param"]}
        scipy.io.savemat(folder / "niqe.mat", names)
        path = str(folder / "niqe.mat")
        found["niqe"] = pyiqa.create_metric("niqe", device="cpu", pretrained_model_path=path)
    return found


def main() -> None:
    """Print the three comparisons and the parts of the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=positive, default=12, help="pictures of 12 megapixels")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side; the least time counts")
    parser.add_argument("--params", type=folder_with("niqe_pris_params.npz"), help="folder with niqe_pris_params.npz")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    os.environ.pop("VITAL_STORE", None)
    for name in MEASURES:
        DEFAULT_CONFIGS[name] = {"metric_opts": {"type": "CheapMeasure", "measure": name}, "metric_mode": "NR"}
    cheap_metrics = [pyiqa.create_metric(name, device="cpu") for name in MEASURES]
    cheap = [CheapScorer(name) for name in MEASURES]
    print(f"{os.cpu_count()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        real = real_metrics(arguments.params, root)
        peers = [PeerScorer(name, metric) for name, metric in real.items()]
        for scorer in (*cheap, *peers):
            register_scorer(Ready(scorer))
        pool = Pool(root / "large", photographs(arguments.pictures, LARGE), ".jpg", list(MEASURES))
        Contest("decode-bound, 12 megapixels", cheap_metrics, cheap, by_peer, 1e-5).hold(pool, arguments.rounds)
        print_parts(pool, cheap_metrics, cheap, 2 * arguments.rounds)
        pool = Pool(root / "film", [film(75, start) for start in (0, 40)], ".mp4", list(MEASURES))
        title = "decode-bound, video of 75 frames of 1280x720"
        Contest(title, cheap_metrics, cheap, by_peer_on_videos, 0.03).hold(pool, arguments.rounds)
        pool = Pool(root / "small", photographs(4, SMALL), ".jpg", list(real))
        title = f"compute-bound ({', '.join(real)}), 1024x768"
        Contest(title, list(real.values()), peers, by_peer_as_shares, 1e-4).hold(pool, arguments.rounds)


if __name__ == "__main__":
    main()
