"""How opinions are measured: rank correlations with intervals by content, and spreads on contents not fitted on."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.correlation import fit_logistic, interval, resamples, srcc, srcc_replicates_many
from models.errors import ModelError
from models.opinion_spread import SPREADS, Needs, Rated
from tasks.errors import StageError
from tasks.evaluation.agreements import Sampling
from tasks.evaluation.opinion_tables import OpinionSet

Floats = NDArray[np.float64]
Cell = dict[str, Any]
"""A value with its interval: ``value``, ``low``, ``high``, and a ``note`` where one of them is missing."""

_DIGITS: Final = 6


def lacks(opinions: OpinionSet, needs: Needs) -> str:
    """What a spread needs and the opinions do not have."""
    if needs is Needs.MOS and opinions.mos_N is None:
        return "human scores"
    return "human standard deviations" if needs is Needs.SD and opinions.sd_N is None else ""


class Measure:
    """SRCC with bootstrap intervals over contents; all replicates of the same samples are the same draws."""

    def __init__(self, opinions: OpinionSet, sampling: Sampling, bar: "tqdm[Any]") -> None:
        self._content_N = np.unique(np.array(opinions.content_N), return_inverse=True)[1]
        self._sampling, self._bar = sampling, bar
        self._draws: dict[bytes, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._known: dict[tuple[bytes, bytes], tuple[float | None, Floats | None, str]] = {}

    def prepare(self, firsts: Iterable[Floats], second_N: Floats) -> None:
        """Measure several columns with the same other one in one pass; :meth:`srcc` and :meth:`gain` then know them.

        Nothing but time depends on it.
        """
        alike: dict[bytes, dict[bytes, Floats]] = defaultdict(dict)
        for first_N in firsts:
            known = np.isfinite(first_N) & np.isfinite(second_N)
            alike[known.tobytes()][first_N.tobytes()] = first_N
        for columns in alike.values():
            new = {key: first_N for key, first_N in columns.items() if (key, second_N.tobytes()) not in self._known}
            if new:
                self._measure(np.stack(list(new.values())), second_N)

    def srcc(self, first_N: Floats, second_N: Floats) -> Cell:
        """SRCC of the samples for which both are finite."""
        return self._cell(*self._replicates(first_N, second_N))

    def gain(self, first_N: Floats, than_N: Floats, target_N: Floats) -> Cell:
        """``SRCC(first, target) - SRCC(than, target)`` with its paired interval."""
        one, one_B, note = self._replicates(first_N, target_N)
        two, two_B, _ = self._replicates(than_N, target_N)
        both = None if one is None or two is None else one - two
        return self._cell(both, None if one_B is None or two_B is None else one_B - two_B, note)

    def _replicates(self, first_N: Floats, second_N: Floats) -> tuple[float | None, Floats | None, str]:
        """Value, replicates ``[B]`` and note; each pair of columns is measured once."""
        key = first_N.tobytes(), second_N.tobytes()
        if key not in self._known:
            self._measure(first_N[None], second_N)
        return self._known[key]

    def _measure(self, firsts_KN: Floats, second_N: Floats) -> None:
        """Learn value, replicates and note of columns that are finite for the same samples."""
        known = np.isfinite(firsts_KN[0]) & np.isfinite(second_N)
        x_Kn, y_n = firsts_KN[:, known], second_N[known]
        few = len(y_n) < self._sampling.min_samples
        values = [None if few else srcc(x_n, y_n) for x_n in x_Kn]
        defined = [k for k, value in enumerate(values) if value is not None]
        contents = len(np.unique(self._content_N[known]))
        replicates: dict[int, Floats] = {}
        if defined and contents >= self._sampling.min_contents:
            replicates = dict(zip(defined, srcc_replicates_many(x_Kn[defined], y_n, *self._draw(known)), strict=True))
        for k, value in enumerate(values):
            note = f"{contents} contents are too few for an interval"
            note = "one side is constant" if value is None else note
            note = f"{len(y_n)} samples are too few" if few else note
            key = firsts_KN[k].tobytes(), second_N.tobytes()
            self._known[key] = value, replicates.get(k), "" if k in replicates else note
            self._bar.update()

    def _draw(self, known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        key = known.tobytes()
        if key not in self._draws:
            names, groups = np.unique(self._content_N[known], return_inverse=True)
            self._draws[key] = groups, resamples(len(names), self._sampling.n_bootstrap, self._sampling.seed)
        return self._draws[key]

    def _cell(self, value: float | None, values_B: Floats | None, note: str) -> Cell:
        sampling = self._sampling
        found = None if values_B is None else interval(values_B, sampling.confidence, sampling.max_undefined_share)
        low, high = found or (None, None)
        return {"value": rounded(value), "low": rounded(low), "high": rounded(high), "note": note}


class Split:
    """Two halves of the contents: what is measured on one was fitted on the other."""

    def __init__(self, opinions: OpinionSet, sampling: Sampling) -> None:
        contents, code_N = np.unique(np.array(opinions.content_N), return_inverse=True)
        order = np.random.default_rng(sampling.seed).permutation(len(contents))
        self._half_N = order[code_N] % 2
        self._opinions = opinions
        self._error_N: Floats | None = None

    def sigma(self, name: str) -> Floats:
        """Sigma ``[N]`` of a spread.

        Raises:
            StageError: it cannot be fitted on these samples.
        """
        try:
            return self._crossed(name)
        except ModelError as error:
            msg = f"the sigma {name!r} cannot be made of these opinions: {error}"
            raise StageError(msg) from error

    def _crossed(self, name: str) -> Floats:
        scores_NS, sigma_N = self._opinions.scores_NS, np.empty(len(self._half_N))
        for half in (0, 1):
            spread = SPREADS[name].fit(self._rated(SPREADS[name].needs, self._half_N != half))
            sigma_N[self._half_N == half] = spread(scores_NS[self._half_N == half])
        return sigma_N

    def _rated(self, needs: Needs, mine: NDArray[np.bool_]) -> Rated:
        opinions = self._opinions
        mos_N, sd_N = (opinions.mos_N if needs is Needs.MOS else None), (opinions.sd_N if needs is Needs.SD else None)
        for values_N in (mos_N, sd_N):
            mine = mine if values_N is None else mine & np.isfinite(values_N)
        human = [None if values_N is None else values_N[mine] for values_N in (mos_N, sd_N)]
        return Rated(opinions.scores_NS[mine], *human)

    def error(self) -> Floats:
        """``|MOS - f(mu)|`` ``[N]``, f the logistic of the other half; NaN without a human score."""
        if self._error_N is None:
            opinions = self._opinions
            mos_N = np.full(len(opinions.ids), np.nan) if opinions.mos_N is None else opinions.mos_N
            mu_N, rated = opinions.scores_NS.mean(axis=1), np.isfinite(mos_N)
            error_N = np.full(len(mos_N), np.nan)
            for half in (0, 1):
                fit, apply = rated & (self._half_N != half), rated & (self._half_N == half)
                if fit.any() and apply.any():
                    error_N[apply] = np.abs(mos_N[apply] - fit_logistic(mu_N[fit], mos_N[fit])(mu_N[apply]))
            self._error_N = error_N
        return self._error_N


def rounded(value: Any) -> float | None:
    """Six digits: the last bit of another processor must not change a report."""
    return None if value is None else round(float(value), _DIGITS)
