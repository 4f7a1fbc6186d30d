"""Counted arithmetic against figures worked out by hand: a product of [M, K] and [K, N] is 2 M K N operations."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tasks.training import cost
from tasks.training.cost import BF16_PEAKS, CostMeter, FlopCount, Share, StepCost, peak_flops

CPU = torch.device("cpu")


def _count(forward: Callable[[], Tensor]) -> FlopCount:
    count = FlopCount()
    with count:
        result = forward()
        count.backward = True
        result.sum().backward()
    return count


@pytest.mark.parametrize(
    ("frozen", "products"),
    [
        ((), 3 + 3 - 1),  # forward, weights' and inputs' gradients, but nobody needs the first input's
        (("second",), 2 + 2),  # the frozen layer still passes the gradient on
        (("first",), 1 + 2),  # nothing below the second layer is trained: no gradient goes there
    ],
)
def test_a_frozen_layer_costs_what_it_computes(frozen: tuple[str, ...], products: int):
    layers = nn.ModuleDict({"first": nn.Linear(8, 8, bias=False), "second": nn.Linear(8, 8, bias=False)})
    for name in frozen:
        layers[name].requires_grad_(False)
    count = _count(lambda: layers["second"](torch.tanh(layers["first"](torch.randn(10, 8)))))
    assert count.flops == products * 2 * 10 * 8 * 8
    assert count.repeated == 0


def test_recomputation_is_counted_apart():
    first, second = nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)
    x = torch.randn(10, 8)

    def forward(*, again: bool) -> Tensor:
        inner = lambda value: torch.tanh(first(value))  # noqa: E731
        return second(checkpoint(inner, x, use_reentrant=False) if again else inner(x))

    kept, recomputed = _count(lambda: forward(again=False)), _count(lambda: forward(again=True))
    assert recomputed.flops == kept.flops == 2 * 10 * 8 * 16 * 2 + 2 * 10 * 16 * 4 * 3
    assert kept.repeated == 0
    assert recomputed.repeated == 2 * 10 * 8 * 16


def test_attention_on_the_cpu_is_counted():
    q = torch.randn(2, 3, 10, 8, requires_grad=True)
    count = _count(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    product = 2 * 2 * 3 * 10 * 10 * 8
    # Forward: scores and values. Backward: the scores again, and both operands' gradients of both products.
    assert count.flops == (2 + 5) * product


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8, bias=False)

    def forward(self, hidden: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.layer(hidden))


def test_a_meter_counts_tokens_and_arithmetic_of_what_belongs_to_the_step():
    model = nn.Module()
    model.language_model = _Decoder()
    with CostMeter(model, CPU) as meter:
        meter.begin()
        meter.ready(4)
        with meter.computing():
            loss = model.language_model(torch.randn(4, 5, 8)).last_hidden_state.sum()
        with meter.computing(backward=True):
            loss.backward()
        model.language_model(torch.randn(4, 5, 8))  # outside: computed for company alone
        share = meter.share()
        assert share.tokens == 20
        assert share.flops == 2 * (2 * 20 * 8 * 8)
        assert 0 < share.wait_s < meter.seconds()
        assert share.peak_bytes > 1e6
        meter.begin()
        meter.ready(8)  # not counted again: twice the examples are taken to cost twice as much
        assert meter.share().flops == 2 * share.flops
    assert not model.language_model._forward_hooks


def test_figures_are_those_of_all_processes():
    shares = [Share(wait_s=0.5, tokens=300, flops=2e9, peak_bytes=10**9), Share(0.25, 100, 1e9, 3 * 10**9)]
    found = StepCost.of(shares, examples=16, seconds=2.0, peak_flops=6e9)
    assert found.figures() == {
        "samples_per_s": 8.0,
        "tokens_per_s": 200.0,
        "mfu": 0.25,
        "data_wait_share": 0.25,
        "peak_memory_gb": 3.0,
    }


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], float]]:
    """The peak of a GPU of some name; -1 where it would be measured."""

    def measured(_: Tensor) -> float:
        return -2.0 * 1024**3

    def peak_of(name: str) -> float:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
        peak_flops.cache_clear()
        return peak_flops(torch.device("cuda", 0), "bfloat16")

    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    monkeypatch.setattr(cost, "_timed_product", measured)
    yield peak_of
    peak_flops.cache_clear()


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA B200", 2250),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 836),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 SXM5 80GB", 989),
        ("NVIDIA H100 NVL", 836),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A40", 149.7),
        ("NVIDIA A30", 165),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
    ],
)
def test_a_known_gpu_is_told_by_the_words_of_its_name(name: str, tflops: float, named: Callable[[str], float]):
    assert named(name) == tflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA RTX A4000",
        "NVIDIA A10G",
        "NVIDIA A100X",
        "NVIDIA L40",
        "NVIDIA H100",
        "NVIDIA H20",
        "NVIDIA GH200 480GB",
        "NVIDIA GB200",
        "NVIDIA GeForce RTX 4090",
        "Tesla V100-SXM2-32GB",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "GRID A100-40C",
        "NVIDIA A100-20C",
        "AMD Instinct MI300X",
    ],
)
def test_a_gpu_whose_name_is_not_known_or_that_is_a_slice_is_measured(name: str, named: Callable[[str], float]):
    assert named(name) == -1.0


def test_what_is_not_known_is_measured():
    assert math.isfinite(peak_flops(CPU, "float32"))
    assert peak_flops(CPU, "float32") > 1e8
    assert all(1e14 < peak < 1e16 for peak in BF16_PEAKS.values())
