"""Start-up of training on millions of examples: ours beside ``json.load`` of the VITAL authors' format.

    python benchmarks/training_set.py [--rows N] [--quick] [--json-rows N] [--folder DIR] [--keep]

Makes N examples (default 4.58 million, the paper's number; twice as many media) in the shares of the paper's profile,
once, and writes them in both formats: ``authors.json``, groups of samples with the keys of the released loader, and the
set that ``assemble`` writes. Then, each in a process of its own, imports paid before the clock starts:

    authors   ``json.load``, which every rank does before anything else
    ours      open and check the set, build the drawing, and draw the first step of one of eight ranks: its examples,
              and where the bytes of its media lie

and the memory of both: the process's peak above what its imports took; for ours also what belongs to it alone while
two ranks hold the set. Then how many steps are drawn a second, one after the other and at random places, in both
orders. ``--json-rows`` gives json.load the first N examples only, where memory is short; its time and memory are then
scaled to all of them, and the table says so. Exit code 1 if start-up is not 1,000 times faster at a million rows or
more.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from arguments import existing_folder, positive

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.levels import LEVELS
from models.vision_encoder import VisualInput
from tasks.records import Split
from tasks.training.batches import BatchConfig, Material, Mixture, RankShare
from tasks.training.examples import open_examples
from tasks.training.trainer import TrainingConfig
from tasks.training_set import write_training_set

PAPER_ROWS: Final = 4_580_000
QUICK_ROWS: Final = 100_000
GOAL, GOAL_ROWS = 1000, 1_000_000
ARCHIVE: Final = 2048
SHARES: Final[dict[str, float]] = {"single": 0.35, "pair": 0.3, "distortion": 0.25, "description": 0.1}
SPLITS: Final = {Split.TRAIN: 0.98, Split.WARM_UP: 0.01, Split.HELD_OUT: 0.01}
SENTENCES: Final = [f"The quality of the video is {level}" for level in LEVELS]
TEXTS: Final = {
    "single": SENTENCES,
    "pair": SENTENCES,
    "distortion": ["mild H264 compression", "relatively severe white noise", "severe gaussian blur"],
    "description": [
        "Sharpness is low, resulting in a blurry image",
        "The lighting is sufficient and shows the details of the scene clearly",
        "Strong noise is visible in the darker parts of the picture",
    ],
}
CONFIG: Final = TrainingConfig(
    engine="single", seed=42, threads=1, precision="bfloat16", steps=286_250, batch_examples=16, micro_batches=8,
    learning_rate=2e-5, weight_decay=0.05, warm_up_share=0.03, clip_norm=1.0, checkpoint_every=1000,
)  # fmt: skip
RANK: Final = RankShare(0, 8, list)


def hexes(count: int, rng: np.random.Generator) -> pa.Array:
    """Random ids of 32 hex digits."""
    digits = np.frombuffer(rng.bytes(16 * count).hex().encode(), "S32")
    return pa.array(digits, pa.binary(32)).cast(pa.binary()).cast(pa.string())


def make_media(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Twice as many media as examples, as ``load_candidates`` returns them."""
    count = 2 * rows
    number = np.arange(count)
    ids = hexes(count, rng)
    bounds = np.round(np.cumsum(list(SPLITS.values())) * count)
    shards = pa.array([f"{archive:06d}.tar" for archive in range(count // ARCHIVE + 1)])
    table = {
        "id": ids,
        "content_id": ids,
        "modality": pa.array(["image", "video"]).take(pa.array(number % 9 // 5)),
        "width": np.full(count, 1280),
        "height": np.full(count, 720),
        "frames": np.full(count, 240),
        "fps": np.full(count, 24.0),
        "stage": pa.array(["collect"]).take(pa.array(np.zeros(count, np.int64))),
        "shard": shards.take(pa.array(number // ARCHIVE)),
        "offset": number % ARCHIVE * 1_000_000,
        "length": np.full(count, 999_000),
        "split": pa.array([str(split) for split in SPLITS]).take(pa.array(np.searchsorted(bounds, number, "right"))),
    }
    return pa.table(table).to_pandas()


def make_examples(rows: int, media: pd.DataFrame, rng: np.random.Generator) -> pa.Table:
    """EXAMPLES rows in the shares of the tasks and splits."""
    ids, splits = pa.array(media["id"]).cast(pa.string()), media["split"].to_numpy()
    tables = []
    for split, part in SPLITS.items():
        mine = np.flatnonzero(splits == split)
        for task, share in SHARES.items():
            count, width = max(2, round(rows * part * share)), 1 + (task == "pair")
            first = rng.integers(0, len(mine) - 1, count)
            shown = mine[first[:, None] + np.arange(width)].ravel()
            tables.append(_task_table((str(split), task), ids.take(pa.array(shown)), width, rng))
    return pa.concat_tables(tables)


def _task_table(kind: tuple[str, str], ids: pa.Array, width: int, rng: np.random.Generator) -> pa.Table:
    count, texts = len(ids) // width, TEXTS[kind[1]]
    starts = np.arange(count + 1, dtype=np.int32) * width
    scored = texts is SENTENCES
    levels = rng.dirichlet(np.ones(5), len(ids) if scored else 0)
    targets = pa.ListArray.from_arrays(pa.array(np.arange(len(levels) + 1, dtype=np.int32) * 5), levels.ravel())
    preference = rng.choice([0.0, 0.5, 1.0], count)
    answers = pa.array(texts).take(pa.array(rng.integers(0, len(texts), len(ids))))
    return pa.table(
        {
            "example_id": hexes(count, rng),
            "task": [kind[1]] * count,
            "split": [kind[0]] * count,
            "ids": pa.ListArray.from_arrays(pa.array(starts), ids),
            "answers": pa.ListArray.from_arrays(pa.array(starts), answers),
            "targets": pa.ListArray.from_arrays(pa.array(starts if scored else 0 * starts), targets),
            "preference": pa.array(preference, mask=np.full(count, width == 1)),
        }
    )


def opinion_texts(count: int, rng: np.random.Generator) -> list[str]:
    """JSON of what a scored sample of the authors holds beside its path and its sentence."""
    found = []
    for scores, levels in zip(rng.uniform(20, 90, (count, 6)), rng.dirichlet(np.ones(5), (count, 2)), strict=True):
        mean, spread = float(scores.mean()), float(scores.std())
        values = {
            "mos": scores.tolist(), "gt_score": mean, "gt_score_norm": mean / 20, "level_probs_org": levels[0].tolist(),
            "target_dist": levels[1].tolist(), "std": spread, "std_norm": spread / 20, "alpha": 1 + spread / 1e3,
            "beta": -spread / 1e4, "raw_diff": spread / 1e3, "diff": spread / 2e3,
        }  # fmt: skip
        found.append(json.dumps(values)[1:-1])
    return found


def authors_groups(table: pa.Table, opinions: list[str]) -> Iterator[str]:
    """JSON of the groups: two singles, one pair, or one text."""
    waiting: list[str] = []
    for number, row in enumerate(row for batch in table.to_batches(20_000) for row in batch.to_pylist()):
        scored = row["task"] in ("single", "pair")
        group = waiting if row["task"] == "single" else []
        for place, (medium, answer) in enumerate(zip(row["ids"], row["answers"], strict=True)):
            path = f"collect/{medium}.mp4"
            label = f', "label": {int(2 * row["preference"])}' if row["task"] == "pair" else ""
            extra = f', "id": "{path}->", {opinions[(number + place) % len(opinions)]}{label}' if scored else ""
            talk = f'[{{"from": "human", "value": ""}}, {{"from": "gpt", "value": "{answer}"}}]'
            group.append(f'{{"video": "{path}"{extra}, "conversations": {talk}}}')
        if row["task"] != "single" or len(waiting) == 2:
            yield f"[{', '.join(group)}]"
            group.clear()


def write_authors(path: Path, table: pa.Table, rows: int, rng: np.random.Generator) -> None:
    """The first ``rows`` of the shuffled examples as the authors' JSON."""
    chosen = table.take(pa.array(rng.permutation(len(table))[:rows]))
    with path.open("w") as file:
        file.write("[")
        for number, group in enumerate(authors_groups(chosen, opinion_texts(20_000, rng))):
            file.write(f"{',' if number else ''}\n{group}")
        file.write("\n]\n")


def memory_mb() -> dict[str, float]:
    """Peak of this process, and what of its memory now belongs to it alone or is shared."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    now = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak": peak, "own": now["Private_Dirty"] + now["Private_Clean"], "shared": now["Shared_Clean"]}


def probe_authors(folder: Path) -> dict[str, float]:
    """What json.load costs."""
    before, started = memory_mb()["peak"], time.perf_counter()
    with (folder / "authors.json").open() as file:
        groups = json.load(file)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "mb": memory_mb()["peak"] - before, "samples": sum(map(len, groups))}


class NoMedia:
    """A source of media that nobody reads here."""

    broken: frozenset[str] = frozenset()

    def read(self, medium_id: str, visit: int) -> VisualInput:
        """Nothing is decoded in this benchmark."""
        raise NotImplementedError(medium_id, visit)


def start(folder: Path, order: str) -> tuple[Mixture, float]:
    """Open the set and draw rank 0's first step; how long that took."""
    started = time.perf_counter()
    examples = open_examples(folder / "training_set", Split.TRAIN, SHARES)
    batches = BatchConfig(order, "dealt", "examples")  # type: ignore[arg-type]
    mixture = Mixture(Material(examples, NoMedia(), SHARES, batches), CONFIG, RANK)
    for part in mixture.parts(0)[RANK.rank :: RANK.ranks]:
        for draw in part:
            _ = [examples.medium(medium) for medium in draw.example.ids]
    return mixture, time.perf_counter() - started


def probe_ours(folder: Path) -> dict[str, float]:
    """What a start costs, and how fast steps are drawn; waits with the set open until its input ends."""
    before = memory_mb()
    _, seconds = start(folder, "shuffled")
    after = memory_mb()
    print(json.dumps({"seconds": seconds, "mb": after["peak"] - before["peak"]}), flush=True)
    sys.stdin.read()
    now = memory_mb()
    return {"own": now["own"] - before["own"], "shared": now["shared"] - before["shared"]}


def probe_draws(folder: Path, steps: int) -> dict[str, float]:
    """Steps drawn a second: all 16 examples of a step as objects."""
    found: dict[str, float] = {}
    for order in ("shuffled", "companions"):
        mixture, found[f"{order} start"] = start(folder, order)
        started = time.perf_counter()
        media = [len({m for draw in mixture.draws(step) for m in draw.example.ids}) for step in range(1, 1 + steps)]
        found[f"{order} in turn"] = steps / (time.perf_counter() - started)
        found[f"{order} media"] = float(np.mean(media))
    mixture, _ = start(folder, "shuffled")
    places = np.random.default_rng(0).integers(0, CONFIG.steps, steps).tolist()
    started = time.perf_counter()
    for step in places:
        mixture.draws(step)
    found["shuffled at random"] = steps / (time.perf_counter() - started)
    return found


def measured(probe: str, folder: Path, steps: int = 0) -> subprocess.Popen[str]:
    """Start a probe in a process of its own."""
    command = [sys.executable, __file__, "--probe", probe, "--folder", str(folder), "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The last line that a probe printed."""
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a probe failed with exit code {process.returncode}; -9 is a lack of memory: use --json-rows")
    return json.loads(out.splitlines()[-1])


def two_ranks(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Start-up of the faster of two ranks that hold the set at the same time, and the memory of one of them."""
    ranks = [measured("ours", folder) for _ in range(2)]
    starts = [json.loads(rank.stdout.readline()) for rank in ranks if rank.stdout]
    held = [result(rank) for rank in ranks[::-1]]
    return min(starts, key=lambda one: one["seconds"]), held[0]


def report(folder: Path, rows: int, json_rows: int, steps: int) -> int:
    """Measure and print."""
    authors = result(measured("authors", folder))
    ours, held = two_ranks(folder)
    draws = result(measured("draws", folder, steps))
    scale = rows / json_rows
    note = "" if scale == 1 else f" (of {json_rows:,} examples, times {scale:.2f})"
    seconds, megabytes = scale * authors["seconds"], scale * authors["mb"]
    size = sum(path.stat().st_size for path in (folder / "training_set").iterdir()) / 1e9
    print(
        f"\n{rows:,} examples, {2 * rows:,} media; authors.json of {json_rows:,} examples "
        f"{(folder / 'authors.json').stat().st_size / 1e9:.2f} GB, training_set {size:.2f} GB\n"
    )
    print(f"json.load       {seconds:10.2f} s      {megabytes:8,.0f} MB per rank{note}")
    print(
        f"open + 1st step {ours['seconds'] * 1e3:10.2f} ms     {ours['mb']:8.1f} MB per rank at the peak; "
        f"of two at once, {held['own']:.1f} MB its own, {held['shared']:.1f} MB of shared pages more"
    )
    ratio = seconds / ours["seconds"]
    print(f"ratio           {ratio:10,.0f}        (goal {GOAL:,} from {GOAL_ROWS:,} rows on)\n")
    for order in ("shuffled", "companions"):
        print(
            f"{order:11} start {draws[f'{order} start'] * 1e3:9.1f} ms, {draws[f'{order} in turn']:7.0f} steps/s, "
            f"{draws[f'{order} media']:.1f} media a step of {CONFIG.batch_examples} examples"
        )
    print(f"{'shuffled':11} at random places {draws['shuffled at random']:7.0f} steps/s")
    return int(rows >= GOAL_ROWS and ratio < GOAL)


def make(folder: Path, rows: int, json_rows: int) -> None:
    """Write both formats once."""
    done = folder / "made.json"
    wanted = {"rows": rows, "json_rows": json_rows}
    if done.is_file() and json.loads(done.read_text()) == wanted:
        return
    rng = np.random.default_rng(7)
    media = make_media(rows, rng)
    examples = make_examples(rows, media, rng)
    started = time.perf_counter()
    write_training_set(folder / "training_set", examples, media)
    print(f"training_set written from its tables in {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    write_authors(folder / "authors.json", examples, json_rows, rng)
    print(f"authors.json written in {time.perf_counter() - started:.1f} s")
    done.write_text(json.dumps(wanted))


def main() -> int:
    """Measure; exit code 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=positive, default=PAPER_ROWS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows")
    parser.add_argument("--json-rows", type=positive, help="examples that json.load is given; default all")
    parser.add_argument("--folder", type=existing_folder, help="scratch folder; default a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the files there for the next run")
    parser.add_argument("--steps", type=positive, default=2000, help="steps that are drawn to measure the rate")
    parser.add_argument("--probe", choices=["authors", "ours", "draws"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        probes = {"authors": probe_authors, "ours": probe_ours, "draws": lambda at: probe_draws(at, given.steps)}
        print(json.dumps(probes[given.probe](given.folder)))
        return 0
    rows = QUICK_ROWS if given.quick else given.rows
    folder = given.folder or Path(tempfile.mkdtemp(prefix="training-set-"))
    free, needed = shutil.disk_usage(folder).free, 2_500 * rows
    if free < needed:
        sys.exit(f"{folder} has {free / 1e9:.1f} GB left and {rows:,} rows need about {needed / 1e9:.1f}: use --rows")
    try:
        make(folder, rows, given.json_rows or rows)
        return report(folder, rows, given.json_rows or rows, given.steps)
    finally:
        if not given.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
