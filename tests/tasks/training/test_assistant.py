import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.quality_lmm import QualityLMM
from tasks.errors import GateError, StageError
from tasks.instructions import ImportedSource
from tasks.pool import load_candidates
from tasks.records import CANDIDATES, INSTRUCTIONS, MEDIUM_MARK, REJECTS, Split
from tasks.shards import frame_of, read_table, write_json, write_table
from tasks.stage import Place
from tasks.streamed import Streaming
from tasks.training import assistant
from tasks.training.instruction_batches import FocalConfig, InstructionMixture
from tasks.training.line_questions import QuestionRule
from tasks.training.objective import LossConfig
from tasks.training.trainer import TrainingConfig
from tests.tasks.killed import Course, assert_kill_changes_no_byte

TRAINING = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=4, batch_examples=6, micro_batches=2,
    learning_rate=1e-3, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
LOSSES = LossConfig(
    head="fused", level_space="levels", prefix_weight=0.01, prefix_tokens="before_level", pair="thurstone",
    pair_scale=5.0, davidson_tie=1.0, pair_level_weight=0.0, pair_prefix_weight=0.0, text="focal", focal_alpha=1.0,
    focal_beta=2.0,
)  # fmt: skip
CONFIG = assistant.Config(
    frozen=(),
    questions=QuestionRule(
        seed=1, option_order="fixed", compare_share=1.0, dialogue_share=0.5, turns=3, held_out_questions=5
    ),
    line_share=1.0,
    sources=(),
    per_medium=2,
    max_tokens=600,
    rehearse=True,
    views=1,
    media="prepared",
    streaming=Streaming(workers=2, kind="threads", ahead=1, archives=None),
    max_reject_share=0.1,
    loss=FocalConfig(1.0, 2.0),
    opinions=LOSSES,
    training=TRAINING,
)


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    return place_for(line, "assistant")


