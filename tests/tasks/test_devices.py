"""A GPU that is not there is told before and instead of a crash."""

from typing import Any

import pytest
import torch

from tasks import devices
from tasks.devices import Computing, computing, device_named, lacking
from tasks.errors import ConfigError


def test_a_missing_gpu_is_told_by_the_plan_and_refused_by_the_stage(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "gpu_memories_gb", list)
    assert lacking("cuda") == ["1 GPU for device: cuda, none found"]
    with pytest.raises(ConfigError, match="this machine shows no GPU: ask for cpu"):
        device_named("cuda")


def test_where_there_is_one_nothing_lacks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "gpu_memories_gb", lambda: [80.0])
    assert lacking("cuda") == lacking("cpu") == []
    assert device_named("cuda") == torch.device("cuda")
    assert device_named("cpu") == torch.device("cpu")


def test_precision_follows_the_device_unless_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert computing() == computing("cuda") == Computing(gpu, "bfloat16")
    assert computing("auto", "float32") == Computing(gpu, "float32")
    assert computing("cpu") == Computing(cpu, "float32")
    assert computing("cpu", "bfloat16").dtype is torch.bfloat16
    assert computing("cpu").dtype is torch.float32


def test_without_a_gpu_auto_is_the_cpu_and_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert computing() == Computing(torch.device("cpu"), "float32")
    with pytest.raises(ConfigError, match="the device cuda is asked for, and this machine shows no GPU"):
        computing("cuda")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"device": "gpu"}, "device 'gpu' is unknown: there are auto, cpu, cuda"),
        ({"precision": "fp16"}, "precision 'fp16' is unknown: there are float32, bfloat16"),
    ],
)
def test_an_unknown_name_is_told_with_those_that_there_are(values: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        computing(**values)
