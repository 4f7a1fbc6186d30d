"""The rows that each answer supervises, against the same losses put together by hand from whole logits."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import norm

from models import loss_head
from models.levels import CENTRES, LEVELS
from models.quality_lmm import QualityLMM
from tasks.errors import StageError
from tasks.pool import load_candidates, read_media
from tasks.prepared import Preparation, PreparedMedia, Views, prepare_media
from tasks.records import Split, Task
from tasks.stage import Place
from tasks.training.batches import Batch, Draw, make_batch, shown_by
from tasks.training.engine import repeated_layers
from tasks.training.examples import Example, open_examples
from tasks.training.objective import LossConfig, QualityObjective

PAPER = LossConfig(
    head="fused", level_space="levels", prefix_weight=0.01, prefix_tokens="before_level", pair="thurstone",
    pair_scale=5.0, davidson_tie=1.0, pair_level_weight=0.0, pair_prefix_weight=0.0, text="focal", focal_alpha=1.0,
    focal_beta=2.0,
)  # fmt: skip
ALL = {"single": 1.0, "pair": 1.0, "distortion": 1.0, "description": 1.0}


@pytest.fixture
def model(line: Path) -> QualityLMM:
    return QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")


@pytest.fixture
def examples(line: Path) -> dict[Task, list[Example]]:
    found = open_examples(line / "artifacts" / "assemble" / "training_set", Split.WARM_UP, ALL)
    return {task: [example for example in found if example.task is task] for task in Task}


@pytest.fixture
def media(line: Path, model: QualityLMM) -> PreparedMedia:
    place = Place(line, line / "w", line / "w" / "out")
    pool = load_candidates(place)
    preparation = Preparation("test", 1, 0.0)
    return prepare_media(
        line / "w",
        pool[pool["split"] == "warm_up"],
        lambda row: read_media(place, row),
        Views(model.spec, 1, 0),
        preparation,
    )


def _batch(chosen: list[Example], media: PreparedMedia) -> Batch:
    draws = [Draw(example, (0,) * len(example.ids)) for example in chosen]
    read = {medium: media.read(medium, visit) for medium, visit in shown_by(draws).items()}
    return make_batch(draws, read, dict.fromkeys((example.example_id for example in chosen), 1.0))


@torch.no_grad()
def _log_probs(model: QualityLMM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of the whole vocabulary at every answer position: the naive path."""
    ids, mask = model.answer_ids(batch.answers)
    return model.logits(model([batch.inputs[i] for i in batch.medium_B], ids, mask)).double().log_softmax(-1), ids, mask


def test_single_is_divergence_plus_weighted_sentence(model: QualityLMM, examples: dict, media: PreparedMedia):
    batch = _batch(examples[Task.SINGLE][:4], media)
    log_probs, ids, mask = _log_probs(model, batch)
    found = QualityObjective(model, PAPER).losses(batch)
    assert set(found) == {Task.SINGLE}
    for sample in range(4):
        level = next(i for i, token in enumerate(ids[sample].tolist()) if token in model.level_ids)
        level_logs = log_probs[sample, level, list(model.level_ids)].log_softmax(-1)
        target = batch.targets_B5[sample].double()
        divergence = sum(float(p) * (math.log(p) - float(q)) for p, q in zip(target, level_logs, strict=True) if p > 0)
        sentence = -sum(float(log_probs[sample, i, ids[sample, i]]) for i in range(level)) / int(mask[sample].sum())
        assert found[Task.SINGLE][sample].item() == pytest.approx(divergence + 0.01 * sentence, abs=1e-5)


