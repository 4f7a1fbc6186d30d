import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.quality_lmm import QualityLMM
from models.vision_encoder import encoder_state
from tasks.errors import ConfigError, GateError, StageError
from tasks.records import CANDIDATES, EXAMPLES, REJECTS, Split
from tasks.shards import read_table, write_json
from tasks.stage import Place, build_config
from tasks.streamed import Streaming
from tasks.training import freezing, pretrain
from tasks.training.batches import Batch, BatchConfig, Material, Mixture
from tasks.training.objective import LossConfig
from tasks.training.trainer import TrainingConfig
from tests.tasks.killed import Course, assert_kill_changes_no_byte

LOSSES = LossConfig(
    head="fused", level_space="levels", prefix_weight=0.01, prefix_tokens="before_level", pair="thurstone",
    pair_scale=5.0, davidson_tie=1.0, pair_level_weight=0.0, pair_prefix_weight=0.0, text="focal", focal_alpha=1.0,
    focal_beta=2.0,
)  # fmt: skip
TRAINING = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=10, batch_examples=6, micro_batches=1,
    learning_rate=1e-3, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
CONFIG = pretrain.Config(
    decoder="small",
    shares={"single": 0.5, "pair": 0.25, "distortion": 0.125, "description": 0.125},
    views=2,
    media="prepared",
    streaming=Streaming(workers=2, kind="threads", ahead=1, archives=None),
    max_reject_share=0.1,
    batches=BatchConfig(order="companions", grouping="dealt", normalise="examples"),
    losses=LOSSES,
    training=TRAINING,
)
PlaceFor = Callable[[Path, str], Place]


@pytest.fixture
def place(line: Path, place_for: PlaceFor) -> Place:
    return place_for(line, "pretrain")


def test_only_encoder_and_motion_extractor_move_and_all_else_keeps_its_bits(place: Place, read_json: Callable):
    report = pretrain.run(CONFIG, place)
    before = QualityLMM.from_pretrained(place.root / "artifacts" / "base" / "small")
    after = QualityLMM.from_pretrained(place.out / "model")
    for part in ("projector", "motion_projector", "language_model"):
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert all(torch.equal(old[name], new[name]) for name in old), part
    assert torch.equal(before.internvl.lm_head.weight, after.internvl.lm_head.weight)
    moved = [
        name
        for name, p in after.image_encoder.named_parameters()
        if not torch.equal(p, before.image_encoder.get_parameter(name))
    ]
    assert len(moved) > 0.9 * len(list(after.image_encoder.parameters()))
    clips = [
        name
        for name, p in after.motion_extractor.named_parameters()
        if not torch.equal(p, before.motion_extractor.get_parameter(name))
    ]
    assert clips
    trained = sum(p.numel() for part in (after.image_encoder, after.motion_extractor) for p in part.parameters())
    assert report.trained_parameters == trained
    assert report.frozen_parameters == sum(p.numel() for p in after.parameters()) - trained
    history = read_json(place.out / "history.json")
    assert [row["step"] for row in history] == list(range(10))
    assert {"loss", "loss_single", "loss_pair", "loss_distortion", "loss_description"} <= set(history[0])
    exported = load_file(place.out / "encoder" / "model.safetensors")
    state = encoder_state(after)
    assert all(torch.equal(exported[name], state[f"image.{name}"]) for name in exported)
    assert report.contents == 5
    assert report.rejected == 0
    assert read_json(place.out / "recipe.json")["examples"] == report.examples


