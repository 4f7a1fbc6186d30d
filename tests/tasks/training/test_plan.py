"""The plan of a profile: both profiles, what the user may say instead, and the published run beside it."""

from pathlib import Path
from typing import Any

import pytest

from infra.params import merge, profile_params
from models.footprint import Flow
from tasks.errors import ConfigError
from tasks.training.plan import Choices, Plan, StagePlan, flows_of, make_plan
from tasks.training.planning import FAMILIES, Planning, medium_shape, read_planning

IDLE, THROUGH, TRAINED = Flow.IDLE, Flow.THROUGH, Flow.TRAINED
DRAWN = ("answers are drawn at an assumed MFU of 0.05",)


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
        ("teach examples", "micro"),
        ("teach drawing", "micro"),
        ("teach references", "micro"),
        ("teach", "micro"),
        ("ract examples", "micro"),
        ("ract drawing", "micro"),
        ("ract references", "micro"),
        ("ract teachers", "micro"),
        ("ract labels", "micro"),
        ("ract", "micro"),
        ("predict", "micro"),
        ("predict", "nano"),
        ("predict", "mini"),
    ]
    warmed = [stage.decoder for stage in paper.stages if stage.stage == "warm_up"]
    assert warmed == ["internvl3-1b", "internvl3-2b", "internvl3-14b"]


def test_what_is_not_planned_is_told(paper: Plan, embedded: Plan, checkout: Path):
    assert embedded.notes == ()
    assert paper.notes == (
        "teach is not planned: the shapes of Qwen/Qwen2.5-VL-7B-Instruct are not known here (engine trl)",
        "ract labels are not planned: ract.labels.max_media is null, so their number is the pool's",
    )
    slow = planned("paper", checkout, ract={"training": {"device": "cpu"}})
    assert slow.notes[1:] == ("ract is not planned on h200: its training.device is cpu",)
    endless = planned("embedded", checkout, ract={"labels": {"max_media": None}})
    assert [note.split(":")[0] for note in endless.notes] == ["ract labels are not planned"]
    assert "ract labels" not in [stage.stage for stage in endless.stages]


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


def one_kind(checkout: Path, **changes: Any) -> Plan:
    """Ratings of photographs alone: questions of 30 + 10 tokens, answers of 20; a tile is 16 tokens."""
    tiles = {"photograph": {"share": 1.0}, "clip": {"share": 0.0}}
    lengths = {"prompt_tokens": 30, "teaching": {"question": 10, "answer": 20, "drawing_mfu": 0.25}, "media": tiles}
    planning = read_planning(checkout, {"workloads": {"tiny": lengths | {"vocabulary": 1000, "mfu": 0.5}}})
    teach = {"shares": {"score": 1.0, "degradation": 0.0, "pair": 0.0}} | changes
    params = merge(profile_params(checkout, "embedded"), {"teach": teach})
    return make_plan(params, "embedded", planning, Choices(), checkout)


def test_a_teacher_draws_compares_and_learns_by_hand_count(checkout: Path):
    """The decoder micro: width 128, two layers, keys of 64, MLP of 352."""
    plan = one_kind(checkout)
    spec = FAMILIES["tiny"][2]
    tiles = medium_shape(read_planning(checkout, {}).workload("tiny").media["photograph"], spec)[0]
    length = 16 * tiles + 30 + 10 + 20
    matrices = 2 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352)
    forward = 2 * length * matrices + 2 * 4 * length**2 * 128
    logits = 2 * 20 * 128 * 1000
    drawing, references, learning = (stage_of(plan, name, "micro") for name in
                                     ("teach drawing", "teach references", "teach"))  # fmt: skip
    for stage in (drawing, references, learning):
        assert stage.examples == 30 * 32
        assert stage.parts["decoder"].forward == forward
        assert stage.parts["head"].forward == logits
        assert stage.parts["image_encoder"].forward == 0  # its features are at hand
        assert list(stage.tasks) == ["score"]
    assert drawing.model_flops == references.model_flops == sum(one.forward for one in drawing.parts.values())
    assert drawing.parts["decoder"].backward == 0
    assert learning.parts["decoder"].backward == 2 * 2 * length * matrices + 2.5 * 2 * 4 * length**2 * 128
    peak = 0.192e12
    assert drawing.hours == pytest.approx(960 * drawing.model_flops / (0.25 * peak) / 3600)
    assert learning.hours == pytest.approx(960 * learning.model_flops / (0.5 * peak) / 3600)
    assert (drawing.mfu, learning.mfu) == (0.25, 0.5)
    copied = 4 * sum(part.parameters for part in learning.parts.values() if part.flow is TRAINED)
    alone = stage_of(one_kind(checkout, objective={"beta": 0.0}), "teach", "micro")
    assert learning.memory.weights - alone.memory.weights == copied > 4 * matrices
    assert drawing.notes == ("answers are drawn at an assumed MFU of 0.25",)
    assert stage_of(plan, "teach examples", "micro").examples == 120 * 8
    assert stage_of(plan, "teach examples", "micro").model_flops == learning.model_flops


def test_answers_that_serve_several_steps_are_drawn_once_and_pairs_show_two_media(checkout: Path):
    drawing = {"group": 4, "num_iterations": 5}
    learnt = ["image_encoder", "projector", "decoder"]
    plan = one_kind(checkout, drawing=drawing, trained=learnt, cold_start={"steps": 0}, objective={"beta": 0.0})
    assert "teach examples" not in [stage.stage for stage in plan.stages]
    found = {name: stage_of(plan, name, "micro") for name in ("teach drawing", "teach references", "teach")}
    assert [stage.examples for stage in found.values()] == [6 * 32, 6 * 32, 30 * 32]  # the old policy's, without beta
    encoder = stage_of(plan, "ract", "micro").parts["image_encoder"].forward  # an image of its own for every text
    assert found["teach"].parts["image_encoder"].forward == pytest.approx(encoder / 4)  # once for a group of four
    none = one_kind(checkout, objective={"beta": 0.0})
    assert "teach references" not in [stage.stage for stage in none.stages]
    pairs = one_kind(checkout, shares={"score": 0.5, "degradation": 0.0, "pair": 0.5})
    told = stage_of(pairs, "teach", "micro").tasks
    assert 1.3 < told["pair"] / told["score"] < 2.0  # the text is there once


def test_ract_has_a_teacher_for_every_set_and_an_encoder_under_a_frozen_reader(embedded: Plan):
    found = {stage.stage: stage for stage in embedded.stages}
    assert found["ract examples"].examples == 2 * 140 * 8
    assert found["ract teachers"].examples == found["ract drawing"].examples == 2 * 12 * 32
    assert found["ract labels"].examples == 2 * 240
    assert found["ract"].examples == 90 * 16
    flows = {name: part.flow for name, part in found["ract"].parts.items()}
    assert flows == dict.fromkeys(flows, THROUGH) | {"image_encoder": TRAINED, "motion_extractor": IDLE}


def test_time_is_work_over_speed_and_cost_is_time_times_price(checkout: Path):
    plan = planned("paper", checkout, Choices(device="a100", devices=4, mfu=0.5, price=2.5, weights="bfloat16"))
    for stage in plan.stages:
        speed = (0.05 if stage.stage == "ract drawing" else 0.5) * 312e12 * stage.devices
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
        assert stage.notes == (DRAWN if stage.stage == "ract drawing" else ())


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
