"""Count what a re-annotation pays when one per cent of the media is new, beside what the full run paid.

    python benchmarks/reannotation_cost.py [--media N] [--children N] [--new N] [--folder DIR]

Runs the stages collect, distort, score, describe and review, with the project's own params, on N photographs that are
cut out of scikit-image's, then again after the new ones have come (default: one per cent, at least one). Counted are

    probed        media whose format and soundness are checked (collect)
    distorted     children that are made (distort)
    described     samples that are measured or planted in (describe)
    decodes       media that are decoded to be scored, or shown to judges
    passes        forward calls of scorers
    judge calls   questions that are put to judges and to the annotator

Scores and answers are looked up in their stores; what the first three stages did is taken over from their last work.
Cost follows change: each must be at most 2 % of the full run's. Exit code 1 if one is not.
"""

import argparse
import logging
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import skimage.data
import yaml
from arguments import natural, positive
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.scorers.built_in import BuiltInScorer
from tasks.annotation import collect, describe, distort, review
from tasks.annotation.answers import AnswerBook
from tasks.annotation.panel import Panel
from tasks.stage import Place, build_config, load_stage

CHECKOUT: Final = Path(__file__).resolve().parents[1]
LIMIT: Final = 0.02
SIDE: Final = 128
PHOTOS: Final = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
STAGES: Final = ("collect", "distort", "score", "describe", "review")
COUNTED: Final = ("probed", "distorted", "described", "decodes", "passes", "judge calls")

counts: Counter[str] = Counter()
lock = threading.Lock()


def counted(owner: Any, name: str, what: str) -> None:
    """Count the calls of a function or method."""
    original = getattr(owner, name)

    def counting(*arguments: Any, **named: Any) -> Any:
        with lock:
            counts[what] += 1
        return original(*arguments, **named)

    setattr(owner, name, counting)


def watch() -> None:
    """Put counters where media are looked at, scorers are called, and judges are asked."""
    counted(collect, "probe", "probed")
    counted(distort, "_attempt", "distorted")
    counted(describe, "load_pixels", "described")
    counted(Panel, "look", "decodes")
    counted(BuiltInScorer, "score", "passes")
    counted(review, "load_pixels", "decodes")
    original = AnswerBook.votes

    def votes(self: AnswerBook, questions: Any, ask: Callable[[Any], Any]) -> Any:
        def asked(question: Any) -> Any:
            counts["judge calls"] += 1
            return ask(question)

        return original(self, questions, asked)

    AnswerBook.votes = votes


def add_media(pool: Path, first: int, last: int) -> None:
    """Write the photographs ``first`` to ``last - 1``: a different cut each, the same in every run."""
    pool.mkdir(parents=True, exist_ok=True)
    for number in range(first, last):
        rng = np.random.default_rng(number)
        photo = getattr(skimage.data, PHOTOS[number % len(PHOTOS)])()[..., :3]
        top, left = (int(rng.integers(0, size - SIDE)) for size in photo.shape[:2])
        cut = photo[top : top + SIDE, left : left + SIDE]
        Image.fromarray(np.ascontiguousarray(cut)).save(pool / f"{number:05d}.png")


def annotate(root: Path, params: dict[str, Any], turn: str, before: str | None = None) -> Counter[str]:
    """Run the stages once, as DVC would: each in a work folder of its own, its outputs published."""
    counts.clear()
    for stage in STAGES:
        module, started = load_stage(stage), time.monotonic()
        out = root / "artifacts" / stage
        work = root / ".work" / turn / stage
        (work / "out").mkdir(parents=True)
        earlier = None if before is None else root / ".work" / before / stage
        module.run(build_config(module.Config, stage, params[stage]), Place(root, work, work / "out", earlier))
        if out.is_symlink():
            out.unlink()
        out.parent.mkdir(exist_ok=True)
        out.symlink_to(work / "out")
        print(f"{turn:>10}  {stage:<9} {time.monotonic() - started:7.1f} s", file=sys.stderr)
    return Counter(counts)


def main() -> int:
    """Print the counts of both runs and their ratio; 1 if a ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=positive, default=200)
    parser.add_argument("--children", type=natural, default=2, help="of each photograph")
    parser.add_argument("--new", type=positive, help="photographs that come later (default: one per cent)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    named = parser.parse_args()
    os.environ.pop("VITAL_STORE", None)
    logging.getLogger().setLevel(logging.WARNING)
    params = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    params["collect"]["pool"] = "pool"
    params["distort"]["children_per_image"] = named.children
    for stage in ("describe", "review"):
        params[stage]["processes"] = 1  # so that calls can be counted here
    new = max(1, round(named.media / 100)) if named.new is None else named.new
    watch()
    with tempfile.TemporaryDirectory(prefix="vital-cost-") as folder:
        root = named.folder or Path(folder)
        add_media(root / "pool", 0, named.media)
        full = annotate(root, params, "full")
        add_media(root / "pool", named.media, named.media + new)
        again = annotate(root, params, "re-annotation", before="full")
    print(f"\n{named.media} photographs with {named.children} children each, then {new} more\n")
    print(f"{'':<20} {'full run':>10} {'again':>10} {'ratio':>8}")
    for what in COUNTED:
        print(f"{what:<20} {full[what]:>10} {again[what]:>10} {again[what] / max(1, full[what]):>8.4f}")
    above = [what for what in COUNTED if again[what] > LIMIT * full[what]]
    print(f"\n{'above' if above else 'all within'} the limit of {LIMIT:g}{': ' + ', '.join(above) if above else ''}")
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
