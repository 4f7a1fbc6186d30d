"""What media are worth by machine opinion: the scored candidates of the pool, each with its target."""

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.pool import load_candidates
from tasks.records import OPINIONS, Split
from tasks.shards import digest, read_table
from tasks.stage import Place


def scored_candidates(place: Place) -> pd.DataFrame:
    """Rows of CANDIDATES that have an opinion, with ``target``: the machine opinion's mean, [0, 1], higher is better.

    Raises:
        StageError: ``collect``, ``distort`` or ``score`` has not been published.
    """
    opinions = read_table(place.artifacts("score") / "opinions.parquet", OPINIONS)
    targets = dict(zip(opinions["id"], opinions["mu"], strict=True))
    pool = load_candidates(place)
    scored = pd.DataFrame(pool[[medium in targets for medium in pool["id"]]])
    return scored.assign(target=[targets[medium] for medium in scored["id"]])


def held_out_targets(root: Path) -> dict[str, float]:
    """Target of each held-out medium of the line in ``root``.

    Raises:
        StageError: as :func:`scored_candidates`.
    """
    work = root / ".work" / "targets"
    pool = scored_candidates(Place(root, work, work / "out"))
    held_out = pool[pool["split"] == Split.HELD_OUT]
    return dict(zip(held_out["id"], held_out["target"].astype(float), strict=True))


def bounded(rows: pd.DataFrame, wanted: int | None, purpose: str) -> pd.DataFrame:
    """At most ``wanted`` rows, in their order; None keeps all.

    Those whose ids have the smallest hashes are kept, so a smaller number lies within a larger one.

    Args:
        purpose: mixed into the hashes.
    """
    if wanted is None or len(rows) <= wanted:
        return rows
    hashes = np.array([digest(purpose, medium) for medium in rows["id"]])
    return pd.DataFrame(rows.iloc[np.sort(np.argsort(hashes, kind="stable")[:wanted])])
