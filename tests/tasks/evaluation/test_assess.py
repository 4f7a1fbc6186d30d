from pathlib import Path

import pytest
import torch

from models.distortions import IMAGE_CELLS, words
from models.levels import level_of
from models.quality_lmm import QualityLMM
from models.questions import question_of
from models.tokenizer import TURN_END
from models.vision_encoder import prepare_image
from tasks.errors import MediaError
from tasks.evaluation.assess import assess, assess_path, distortion_answers
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
