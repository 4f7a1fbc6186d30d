"""The stage: what learns, what stays to the bit, what is learnt from, the baseline's budget, and what leaks."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from models.levels import LEVELS, expectation
from models.quality_lmm import QualityLMM
from models.two_stage import Description, TwoStageLMM
from tasks.errors import ConfigError, GateError, StageError
from tasks.instructions import ImportedSource
from tasks.records import INSTRUCTIONS, MEDIUM_MARK, REJECTS, REVIEWED, Split
from tasks.shards import frame_of, read_table, write_json, write_table
from tasks.stage import Place, build_config
from tasks.training import two_stage
from tasks.training.freezing import bits_of
from tasks.training.instruction_batches import InstructionMixture
from tasks.training.reasoning_lessons import gather_lessons
from tasks.training.reasoning_objective import VerdictLoss
from tasks.training.trainer import Trainer, TrainingConfig
from tests.tasks.killed import Course, assert_kill_changes_no_byte

TRAINING = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=4, batch_examples=6, micro_batches=2,
    learning_rate=2e-3, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
CONFIG = two_stage.Config(
    splits=("train", "warm_up"),
    line_share=1.0,
    sources=(),
    max_tokens=400,
    max_reject_share=0.1,
    trained=("decoder", "projector", "motion_projector"),
    input="text",
    reasoner="separate",
    rehearsal_share=0.5,
    control=True,
    per_medium=1,
    leak_media=4,
    verdict=VerdictLoss(head="fused", target="level", level_space="vocabulary", sentence_weight=0.1),
    training=TRAINING,
    reasoner_steps=3,
    reasoner_learning_rate=2e-3,
)
DEPS = ("collect", "distort", "review", "assemble", "validate", "pretrain")


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    return place_for(line, "two_stage")


def changed(**values: Any) -> two_stage.Config:
    return dataclasses.replace(CONFIG, **values)


def again(place: Place, name: str) -> Place:
    return Place(place.root, place.work / name, place.work / name / "out")


def parts(folder: Path) -> dict[str, str]:
    model = QualityLMM.from_pretrained(folder)
    names = ("image_encoder", "motion_extractor", "projector", "motion_projector", "language_model")
    return {name: bits_of(getattr(model, name).state_dict()) for name in names}


def moved(place: Place, folder: Path) -> set[str]:
    """Parts whose bits are not the pre-trained model's."""
    before, after = parts(place.root / "artifacts" / "pretrain" / "model"), parts(folder)
    return {name for name in before if before[name] != after[name]}


def test_both_stages_learn_and_only_what_is_named(place: Place):
    training = dataclasses.replace(TRAINING, steps=15, batch_examples=12, learning_rate=5e-3)
    config = changed(training=training, reasoner_steps=20, reasoner_learning_rate=5e-3)
    report = two_stage.run(config, place)
    assert moved(place, place.out / "describer") == {"language_model", "projector", "motion_projector"}
    assert moved(place, place.out / "one_stage") == {"language_model", "projector", "motion_projector"}
    assert report.steps == {"describer": 15, "reasoner": 20, "one_stage": 35}
    assert json.loads((place.out / "one_stage" / "course.json").read_text()) == {"course": "one_stage"}
    for name, losses in (
        ("describer", {"description"}),
        ("reasoner", {"verdict"}),
        ("one_stage", {"description", "verdict"}),
    ):
        history = json.loads((place.out / name / "history.json").read_text())
        assert len(history) == report.steps[name]
        assert {key for key in history[0] if key.startswith("loss_")} == {f"loss_{loss}" for loss in losses}
        assert report.loss_last[name]["all"] < 0.8 * report.loss_first[name]["all"]
        assert report.loss_last[name]["all"] == pytest.approx(sum(report.loss_last[name][loss] for loss in losses))
    both = TwoStageLMM.from_pretrained(place.out)
    assert (both.kind, both.input) == ("separate", "text")
    assert report.trained_parameters["reasoner"] == sum(value.numel() for value in both.reasoner.parameters())
    # blurred media are worth less, and nobody says of them that edges are crisp
    texts = [Description(f"{text}The lighting is sufficient.", is_video=False) for text in ("Edges are crisp. ", "")]
    crisp, blurred = expectation(both.judge(texts).probabilities_N5)
    assert crisp > blurred