def test_released_single_normalises_over_all_words_and_trains_the_rest_of_the_answer(
    model: QualityLMM, examples: dict, media: PreparedMedia
):
    batch = _batch(examples[Task.SINGLE][:2], media)
    log_probs, ids, mask = _log_probs(model, batch)
    released = dataclasses.replace(PAPER, level_space="vocabulary", prefix_weight=0.05, prefix_tokens="all_but_level")
    found = QualityObjective(model, released).losses(batch)[Task.SINGLE]
    for sample in range(2):
        length = int(mask[sample].sum())
        level = next(i for i, token in enumerate(ids[sample].tolist()) if token in model.level_ids)
        target = batch.targets_B5[sample].double()
        level_logs = log_probs[sample, level, list(model.level_ids)]
        divergence = sum(float(p) * (math.log(p) - float(q)) for p, q in zip(target, level_logs, strict=True) if p > 0)
        others = [i for i in range(length) if i != level]
        rest = -sum(float(log_probs[sample, i, ids[sample, i]]) for i in others) / length
        assert found[sample].item() == pytest.approx(divergence + 0.05 * rest, abs=1e-5)


def test_pairs_compare_the_expectations_of_their_members(model: QualityLMM, examples: dict, media: PreparedMedia):
    pairs = sorted(examples[Task.PAIR], key=lambda example: example.preference)
    batch = _batch([pairs[0], pairs[-1]], media)
    log_probs, ids, _ = _log_probs(model, batch)
    means = []
    for sample in range(4):
        level = next(i for i, token in enumerate(ids[sample].tolist()) if token in model.level_ids)
        probs = log_probs[sample, level, list(model.level_ids)].softmax(-1)
        means.append(5 * float(probs @ torch.tensor(CENTRES)))
    found = QualityObjective(model, PAPER).losses(batch)[Task.PAIR]
    assert batch.preference_E.tolist() == [0.0, 1.0]
    assert found[0].item() == pytest.approx(-math.log(norm.cdf((means[1] - means[0]) / math.sqrt(2))), abs=1e-5)
    assert found[1].item() == pytest.approx(-math.log(norm.cdf((means[2] - means[3]) / math.sqrt(2))), abs=1e-5)


@pytest.mark.parametrize("kind", ["davidson", "fidelity"])
def test_other_pair_models_add_the_members_own_losses_by_weight(
    model: QualityLMM, examples: dict, media: PreparedMedia, kind: str
):
    batch = _batch(examples[Task.PAIR][:3], media)
    plain = QualityObjective(model, dataclasses.replace(PAPER, pair=kind)).losses(batch)[Task.PAIR]
    heavy = dataclasses.replace(PAPER, pair=kind, pair_level_weight=0.5, pair_prefix_weight=0.05)
    both = QualityObjective(model, heavy).losses(batch)[Task.PAIR]
    singles = dataclasses.replace(batch, tasks=[Task.SINGLE] * 6, example_B=torch.arange(6), example_ids=["x"] * 6)
    alone = QualityObjective(model, dataclasses.replace(PAPER, prefix_weight=0.1)).losses(singles)[Task.SINGLE]
    assert torch.allclose(both - plain, 0.5 * alone.reshape(3, 2).sum(1), atol=1e-5)


def test_text_is_the_focal_mean_over_the_whole_answer(model: QualityLMM, examples: dict, media: PreparedMedia):
    batch = _batch([examples[Task.DISTORTION][0], examples[Task.DESCRIPTION][0]], media)
    log_probs, ids, mask = _log_probs(model, batch)
    found = QualityObjective(model, PAPER).losses(batch)
    plain = QualityObjective(model, dataclasses.replace(PAPER, text="cross_entropy")).losses(batch)
    assert list(found) == [Task.DESCRIPTION, Task.DISTORTION]
    for sample, task in ((0, Task.DISTORTION), (1, Task.DESCRIPTION)):
        length = int(mask[sample].sum())
        logs = [float(log_probs[sample, i, ids[sample, i]]) for i in range(length)]
        focal = -sum((1 - math.exp(value)) ** 2 * value for value in logs) / length
        assert found[task].item() == pytest.approx(focal, abs=1e-4)
        assert plain[task].item() == pytest.approx(-sum(logs) / length, abs=1e-4)


