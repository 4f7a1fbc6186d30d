"""How the opinions of two versions of a data set differ: scorer by scorer, in mu and sigma, and level by level.

Distributions are compared over all samples of each version, so they see new media as well as new scorers. Shifts of the
same samples, and moves between levels, are compared on the samples that both versions have: those see scorers alone.
The result is plain values, made for JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.model_record import Check
from models.drift import ks, level_indices, migration, moved_share, psi
from models.levels import LEVELS
from tasks.errors import StageError

Floats = NDArray[np.float64]

_BINS_SHOWN: Final = 20
_DIGITS: Final = 6
_FAR: Final = 2


@dataclass(frozen=True)
class DriftLimits:
    """The most by which a new version may differ from the last one.

    Attributes:
        psi, ks: of any scorer that both versions have, of mu, and of sigma, over all samples.
        mu_shift, sigma_shift: absolute difference of the means over all samples.
        migrated: share of the common samples whose mu moved to another level.
        migrated_far: the same, by two levels or more.
        gone: share of the last version's samples that the new one does not have; a listing that broke off looks so.
    """

    psi: float
    ks: float
    mu_shift: float
    sigma_shift: float
    migrated: float
    migrated_far: float
    gone: float

    def __post_init__(self) -> None:
        """Check that limits are limits."""
        if min(vars(self).values()) < 0:
            raise ValueError("limits must be at least 0")


@dataclass(frozen=True)
class DriftOptions:
    """How versions are compared: bins of PSI, and examples named per move between levels."""

    bins: int
    examples: int

    def __post_init__(self) -> None:
        """Check that there are bins."""
        if self.bins < 2 or self.examples < 0:
            raise ValueError("bins must be at least 2 and examples at least 0")


def drift_of(
    before: pd.DataFrame, after: pd.DataFrame, options: DriftOptions, samples: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Compare two tables of OPINIONS.

    Args:
        before, after: the last version and the new one.
        options: bins and examples.
        samples: rows of CANDIDATES that say where an example comes from, if known.

    Raises:
        StageError: a version has no opinion.
    """
    if before.empty or after.empty:
        raise StageError("opinions of two versions cannot be compared: one of them has none")
    old, new = (table.set_index("id").sort_index() for table in (before, after))
    shared = old.index.intersection(new.index)
    scores = _columns(old, "scores"), _columns(new, "scores")
    versions = _columns(old, "versions"), _columns(new, "versions")
    names = list(dict.fromkeys([*scores[1], *scores[0]]))
    mu = _column(old, "mu"), _column(new, "mu")
    moves = migration(mu[0].loc[shared].to_numpy(), mu[1].loc[shared].to_numpy())
    return {
        "samples": {
            "before": len(old),
            "after": len(new),
            "shared": len(shared),
            "new": len(new) - len(shared),
            "gone": len(old) - len(shared),
        },
        "scorers": [_scorer(name, scores, versions, shared, options) for name in names],
        "mu": _compared(mu[0], mu[1], shared, options.bins),
        "sigma": _compared(_column(old, "sigma"), _column(new, "sigma"), shared, options.bins),
        "levels": {
            "names": list(LEVELS),
            "table": moves.tolist(),
            "migrated": _rounded(moved_share(moves)),
            "migrated_far": _rounded(moved_share(moves, _FAR)),
            "before": _level_counts(mu[0]),
            "after": _level_counts(mu[1]),
        },
        "examples": _examples(mu[0].loc[shared], mu[1].loc[shared], options.examples, samples),
    }


def measures_of(drift: Mapping[str, Any]) -> dict[str, float]:
    """What limits are about: the measures of :class:`DriftLimits`, by name; ``psi`` and ``ks`` of the worst of all."""
    both = [row for row in drift["scorers"] if row["state"] == "kept"]
    compared = [*both, drift["mu"], drift["sigma"]]
    return {
        "psi": max(row["psi"] for row in compared),
        "ks": max(row["ks"] for row in compared),
        "mu_shift": abs(drift["mu"]["shift"]),
        "sigma_shift": abs(drift["sigma"]["shift"]),
        "migrated": drift["levels"]["migrated"],
        "migrated_far": drift["levels"]["migrated_far"],
        "gone": _rounded(drift["samples"]["gone"] / drift["samples"]["before"]),
    }


