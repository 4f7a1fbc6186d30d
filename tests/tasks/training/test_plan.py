"""The plan of a profile: both profiles, what the user may say instead, and the published run beside it."""

from pathlib import Path
from typing import Any

import pytest

from infra.params import merge, profile_params
from models.footprint import Flow
from tasks.errors import ConfigError
from tasks.training.plan import Choices, Plan, StagePlan, flows_of, make_plan
from tasks.training.planning import Planning, read_planning

IDLE, THROUGH, TRAINED = Flow.IDLE, Flow.THROUGH, Flow.TRAINED


@pytest.fixture(scope="module")
def planning(checkout: Path) -> Planning:
    return read_planning(checkout, {})


def planned(profile: str, checkout: Path, choices: Choices | None = None, **changes: Any) -> Plan:
    params = merge(profile_params(checkout, profile), changes)
    return make_plan(params, profile, read_planning(checkout, {}), choices or Choices(), checkout)


@pytest.fixture(scope="module")
def paper(checkout: Path) -> Plan:
    return planned("paper", checkout, Choices(weights="bfloat16"))


@pytest.fixture(scope="module")
def embedded(checkout: Path) -> Plan:
    return planned("embedded", checkout)


def stage_of(plan: Plan, stage: str, decoder: str) -> StagePlan:
    return next(found for found in plan.stages if (found.stage, found.decoder) == (stage, decoder))


def test_every_stage_is_planned_in_the_order_of_the_line(paper: Plan, embedded: Plan):
    assert [(stage.stage, stage.decoder) for stage in embedded.stages] == [
        ("pretrain", "micro"),
        ("warm_up features", "micro"),
        ("warm_up", "nano"),
        ("warm_up", "mini"),
        ("assistant", "micro"),
        ("predict", "micro"),
        ("predict", "nano"),
        ("predict", "mini"),
    ]
    warmed = [stage.decoder for stage in paper.stages if stage.stage == "warm_up"]
    assert warmed == ["internvl3-1b", "internvl3-2b", "internvl3-14b"]


def test_pretraining_trains_the_encoders_and_pays_for_a_frozen_decoder_once(paper: Plan):
    parts = stage_of(paper, "pretrain", "internvl3-8b").parts
    assert [name for name, part in parts.items() if part.flow is Flow.TRAINED] == ["image_encoder", "motion_extractor"]
    decoder, encoder = parts["decoder"], parts["image_encoder"]
    assert 1.0 < decoder.backward / decoder.forward < 1.2  # inputs' gradients alone; attention makes it more than one
    assert 2.0 < encoder.backward / encoder.forward < 2.2
    assert parts["head"].backward == parts["head"].forward


def test_warm_up_trains_the_decoder_and_never_runs_the_encoder(paper: Plan):
    stage = stage_of(paper, "warm_up", "internvl3-2b")
    assert {name for name, part in stage.parts.items() if part.flow is Flow.TRAINED} == {
        "projectors",
        "decoder",
        "head",
    }
    assert stage.parts["image_encoder"].forward == 0
    assert stage_of(paper, "warm_up features", "internvl3-8b").parts.keys() == {"image_encoder", "motion_extractor"}


def test_projectors_may_stay_frozen(checkout: Path):
    stage = stage_of(planned("embedded", checkout, warm_up={"train_projectors": False}), "warm_up", "nano")
    assert stage.parts["projectors"].flow is Flow.IDLE
    assert stage.parts["projectors"].backward == 0


def test_the_assistant_trains_everything_or_what_is_left(checkout: Path):
    whole = stage_of(planned("embedded", checkout), "assistant", "micro")
    assert {part.flow for part in whole.parts.values()} == {Flow.TRAINED}
    part = planned("embedded", checkout, assistant={"frozen": ["image_encoder", "decoder", "projector"]})
    flows = {name: found.flow for name, found in stage_of(part, "assistant", "micro").parts.items()}
    assert flows == {
        "image_encoder": Flow.IDLE,
        "motion_extractor": Flow.TRAINED,
        "projectors": Flow.TRAINED,  # one of the two
        "decoder": Flow.THROUGH,
        "head": Flow.THROUGH,
    }