def test_a_separate_reasoner_leaves_every_bit_of_the_first_stage(place: Place):
    report = two_stage.run(CONFIG, place)
    alone = again(place, "alone")
    two_stage.run(changed(reasoner_steps=1, control=False), alone)
    first, other = parts(place.out / "describer"), parts(alone.out / "describer")
    assert first == other
    describer = QualityLMM.from_pretrained(place.out / "describer")
    assert report.frozen_sha256["reasoner"] == bits_of(describer.state_dict())
    assert not (alone.out / "one_stage").exists()
    assert set(report.frozen_sha256) == {"describer", "reasoner", "one_stage"}


def test_a_first_stage_that_moves_under_a_separate_reasoner_is_not_published(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    step = InstructionMixture.step
    describers: list[QualityLMM] = []
    read = QualityLMM.from_pretrained

    def remembered(folder: Path, *rest: Any) -> QualityLMM:
        model = read(folder, *rest)
        describers.extend([model] if folder.name == "describer" else [])
        return model

    def disturbed(self: InstructionMixture, number: int) -> Any:
        with torch.no_grad():
            for model in describers:
                next(model.projector.parameters()).add_(1.0)
        return step(self, number)

    monkeypatch.setattr(QualityLMM, "from_pretrained", remembered)
    monkeypatch.setattr(InstructionMixture, "step", disturbed)
    with pytest.raises(StageError, match="the describer changed while its reasoner was trained"):
        two_stage.run(CONFIG, place)


def test_a_shared_reasoner_goes_on_with_the_describer_and_rehearses_its_task(place: Place):
    report = two_stage.run(changed(reasoner="shared", reasoner_steps=4, control=False), place)
    history = json.loads((place.out / "reasoner" / "history.json").read_text())
    assert {key for key in history[0] if key.startswith("loss_")} == {"loss_description", "loss_verdict"}
    both = TwoStageLMM.from_pretrained(place.out)
    assert both.kind == "shared"
    assert [path.name for path in (place.out / "reasoner").iterdir()] == ["history.json"]
    assert moved(place, place.out / "describer") == {"language_model", "projector", "motion_projector"}
    assert parts(place.out / "describer")["language_model"] != parts(place.work / "first_stage")["language_model"]
    assert report.swapped == {"text": 0.0}
    without = again(place, "without")
    two_stage.run(changed(reasoner="shared", rehearsal_share=0.0, control=False), without)
    history = json.loads((without.out / "reasoner" / "history.json").read_text())
    assert {key for key in history[0] if key.startswith("loss_")} == {"loss_verdict"}


def test_trained_parts_are_an_option(place: Place):
    two_stage.run(changed(trained=("projector",), control=False), place)
    assert moved(place, place.out / "describer") == {"projector"}
    both = TwoStageLMM.from_pretrained(place.out)
    pretrained = QualityLMM.from_pretrained(place.root / "artifacts" / "pretrain" / "model")
    assert bits_of(both.reasoner.language_model.state_dict()) != bits_of(pretrained.language_model.state_dict())


def deepen(place: Place) -> None:
    """Give the pre-trained decoder a second layer: through a mask, an image is heard at second hand."""
    folder = place.root / "artifacts" / "pretrain" / "model"
    model = QualityLMM.from_pretrained(folder)
    layer = copy.deepcopy(model.language_model.layers[0])
    cast("Any", layer).self_attn.layer_idx = 1
    model.language_model.layers.append(layer)
    config: Any = model.internvl.config.get_text_config()
    config.num_hidden_layers, config.layer_types = 2, 2 * config.layer_types
    model.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_a_block_mask_leaks_and_text_does_not(place: Place, kind: Any):
    deepen(place)
    report = two_stage.run(changed(input="block_mask", reasoner=kind), place)
    assert set(report.swapped) == {"block_mask", "one_stage", "one_stage_blocked"}
    assert all(value > 0.0 for value in report.swapped.values())
    assert TwoStageLMM.from_pretrained(place.out).input == "block_mask"
    text = two_stage.run(changed(reasoner=kind, control=False), again(place, "text"))
    assert text.swapped == {"text": 0.0}


@pytest.mark.parametrize(("target", "space"), [("pmod", "levels"), ("pmod", "vocabulary"), ("level", "levels")])
def test_a_verdict_may_learn_the_opinions_distribution(place: Place, target: Any, space: Any):
    verdict = dataclasses.replace(CONFIG.verdict, target=target, level_space=space)
    plain = two_stage.run(changed(control=False), place)
    other = two_stage.run(changed(verdict=verdict, control=False), again(place, "other"))
    assert other.loss_first["reasoner"] != plain.loss_first["reasoner"]
    assert other.loss_first["describer"] == plain.loss_first["describer"]


def test_what_cannot_be_used_is_counted_by_reason(place: Place):
    table = place.root / "artifacts" / "review" / "reviewed.parquet"
    reviewed = read_table(table, REVIEWED)
    mine = min(lesson.medium for lesson in gather_lessons(place, [Split.TRAIN], 1.0, ()).lessons)
    reviewed.loc[reviewed["id"] == mine, "text"] = [
        f"The quality is {level}" for level in LEVELS[: sum(reviewed["id"] == mine)]
    ]
    write_table(table, REVIEWED, reviewed)
    report = two_stage.run(changed(control=False, reasoner_steps=1), place)
    assert report.rejected == {"nothing_left": 1}
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert rejects["id"].tolist() == [mine]
    assert set(rejects["stage"]) == {"two_stage"}
    other = again(place, "short")
    with pytest.raises(StageError, match="no description is left"):
        two_stage.run(changed(max_tokens=5), other)


def imported(place: Place, name: str, told: dict[str, str], **changes: Any) -> ImportedSource:
    """A table of descriptions of pictures below a root of its own, one each."""
    root = place.root / name
    root.mkdir()
    rows = []
    for number, (path, answer) in enumerate(told.items()):
        Image.new("RGB", (90, 70), (20 * number, 80, 40)).save(root / path)
        row = {"instruction_id": f"{name}/{path}", "source": name, "kind": "open", "split": "train"}
        row |= {"content_id": path, "media": [path], "modalities": ["image"], "options": [], "letter": None}
        rows.append(row | {"questions": [f"{MEDIUM_MARK}\nDescribe it."], "answers": [answer]} | changes)
    write_table(place.root / f"{name}.parquet", INSTRUCTIONS, frame_of(INSTRUCTIONS, rows))
    return ImportedSource(f"{name}.parquet", name)


ANSWERS = {
    "a.png": "The edges are crisp. Noise is visible. Therefore, the quality of this image is very good.",
    "b.png": "The picture is dark, with strong noise. The overall quality is poor.",
    "c.png": "The edges are crisp.",
    "d.png": "The quality of this image is poor.",
    "e.png": "The quality is not good.",
    "f.png": "A mark <|im_end|> of the chat. The quality is good.",
}


def test_imported_answers_are_learnt_from_beside_the_line_or_alone(place: Place):
    source = imported(place, "others", ANSWERS)
    report = two_stage.run(changed(sources=(source,), control=False, reasoner_steps=1), place)
    assert report.lessons["others"] == 2
    assert report.lessons["line"] > 10
    assert report.rejected == {"no_verdict": 2, "nothing_left": 1, "special_tokens": 1}
    alone = two_stage.run(changed(sources=(source,), line_share=0.0, reasoner_steps=1), again(place, "alone"))
    assert alone.lessons == {"others": 2}
    assert alone.levels == {"high": 1, "poor": 1}


def test_questions_that_describe_nothing_are_refused_and_those_for_measuring_are_an_error(place: Place):
    said = {"a.png": "The edges are crisp. The quality is good."}
    closed = imported(place, "closed", said, kind="yes_no", options=["Yes", "No"], letter="A")
    talk = {"questions": [f"{MEDIUM_MARK}\nDescribe it.", "Why?"], "answers": ["Crisp. The quality is good.", "So."]}
    turns = imported(place, "turns", said, **talk)
    report = two_stage.run(changed(sources=(closed, turns), control=False, reasoner_steps=1), place)
    assert report.rejected == {"not_open": 1, "several_turns": 1}
    measuring = imported(place, "bench", said, split="held_out")
    with pytest.raises(StageError, match="holds questions for measuring"):
        two_stage.run(changed(sources=(measuring,)), again(place, "bench"))


def test_a_medium_that_does_not_decode_takes_its_description_out(place: Place):
    source = imported(place, "others", {f"{name}.png": "Crisp edges. The quality is good." for name in "abc"})
    (place.root / "others" / "b.png").write_bytes((place.root / "others" / "b.png").read_bytes()[:60])
    config = changed(sources=(source,), line_share=0.0, control=False, reasoner_steps=1, max_reject_share=0.5)
    report = two_stage.run(config, place)
    assert report.lessons == {"others": 2}
    assert report.rejected == {"medium_rejected": 1, "truncated": 1}
    with pytest.raises(StageError, match="1 of 3 media do not decode"):
        two_stage.run(dataclasses.replace(config, max_reject_share=0.1), again(place, "strict"))


def test_the_gate_is_asked(place: Place):
    write_json(place.root / "artifacts" / "validate" / "results.json", {"success": False})
    with pytest.raises(GateError, match="did not pass validation"):
        two_stage.run(CONFIG, place)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trained": ["image_encoder"]}, "none of the encoder"),
        ({"trained": []}, "one at least"),
        ({"splits": ["held_out"]}, "splits"),
        ({"splits": []}, "splits must name one"),
        ({"input": "pixels"}, "input"),
        ({"rehearsal_share": 1.0}, "below 1"),
        ({"reasoner_steps": 0}, "reasoner_steps must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str):
    section = json.loads(json.dumps(dataclasses.asdict(CONFIG))) | values
    with pytest.raises(ConfigError, match=message):
        build_config(two_stage.Config, "two_stage", section)


def test_the_model_is_asked_as_pre_training_asked(place: Place):
    folder = place.root / "artifacts" / "pretrain" / "model"
    model = QualityLMM.from_pretrained(folder)
    model.question = "asked"
    model.save_pretrained(folder)
    asked = two_stage.run(CONFIG, place)
    both = TwoStageLMM.from_pretrained(place.out)
    assert both.describer.question == both.reasoner.question == "asked"
    assert QualityLMM.from_pretrained(place.out / "one_stage").question == "asked"
    model.question = "empty"
    model.save_pretrained(folder)
    assert two_stage.run(CONFIG, again(place, "empty")).loss_first != asked.loss_first


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_a_run_that_stops_in_any_model_ends_with_the_same_bytes(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: Any
):
    config = changed(reasoner=kind, reasoner_steps=6)
    whole, halved = again(place, "whole"), again(place, "halved")
    report = two_stage.run(config, whole)
    fit, step, seen = Trainer.fit, InstructionMixture.step, list[int]()
    stops = [3, 5, 8]  # behind the checkpoints of describer, reasoner and baseline

    def stopping(self: InstructionMixture, number: int) -> Any:
        if stops and number == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return step(self, number)

    def watched(self: Trainer[Any]) -> Any:
        seen.append(self.config.steps)
        return fit(self)

    monkeypatch.setattr(InstructionMixture, "step", stopping)
    monkeypatch.setattr(Trainer, "fit", watched)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            two_stage.run(config, halved)
    assert two_stage.run(config, halved) == report
    assert seen == [4, 4, 6, 6, 10, 10]  # what was finished is not trained again
    files = sorted(path.relative_to(whole.out) for path in whole.out.rglob("*") if path.is_file())
    assert Path("two_stage.json") in files
    for file in files:
        assert (whole.out / file).read_bytes() == (halved.out / file).read_bytes(), file


@pytest.mark.long  # the default suite stops the stage in each of its models in one process
def test_a_run_killed_in_training_ends_with_the_same_bytes(
    line: Path, write_pretrained: Callable[[Path], None], tmp_path: Path
):
    write_pretrained(line)
    training = dataclasses.replace(TRAINING, steps=40, checkpoint_every=5)
    params = dataclasses.asdict(changed(training=training))
    course = Course("two_stage", params, DEPS, "describer/checkpoint.safetensors", "two_stage.json")
    assert_kill_changes_no_byte(line, tmp_path / "whole", course)
