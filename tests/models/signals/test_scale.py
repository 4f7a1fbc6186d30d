import json
from pathlib import Path

import pytest

from models.errors import ModelError
from models.signals.claims import Fault
from models.signals.scale import FAMILIES, THRESHOLDS_PATH, Curve, load_thresholds, parse_thresholds


def test_a_curve_is_a_logistic_function():
    rising, falling = Curve(2.0, 3.0), Curve(2.0, -3.0)
    assert rising(2.0) == 0.5
    assert rising(3.0) == pytest.approx(1 / (1 + 2.718281828459045**-3))
    assert falling(3.0) == pytest.approx(1 - rising(3.0))
    assert rising(1e9) == 1.0


def test_the_shipped_thresholds_say_where_they_come_from_and_separate():
    content = json.loads(THRESHOLDS_PATH.read_text())
    assert content["command"] == "python -m tasks.annotation.fit_signals"
    assert set(content["curves"]) == set(FAMILIES)
    assert all(count >= 20 for count in content["present_looks"].values())
    for family, values in content["balanced_accuracy"].items():
        assert set(values) == set(Fault)
        weak = {fault for fault, value in values.items() if value < 0.8}
        assert weak <= {Fault.FLAT}, family


def test_missing_and_broken_thresholds_name_the_command(tmp_path: Path):
    with pytest.raises(ModelError, match="fit_signals"):
        load_thresholds(tmp_path / "none.json")
    content = json.loads(THRESHOLDS_PATH.read_text())
    del content["curves"]["spectral"]["blur"]
    with pytest.raises(ModelError, match="fit_signals"):
        parse_thresholds(content, "x")
