"""Scales and polarities of human scores."""

import pytest

from tasks.errors import StageError
from tasks.human_scale import Meaning, Polarity


def test_every_polarity_becomes_quality_between_0_and_1():
    assert Meaning(Polarity.MOS, 1, 5).quality(4) == 0.75
    assert Meaning(Polarity.DMOS, 0, 100).quality(25) == 0.75
    assert Meaning(Polarity.NEGATED_DMOS, -1, 0).quality(-0.25) == 0.75
    assert Meaning(Polarity.DMOS, 0, 100).unit_std(5) == 0.05
    assert Meaning(Polarity.DMOS, 0, 100).unit_std(None) is None


@pytest.mark.parametrize(("low", "high"), [(5, 1), (1, 1), (float("nan"), 1), (0, float("inf"))])
def test_scales_have_two_ends(low: float, high: float):
    with pytest.raises(StageError, match="is empty"):
        Meaning(Polarity.MOS, low, high)


def test_negated_dmos_is_never_above_0():
    with pytest.raises(StageError, match="never above 0"):
        Meaning(Polarity.NEGATED_DMOS, -1, 1)
