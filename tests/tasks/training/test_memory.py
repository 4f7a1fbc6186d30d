"""What a device holds under ZeRO, and which micro batch fits: sums done by hand, and laws that any sharding keeps."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decoders import INTERNVIT_300M, TINY_ENCODER, build_internvl_config, decoder_record
from models.footprint import AUTOCAST, BFLOAT16, FLOAT32, HELD, Flow, Numerics, Sample, Step, footprint
from models.model_size import PARTS, measure_model
from models.motion import SLOWFAST_R50, TINY_MOTION
from tasks.errors import ConfigError
from tasks.training.config import Recompute
from tasks.training.memory import (
    CHECKPOINTING,
    Load,
    Sharding,
    device_memory,
    fit,
    memory_of,
    numerics_of,
    read_sharding,
)

FROZEN_READER = dict(zip(PARTS, [Flow.TRAINED] * 2 + [Flow.THROUGH] * 3, strict=True))
PARAMETERS = {"image_encoder": 300, "motion_extractor": 20, "projectors": 80, "decoder": 7000, "head": 600}
TINY = measure_model(build_internvl_config(decoder_record("nano"), TINY_ENCODER, 300, 0), TINY_MOTION, 32)

DEEP = measure_model(build_internvl_config(decoder_record("internvl3-1b"), INTERNVIT_300M, 151674, 0), SLOWFAST_R50, 64)


def step(numerics: Numerics, flows: dict[str, Flow] = FROZEN_READER) -> Step:
    return Step(flows, dict.fromkeys(PARTS, numerics))


def test_one_process_in_float32_holds_four_bytes_a_weight_and_twelve_more_a_trained_one():
    memory = device_memory(PARAMETERS, step(FLOAT32), Sharding(0, 1), 1000.0)
    assert memory.weights == 4 * 8000
    assert memory.gradients == 4 * 320
    assert memory.optimizer == 8 * 320
    assert memory.buffers == 0
    assert memory.peak == 4 * 8000 + 12 * 320 + 4 * 320  # the step's temporary is larger than these activations


def test_a_processor_updates_one_tensor_after_the_other_and_needs_no_copy_of_all():
    """AdamW's loop over tensors holds the root of a second moment and its quotient, of one tensor at a time."""
    memory = device_memory(PARAMETERS, step(FLOAT32), Sharding(0, 1), 0.0, largest=50)
    assert memory.update == 2 * 4 * 50
    assert device_memory(PARAMETERS, step(FLOAT32), Sharding(0, 1), 0.0).update == 4 * 320
    assert device_memory(PARAMETERS, step(FLOAT32), Sharding(1, 1), 0.0, largest=50).update == 2 * 4 * 320  # flat


def test_zero_one_in_bfloat16_is_the_papers_two_and_two_and_twelve_over_devices():
    """ZeRO, section 3.1: 2 bytes of weights, 2 of gradients, 12 of state per weight; stage 1 cuts the state."""
    everything = dict.fromkeys(PARTS, Flow.TRAINED)
    memory = device_memory(PARAMETERS, step(BFLOAT16, everything), Sharding(1, 4), 0.0)
    assert (memory.weights, memory.gradients, memory.optimizer) == (2 * 8000, 2 * 8000, 12 * 8000 / 4)


def test_stage_two_cuts_gradients_and_stage_three_weights_too_frozen_ones_included():
    two = device_memory(PARAMETERS, step(AUTOCAST), Sharding(2, 4), 0.0)
    assert (two.weights, two.gradients, two.optimizer) == (4 * 8000, 4 * 320 / 4, 12 * 320 / 4)
    three = device_memory(PARAMETERS, step(AUTOCAST), Sharding(3, 4, gathered=2000), 0.0)
    assert three.weights == 4 * 8000 / 4 + 4 * 2000
    assert replace(three, weights=0) == replace(two, weights=0)


def test_a_reduction_buffer_is_no_larger_than_all_gradients():
    small = device_memory(PARAMETERS, step(AUTOCAST), Sharding(2, 2, buffer=100, buffers=2), 0.0)
    large = device_memory(PARAMETERS, step(AUTOCAST), Sharding(2, 2, buffer=10**9, buffers=2), 0.0)
    assert (small.buffers, large.buffers) == (4 * 200, 4 * 640)


def test_what_is_scored_has_neither_gradients_nor_state():
    memory = device_memory(PARAMETERS, step(BFLOAT16, dict.fromkeys(PARTS, Flow.IDLE)), Sharding(2, 8, 10**9, 2), 7.0)
    assert (memory.gradients, memory.optimizer, memory.buffers, memory.update) == (0, 0, 0, 0)
    assert memory.peak == 2 * 8000 + 7


