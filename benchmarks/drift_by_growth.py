"""How much drift growth of a pool alone makes, which the limits of params.yaml, section compare, must let through.

    python benchmarks/drift_by_growth.py [--workspace DIR] [--draws N]

Leaves a share of the contents out of a workspace's opinions, N times at random, and compares the rest with all: as if
the contents left out were new. Printed is the largest drift of the draws, beside the limits. Exit code 1 if a re-run
without change, or growth by a tenth, would exceed one.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np
from arguments import folder_with, positive

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.evaluation.compare import SECTION, Config
from tasks.evaluation.data_facts import OPINION_TABLE, read_samples
from tasks.evaluation.opinion_drift import drift_of, measures_of
from tasks.records import OPINIONS
from tasks.shards import read_table
from tasks.stage import read_params, stage_config

SHARES: Final = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5)
MUST_HOLD: Final = 0.1


def main() -> int:
    """Print a row per share of new contents; 1 if a limit would not hold where it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    lies = folder_with("params.yaml", f"artifacts/{OPINION_TABLE}")
    parser.add_argument("--workspace", type=lies, default=str(Path(__file__).resolve().parents[1]))
    parser.add_argument("--draws", type=positive, default=20)
    named = parser.parse_args()
    config: Config = stage_config(SECTION, read_params(named.workspace))
    locate = (named.workspace / "artifacts").joinpath
    opinions, samples = read_table(locate(OPINION_TABLE), OPINIONS), read_samples(locate)
    content = opinions["id"].map(dict(zip(samples["id"], samples["content_id"], strict=True)))
    contents, limits = sorted(content.unique()), vars(config.limits)
    print(f"{len(opinions)} opinions of {len(contents)} contents, {named.draws} draws\n")
    print(f"{'new':>6}" + "".join(f"{name:>14}" for name in limits))
    rng, above = np.random.default_rng(0), False
    for share in SHARES:
        worst = dict.fromkeys(limits, 0.0)
        for _ in range(named.draws):
            new = rng.choice(contents, round(share * len(contents)), replace=False)
            found = measures_of(drift_of(opinions[~content.isin(new)], opinions, config.options))
            worst = {name: max(worst[name], found[name]) for name in limits}
        above |= share <= MUST_HOLD and any(worst[name] > bound for name, bound in limits.items())
        print(f"{share:>6.0%}" + "".join(f"{worst[name]:>14.4f}" for name in limits))
    print(f"{'limit':>6}" + "".join(f"{bound:>14.4f}" for bound in limits.values()))
    return int(above)


if __name__ == "__main__":
    sys.exit(main())
