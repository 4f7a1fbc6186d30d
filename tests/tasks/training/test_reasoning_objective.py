"""Losses of describing and inferring against logits put together by hand, and the share that is rehearsed."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lmm import SPEC, make_model
from torch import Tensor

from models.levels import LEVELS
from models.quality_lmm import Medium, QualityLMM
from models.two_stage import Description, ReasonerInput, TwoStageLMM, logits_after, pair
from models.vision_encoder import prepare_image
from tasks.instructions import Instruction
from tasks.records import QuestionKind
from tasks.training.instruction_batches import make_instruction_batch
from tasks.training.reasoning_lessons import Exercise, Lesson, assessing, describing, judging
from tasks.training.reasoning_objective import ReasoningObjective, Rehearsal, RehearsingMixture, VerdictLoss
from tasks.training.trainer import TrainingConfig

TARGETS = np.array([[0.05, 0.55, 0.3, 0.1, 0.0], [0.0, 0.0, 0.1, 0.2, 0.7]])
LESSONS = [
    Lesson("0", "line", "a", "a", False, "Edges are crisp.", "good", TARGETS[0]),
    Lesson("1", "line", "b", "b", False, "The image is dark, and noise hides the texture.", "low", TARGETS[1]),
]
PLAIN = VerdictLoss(head="fused", target="level", level_space="vocabulary", sentence_weight=0.25)


@pytest.fixture(scope="module")
def model() -> QualityLMM:
    return make_model()


@pytest.fixture(scope="module")
def media() -> dict[str, Medium]:
    rng = np.random.default_rng(0)
    return {name: prepare_image(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8), SPEC) for name in "ab"}


def losses(model: TwoStageLMM | QualityLMM, exercises: list[Exercise], media: dict[str, Medium], config: VerdictLoss):
    trainee = model.reasoner if isinstance(model, TwoStageLMM) else model
    objective = ReasoningObjective(trainee, {one.instruction.instruction_id: one for one in exercises}, config)
    batch = make_instruction_batch([one.instruction for one in exercises], media, {})
    return objective.losses(batch)


def log_probs(model: QualityLMM, medium: Medium | None, prompt: str, answer: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``[L, V]`` of every answer token's row, and the tokens, by the model's own forward."""
    ids, mask = model.answer_ids([answer])
    visual = [None] if medium is None else model.visual_tokens([medium])
    hidden = model.hidden_states(visual, ids, mask, prompt)
    return model.logits(hidden[0]).double().log_softmax(-1), ids[0]


