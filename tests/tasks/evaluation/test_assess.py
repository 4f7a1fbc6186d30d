import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from models.distortions import IMAGE_CELLS, words
from models.errors import ModelError
from models.levels import level_of
from models.probe_head import QualityProbe
from models.quality_lmm import QualityLMM
from models.questions import question_of
from models.tokenizer import TURN_END
from models.vision_encoder import prepare_image
from tasks.devices import Computing
from tasks.errors import MediaError
from tasks.evaluation import assess as core
from tasks.evaluation.assess import (
    Assessment,
    Rejected,
    Wanted,
    assess,
    assess_many,
    assess_path,
    distortion_answers,
    load_judge,
)
from tasks.media import decode_image
from tasks.pool import load_candidates, read_media
from tasks.records import Modality
from tasks.stage import Place


@pytest.fixture
def model(line: Path) -> QualityLMM:
    return QualityLMM.from_pretrained(line / "artifacts" / "base" / "small")


def _bytes(line: Path, modality: str) -> bytes:
    place = Place(line, line / "w", line / "w" / "out")
    pool = load_candidates(place)
    return read_media(place, pool[pool["modality"] == modality].iloc[0])


@pytest.mark.parametrize("modality", ["image", "video"])
def test_an_assessment_is_complete_and_deterministic(line: Path, model: QualityLMM, modality: str, tmp_path: Path):
    path = tmp_path / "medium"
    path.write_bytes(_bytes(line, modality))
    found = assess_path(path, model)
    assert found == assess_path(path, model)
    assert found.path == path
    assert sum(found.level_probs) == pytest.approx(1.0, abs=1e-6)
    assert found.score == pytest.approx(
        sum(p * c for p, c in zip(found.level_probs, (0.9, 0.7, 0.5, 0.3, 0.1), strict=True))
    )
    assert found.level == level_of(found.score)
    assert found.distortion in distortion_answers(Modality(modality))


def test_a_question_is_answered_after_the_medium(line: Path, model: QualityLMM):
    data = _bytes(line, "image")
    medium = prepare_image(decode_image(data), model.spec)
    wanted = model.generate([medium], "Is the image blurry?\nA. Yes\nB. No", max_new_tokens=48)[0]
    assert assess(data, model, question="Is the image blurry?\nA. Yes\nB. No").answer == wanted
    assert assess(data, model).answer is None


def test_the_distortion_is_the_likeliest_of_the_closed_set(line: Path, model: QualityLMM):
    data = _bytes(line, "image")
    answers = distortion_answers(Modality.IMAGE)
    assert set(answers) == {words(kind, severity) for kind, severity in IMAGE_CELLS}
    medium = prepare_image(decode_image(data), model.spec)
    ids, mask = model.answer_ids(list(answers))
    with torch.no_grad():
        log_probs = model.logits(model([medium] * len(answers), ids, mask)).log_softmax(-1)
    likelihood = (log_probs.gather(-1, ids[..., None])[..., 0] * mask).sum(-1)
    assert assess(data, model).distortion == answers[int(likelihood.argmax())]


def test_a_description_never_opens_like_the_other_tasks(line: Path, model: QualityLMM):
    data = _bytes(line, "image")
    # A head that always answers with the scoring sentence or a severity would do so here, were it not for the openings.
    ids, _ = model.answer_ids(["The quality", "slight", "mild", "severe", "very severe"], end=False)
    bias = torch.zeros(model.internvl.lm_head.out_features)
    bias[ids.flatten().unique()] = 100.0
    bias[model.tokenizer.convert_tokens_to_ids(TURN_END)] = -100.0  # random weights may have nothing else to say
    model.internvl.lm_head.register_forward_hook(lambda _module, _inputs, output: output + bias)
    text = assess(data, model).description
    assert text
    assert not text.startswith(("The quality", "slight", "mild", "relatively", "severe", "very"))


def test_what_cannot_be_read_is_refused(model: QualityLMM, tmp_path: Path):
    with pytest.raises(MediaError, match="cannot read"):
        assess_path(tmp_path / "absent.png", model)
    with pytest.raises(MediaError):
        assess(b"\x00\x01", model)