def _stored(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model folder as its files hold it."""
    return {
        name if path.parent == folder else f"{path.stem}.{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_frozen_weights_held_in_bfloat16_train_alike_and_are_published_bit_by_bit_as_they_were_stored(
    line: Path, place_for: PlaceFor, read_json: Callable
):
    base = line / "artifacts" / "base" / "small"
    QualityLMM.from_pretrained(base).bfloat16().save_pretrained(base)
    wide = dataclasses.replace(CONFIG, training=dataclasses.replace(TRAINING, precision="bfloat16", steps=3))
    narrow = dataclasses.replace(wide, training=dataclasses.replace(wide.training, frozen_precision="bfloat16"))
    published, curves = {}, {}
    for name, config in (("wide", wide), ("narrow", narrow)):
        place = place_for(line, f"pretrain-{name}")
        pretrain.run(config, place)
        published[name], curves[name] = _stored(place.out / "model"), read_json(place.out / "history.json")
    assert curves["narrow"] == curves["wide"]
    stored, learnt = _stored(base), 0
    for name, tensor in published["narrow"].items():
        assert torch.equal(tensor.double(), published["wide"][name].double()), name
        if "vision_tower" in name or name.startswith("extractor."):
            learnt += 1
        else:
            assert tensor.dtype == stored[name].dtype == torch.bfloat16, name
            assert torch.equal(tensor.view(torch.int16), stored[name].view(torch.int16)), name
    assert 0 < learnt < len(stored)


def test_no_optimizer_state_belongs_to_a_frozen_part(place: Place):
    pretrain.run(CONFIG, place)
    names = load_file(place.work / "checkpoint.safetensors")
    trained = {name.removeprefix("model.") for name in names if name.startswith("model.")}
    assert trained
    assert all(name.startswith(("internvl.model.vision_tower.", "motion_extractor.")) for name in trained)
    moments = {name.split(".", 2)[2] for name in names if name.startswith("optimizer.")}
    assert moments == trained


def test_frozen_parameters_get_no_gradient(line: Path):
    model = QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")
    freezing.train_only(model, [model.image_encoder, model.motion_extractor])
    assert all(p.requires_grad for p in model.image_encoder.parameters())
    assert not any(p.requires_grad for p in model.projector.parameters())
    ids, mask = model.answer_ids(["Sharpness is low"])
    tiles = torch.randn(3, 3, 56, 56)
    from models.vision_encoder import VisualInput

    model.logits(model([VisualInput(tiles)], ids, mask)).sum().backward()
    assert all(p.grad is None for p in model.language_model.parameters())
    assert all(p.grad is None for p in model.projector.parameters())
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.image_encoder.parameters())


def test_a_frozen_part_that_moves_stops_the_stage(line: Path):
    model = QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")
    freezing.train_only(model, [model.image_encoder])

    def train(*parts: torch.nn.Module) -> None:
        with freezing.frozen_stays(model), torch.no_grad():
            for part in parts:
                next(part.parameters()).view(-1)[0].add_(1.0)

    train(model.image_encoder)
    with pytest.raises(StageError, match="frozen part"):
        train(model.image_encoder, model.projector)
    with pytest.raises(StageError, match="no weight"):
        train()


@pytest.mark.parametrize("verdict", [{"success": False}, {"success": "yes"}, {}])
def test_data_that_did_not_pass_the_gate_is_not_trained_on(place: Place, verdict: dict):
    write_json(place.root / "artifacts" / "validate" / "results.json", verdict)
    with pytest.raises(GateError):
        pretrain.run(CONFIG, place)
    assert not list(place.out.iterdir())


def _break_media(line: Path, count: int) -> set[str]:
    """Make ``count`` children of the train split unreadable: their first bytes are gone."""
    table = read_table(line / "artifacts" / "distort" / "candidates.parquet", CANDIDATES)
    chosen = table[table["split"] == "train"][:count]
    for row in chosen.itertuples():
        with (line / "artifacts" / "distort" / "media" / row.shard).open("r+b") as archive:
            archive.seek(row.offset)
            archive.write(b"broken!")
    return set(chosen["id"])


def test_broken_media_are_counted_rejects_and_their_examples_are_left_out(place: Place):
    broken = _break_media(place.root, 1)
    report = pretrain.run(CONFIG, place)
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert set(rejects["id"]) == broken
    assert report.rejected == 1
    examples = read_table(place.root / "artifacts" / "assemble" / "examples.parquet", EXAMPLES)
    train = examples[examples["split"] == "train"]
    kept = train[[not broken.intersection(ids) for ids in train["ids"]]]
    assert report.examples == kept["task"].value_counts().sort_index().to_dict()


def test_too_many_broken_media_fail_the_stage(place: Place):
    _break_media(place.root, 4)
    with pytest.raises(StageError, match="4 of 21 media do not decode"):
        pretrain.run(CONFIG, place)


STREAMED = dataclasses.replace(
    CONFIG,
    media="streamed",
    batches=BatchConfig(order="shuffled", grouping="length", normalise="tokens"),
    training=dataclasses.replace(TRAINING, steps=12, micro_batches=2),
)


def test_streamed_media_train_to_the_bits_of_prepared_ones(line: Path, place_for: PlaceFor):
    outs = []
    for media in ("prepared", "streamed"):
        place = place_for(line, f"pretrain_{media}")
        pretrain.run(dataclasses.replace(STREAMED, media=media), place)
        outs.append(place.out)
    names = ("history.json", "recipe.json", "rejects.parquet", "encoder/model.safetensors")
    assert all((outs[0] / name).read_bytes() == (outs[1] / name).read_bytes() for name in names)


def test_a_streamed_run_that_stops_goes_on_to_the_same_curve_with_the_same_rejects(
    line: Path, place_for: PlaceFor, read_json: Callable, monkeypatch: pytest.MonkeyPatch
):
    broken = _break_media(line, 1)
    whole, halved = place_for(line, "whole"), place_for(line, "halved")
    report = pretrain.run(STREAMED, whole)
    step, stopped = Mixture.step, list[int]()

    def stop_once(self: Mixture, number: int) -> list[Batch]:
        if number == 7 and not stopped:
            stopped.append(number)
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(Mixture, "step", stop_once)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(STREAMED, halved)
    assert pretrain.run(STREAMED, halved) == report
    assert stopped == [7]
    for name in ("history.json", "rejects.parquet"):
        assert (whole.out / name).read_bytes() == (halved.out / name).read_bytes()
    assert set(read_table(whole.out / "rejects.parquet", REJECTS)["id"]) == broken
    examples = [row["examples"] for row in read_json(whole.out / "history.json")]
    assert max(examples) == STREAMED.training.batch_examples
    assert min(examples) < max(examples)


def test_too_many_broken_media_stop_a_streamed_run_and_are_named(place: Place):
    broken = _break_media(place.root, 6)
    with pytest.raises(StageError, match="3 of 21 media do not decode") as caught:
        pretrain.run(STREAMED, place)
    assert sum(medium in str(caught.value) for medium in broken) == 3
    assert not (place.out / "model").exists()


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(
    line: Path, place_for: PlaceFor, read_json: Callable
):
    curves = []
    for run, seed in enumerate((5, 5, 6)):
        place = place_for(line, f"pretrain{run}")
        pretrain.run(dataclasses.replace(CONFIG, training=dataclasses.replace(TRAINING, seed=seed)), place)
        curves.append(read_json(place.out / "history.json"))
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


@pytest.mark.slow
@pytest.mark.long
def test_a_run_killed_in_training_ends_with_the_same_bytes(line: Path, tmp_path: Path):
    training = dataclasses.replace(TRAINING, steps=60, checkpoint_every=5)
    params = dataclasses.asdict(dataclasses.replace(CONFIG, training=training))
    deps = ("collect", "distort", "assemble", "validate", "base")
    course = Course("pretrain", params, deps, "checkpoint.safetensors", "history.json")
    assert_kill_changes_no_byte(line, tmp_path / "whole", course)


def test_a_decoder_may_learn_too_and_what_is_not_named_stays_to_the_bit(place: Place):
    config = dataclasses.replace(CONFIG, trained=("image_encoder", "decoder"))
    report = pretrain.run(config, place)
    before = QualityLMM.from_pretrained(place.root / "artifacts" / "base" / "small")
    after = QualityLMM.from_pretrained(place.out / "model")

    def moved(part: str) -> bool:
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        return any(not torch.equal(old[name], new[name]) for name in old)

    names = ("image_encoder", "motion_extractor", "projector", "motion_projector", "language_model")
    assert [moved(part) for part in names] == [True, False, False, False, True]
    learnt = [*after.image_encoder.parameters(), *after.language_model.parameters()]  # the head is tied to the words
    assert report.trained_parameters == sum(p.numel() for p in learnt)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trained": []}, "one at least"),
        ({"trained": ["decoder", "decoder"]}, "each once"),
        ({"trained": ["brain"]}, "pretrain.trained"),
        ({"examples_share": 0.0}, "examples_share must lie"),
        ({"examples_share": 1.5}, "examples_share must lie"),
        ({"question": "often"}, "pretrain.question"),
    ],
)
def test_settings_that_name_nothing_known_are_one_clear_line(change: dict, told: str):
    with pytest.raises(ConfigError, match=told):
        build_config(pretrain.Config, "pretrain", dataclasses.asdict(CONFIG) | change)


def test_a_task_of_share_nothing_is_left_out_and_the_others_keep_their_proportion(place: Place, read_json: Callable):
    shares = {"single": 0.5, "pair": 0.0, "distortion": 0.125, "description": 0.125}
    report = pretrain.run(dataclasses.replace(CONFIG, shares=shares), place)
    assert "pair" not in report.examples
    history = read_json(place.out / "history.json")
    assert "loss_pair" not in history[0]
    assert {row["examples"] for row in history} == {TRAINING.batch_examples}
    drawn = pretrain.load_split(place, Split.TRAIN, shares)
    mixture = Mixture(Material(drawn.examples, NoMedia(), shares, CONFIG.batches), TRAINING)
    tasks = Counter(str(draw.example.task) for number in range(8) for draw in mixture.draws(number))
    assert tasks == {"single": 32, "distortion": 8, "description": 8}  # 4 : 1 : 1, as before


class NoMedia:
    """A source that is never read."""

    broken = frozenset[str]()

    def read(self, medium_id: str, visit: int) -> Any:
        raise AssertionError((medium_id, visit))


def test_a_part_of_the_contents_alone_is_trained_on(place: Place, read_json: Callable):
    report = pretrain.run(dataclasses.replace(CONFIG, examples_share=0.5), place)
    assert report.contents == 3  # two of four photographs, and the one clip
    assert report.media == 11
    assert report.examples["single"] == 11
    assert read_json(place.out / "recipe.json")["examples"] == report.examples


def test_workspaces_that_share_prepared_media_decode_them_once(line: Path, place_for: PlaceFor):
    (line / ".work" / "shared").mkdir(parents=True)
    first, second = place_for(line, "first"), place_for(line, "second")
    pretrain.run(CONFIG, first)
    assert list((line / ".work" / "shared" / "media").iterdir())
    _break_media(line, 4)
    report = pretrain.run(CONFIG, second)  # nothing is decoded again
    assert report.rejected == 0
    assert (first.out / "history.json").read_bytes() == (second.out / "history.json").read_bytes()


def test_what_was_asked_in_training_is_written_into_the_model(place: Place):
    pretrain.run(dataclasses.replace(CONFIG, question="asked"), place)
    assert QualityLMM.from_pretrained(place.out / "model").question == "asked"