def drift_checks(drift: Mapping[str, Any], limits: DriftLimits) -> tuple[Check, ...]:
    """The limits, each with what was found."""
    found = measures_of(drift)
    return tuple(Check(name, None, found[name], at_most=bound) for name, bound in vars(limits).items())


def _column(table: pd.DataFrame, column: str) -> pd.Series:
    return pd.Series(table[column].to_numpy(), index=table.index)


def _columns(table: pd.DataFrame, column: str) -> dict[str, pd.Series]:
    """Scorer -> its scores or versions, by id, of the samples that it has judged."""
    rows = zip(table.index, table["scorers"], table[column], strict=True)
    found: dict[str, dict[str, Any]] = {}
    for key, names, values in rows:
        for name, value in zip(names, values, strict=True):
            found.setdefault(str(name), {})[key] = value
    return {name: pd.Series(values) for name, values in found.items()}


def _scorer(
    name: str,
    scores: tuple[dict[str, pd.Series], dict[str, pd.Series]],
    versions: tuple[dict[str, pd.Series], dict[str, pd.Series]],
    shared: pd.Index,
    options: DriftOptions,
) -> dict[str, Any]:
    old, new = (side.get(name) for side in scores)
    told = {"name": name, "versions": [sorted(set(side.get(name, pd.Series()))) for side in versions]}
    if old is None or new is None:
        return {**told, "state": "new" if old is None else "gone"}
    common = shared[shared.isin(old.index) & shared.isin(new.index)]
    changed = versions[0][name].loc[common].to_numpy() != versions[1][name].loc[common].to_numpy()
    return {
        **told,
        "state": "kept",
        "rescored": int(np.count_nonzero(changed)),
        **_compared(old, new, common, options.bins),
    }


def _compared(old: pd.Series, new: pd.Series, shared: pd.Index, bins: int) -> dict[str, Any]:
    """One number of the samples, before and after."""
    before, after = (side.to_numpy(dtype=np.float64) for side in (old, new))
    moved = new.loc[shared].to_numpy(dtype=np.float64) - old.loc[shared].to_numpy(dtype=np.float64)
    edges = np.linspace(0, 1, _BINS_SHOWN + 1)
    return {
        "mean": [_rounded(before.mean()), _rounded(after.mean())],
        "std": [_rounded(before.std()), _rounded(after.std())],
        "shift": _rounded(after.mean() - before.mean()),
        "psi": _rounded(psi(before, after, bins)),
        "ks": _rounded(ks(before, after)),
        "shared_shift": _rounded(moved.mean()) if moved.size else None,
        "shared_moved": _rounded(np.abs(moved).mean()) if moved.size else None,
        "histogram": [np.histogram(np.clip(side, 0, 1), edges)[0].tolist() for side in (before, after)],
    }


def _level_counts(mu: pd.Series) -> list[int]:
    return np.bincount(level_indices(mu.to_numpy()), minlength=len(LEVELS)).tolist()


def _examples(old: pd.Series, new: pd.Series, wanted: int, samples: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Of each move between two levels, the samples whose mu moved most; ties by id."""
    rows = pd.DataFrame({"id": old.index, "before": old.to_numpy(), "after": new.to_numpy()})
    if rows.empty:
        return []
    rows["from"], rows["to"] = level_indices(rows["before"]), level_indices(rows["after"])
    rows = rows[rows["from"] != rows["to"]].assign(far=lambda frame: -(frame["after"] - frame["before"]).abs())
    rows = rows.sort_values(["from", "to", "far", "id"], kind="stable").groupby(["from", "to"]).head(wanted)
    known = {} if samples is None else samples.drop_duplicates("id").set_index("id").to_dict("index")
    return [
        {
            "id": row["id"],
            "from": LEVELS[row["from"]],
            "to": LEVELS[row["to"]],
            "mu": [_rounded(row["before"]), _rounded(row["after"])],
            **_origin(known.get(row["id"])),
        }
        for row in rows.to_dict("records")
    ]


def _origin(row: Mapping[Any, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"source": None, "distortion": None, "severity": 0}
    distortion = row["distortion"] if isinstance(row["distortion"], str) else None
    return {"source": str(row["source"]), "distortion": distortion, "severity": int(row["severity"])}


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