def test_a_model_that_was_asked_in_training_is_asked_for_every_readout(
    line: Path, model: QualityLMM, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    real = QualityLMM._head_embeddings

    def spy(self: QualityLMM, tokens_KD: torch.Tensor | None, prompt: str) -> torch.Tensor:
        told.append(prompt)
        return real(self, tokens_KD, prompt)

    monkeypatch.setattr(QualityLMM, "_head_embeddings", spy)
    assess(_bytes(line, "image"), model)
    model.question = "asked"
    assess(_bytes(line, "image"), model)
    tasks = ("single", "distortion", "description")
    assert told == ["", "", "", *(question_of(task, "asked", is_video=False) for task in tasks)]


@pytest.fixture
def folder(line: Path, tmp_path: Path) -> list[Path]:
    """Seven files: images, clips among them, and one that is broken."""
    place = Place(line, line / "w", line / "w" / "out")
    pool = load_candidates(place)
    rows = [row for _, row in pool.iterrows()]
    chosen = [row for row in rows if row["modality"] == "video"][:2] + [row for row in rows if row["frames"] == 1][:4]
    paths = []
    for number in (2, 0, 3, 4, 1, 5):  # clips stand between images
        path = tmp_path / f"{len(paths)}.bin"
        path.write_bytes(read_media(place, chosen[number]))
        paths.append(path)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 nothing")
    return [*paths[:2], broken, *paths[2:]]


def _numbers(found: Assessment) -> list[float]:
    return [found.score, *found.level_probs]


def _texts(found: Assessment) -> tuple[Any, ...]:
    return found.path, found.level, found.distortion, found.description, found.answer


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_batches_say_what_each_file_alone_is_told(folder: list[Path], model: QualityLMM, batch: int):
    question = "Is the image blurry?"
    found = list(assess_many(folder, model, Wanted(question, batch=batch)))
    assert [one.path for one in found] == folder
    for path, one in zip(folder, found, strict=True):
        if isinstance(one, Rejected):
            assert path.name == "broken.jpg"
            with pytest.raises(MediaError, match=str(one.error)[:20]):
                assess_path(path, model)
            continue
        alone = assess_path(path, model, question)
        assert _texts(one) == _texts(alone)
        assert _numbers(one) == pytest.approx(_numbers(alone), abs=1e-5)


def test_without_text_the_numbers_are_the_same_and_no_word_is_computed(
    folder: list[Path], model: QualityLMM, monkeypatch: pytest.MonkeyPatch
):
    told = [one for one in assess_many(folder, model, Wanted(batch=4)) if isinstance(one, Assessment)]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a word was computed")

    for name in ("generate", "answer_log_likelihood"):
        monkeypatch.setattr(QualityLMM, name, never)
    plain = [one for one in assess_many(folder, model, Wanted(text=False, batch=4)) if isinstance(one, Assessment)]
    assert [dataclasses.replace(one, distortion=None, description=None) for one in told] == plain


def test_no_more_than_two_batches_are_in_memory_and_decoding_goes_on_while_the_model_runs(
    folder: list[Path], model: QualityLMM, monkeypatch: pytest.MonkeyPatch
):
    opened, told, ahead = threading.Semaphore(0), 0, []
    real_open, real_judged = core._open, core._judged
    count = 0

    def counted_open(path: Path, spec: Any) -> Any:
        nonlocal count
        count += 1
        opened.release()
        return real_open(path, spec)

    def judged(media: Any, *rest: Any) -> Any:
        if told == 0:  # the first batch is in the model; those after it are opened by other threads meanwhile
            assert all(opened.acquire(timeout=30) for _ in range(4))
        ahead.append(count - told)
        return real_judged(media, *rest)

    monkeypatch.setattr(core, "_open", counted_open)
    monkeypatch.setattr(core, "_judged", judged)
    images = [path for path in folder if path.name != "broken.jpg"] * 3
    for _ in assess_many(images, model, Wanted(text=False, batch=2)):
        told += 1
    assert count == told == len(images)
    assert max(ahead) <= 4


def test_whoever_stops_listening_stops_the_decoding(folder: list[Path], model: QualityLMM):
    before = threading.active_count()
    results = assess_many(folder * 50, model, Wanted(text=False, batch=2))
    next(results)
    results.close()  # type: ignore[attr-defined] - a generator
    assert threading.active_count() == before


def test_a_probe_tells_score_and_level_and_refuses_questions(folder: list[Path], model: QualityLMM, tmp_path: Path):
    probe = QualityProbe(model.image_encoder, model.motion_extractor, model.spec, (1, 2), 16).eval()
    probe.head.start_anew(torch.Generator().manual_seed(1))
    torch.nn.init.normal_(probe.head.outer.bias)
    probe.save_pretrained(tmp_path / "probe")
    model.save_pretrained(tmp_path / "whole")
    judge = load_judge(tmp_path / "probe")
    assert isinstance(judge, QualityProbe)
    assert isinstance(load_judge(tmp_path / "whole"), QualityLMM)
    for one in assess_many(folder, judge, Wanted(batch=3)):
        if isinstance(one, Assessment):
            assert one.level == level_of(one.score)
            assert (one.distortion, one.description, one.answer) == (None, None, None)
            assert _numbers(one) == pytest.approx(_numbers(assess_path(one.path, judge)), abs=1e-5)
    with pytest.raises(ModelError, match="a probe tells score and level and has no words"):
        assess_many(folder, judge, Wanted("Is it blurry?"))
    with pytest.raises(ModelError, match="no words"):
        assess_path(folder[0], judge, "Is it blurry?")


@pytest.mark.parametrize("kind", ["whole", "probe"])
def test_a_model_computes_where_and_how_it_is_told(folder: list[Path], model: QualityLMM, kind: str, tmp_path: Path):
    if kind == "whole":
        model.save_pretrained(tmp_path / kind)
    else:
        QualityProbe(model.image_encoder, model.motion_extractor, model.spec, (1, 2), 16).save_pretrained(
            tmp_path / kind
        )
    exact = load_judge(tmp_path / kind)
    assert {value.dtype for value in exact.parameters()} == {torch.float32}
    lowered = load_judge(tmp_path / kind, Computing(torch.device("cpu"), "bfloat16"))
    assert {value.dtype for value in lowered.parameters()} == {torch.bfloat16}
    wanted = Wanted(batch=4)
    pairs = list(zip(assess_many(folder, exact, wanted), assess_many(folder, lowered, wanted), strict=True))
    assert sum(isinstance(one, Assessment) for pair in pairs for one in pair) == 2 * (len(folder) - 1)
    for one, other in pairs:
        if isinstance(one, Assessment):
            assert isinstance(other, Assessment)
            assert _numbers(other) == pytest.approx(_numbers(one), abs=0.02)
            assert _numbers(other) != _numbers(one)
    elsewhere = load_judge(tmp_path / kind, Computing(torch.device("meta"), "float32"))
    assert {value.device.type for value in elsewhere.parameters()} == {"meta"}


def test_levels_of_a_bfloat16_model_are_told_apart_finer_than_bfloat16_does(model: QualityLMM, line: Path):
    medium = prepare_image(decode_image(_bytes(line, "image")), model.spec)
    lowered = model.to(torch.bfloat16)
    with torch.no_grad():
        ids, mask = lowered.answer_ids(["The quality of the image is high"], end=False)
        hidden_D = lowered([medium], ids, mask)[0, -1].float()
        head = lowered.internvl.lm_head
        weight_5D = head.weight[list(lowered.level_ids)].float()
    expected = (weight_5D @ hidden_D).softmax(-1)
    assert torch.allclose(lowered.level_probabilities([medium])[0], expected, atol=1e-6)
    coarse = lowered.logits(hidden_D.bfloat16())[list(lowered.level_ids)].float().softmax(-1)
    assert not torch.allclose(coarse, expected, atol=1e-6)


@pytest.mark.parametrize("values", [{"batch": 0}, {"threads": 0}])
def test_a_batch_of_nothing_is_refused(values: dict[str, int]):
    with pytest.raises(ModelError, match="at least 1"):
        Wanted(**values)  # type: ignore[arg-type] - numbers by name