def test_a_mixed_batch_gives_the_losses_of_its_parts(model: QualityLMM, examples: dict, media: PreparedMedia):
    chosen = [examples[task][0] for task in (Task.PAIR, Task.SINGLE, Task.DESCRIPTION, Task.DISTORTION, Task.PAIR)]
    mixed = QualityObjective(model, PAPER).losses(_batch(chosen, media))
    for task in Task:
        alone = QualityObjective(model, PAPER).losses(_batch([e for e in chosen if e.task is task], media))
        assert torch.allclose(mixed[task], alone[task], atol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_a_batch_tells_beforehand_whether_the_encoders_layers_run(
    model: QualityLMM, examples: dict, media: PreparedMedia, *, cached: bool
):
    batch = _batch(examples[Task.SINGLE][:2], media)
    if cached:
        with torch.no_grad():
            batch = dataclasses.replace(batch, inputs=list(model.visual_features(batch.inputs)))
    ran: list[str] = []
    for part in ("encoder", "decoder"):
        for layer in repeated_layers(model, [part]):
            layer.register_forward_pre_hook(lambda *_, part=part: ran.append(part))
    QualityObjective(model, PAPER).losses(batch)
    assert batch.encodes == ("encoder" in ran) == (not cached)
    assert ran.count("decoder") == len(repeated_layers(model, ["decoder"])) > 0


def test_a_scored_answer_without_a_level_word_is_an_error(model: QualityLMM, examples: dict, media: PreparedMedia):
    example = examples[Task.SINGLE][0]
    broken = dataclasses.replace(example, answers=("Sharpness is",))
    with pytest.raises(StageError, match=example.example_id):
        QualityObjective(model, PAPER).losses(_batch([broken], media))


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"level_space": "vocabulary", "prefix_weight": 0.05, "prefix_tokens": "all_but_level", "pair": "fidelity",
         "pair_level_weight": 0.5, "pair_prefix_weight": 0.05, "text": "cross_entropy"},
        {"prefix_weight": 0.0, "pair": "davidson", "pair_level_weight": 0.5, "focal_beta": 0.5},
    ],
    ids=["paper", "released", "mixed"],
)  # fmt: skip
def test_the_fused_head_trains_as_whole_logits_do(
    model: QualityLMM,
    examples: dict,
    media: PreparedMedia,
    variant: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(loss_head, "BLOCK_WEIGHTS", 64)  # the tiny vocabulary takes several blocks
    model.requires_grad_(False)
    model.image_encoder.requires_grad_(True)
    assert model.vocabulary_head.out_features > 2 * loss_head.BLOCK_STEP
    batch = _batch([examples[task][index] for task in Task for index in range(2)], media)
    found: dict[str, tuple[dict[str, torch.Tensor], torch.Tensor]] = {}
    for head in ("fused", "rows_first"):
        model.zero_grad()
        task_losses = QualityObjective(model, dataclasses.replace(PAPER, head=head, **variant)).losses(batch)
        torch.cat(list(task_losses.values())).mean().backward()
        slopes = [p.grad.flatten() for p in model.image_encoder.parameters() if p.grad is not None]
        found[head] = task_losses, torch.cat(slopes)
    (fused, fused_slope), (plain, plain_slope) = found["fused"], found["rows_first"]
    assert list(fused) == list(plain)
    assert all(torch.allclose(fused[task], plain[task], atol=1e-5) for task in plain)
    assert (fused_slope - plain_slope).abs().max() <= 1e-5 * plain_slope.abs().max()


def test_one_pass_reads_every_word_and_level_rows_read_five_columns(
    model: QualityLMM, examples: dict, media: PreparedMedia
):
    calls: list[dict[str, Any]] = []
    model.vocabulary_head.register_forward_pre_hook(
        lambda _module, _inputs, named: calls.append(named), with_kwargs=True
    )
    batch = _batch([examples[task][0] for task in Task], media)
    QualityObjective(model, PAPER).losses(batch)
    assert [sorted(call) for call in calls] == [["token_ids_NK"], ["columns_K"]]
    calls.clear()
    scoring = _batch([examples[Task.SINGLE][0], examples[Task.PAIR][0]], media)
    QualityObjective(model, dataclasses.replace(PAPER, prefix_weight=0.0)).losses(scoring)
    assert [len(call["token_ids_NK"]) for call in calls if "token_ids_NK" in call] in ([], [0])


def test_the_level_target_is_cross_entropy_on_the_level_word_and_its_gradient(
    model: QualityLMM, examples: dict, media: PreparedMedia
):
    batch = _batch(examples[Task.SINGLE][:3], media)
    config = dataclasses.replace(PAPER, target="level", prefix_weight=0.0)
    weights = [model.image_encoder.embeddings.cls_token, model.projector.linear_1.weight]

    def gradient(loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, weights))

    found = QualityObjective(model, config).losses(batch)[Task.SINGLE]
    ids, mask = model.answer_ids(batch.answers)
    logits = model.logits(model([batch.inputs[i] for i in batch.medium_B], ids, mask))
    wanted = []
    for sample, answer in enumerate(batch.answers):
        word = answer.split()[-1]
        position = ids[sample].tolist().index(model.level_ids[LEVELS.index(word)])
        five = logits[sample, position, list(model.level_ids)]
        wanted.append(torch.nn.functional.cross_entropy(five[None], torch.tensor([LEVELS.index(word)])))
    assert torch.allclose(found, torch.stack(wanted), atol=1e-5)
    for ours, theirs in zip(gradient(found.sum()), gradient(torch.stack(wanted).sum()), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)
        assert ours.abs().sum() > 0