@settings(max_examples=60, deadline=None)
@given(
    stage=st.integers(0, 3),
    devices=st.integers(1, 64),
    numerics=st.sampled_from([FLOAT32, BFLOAT16, AUTOCAST]),
    learning=st.sets(st.sampled_from(PARTS)),
)
def test_more_devices_and_higher_stages_never_hold_more_state(
    stage: int, devices: int, numerics: Numerics, learning: set[str]
):
    flows = {part: Flow.TRAINED if part in learning else Flow.THROUGH for part in PARTS}
    held = device_memory(PARAMETERS, step(numerics, flows), Sharding(stage, devices), 0.0)
    wider = device_memory(PARAMETERS, step(numerics, flows), Sharding(stage, devices + 1), 0.0)
    for name in ("weights", "gradients", "optimizer"):
        assert getattr(wider, name) <= getattr(held, name)
    if 1 <= stage < 3:
        higher = device_memory(PARAMETERS, step(numerics, flows), Sharding(stage + 1, devices), 0.0)
        assert higher.weights + higher.gradients + higher.optimizer <= held.weights + held.gradients + held.optimizer


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharding_reads_the_projects_deepspeed_configurations(stage: int, checkout: Path):
    told = json.loads((checkout / "infra" / "deepspeed" / f"zero{stage}.json").read_text())["zero_optimization"]
    found = read_sharding(checkout, stage, 8)
    assert (found.stage, found.devices, found.buffer) == (stage, 8, told["reduce_bucket_size"])
    assert found.buffers == (2 if told["overlap_comm"] else 1)
    assert (found.gathered > 0) == (stage == 3)


def test_no_stage_and_a_broken_configuration_are_told(checkout: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no ZeRO stage 4; the stages are 0, 1, 2, 3"):
        read_sharding(checkout, 4, 2)
    (tmp_path / "infra" / "deepspeed").mkdir(parents=True)
    (tmp_path / "infra" / "deepspeed" / "zero2.json").write_text('{"zero_optimization": {}}')
    with pytest.raises(ConfigError, match=r"zero2\.json holds no configuration"):
        read_sharding(tmp_path, 2, 2)
    assert read_sharding(tmp_path, 0, 1) == Sharding(0, 1)


def test_weights_are_held_as_asked():
    assert set(numerics_of(FROZEN_READER, "float32", "bfloat16").values()) == {FLOAT32}
    mixed = numerics_of(FROZEN_READER, "bfloat16", "frozen-bfloat16")
    assert [mixed[part] for part in PARTS] == [AUTOCAST, AUTOCAST, HELD, HELD, HELD]
    with pytest.raises(ConfigError, match="unknown weights 'int8'; there are float32"):
        numerics_of(FROZEN_READER, "bfloat16", "int8")


LOAD = Load(TINY, step(FLOAT32), ((Sample(3, 8, 40, 1, 6),), (Sample(6, 0, 40, 1, 6),)), most=8)


def test_the_micro_batch_is_the_largest_that_fits():
    whole = memory_of(LOAD, Sharding(0, 1), frozenset(), 8).peak
    three = memory_of(LOAD, Sharding(0, 1), frozenset(), 3).peak
    assert fit(LOAD, Sharding(0, 1), whole).micro_batch == 8
    found = fit(LOAD, Sharding(0, 1), three)
    assert (found.micro_batch, found.checkpointing) == (3, "none")
    assert found.memory.peak == three
    assert fit(LOAD, Sharding(0, 1), three - 1).micro_batch == 2


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.0, 1.0), sample=st.sampled_from([Sample(4, 0, 60), Sample(1, 0, 2000), Sample(12, 300, 60)]))
def test_layers_are_run_again_only_if_nothing_cheaper_fits(share: float, sample: Sample):
    load = replace(LOAD, size=DEEP, longest=((sample,),), most=4)
    ways = {
        name: (memory_of(load, Sharding(0, 1), parts, 1).peak, _again(sample, parts))
        for name, parts in CHECKPOINTING.items()
    }
    least, most = ways["both"][0], ways["none"][0]
    capacity = least + share * (most - least)
    found = fit(load, Sharding(0, 1), capacity)
    fitting = {name: again for name, (peak, again) in ways.items() if peak <= capacity}
    assert ways[found.checkpointing][1] == min(fitting.values())
    assert found.micro_batch >= 1
    assert found.memory.peak <= capacity
    none = fit(load, Sharding(0, 1), least - 1)
    assert (none.micro_batch, none.memory.peak) == (0, least)


def _again(sample: Sample, parts: frozenset[str]) -> float:
    costs = footprint(DEEP, [sample], replace(step(FLOAT32), checkpointed=parts))
    return sum(cost.again for cost in costs.values())


def test_a_checkpointing_is_a_value_of_params():
    assert tuple(CHECKPOINTING) == get_args(Recompute)


def test_a_named_checkpointing_is_taken_and_an_unknown_one_refused():
    assert fit(LOAD, Sharding(0, 1), 1e12, "both").checkpointing == "both"
    with pytest.raises(ConfigError, match="unknown checkpointing 'all'; there are none"):
        fit(LOAD, Sharding(0, 1), 1e12, "all")


def test_memory_is_planned_for_the_largest_example():
    image, clip = (replace(LOAD, longest=(example,)) for example in LOAD.longest)
    peaks = [memory_of(load, Sharding(0, 1), frozenset(), 1).peak for load in (image, clip, LOAD)]
    assert peaks[2] == max(peaks[:2])
