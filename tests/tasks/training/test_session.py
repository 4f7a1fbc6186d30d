import dataclasses
from pathlib import Path

import pytest
import torch

from models.quality_lmm import QualityLMM
from tasks.archives import Archives
from tasks.errors import StageError
from tasks.prepared import Preparation, PreparedMedia, Views, prepare_media
from tasks.records import Split, Task
from tasks.stage import Place
from tasks.training.batches import BatchConfig, Material, Mixture, RankShare
from tasks.training.lengths import SequenceLengths
from tasks.training.objective import LossConfig, QualityObjective
from tasks.training.session import SplitData, Weighted, count_tasks, load_split, without_rejects
from tasks.training.trainer import TrainingConfig

SHARES = {"single": 0.4, "pair": 0.2, "distortion": 0.2, "description": 0.2}
CONFIG = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=3, batch_examples=12, micro_batches=1,
    learning_rate=1e-3, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
LOSSES = LossConfig(
    head="fused", level_space="levels", prefix_weight=0.01, prefix_tokens="before_level", pair="thurstone",
    pair_scale=5.0, davidson_tie=1.0, pair_level_weight=0.0, pair_prefix_weight=0.0, text="focal", focal_alpha=1.0,
    focal_beta=2.0,
)  # fmt: skip


@pytest.fixture
def data(line: Path) -> SplitData:
    return load_split(Place(line, line, line), Split.WARM_UP, SHARES)


@pytest.fixture
def model(line: Path) -> QualityLMM:
    return QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")


@pytest.fixture
def media(line: Path, model: QualityLMM, data: SplitData) -> PreparedMedia:
    reader = Archives(Place(line, line, line), None).read
    return prepare_media(line / "m", data.media, reader, Views(model.spec, 1, 7), Preparation("pretrain", 1, 0.0))


def test_a_split_holds_its_examples_media_and_contents(data: SplitData):
    assert count_tasks(data.examples) == count_tasks(list(data.examples))
    assert set(data.media["id"]) == {medium for example in data.examples for medium in example.ids}
    assert data.contents == 3  # two photographs and a clip: tests/tasks/conftest.py


def test_a_missing_set_says_what_to_run(line: Path):
    (line / "artifacts" / "assemble" / "training_set" / "media.arrow").unlink()
    with pytest.raises(StageError, match="run dvc repro assemble"):
        load_split(Place(line, line, line), Split.WARM_UP, SHARES)


def test_listed_and_mapped_examples_lose_the_same_to_broken_media(data: SplitData, media: PreparedMedia):
    media.broken = frozenset({data.examples[0].ids[0]})
    mapped, listed = without_rejects(data.examples, media), without_rejects(list(data.examples), media)
    assert [example.example_id for example in mapped] == [example.example_id for example in listed]
    assert count_tasks(mapped) == count_tasks(listed)
    assert len(mapped) < len(data.examples)


def _gradient(model: QualityLMM, material: Material, parts: int, ranks: int) -> tuple[float, torch.Tensor]:
    """Step 1's loss and the gradient of the image encoder, summed over micro-batches and processes as a loop does."""
    objective = Weighted(QualityObjective(model, LOSSES))
    config = dataclasses.replace(CONFIG, micro_batches=parts)
    model.zero_grad()
    batches = [b for rank in range(ranks) for b in Mixture(material, config, RankShare(rank, ranks, list)).step(1)]
    examples = sum(len(batch.example_ids) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = torch.cat(list(objective.losses(batch).values())).sum() / examples
        loss.backward()
        total += float(loss.detach())
    gradients = [p.grad.flatten() for p in model.image_encoder.parameters() if p.grad is not None]
    return total, torch.cat(gradients)


@pytest.mark.parametrize("normalise", ["examples", "tokens"])
def test_cutting_and_grouping_change_neither_loss_nor_gradient(
    model: QualityLMM, data: SplitData, media: PreparedMedia, normalise: str
):
    lengths = SequenceLengths(model, data.examples.medium)
    results = []
    for grouping, parts, ranks in (("dealt", 1, 1), ("dealt", 4, 1), ("length", 4, 1), ("length", 3, 2)):
        batches = BatchConfig("shuffled", grouping, normalise)  # type: ignore[arg-type]
        results.append(_gradient(model, Material(data.examples, media, SHARES, batches, lengths), parts, ranks))
    (loss, gradient), others = results[0], results[1:]
    for other_loss, other_gradient in others:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert torch.allclose(other_gradient, gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-7)


@torch.no_grad()
def test_by_tokens_texts_are_the_mean_over_all_their_tokens(model: QualityLMM, data: SplitData, media: PreparedMedia):
    """Against the token losses of each text alone, summed and divided by the number of all tokens."""
    lengths = SequenceLengths(model, data.examples.medium)
    config = dataclasses.replace(CONFIG, micro_batches=4)
    material = Material(data.examples, media, SHARES, BatchConfig("shuffled", "length", "tokens"), lengths)
    weighted = Weighted(QualityObjective(model, LOSSES))
    texts: list[float] = []
    sums, tokens = 0.0, 0
    for batch in Mixture(material, config).step(0):
        found = weighted.losses(batch)
        texts += [float(value) for task in found if task not in (Task.SINGLE, Task.PAIR) for value in found[task]]
        for sample, example in enumerate(batch.example_B.tolist()):
            if batch.tasks[example] in (Task.SINGLE, Task.PAIR):
                continue
            ids_BL, mask_BL = model.answer_ids([batch.answers[sample]])
            hidden_BLD = model([batch.inputs[batch.medium_B[sample]]], ids_BL, mask_BL)
            log_p = model.logits(hidden_BLD[0]).log_softmax(-1).gather(-1, ids_BL[0, :, None])[:, 0]
            sums += float((-((1 - log_p.exp()) ** 2) * log_p).sum())
            tokens += len(log_p)
    assert sum(texts) / len(texts) == pytest.approx(sums / tokens, rel=1e-4)