def test_the_level_target_leaves_preferences_alone_and_reaches_pairs_by_their_level_weight(
    model: QualityLMM, examples: dict, media: PreparedMedia
):
    batch = _batch(examples[Task.PAIR][:3], media)
    plain = QualityObjective(model, PAPER).losses(batch)[Task.PAIR]
    level = dataclasses.replace(PAPER, target="level")
    assert torch.equal(QualityObjective(model, level).losses(batch)[Task.PAIR], plain)
    heavy = QualityObjective(model, dataclasses.replace(level, pair_level_weight=0.5)).losses(batch)[Task.PAIR]
    singles = dataclasses.replace(batch, tasks=[Task.SINGLE] * 6, example_B=torch.arange(6), example_ids=["x"] * 6)
    alone = QualityObjective(model, dataclasses.replace(level, prefix_weight=0.0)).losses(singles)[Task.SINGLE]
    assert torch.allclose(heavy - plain, 0.5 * alone.reshape(3, 2).sum(1), atol=1e-5)


def test_a_model_that_asks_is_trained_behind_its_questions(
    model: QualityLMM, examples: dict, media: PreparedMedia, monkeypatch: pytest.MonkeyPatch
):
    chosen = [examples[Task.SINGLE][0], examples[Task.PAIR][0], examples[Task.DISTORTION][0]]
    chosen.append(examples[Task.DESCRIPTION][-1])
    batch = _batch(chosen, media)
    told: list[list[str]] = []
    real = model.hidden_states

    def spy(visual: Any, ids: Any, mask: Any, prompt: Any = "") -> torch.Tensor:
        told.append(list(prompt))
        return real(visual, ids, mask, prompt)

    monkeypatch.setattr(model, "hidden_states", spy)
    empty = QualityObjective(model, PAPER).losses(batch)
    model.question = "asked"
    asked = QualityObjective(model, PAPER).losses(batch)
    assert told[0] == [""] * 5
    words = ["video" if batch.inputs[m].is_video else "image" for m in batch.medium_B]
    rating = [f"How would you rate the quality of this {word}?" for word in words[:3]]
    assert told[1][:3] == rating
    assert "distortion" in told[1][3]
    assert told[1][4].startswith("What would you say")
    assert all(not torch.equal(empty[task], asked[task]) for task in empty)