def test_rehearsed_opinions_are_one_for_every_medium(checkout: Path):
    """Two decoder passes for the first of four conversations about a medium, one for the others; encoders run once."""
    rehearsed = stage_of(planned("embedded", checkout), "assistant", "micro")
    plain = stage_of(planned("embedded", checkout, assistant={"rehearse": False}), "assistant", "micro")
    every = stage_of(
        planned("embedded", checkout, assistant={"rehearse": False, "per_medium": 1}), "assistant", "micro"
    )
    assert rehearsed.parts["image_encoder"].forward == plain.parts["image_encoder"].forward
    assert every.parts["image_encoder"].forward == pytest.approx(4 * plain.parts["image_encoder"].forward)
    assert 1.2 < rehearsed.parts["decoder"].forward / plain.parts["decoder"].forward < 1.25
    assert every.parts["decoder"].forward == pytest.approx(plain.parts["decoder"].forward)


def test_the_papers_run_is_one_epoch_and_its_implied_utilisation_is_low(paper: Plan):
    """PERFORMANCE's estimate of the published run is 1-9 % of the peak; media of other shapes move it a little."""
    pretrain = stage_of(paper, "pretrain", "internvl3-8b")
    told = paper.published
    assert told is not None
    assert pretrain.examples == 4_580_000
    assert told.per_second == pytest.approx(0.6626, abs=1e-4)  # 4.58M / 1,920 h / 3,600 s
    assert 0.01 < told.implied_mfu < 0.12
    assert told.planned_hours == pytest.approx(pretrain.device_hours)
    assert told.implied_mfu / paper.mfu == pytest.approx(pretrain.device_hours / told.published_hours)
    assert told.quarter_mfu == pytest.approx(2 * told.half_mfu) == pytest.approx(4 * told.implied_mfu)


def test_time_is_work_over_speed_and_cost_is_time_times_price(checkout: Path):
    plan = planned("paper", checkout, Choices(device="a100", devices=4, mfu=0.5, price=2.5, weights="bfloat16"))
    for stage in plan.stages:
        speed = 0.5 * 312e12 * stage.devices
        assert stage.per_second == pytest.approx(speed / stage.model_flops)
        assert stage.hours == pytest.approx(stage.examples * stage.model_flops / speed / 3600)
        assert stage.cost == pytest.approx(stage.hours * stage.devices * 2.5)
    assert (plan.device, plan.devices, plan.dollars_per_hour) == ("a100", 4, 2.5)


def test_a_task_costs_what_its_samples_do_and_the_mixture_is_their_average(paper: Plan):
    stage = stage_of(paper, "pretrain", "internvl3-8b")
    assert stage.tasks["pair"] == pytest.approx(2 * stage.tasks["single"])
    shares = {"single": 0.35, "pair": 0.3, "distortion": 0.25, "description": 0.1}
    assert stage.flops == pytest.approx(sum(share * stage.tasks[task] for task, share in shares.items()))
    assert stage.flops == pytest.approx(sum(p.forward + p.backward + p.again for p in stage.parts.values()))
    assert stage.model_flops == pytest.approx(sum(p.forward + p.backward for p in stage.parts.values()))
    large = stage_of(paper, "warm_up", "internvl3-14b")  # whose decoder runs again
    assert large.model_flops < large.flops


def test_a_large_decoder_needs_checkpointing_and_a_small_one_does_not(paper: Plan):
    assert stage_of(paper, "warm_up", "internvl3-14b").checkpointing == "decoder"
    assert stage_of(paper, "warm_up", "internvl3-1b").checkpointing == "none"
    for stage in paper.stages:
        assert stage.micro_batch >= 1
        assert stage.memory.peak <= stage.capacity
        assert stage.notes == ()


