"""Media a second of `vital assess`, in batches that are decoded ahead against one file at a time, in one run.

    python benchmarks/assess_speed.py MODEL [--folder FOLDER] [--files N] [--batches 1,4,8] [--text] [--repeat N]
        [--device cpu|cuda] [--precision float32|bfloat16]

MODEL is a model's folder, for example ``artifacts/base/micro``. FOLDER is ``data/pool`` unless named; its first N files
are assessed, every way in turn, ``--repeat`` times, and the least wall time of each counts. Prints, for each batch,

    one file  calls of `assess_path`, as for one photo: read, decode, encode, tell
    batched   `assess_many`: threads decode ahead, the model sees a batch
    ratio     time of one file at a time, divided by that of batches
    differs   largest difference of any probability between the two ways
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from arguments import existing_folder, folder_with, positive, positives, present_device

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.devices import computing
from tasks.errors import MediaError
from tasks.evaluation.assess import Assessment, Judge, Rejected, Wanted, assess_many, load_judge
from tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vital.quiet import quiet_libraries

CHECKOUT: Final = Path(__file__).resolve().parents[1]
Told = list[Assessment | Rejected]


def one_at_a_time(files: Sequence[Path], judge: Judge, *, text: bool) -> Told:
    """Every file by itself, nothing ahead: what the command did before it had batches."""
    told: Told = []
    for path in files:
        try:
            told += assess_many([path], judge, Wanted(text=text, threads=1))
        except MediaError as error:
            told.append(Rejected(path, error))
    return told


def timed(way: Callable[[], Told]) -> tuple[float, Told]:
    """Wall time of one way, and what it told."""
    started = time.perf_counter()
    told = way()
    return time.perf_counter() - started, told


def difference(ours: Told, theirs: Told) -> float:
    """Largest difference of a probability."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(a, Assessment)]
    return max(
        float(np.abs(np.subtract(a.level_probs, b.level_probs)).max()) for a, b in pairs if isinstance(b, Assessment)
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=folder_with("config.json"))
    parser.add_argument("--folder", type=existing_folder, default=str(CHECKOUT / "data" / "pool"))
    parser.add_argument("--files", type=positive, default=64)
    parser.add_argument("--batches", type=positives, default="1,4,8,16")
    parser.add_argument("--device", type=present_device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--repeat", type=positive, default=2)
    options = parser.parse_args()
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    files = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in known)[: options.files]
    if not files:
        parser.error(f"argument --folder: {options.folder} holds no photos or clips")
    with quiet_libraries():
        judge = load_judge(options.model, computing(options.device, options.precision))
        one_at_a_time(files[:2], judge, text=options.text)
        measure(files, judge, options.batches, options)


def measure(files: Sequence[Path], judge: Judge, batches: Sequence[int], options: argparse.Namespace) -> None:
    """Time all ways in turn, and print the least of each."""
    ways: dict[str, Callable[[], Told]] = {"one file": lambda: one_at_a_time(files, judge, text=options.text)}
    for size in batches:
        ways[f"batch {size}"] = lambda size=size: list(assess_many(files, judge, Wanted(text=options.text, batch=size)))
    best: dict[str, tuple[float, Told]] = {}
    for _ in range(options.repeat):
        for name, way in ways.items():
            found = timed(way)
            best[name] = min(best.get(name, found), found, key=lambda one: one[0])
    base, told = best["one file"]
    where = f"{options.device}, {options.precision}, {torch.get_num_threads()} torch threads"
    print(f"{len(files)} files, text {options.text}, {where}")
    for name, (seconds, found) in best.items():
        rate = len(files) / seconds
        print(f"{name:9} {rate:6.2f} files/s  ratio {base / seconds:.2f}  differs {difference(found, told):.1e}")


if __name__ == "__main__":
    main()
