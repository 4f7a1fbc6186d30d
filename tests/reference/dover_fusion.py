"""``python tests/reference/dover_fusion.py CHECKOUT``: to which branch the constants of DOVER's fused score belong.

Runs by hand. Reads the raw branch scores that the official repository keeps of six data sets (``dover_predictions``;
``fragments`` is its name of the technical branch, ``resize`` of the aesthetic one) and its human scores, and prints
each branch's statistics and the correlations (SRCC/PLCC) of the human scores with the fused score as the official
script has it, and with each branch standardised by the other pair of constants.
"""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr

from models.scorers.dover import AESTHETIC_TERM, TECHNICAL_TERM, Branches, Term, fuse

SETS = {
    "livevqc": "LIVE_VQC/labels.txt",
    "kv1k": "KoNViD/labels.txt",
    "ltest": "LSVQ/labels_test.txt",
    "l1080p": "LSVQ/labels_1080p.txt",
    "ytugc": "YouTubeUGC/labels.txt",
    "cvd2014": "CVD2014/labels.txt",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="dover_fusion.py", description=__doc__)
    parser.add_argument("dover", type=Path, help="checkout of DOVER")
    checkout = parser.parse_args().dover
    exchanged = (
        Term(AESTHETIC_TERM.mean, AESTHETIC_TERM.std, TECHNICAL_TERM.weight),
        Term(TECHNICAL_TERM.mean, TECHNICAL_TERM.std, AESTHETIC_TERM.weight),
    )
    print("set       n     technical mean, std  aesthetic mean, std  official sum   exchanged constants")  # noqa: T201
    for name, labels in SETS.items():
        with (checkout / "dover_predictions" / f"val-{name}.pkl").open("rb") as file:
            raw: dict[str, Any] = pickle.load(file)  # noqa: S301 - a file of the checkout that the user names
        technical, aesthetic = (np.asarray(raw[key], dtype=np.float64) for key in ("fragments", "resize"))
        lines = (checkout / "examplar_data_labels" / labels).read_text().split("\n")
        mos = [float(line.rsplit(",", 1)[-1]) for line in lines if line.strip()]
        pairs = [Branches(t, a) for t, a in zip(technical, aesthetic, strict=True)]
        sums = (
            [fuse(pair) for pair in pairs],
            [exchanged[0](pair.technical) + exchanged[1](pair.aesthetic) for pair in pairs],
        )
        found = [f"{spearmanr(fused, mos).statistic:.4f}/{pearsonr(fused, mos).statistic:.4f}" for fused in sums]
        print(  # noqa: T201
            f"{name:9} {len(mos):<5} {technical.mean():8.4f} {technical.std():10.4f} {aesthetic.mean():10.4f} "
            f"{aesthetic.std():10.4f}    {'  '.join(found)}"
        )


if __name__ == "__main__":
    main()
