"""Which conversations a step holds, and the loss of what the assistant says against logits put together by hand."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.conversations import Conversation
from models.quality_lmm import QualityLMM
from models.vision_encoder import EMBEDDED_SPEC, VisualInput, prepare_image
from tasks.errors import MediaError, StageError
from tasks.instructions import Instruction
from tasks.records import MEDIUM_MARK, QuestionKind, Split, Task
from tasks.training.batches import Draw, RankShare, make_batch
from tasks.training.engine import repeated_layers
from tasks.training.examples import Example
from tasks.training.instruction_batches import (
    FocalConfig,
    InstructionBatch,
    InstructionMixture,
    InstructionObjective,
    make_instruction_batch,
    plan_instructions,
)
from tasks.training.objective import LossConfig, QualityObjective
from tasks.training.trainer import TrainingConfig

CONFIG = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=7, batch_examples=6, micro_batches=1,
    learning_rate=1e-3, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
LOSSES = LossConfig(
    head="fused", level_space="levels", prefix_weight=0.01, prefix_tokens="before_level", pair="thurstone",
    pair_scale=5.0, davidson_tie=1.0, pair_level_weight=0.0, pair_prefix_weight=0.0, text="focal", focal_alpha=1.0,
    focal_beta=2.0,
)  # fmt: skip
TINY_SPEC = dataclasses.replace(EMBEDDED_SPEC, tile_px=56, motion_frames=4, motion_px=32)


def instruction(number: int, media: tuple[str, ...], turns: int = 1, kind: str = "open") -> Instruction:
    questions = [f"{MEDIUM_MARK}\n" * len(media) + f"How is {number}?", *("And?" for _ in range(turns - 1))]
    answers = [f"It is {'very ' * number}blurry" for _ in range(turns)]
    shown = tuple("image" for _ in media)
    return Instruction(
        f"{number:03}", "s", QuestionKind(kind), None, media, shown, tuple(questions), tuple(answers), (), None
    )


class Media:
    """Media that say how often each was read and for which visit."""

    def __init__(self, names: set[str]) -> None:
        rng = np.random.default_rng(0)
        self.ids, self.broken = frozenset(names), frozenset[str]()
        self.reads: list[tuple[str, int]] = []
        self._pixels = {name: rng.integers(0, 256, (70, 90, 3), dtype=np.uint8) for name in sorted(names)}

    def read(self, medium_id: str, visit: int) -> VisualInput:
        self.reads.append((medium_id, visit))
        return prepare_image(self._pixels[medium_id], TINY_SPEC)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 9))
def test_every_conversation_comes_once_before_any_comes_again(owners: list[int], per_medium: int, batch: int):
    found = [instruction(n, (f"m{owner}",)) for n, owner in enumerate(owners)]
    config = dataclasses.replace(CONFIG, steps=3 * math.ceil(len(found) / batch), batch_examples=batch)
    plan = plan_instructions(found, config, per_medium)
    assert {len(step) for step in plan} == {batch}
    dealt = [one.instruction_id for step in plan for one in step]
    for start in range(0, len(dealt) - len(found) + 1, len(found)):
        assert len(set(dealt[start : start + len(found)])) == len(found)
    counts = Counter(dealt)
    assert set(counts) == {one.instruction_id for one in found}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert plan == plan_instructions(list(found), config, per_medium)


def test_conversations_about_one_medium_follow_each_other_up_to_the_bound():
    found = [instruction(n, (f"m{n % 4}",)) for n in range(32)]
    config = dataclasses.replace(CONFIG, steps=4, batch_examples=8)
    assert [len({one.media for one in step}) for step in plan_instructions(found, config, 4)] == [2, 2, 2, 2]
    assert [len({one.media for one in step}) for step in plan_instructions(found, config, 8)] == [1, 1, 1, 1]
    assert [len({one.media for one in step}) for step in plan_instructions(found, config, 1)] == [4, 4, 4, 4]
    assert plan_instructions(found, config, 4) != plan_instructions(found, dataclasses.replace(config, seed=6), 4)


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(StageError, match="there are no instructions"):
        plan_instructions([], CONFIG, 1)


def test_a_step_reads_each_medium_once_and_its_views_take_turns():
    media = Media({"a", "b"})
    found = [instruction(n, ("a", "b") if n == 3 else ("ab"[n % 2],)) for n in range(4)]
    mixture = InstructionMixture(found, media, dataclasses.replace(CONFIG, steps=2, batch_examples=4), 2, {})
    for step in (1, 0):  # a resumed run asks for a later step first
        (batch,) = mixture.step(step)
        assert len(batch.inputs) == 2
        assert sorted(batch.example_ids) == ["000", "001", "002", "003"]
        assert batch.rehearsed == []
    assert sorted(media.reads) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_micro_batches_hold_a_step_together_in_order_of_length():
    media = Media({"a"})
    found = [instruction(n, ("a",)) for n in range(6)]
    config = dataclasses.replace(CONFIG, steps=1, micro_batches=3)
    parts = InstructionMixture(found, media, config, 6, {}).step(0)
    assert [part.example_ids for part in parts] == [["000", "001"], ["002", "003"], ["004", "005"]]


@pytest.mark.parametrize(("micro_batches", "ranks"), [(1, 1), (3, 1), (2, 2), (1, 3)])
def test_however_a_step_is_cut_it_rehearses_each_opinion_once(micro_batches: int, ranks: int):
    opinions = {name: opinion(name, "good", [0.1, 0.6, 0.2, 0.1, 0.0]) for name in "ab"}
    found = [instruction(n, ("ab"[n % 2],)) for n in range(6)]
    config = dataclasses.replace(CONFIG, steps=1, micro_batches=micro_batches)
    told: list[str] = []
    for rank in range(ranks):
        share = RankShare(rank, ranks, lambda lost: lost)
        for part in InstructionMixture(found, Media({"a", "b"}), config, 6, opinions, share).step(0):
            told += part.example_ids
    assert sorted(told) == ["000", "001", "002", "003", "004", "005", "single a", "single b"]


class Broken(Media):
    """Media of which some do not decode, prepared ahead."""

    ahead = 1

    def __init__(self, names: set[str], lost: set[str]) -> None:
        super().__init__(names)
        self._lost, self.foreseen = lost, list[list[tuple[str, int]]]()

    def foresee(self, wanted: Sequence[tuple[str, int]]) -> None:
        self.foreseen.append(list(wanted))

    def read(self, medium_id: str, visit: int) -> VisualInput:
        if medium_id in self._lost:
            raise MediaError("truncated", "the file ends early")
        return super().read(medium_id, visit)


@pytest.mark.parametrize("ranks", [1, 2])
def test_conversations_about_a_broken_medium_are_left_out_wherever_they_are(ranks: int):
    shown = {0: ("a", "x"), 1: ("b",), 2: ("x",), 3: ("a",), 4: ("b", "a"), 5: ("c",)}
    found = [instruction(n, media) for n, media in shown.items()]
    opinions = {name: opinion(name, "good", [0.1, 0.6, 0.2, 0.1, 0.0]) for name in "abcx"}
    config = dataclasses.replace(CONFIG, steps=1, micro_batches=2)
    lost: list[str] = []
    parts: dict[int, list[str]] = {}
    for _ in range(2):  # what every process finds is told to all of them
        parts.clear()
        for rank in range(ranks):
            share = RankShare(rank, ranks, lambda mine: (lost.extend(mine), lost)[1])
            mixture = InstructionMixture(found, Broken(set("abcx"), {"x"}), config, 6, opinions, share)
            for number, batch in enumerate(mixture.step(0)):
                parts[rank + number * ranks] = batch.example_ids
                assert "x" not in batch.media
    assert parts[0] == ["001", "single b"]
    assert sorted(parts[1]) == ["003", "004", "005", "single a", "single c"]


def test_a_step_of_which_nothing_can_be_shown_is_an_error():
    mixture = InstructionMixture([instruction(0, ("x",))], Broken({"x"}, {"x"}), CONFIG, 1, {})
    with pytest.raises(StageError, match="step 0: none of its conversations can be shown: 000"):
        mixture.step(0)


def test_a_source_that_prepares_ahead_is_told_what_comes_with_the_views_that_will_be_shown():
    media = Broken({"a", "b", "c"}, set())
    found = [instruction(n, ("abc"[n],)) for n in range(3)]
    config = dataclasses.replace(CONFIG, steps=4, batch_examples=3)
    mixture = InstructionMixture(found, media, config, 1, {})
    for step in range(4):
        (batch,) = mixture.step(step)
        asked = media.foreseen[-1]
        assert asked[:3] == [(name, step) for name in batch.media] == media.reads[-3:]
        assert {visit for _, visit in asked[3:]} == ({step + 1} if step < 3 else set())
        assert len(asked) == (6 if step < 3 else 3)


@pytest.fixture
def model(line: Path) -> QualityLMM:
    return QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")


def batch_of(found: list[Instruction], rehearsed: dict[str, Example] | None = None) -> InstructionBatch:
    media = Media({name for one in found for name in one.media})
    return make_instruction_batch(found, {name: media.read(name, 0) for name in media.ids}, rehearsed or {})


def objective(model: QualityLMM, beta: float = 2.0) -> InstructionObjective:
    return InstructionObjective(model, FocalConfig(1.0, beta), QualityObjective(model, LOSSES))


def opinion(name: str, level: str, target: list[float]) -> Example:
    answer = f"The quality of the image is {level}"
    return Example(f"single {name}", Task.SINGLE, Split.TRAIN, (name,), (answer,), np.array([target]), math.nan)


@torch.no_grad()
def by_hand(model: QualityLMM, batch: InstructionBatch, talk: Conversation, beta: float) -> float:
    """The loss of one conversation from the logits of its whole text, position by position."""
    visual = model.visual_tokens(batch.inputs)
    embed = model.language_model.embed_tokens

    def ids(text: str) -> torch.Tensor:
        return torch.tensor(model.tokenizer.encode(text, add_special_tokens=False))

    pieces: list[torch.Tensor] = []
    spoken: list[tuple[int, int]] = []
    text = f"<|im_start|>system\n{model.system}<|im_end|>\n"
    for turn in talk:
        text += "<|im_start|>user\n"
        for part in turn.question:
            if isinstance(part, int):
                pieces += [embed(ids(text + "<img>")), visual[part]]
                text = "</img>"
            else:
                text += part
        pieces.append(embed(ids(text + "<|im_end|>\n<|im_start|>assistant\n")))
        answer = ids(turn.answer + "<|im_end|>")
        start = sum(map(len, pieces))
        spoken += [(start + offset, int(token)) for offset, token in enumerate(answer)]
        pieces.append(embed(answer))
        text = "\n"
    hidden = model.language_model(inputs_embeds=torch.cat(pieces)[None]).last_hidden_state[0]
    log_probs = model.logits(hidden).double().log_softmax(-1)
    terms = [-float(log_probs[place - 1, token]) for place, token in spoken]
    return sum((1 - math.exp(-term)) ** beta * term for term in terms) / len(terms)


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_the_loss_is_focal_over_all_that_the_assistant_says(model: QualityLMM, beta: float):
    found = [instruction(1, ("a",)), instruction(2, ("a", "b"), turns=3), instruction(4, (), turns=2)]
    batch = batch_of(found)
    losses = objective(model, beta).losses(batch)
    assert set(losses) == {"open", "dialogue"}
    wanted = [by_hand(model, batch, talk, beta) for talk in batch.conversations]
    assert losses["open"].tolist() == pytest.approx(wanted[:1], abs=1e-4)
    assert losses["dialogue"].tolist() == pytest.approx(wanted[1:], abs=1e-4)


def test_conversations_without_any_medium_are_trained_too(model: QualityLMM):
    losses = objective(model).losses(batch_of([instruction(1, ())]))
    losses["open"].sum().backward()
    assert all(value.grad is None for value in model.image_encoder.parameters())
    assert any(value.grad is not None for value in model.language_model.parameters())


@pytest.mark.parametrize("shown", ["pixels", "features", "nothing", "both"])
def test_a_batch_tells_beforehand_whether_the_encoders_layers_run(model: QualityLMM, shown: str):
    batch = batch_of([instruction(1, () if shown == "nothing" else ("a", "b"))])
    kept = {"features": 2, "both": 1}.get(shown, 0)
    with torch.no_grad():
        batch.inputs[:kept] = model.visual_features(batch.inputs[:kept]) if kept else []
    ran: list[str] = []
    for part in ("encoder", "decoder"):
        for layer in repeated_layers(model, [part]):
            layer.register_forward_pre_hook(lambda *_, part=part: ran.append(part))
    objective(model).losses(batch)
    assert ran.count("encoder") == (len(repeated_layers(model, ["encoder"])) if batch.encodes else 0)
    assert ran.count("decoder") == len(repeated_layers(model, ["decoder"])) > 0
    assert batch.encodes == (shown in {"pixels", "both"})


def test_every_part_gets_a_gradient(model: QualityLMM):
    losses = objective(model).losses(batch_of([instruction(1, ("a",))]))
    losses["open"].sum().backward()
    for part in (model.image_encoder, model.projector, model.language_model):
        assert any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in part.parameters())


def test_opinions_on_the_media_of_a_step_are_learnt_by_the_loss_of_pre_training(model: QualityLMM):
    opinions = {name: opinion(name, "good", [0.1, 0.6, 0.2, 0.1, 0.0]) for name in "ac"}
    batch = batch_of([instruction(1, ("a",)), instruction(2, ("b",))], opinions)
    assert batch.example_ids == ["001", "002", "single a"]
    found = objective(model).losses(batch)
    alone = make_batch([Draw(opinions["a"], (0,))], {"a": Media({"a"}).read("a", 0)}, {"single a": 1.0})
    wanted = QualityObjective(model, LOSSES).losses(alone)[Task.SINGLE]
    assert found["single"].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    assert len(found["open"]) == 2
    found["single"].sum().backward()
    assert any(
        value.grad is not None and bool(value.grad.abs().sum() > 0) for value in model.image_encoder.parameters()
    )


@pytest.mark.parametrize("constants", [(0.0, 2.0), (1.0, -1.0)])
def test_the_constants_of_the_loss_have_ranges(constants: tuple[float, float]):
    with pytest.raises(ValueError, match="alpha must be positive"):
        FocalConfig(*constants)
