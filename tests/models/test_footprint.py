"""FLOPs and kept bytes of a step: against torch's own counters on real models, published ratios, and laws of shape."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decoders import INTERNVIT_300M, TINY_ENCODER, build_internvl_config, decoder_record
from models.footprint import (
    AUTOCAST,
    BFLOAT16,
    FLOAT32,
    Cost,
    Flow,
    Numerics,
    Sample,
    Step,
    footprint,
    kept_bytes,
    peak_bytes,
    total_flops,
)
from models.model_size import PARTS, ModelSize, measure_model
from models.motion import SLOWFAST_R50, TINY_MOTION

TINY = measure_model(build_internvl_config(decoder_record("nano"), TINY_ENCODER, 300, 0), TINY_MOTION, 32)
FLOWS = {
    "pretrain": dict(zip(PARTS, [Flow.TRAINED] * 2 + [Flow.THROUGH] * 3, strict=True)),
    "warm_up": dict(zip(PARTS, [Flow.IDLE] * 2 + [Flow.TRAINED] * 3, strict=True)),
    "full": dict.fromkeys(PARTS, Flow.TRAINED),
    "score": dict.fromkeys(PARTS, Flow.IDLE),
}


def step(flows: str, numerics: Numerics = FLOAT32, checkpointed: frozenset[str] = frozenset()) -> Step:
    return Step(FLOWS[flows], dict.fromkeys(PARTS, numerics), checkpointed)


@pytest.fixture(scope="module")
def plan_error(checkout: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan_error", checkout / "benchmarks" / "plan_error.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan_error"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("stage", ["pretrain", "warm_up"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_real_step_costs_what_is_predicted(plan_error: ModuleType, stage: str, checkpointed: bool):  # noqa: FBT001
    """FLOPs to the last one; kept bytes but for indices, scalars, and tables that checkpointing holds besides."""
    subject = plan_error.Subject(
        plan_error.Case("nano", stage, 1, 1, 1, checkpointed=checkpointed), _setting(plan_error, "float32")
    )
    costs = subject.costs()
    kept = plan_error.saved_bytes(subject.loss, subject.model)
    assert kept_bytes(costs) == pytest.approx(kept, rel=0.025 if checkpointed else 0.001)
    forward, backward = plan_error.flops_of(subject.loss)
    assert sum(cost.forward for cost in costs.values()) == forward
    assert sum(cost.backward + cost.again for cost in costs.values()) == backward


@pytest.mark.parametrize(
    ("stage", "weights", "clips"),  # on processors, autocast gives pooling a copy that it has on no GPU: no clips there
    [
        ("pretrain", "float32", 0),
        ("pretrain", "frozen-bfloat16", 0),
        ("pretrain", "bfloat16", 1),
        ("warm_up", "float32", 0),
    ],
)
def test_a_real_step_in_bfloat16_keeps_what_is_predicted(plan_error: ModuleType, stage: str, weights: str, clips: int):
    case = plan_error.Case("nano", stage, 1, clips, 1)
    subject = plan_error.Subject(case, _setting(plan_error, "bfloat16", weights))
    kept = plan_error.saved_bytes(subject.loss, subject.model)
    assert kept_bytes(subject.costs()) == pytest.approx(kept, rel=0.005)


def _setting(plan_error: ModuleType, precision: str, weights: str = "float32") -> object:
    return plan_error.Setting(torch.device("cpu"), precision, weights, runs=1)


def large(name: str) -> ModelSize:
    return measure_model(build_internvl_config(decoder_record(name), INTERNVIT_300M, 151674, 0), SLOWFAST_R50, 224)


def test_a_frozen_8b_decoder_keeps_what_was_measured_elsewhere():
    """Trained weights keep 1.42 times as many bytes; frozen ones about 4 MB a token, so 6k tokens fit 141 GB."""
    size, sample = large("internvl3-8b"), Sample(tiles=12, frames=0, text_tokens=60)
    frozen = footprint(size, [sample], step("pretrain", BFLOAT16))["decoder"]
    trained = footprint(size, [sample], step("full", BFLOAT16))["decoder"]
    assert trained.kept / frozen.kept == pytest.approx(1.42, abs=0.01)
    assert 4.0e6 < frozen.kept / sample.tokens(size) < 4.7e6


def test_recomputed_trained_and_frozen_products_stand_as_eight_to_four():
    """Per weight and token: 2 forward, 2 for inputs, 2 for weights, 2 again; recomputation stops before a layer's last
    product, and attention has no weights, so the ratio is near 8 : 6 : 4 and not beyond it."""
    size, sample = large("internvl3-8b"), Sample(tiles=0, frames=0, text_tokens=16)
    weights = sum(p.numel() for p in _decoder_weights())
    frozen, trained, again = (
        footprint(size, [sample], step(flows, BFLOAT16, parts))["decoder"].flops / (weights * 16)
        for flows, parts in (("pretrain", frozenset()), ("full", frozenset()), ("full", frozenset({"decoder"})))
    )
    assert frozen == pytest.approx(4.0, rel=0.01)
    assert trained == pytest.approx(6.0, rel=0.01)
    assert 7.3 < again < 8.0


def _decoder_weights() -> list[torch.nn.Parameter]:
    from transformers import Qwen2Model

    with torch.device("meta"):
        model = Qwen2Model(build_internvl_config(decoder_record("internvl3-8b"), INTERNVIT_300M, 8, 0).text_config)
    return [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]


SAMPLES = st.builds(
    Sample,
    tiles=st.integers(0, 5),
    frames=st.integers(0, 40),
    text_tokens=st.integers(1, 90),
    level_rows=st.integers(0, 1),
    text_rows=st.integers(0, 20),
)
NUMERICS = st.sampled_from([FLOAT32, BFLOAT16, AUTOCAST])


@settings(max_examples=40, deadline=None)
@given(sample=SAMPLES, flows=st.sampled_from(sorted(FLOWS)), numerics=NUMERICS, copies=st.integers(2, 5))
def test_equal_samples_cost_their_number(sample: Sample, flows: str, numerics: Numerics, copies: int):
    one = footprint(TINY, [sample], step(flows, numerics))
    many = footprint(TINY, [sample] * copies, step(flows, numerics))
    for part in PARTS:
        assert many[part].forward == pytest.approx(copies * one[part].forward)
        assert many[part].backward == pytest.approx(copies * one[part].backward)
        assert many[part].kept <= copies * one[part].kept + 1e-6  # copies of weights and tables are kept once


@settings(max_examples=40, deadline=None)
@given(samples=st.lists(SAMPLES, min_size=1, max_size=4), numerics=NUMERICS, flows=st.sampled_from(sorted(FLOWS)))
def test_checkpointing_trades_bytes_for_flops_in_trained_parts_alone(
    samples: list[Sample], numerics: Numerics, flows: str
):
    plain = footprint(TINY, samples, step(flows, numerics))
    spared = footprint(TINY, samples, step(flows, numerics, frozenset({"image_encoder", "decoder"})))
    assert kept_bytes(spared) <= kept_bytes(plain)
    for part in PARTS:
        assert spared[part].forward == plain[part].forward
        assert spared[part].backward == plain[part].backward
        assert 0 <= spared[part].again <= spared[part].forward
        if FLOWS[flows][part] is Flow.IDLE:
            assert spared[part] == plain[part]


@settings(max_examples=40, deadline=None)
@given(samples=st.lists(SAMPLES, min_size=1, max_size=4), numerics=NUMERICS)
def test_what_is_trained_costs_most_and_what_is_idle_least(samples: list[Sample], numerics: Numerics):
    by_flow = [
        footprint(TINY, samples, Step(dict.fromkeys(PARTS, flow), dict.fromkeys(PARTS, numerics)))
        for flow in (Flow.IDLE, Flow.THROUGH, Flow.TRAINED)
    ]
    idle, through, trained = (costs["decoder"] for costs in by_flow)
    assert idle.forward == through.forward == trained.forward
    assert idle.backward == idle.kept == 0
    assert 0 < through.backward < trained.backward < 2.5 * trained.forward
    assert 0 < through.kept < trained.kept
    assert total_flops(by_flow[0]) < total_flops(by_flow[2])


def test_a_batch_is_padded_to_its_longest_sequence():
    short, long = Sample(1, 0, 20), Sample(3, 0, 20)
    mixed = footprint(TINY, [short, long], step("pretrain"))["decoder"]
    assert mixed.forward == footprint(TINY, [long, long], step("pretrain"))["decoder"].forward


def test_features_that_are_there_spare_the_encoders_and_shared_media_are_encoded_once():
    cached = footprint(TINY, [Sample(3, 8, 20, encoded=0.0)], step("warm_up"))
    assert cached["image_encoder"] == Cost()
    assert cached["motion_extractor"] == Cost()
    assert cached["projectors"].forward > 0
    shared = footprint(TINY, [Sample(4, 8, 20, encoded=0.5)], step("pretrain"))
    assert shared["image_encoder"] == footprint(TINY, [Sample(2, 4, 20)], step("pretrain"))["image_encoder"]


def test_backward_frees_a_part_before_it_runs_the_one_before():
    costs = dict.fromkeys(PARTS, Cost()) | {
        "image_encoder": Cost(kept=100, working=70),
        "decoder": Cost(kept=50, working=5),
        "head": Cost(working=1),
    }
    assert peak_bytes(costs) == 170
    assert peak_bytes(costs | {"decoder": replace(costs["decoder"], working=40)}) == 190