def parts(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    model = QualityLMM.from_pretrained(folder)
    names = ("image_encoder", "motion_extractor", "projector", "motion_projector", "language_model")
    return {name: getattr(model, name).state_dict() for name in names}


def moved(place: Place) -> set[str]:
    """Parts any of whose tensors differ from the pre-trained model's."""
    before, after = parts(place.root / "artifacts" / "pretrain" / "model"), parts(place.out / "model")
    return {
        name
        for name, tensors in before.items()
        if any(not torch.equal(value, after[name][key]) for key, value in tensors.items())
    }


def test_every_part_learns_and_the_loss_falls(place: Place):
    config = dataclasses.replace(CONFIG, training=dataclasses.replace(TRAINING, steps=30, batch_examples=12))
    report = assistant.run(config, place)
    assert moved(place) == {"image_encoder", "motion_extractor", "projector", "motion_projector", "language_model"}
    model = QualityLMM.from_pretrained(place.out / "model")
    assert report.trained_parameters == sum(value.numel() for value in model.parameters())
    assert report.frozen_parameters == 0
    history = json.loads((place.out / "history.json").read_text())
    assert len(history) == report.steps == 30
    assert report.loss_last["all"] < 0.8 * report.loss_first["all"]
    assert {"loss_dialogue", "loss_compare", "loss_yes_no", "loss_single"} <= set(history[0])


def test_without_rehearsal_instructions_alone_are_learnt(place: Place):
    assistant.run(dataclasses.replace(CONFIG, rehearse=False), place)
    assert "loss_single" not in json.loads((place.out / "history.json").read_text())[0]


@pytest.mark.parametrize(
    "frozen",
    [("image_encoder", "motion_extractor"), ("decoder", "projector", "motion_projector")],
)
def test_what_the_switch_freezes_keeps_its_bits(place: Place, frozen: tuple[assistant.Part, ...]):
    report = assistant.run(dataclasses.replace(CONFIG, frozen=frozen), place)
    still = {"language_model" if name == "decoder" else name for name in frozen}
    assert moved(place) == set(parts(place.out / "model")) - still
    assert report.frozen_parameters > 0


def test_held_out_contents_are_asked_about_and_never_trained_on(place: Place):
    report = assistant.run(CONFIG, place)
    rows = read_table(place.out / "instructions.parquet", INSTRUCTIONS)
    split_of = dict(zip(*(load_candidates(place)[name] for name in ("id", "split")), strict=True))
    for row in rows.to_dict("records"):
        assert {split_of[medium] for medium in row["media"]} == {row["split"]}
    held_out = rows[rows["split"] == Split.HELD_OUT]
    assert report.held_out == held_out["kind"].value_counts().to_dict()
    assert set(held_out["questions"].map(len)) == {1}
    assert held_out["letter"].notna().all()
    assert set(rows["split"]) == {"train", "held_out"}
    assert report.conversations == {"line": int((rows["split"] == "train").sum())}
    assert report.turns == int(rows.loc[rows["split"] == "train", "answers"].map(len).sum())


def test_the_gate_is_asked(place: Place):
    write_json(place.root / "artifacts" / "validate" / "results.json", {"success": False})
    with pytest.raises(GateError, match="did not pass validation"):
        assistant.run(CONFIG, place)


def imported(place: Place, name: str, media: dict[str, bytes | None], **changes: Any) -> ImportedSource:
    """A table of conversations about files below a root of its own, one each."""
    root = place.root / name
    root.mkdir()
    rows = []
    for path, data in media.items():
        if data is not None:
            (root / path).write_bytes(data)
        row = {"instruction_id": f"{name}/{path}", "source": name, "kind": "open", "split": "train"}
        row |= {"content_id": path, "media": [path], "modalities": ["image"], "options": [], "letter": None}
        row |= {"questions": [f"{MEDIUM_MARK}\nHow is it?", "Why?"], "answers": ["Blurry.", "It was moved."]}
        rows.append(row | changes)
    write_table(place.root / f"{name}.parquet", INSTRUCTIONS, frame_of(INSTRUCTIONS, rows))
    return ImportedSource(f"{name}.parquet", name)


def png(tmp_path: Path) -> bytes:
    Image.new("RGB", (90, 70), (120, 80, 40)).save(tmp_path / "x.png")
    return (tmp_path / "x.png").read_bytes()


def test_imported_conversations_are_trained_on_beside_the_lines_or_alone(place: Place, tmp_path: Path):
    source = imported(place, "others", {f"{n}.png": png(tmp_path) for n in range(4)})
    report = assistant.run(dataclasses.replace(CONFIG, sources=(source,), line_share=0.5), place)
    assert report.conversations["others"] == 4
    assert report.conversations["line"] > 4
    alone = dataclasses.replace(CONFIG, sources=(source,), line_share=0.0)
    other = Place(place.root, place.work / "alone", place.work / "alone" / "out")
    assert assistant.run(alone, other).conversations == {"others": 4}


def test_broken_media_and_long_conversations_are_counted_and_fail_above_the_limit(place: Place, tmp_path: Path):
    media = {"a.png": png(tmp_path), "b.png": png(tmp_path)[:200], "c.png": None}
    source = imported(place, "others", media)
    with pytest.raises(StageError, match="2 of 3 media do not decode"):
        assistant.run(dataclasses.replace(CONFIG, sources=(source,), line_share=0.0), place)
    report = assistant.run(dataclasses.replace(CONFIG, sources=(source,), line_share=0.0, max_reject_share=0.7), place)
    assert report.conversations == {"others": 1}
    assert report.rejected == {"medium_rejected": 2, "missing": 1, "truncated": 1}
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert set(rejects.loc[rejects["reason"] == "medium_rejected", "id"]) == {"others/b.png", "others/c.png"}
    with pytest.raises(StageError, match=r"are longer than 20 tokens.*raise assistant.max_tokens"):
        assistant.run(dataclasses.replace(CONFIG, max_tokens=20), place)


def _again(place: Place, name: str) -> Place:
    return Place(place.root, place.work / name, place.work / name / "out")


STREAMED = dataclasses.replace(CONFIG, media="streamed", views=2)


def test_streamed_media_train_to_the_bits_of_prepared_ones(place: Place, tmp_path: Path):
    source = imported(place, "others", {f"{n}.png": png(tmp_path) for n in range(3)})
    config = dataclasses.replace(STREAMED, sources=(source,))
    streamed, prepared = _again(place, "streamed"), _again(place, "prepared")
    report = assistant.run(config, streamed)
    assert report == assistant.run(dataclasses.replace(config, media="prepared"), prepared)
    assert report.conversations["others"] == 3
    files = [path.relative_to(prepared.out) for path in prepared.out.rglob("*") if path.is_file()]
    assert {Path("history.json"), Path("instructions.parquet"), Path("rejects.parquet")} < set(files)
    for name in files:
        assert (streamed.out / name).read_bytes() == (prepared.out / name).read_bytes(), name
    assert (prepared.work / "media").exists()
    assert not (streamed.work / "media").exists()


def test_a_streamed_run_that_stops_goes_on_to_the_same_curve_with_the_same_rejects(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    media = {"a.png": png(tmp_path), "b.png": png(tmp_path)[:200], "c.png": None, "d.png": png(tmp_path)}
    source = imported(place, "others", media)
    training = dataclasses.replace(TRAINING, batch_examples=4)
    config = dataclasses.replace(
        STREAMED, sources=(source,), line_share=0.0, max_reject_share=0.5, rehearse=False, training=training
    )
    whole, halved = _again(place, "whole"), _again(place, "halved")
    report = assistant.run(config, whole)
    assert report.conversations == {"others": 2}
    assert report.media == 2
    assert report.rejected == {"medium_rejected": 2, "missing": 1, "truncated": 1}
    assert {row["examples"] for row in json.loads((whole.out / "history.json").read_text())} == {2}
    step, stopped = InstructionMixture.step, list[int]()

    def stop_once(self: InstructionMixture, number: int) -> Any:
        if number == 3 and not stopped:
            stopped.append(number)
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(InstructionMixture, "step", stop_once)
    with pytest.raises(KeyboardInterrupt):
        assistant.run(config, halved)
    assert assistant.run(config, halved) == report
    for name in ("history.json", "rejects.parquet"):
        assert (whole.out / name).read_bytes() == (halved.out / name).read_bytes()
    with pytest.raises(StageError, match="1 of 4 media do not decode"):
        assistant.run(dataclasses.replace(config, max_reject_share=0.2), _again(place, "strict"))


def test_tables_that_are_not_what_they_should_be_are_refused(place: Place, tmp_path: Path):
    measuring = imported(place, "bench", {"a.png": png(tmp_path)}, split="held_out")
    with pytest.raises(StageError, match="name it under answer"):
        assistant.run(dataclasses.replace(CONFIG, sources=(measuring,)), place)
    changed = dataclasses.replace(imported(place, "more", {"a.png": png(tmp_path)}), sha256="0" * 64)
    with pytest.raises(StageError, match="not the table whose sha256"):
        assistant.run(dataclasses.replace(CONFIG, sources=(changed,)), place)
    with pytest.raises(StageError, match="nowhere is no folder"):
        assistant.run(dataclasses.replace(CONFIG, sources=(ImportedSource("bench.parquet", "nowhere"),)), place)
    with pytest.raises(StageError, match="there are no instructions"):
        assistant.run(dataclasses.replace(CONFIG, line_share=0.0), place)


def test_a_content_in_two_splits_is_refused(place: Place):
    pool = place.root / "artifacts" / "collect" / "candidates.parquet"
    table = read_table(pool, CANDIDATES)
    held_out = table["split"] == Split.HELD_OUT
    table.loc[held_out, "content_id"] = str(table.loc[table["split"] == Split.TRAIN, "content_id"].iloc[0])
    write_table(pool, CANDIDATES, table)
    with pytest.raises(StageError, match="is in two splits"):
        assistant.run(CONFIG, place)


@pytest.mark.long  # the default suite kills pretrain, whose course these stages share
def test_a_run_killed_in_training_ends_with_the_same_bytes(
    line: Path, write_pretrained: Callable[[Path], None], tmp_path: Path
):
    write_pretrained(line)
    training = dataclasses.replace(TRAINING, steps=40, checkpoint_every=5)
    params = dataclasses.asdict(dataclasses.replace(CONFIG, training=training))
    deps = ("collect", "distort", "review", "assemble", "validate", "pretrain")
    course = Course("assistant", params, deps, "checkpoint.safetensors", "model/config.json")
    assert_kill_changes_no_byte(line, tmp_path / "whole", course)
