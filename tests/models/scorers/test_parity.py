"""The gate before a faster runtime: it lets small differences pass, and fails where it should."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import ModelError
from models.scorers import Excerpt, Runtime, Sampling, Strip
from models.scorers.official import PyiqaScorer
from models.scorers.parity import probes, settle
from models.scorers.protocol import Pixels

FAST = Runtime(precision="bf16", channels_last=True, rows=2)


class Shifting:
    """A scorer whose scores another runtime changes."""

    name, version, sampling = "shifting", "1", Sampling.FRAMES

    def __init__(self, change: Callable[[float], float], spread: float = 1.0) -> None:
        self.runtime, self.asked = Runtime(), []
        self._change, self._spread = change, spread

    def run_as(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.asked.append(runtime)

    def raw(self, frames_THWC: Pixels) -> float:
        score = min(max(0.5 + self._spread * (float(frames_THWC.mean()) / 255 - 0.47), 0.0), 1.0)
        return score if self.runtime == self.runtime.exact else self._change(score)

    def score(self, frames_THWC: Pixels) -> float:
        return self.raw(frames_THWC)

    def score_many(self, media: Sequence[Pixels]) -> list[float]:
        return [self.score(frames_THWC) for frames_THWC in media]


def test_probes_are_the_same_everywhere_and_differ_from_each_other() -> None:
    made = probes(Sampling.FRAMES)
    assert all(np.array_equal(first, second) for first, second in zip(made, probes(Sampling.CLIPS), strict=True))
    assert len({hashlib.sha256(probe.tobytes()).digest() for probe in made}) == len(made) == 14
    assert sorted({len(probe) for probe in made}) == [1, 16]
    assert np.ptp([probe.mean() for probe in made]) > 50
    sharpness = [np.abs(np.diff(probe.astype(float), axis=2)).mean() for probe in made]
    assert max(sharpness) > 5 * min(sharpness)


def test_probes_are_shown_as_a_scorer_sees_them() -> None:
    own = Excerpt(lambda total: (Strip([0, total - 1], lambda frame, _: frame[:8, :9]),))
    assert {probe.shape for probe in probes(own)} == {(2, 8, 9, 3)}


def test_a_small_difference_is_let_through_and_told() -> None:
    scorer = Shifting(lambda score: score + 0.004)
    found = settle(scorer, FAST, 0.005)
    assert found.kept
    assert found.runtime == scorer.runtime == FAST
    assert found.difference == pytest.approx(0.004)


@pytest.mark.parametrize(
    ("change", "spread"),
    [
        (lambda score: score - 0.006, 1.0),
        (lambda score: score if score > 0.32 else score + 0.01, 1.0),  # one probe is enough
        (lambda _: float("nan"), 1.0),
        (lambda score: score, 0.01),  # all probes alike: nothing has been shown
        (lambda score: score, 1e4),  # all at the ends of the scale
    ],
)
def test_scores_that_move_or_tell_nothing_keep_the_exact_runtime(
    change: Callable[[float], float], spread: float
) -> None:
    scorer = Shifting(change, spread)
    found = settle(scorer, FAST, 0.005)
    assert not found.kept
    assert found.runtime == scorer.runtime == Runtime(rows=2)


def test_no_number_at_all_keeps_the_exact_runtime() -> None:
    def fail(_: float) -> float:
        raise ModelError("a network gave nan")

    found = settle(Shifting(fail), FAST, 0.005)
    assert (found.kept, found.difference) == (False, float("inf"))


def test_the_exact_runtime_needs_no_probes() -> None:
    scorer = Shifting(lambda score: score)
    scorer.score_many = None  # type: ignore[method-assign]
    assert settle(scorer, Runtime(rows=2), 0.005).kept
    assert scorer.asked == [Runtime(rows=2)]


def test_a_network_in_bf16_is_compared_for_real() -> None:
    class Metric(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.filters = nn.Conv2d(3, 8, 5, stride=4)
            self.filters.weight.data = torch.randn(self.filters.weight.shape, generator=generator) / 9
            self.filters.bias.data.zero_()
            self.gain = gain

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.gain * (self.filters(frames).abs().mean(dim=(1, 2, 3)) - 0.35))

    steady, wild = (settle(PyiqaScorer("topiq_nr", Metric(gain)), FAST, 0.005) for gain in (5.0, 30.0))
    assert steady.kept
    assert 0 < steady.difference < 0.005
    assert not wild.kept
    assert wild.difference > 0.005