def test_weights_are_planned_as_params_hold_them_unless_the_user_says_otherwise(paper: Plan, checkout: Path):
    held = planned("paper", checkout)
    trained = stage_of(held, "pretrain", "internvl3-8b").parts
    whole = sum(part.parameters for part in trained.values())
    learning = sum(part.parameters for part in trained.values() if part.flow is Flow.TRAINED)
    weights = [stage_of(plan, "pretrain", "internvl3-8b").memory.weights for plan in (held, paper)]
    assert weights == [2 * whole + 2 * learning, 2 * whole]
    assert stage_of(held, "predict", "internvl3-8b").memory.weights == 4 * whole


def test_what_does_not_fit_says_so_and_names_a_stage_that_does(checkout: Path):
    stage = stage_of(planned("paper", checkout, Choices(zero=1)), "warm_up", "internvl3-14b")
    assert stage.micro_batch == 0
    assert stage.memory.peak > stage.capacity
    assert stage.notes[0].startswith("does not fit: ")
    assert stage.notes[0].endswith("--zero 2 does")
    smaller = stage_of(planned("paper", checkout, Choices(device="l40s")), "warm_up", "internvl3-14b")
    assert smaller.notes[0].endswith("take more or larger devices")


def test_more_devices_than_a_step_has_examples_stand_idle(checkout: Path):
    stage = stage_of(planned("paper", checkout, Choices(devices=32)), "warm_up", "internvl3-1b")
    assert stage.devices == 8
    assert stage.notes == ("8 examples a step keep 8 of 32 devices busy",)


def test_a_zero_engine_in_params_is_believed_before_the_planning_file(paper: Plan, planning: Planning, checkout: Path):
    believed = planning.workloads["internvl3"].zero["warm_up"]
    assert stage_of(paper, "warm_up", "internvl3-1b").zero == 3 != believed
    single = planned("paper", checkout, warm_up={"training": {"engine": "single", "processes": 1}})
    assert stage_of(single, "warm_up", "internvl3-1b").zero == believed
    assert stage_of(planned("paper", checkout, Choices(zero=2)), "warm_up", "internvl3-1b").zero == 2


def test_the_embedded_plan_fits_in_one_micro_batch(embedded: Plan):
    assert embedded.published is None
    for stage in embedded.stages:
        assert (stage.checkpointing, stage.accumulation, stage.zero, stage.devices) == ("none", 1, 0, 1)
        assert stage.memory.peak < stage.capacity


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (Choices(device="abacus"), "unknown device 'abacus'"),
        (Choices(mfu=1.5), "the MFU must lie in"),
        (Choices(devices=0), "one device at least"),
        (Choices(zero=7), "no ZeRO stage 7"),
        (Choices(weights="int8"), "unknown weights 'int8'"),
        (Choices(checkpointing="all"), "unknown checkpointing 'all'"),
        (Choices(device="two-cores"), "device two-cores states no peak for bfloat16"),
    ],
)
def test_a_wrong_choice_is_told(choices: Choices, told: str, checkout: Path):
    with pytest.raises(ConfigError, match=told):
        planned("paper", checkout, choices)


def test_decoders_of_two_families_cannot_meet(checkout: Path):
    with pytest.raises(ConfigError, match="warm_up: decoder internvl3-1b is not of the family tiny"):
        planned("embedded", checkout, warm_up={"decoders": ["internvl3-1b"]})


def test_parts_before_all_that_learn_have_no_gradient_to_pass_on():
    assert list(flows_of(("image_encoder", "motion_extractor")).values()) == [
        TRAINED,
        TRAINED,
        THROUGH,
        THROUGH,
        THROUGH,
    ]
    assert list(flows_of(("image_encoder", "decoder")).values()) == [TRAINED, IDLE, THROUGH, TRAINED, TRAINED]
    assert list(flows_of(("projector",)).values()) == [IDLE, IDLE, TRAINED, THROUGH, THROUGH]
    assert set(flows_of(()).values()) == {IDLE}
    assert list(flows_of(("decoder",)).values()) == [IDLE, IDLE, IDLE, TRAINED, TRAINED]