def crossed(found: tuple[Tensor, Tensor]) -> Tensor:
    rows, ids = found
    return -rows.gather(1, ids[:, None])[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("head", ["fused", "rows_first"])
def test_a_description_is_the_mean_cross_entropy_of_its_tokens(model: QualityLMM, media: dict[str, Medium], head: str):
    config = dataclasses.replace(PLAIN, head=head)  # type: ignore[arg-type]
    found = losses(model, [describing(lesson, model) for lesson in LESSONS], media, config)
    wanted = [float(crossed(log_probs(model, media[one.medium], "", one.description)).mean()) for one in LESSONS]
    assert set(found) == {"description"}
    assert found["description"].tolist() == pytest.approx(wanted, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("target", ["level", "pmod"])
@pytest.mark.parametrize("space", ["vocabulary", "levels"])
def test_a_verdict_is_the_loss_of_its_level_and_a_share_of_the_words_around(
    model: QualityLMM, media: dict[str, Medium], target: str, space: str
):
    config = VerdictLoss("fused", target, space, 0.25)  # type: ignore[arg-type]
    both = pair(model, "text", shared=False)
    found = losses(both, [judging(lesson, both.reasoner, "text") for lesson in LESSONS], media, config)
    wanted = []
    for lesson in LESSONS:
        rows, ids = log_probs(model, None, lesson.description, lesson.verdict)
        level, around = len(ids) - 2, [*range(len(ids) - 2), len(ids) - 1]
        names = rows[level][list(model.level_ids)]
        names = names - names.logsumexp(0) if space == "levels" else names
        shares = lesson.target_5 if target == "pmod" else np.eye(5)[LEVELS.index(lesson.level)]
        divergence = sum(p * (math.log(p) - float(q)) for p, q in zip(shares, names, strict=True) if p > 0)
        wanted.append(divergence + 0.25 * float(crossed((rows, ids))[around].mean()))
    assert set(found) == {"verdict"}
    assert found["verdict"].tolist() == pytest.approx(wanted, rel=1e-5)


@torch.no_grad()
def test_an_answer_of_both_has_both_losses(model: QualityLMM, media: dict[str, Medium]):
    found = losses(model, [assessing(lesson, model) for lesson in LESSONS], media, PLAIN)
    for number, lesson in enumerate(LESSONS):
        one = crossed(log_probs(model, media[lesson.medium], "", f"{lesson.description} {lesson.verdict}"))
        told = len(model.tokenizer.encode(lesson.description, add_special_tokens=False))
        level = len(one) - 2
        around = torch.cat([one[told:level], one[-1:]]).mean()
        assert float(found["description"][number]) == pytest.approx(float(one[:told].mean()), rel=1e-5)
        assert float(found["verdict"][number]) == pytest.approx(float(one[level] + 0.25 * around), rel=1e-5)


@torch.no_grad()
def test_a_given_description_is_not_learnt_and_its_verdict_is_blind(model: QualityLMM, media: dict[str, Medium]):
    config = dataclasses.replace(PLAIN, level_space="levels", sentence_weight=0.0)
    found = losses(model, [judging(lesson, model, "block_mask") for lesson in LESSONS], media, config)
    assert set(found) == {"verdict"}
    texts = [Description(lesson.description, is_video=False) for lesson in LESSONS]
    logits = logits_after(model, list(media.values()), texts, "perception", blind=True).double().log_softmax(-1)
    wanted = [-float(logits[number, LEVELS.index(lesson.level)]) for number, lesson in enumerate(LESSONS)]
    assert found["verdict"].tolist() == pytest.approx(wanted, rel=1e-5)


@torch.no_grad()
def test_exercises_of_all_kinds_share_a_batch(model: QualityLMM, media: dict[str, Medium]):
    mixed = [describing(LESSONS[0], model), judging(LESSONS[1], model, "text"), assessing(LESSONS[1], model)]
    found = losses(model, mixed, media, PLAIN)
    alone = [losses(model, [one], media, PLAIN) for one in mixed]
    assert found["description"].tolist() == pytest.approx([float(alone[n]["description"]) for n in (0, 2)], rel=1e-5)
    assert found["verdict"].tolist() == pytest.approx([float(alone[n]["verdict"]) for n in (1, 2)], rel=1e-5)


@pytest.mark.parametrize("reads", ["text", "block_mask"])
def test_only_the_reasoner_gets_a_gradient(model: QualityLMM, media: dict[str, Medium], reads: ReasonerInput):
    both = pair(model, reads, shared=False)
    losses(both, [judging(LESSONS[0], both.reasoner, reads)], media, PLAIN)["verdict"].sum().backward()
    assert all(value.grad is None for value in both.describer.parameters())
    assert any(value.grad is not None for value in both.reasoner.language_model.parameters())


def exercise(number: int, kind: str) -> Instruction:
    name = f"{kind}{number:03}"
    return Instruction(name, "s", QuestionKind.OPEN, None, (), (), ("Why?",), ("So.",), (), None)


class Nothing:
    """No media."""

    broken: frozenset[str] = frozenset()

    def read(self, medium_id: str, visit: int) -> Medium:
        raise AssertionError(medium_id, visit)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.0, 0.99), st.integers(1, 9), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9))
def test_the_rehearsed_share_is_exact_at_every_point_and_every_exercise_has_its_turn(
    share: float, batch: int, steps: int, own: int, others: int
):
    config = TrainingConfig(
        engine="single", seed=3, threads=1, precision="float32", steps=steps, batch_examples=batch, micro_batches=1,
        learning_rate=1e-3, weight_decay=0.0, warm_up_share=0.0, clip_norm=1.0, checkpoint_every=1,
    )  # fmt: skip
    beside = Rehearsal([exercise(n, "describe") for n in range(others)], share)
    mixture = RehearsingMixture([exercise(n, "judge") for n in range(own)], beside, Nothing(), config, 1)
    seen: dict[str, int] = {}
    told = 0
    for step in range(steps):
        (part,) = mixture.step(step)
        assert len(part.conversation_ids) == batch
        for name in part.conversation_ids:
            seen[name] = seen.get(name, 0) + 1
        told += sum(name.startswith("describe") for name in part.conversation_ids)
        assert abs(told - share * batch * (step + 1)) <= 0.5 + 1e-9
    for kind, count in (("judge", own), ("describe", others)):
        turns = [seen.get(f"{kind}{n:03}", 0) for n in range(count)]
        assert max(turns) - min(turns) <= 1
