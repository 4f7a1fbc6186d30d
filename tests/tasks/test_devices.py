"""A GPU that is not there is told before and instead of a crash."""

import pytest
import torch

from tasks import devices
from tasks.devices import device_named, lacking
from tasks.errors import ConfigError


def test_a_missing_gpu_is_told_by_the_plan_and_refused_by_the_stage(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "gpu_memories_gb", list)
    assert lacking("cuda") == ["1 GPU for device: cuda, none found"]
    with pytest.raises(ConfigError, match="this machine shows no GPU: say device: cpu"):
        device_named("cuda")


def test_where_there_is_one_nothing_lacks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "gpu_memories_gb", lambda: [80.0])
    assert lacking("cuda") == lacking("cpu") == []
    assert device_named("cuda") == torch.device("cuda")
    assert device_named("cpu") == torch.device("cpu")
