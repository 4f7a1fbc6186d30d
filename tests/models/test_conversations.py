"""Conversations: the same layout as a prompt, rows of the assistant alone, causal turns, media where they are shown."""

import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from models.conversations import Conversation, Turn, answer_rows, heads, opening_logits, text_tokens
from models.decoders import DecoderRecord, EncoderSize, build_internvl_config
from models.motion import MotionConfig, MotionExtractor, MotionProjector
from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_CONTEXT, TURN_END, build_tokenizer
from models.vision_encoder import EMBEDDED_SPEC

ENCODER = EncoderSize(width=32, layers=1, heads=2, mlp_width=64, tile_px=56, patch_px=14, layer_scale=1.0)
MOTION = MotionConfig(depth=18, slow_width=16, channel_ratio=8)


@pytest.fixture(scope="module")
def model() -> QualityLMM:
    tokenizer = build_tokenizer(["Is the image blurry?", "The quality of the image is good"] * 3, ["image"], 500)
    record = DecoderRecord("tiny", "test", 32, 2, 2, 1, 64, tied_embeddings=True)
    context = int(tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT))  # type: ignore[arg-type]
    torch.manual_seed(0)
    internvl = InternVLForConditionalGeneration(build_internvl_config(record, ENCODER, len(tokenizer), context))
    motion = MotionProjector(MOTION.channels, 32)
    spec = dataclasses.replace(EMBEDDED_SPEC, tile_px=ENCODER.tile_px)
    made = QualityLMM(internvl, MotionExtractor(MOTION), motion, tokenizer, spec, "You judge.").eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return made


@pytest.fixture(scope="module")
def visual() -> list[Tensor]:
    torch.manual_seed(3)
    return [torch.randn(4, 32), torch.randn(7, 32)]


def said(model: QualityLMM, *answers: str) -> list[int]:
    return [id_ for answer in answers for id_ in model.tokenizer.encode(answer + TURN_END, add_special_tokens=False)]


@torch.no_grad()
def test_one_turn_with_its_medium_first_is_the_layout_of_a_prompt(model: QualityLMM, visual: list[Tensor]):
    answers, prompts = ["Yes", "The quality of the image is good"], ["Is it blurry?", "Rate the image."]
    turns: list[Conversation] = [
        [Turn((number, f"\n{prompt}"), answer)]
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    found = answer_rows(model, visual, turns)
    ids, mask = model.answer_ids(answers)
    wanted = model.hidden_states(visual, ids, mask, prompts)[mask]
    assert found.ids_N.tolist() == ids[mask].tolist() == said(model, *answers)
    assert torch.allclose(found.hidden_ND, wanted, atol=1e-5)
    assert found.lengths_C.tolist() == mask.sum(1).tolist()
    assert found.conversation_N.tolist() == torch.nonzero(mask)[:, 0].tolist()


@torch.no_grad()
def test_only_what_the_assistant_says_is_supervised_in_every_turn(model: QualityLMM, visual: list[Tensor]):
    talk = [Turn((0, "\nIs it blurry?"), "Yes"), Turn(("And the image?",), "The quality of the image is good")]
    found = answer_rows(model, visual, [talk, [Turn(("Hello",), "Good")]])
    assert found.ids_N.tolist() == said(model, "Yes", "The quality of the image is good", "Good")
    assert found.lengths_C.tolist() == [len(said(model, *(turn.answer for turn in talk))), len(said(model, "Good"))]


@torch.no_grad()
def test_an_answer_sees_the_turns_before_it_and_nothing_after(model: QualityLMM, visual: list[Tensor]):
    first, second = Turn((0, "\nIs it blurry?"), "Yes"), Turn(("And now?",), "No")
    alone = answer_rows(model, visual, [[first]])
    both = answer_rows(model, visual, [[first, second]])
    other = answer_rows(model, visual, [[Turn(first.question, "No"), second]])
    length = len(said(model, "Yes"))
    assert torch.allclose(both.hidden_ND[:length], alone.hidden_ND, atol=1e-5)
    assert not torch.allclose(both.hidden_ND[length:], other.hidden_ND[-len(said(model, "No")) :], atol=1e-3)


@torch.no_grad()
def test_neighbours_and_padding_change_nothing(model: QualityLMM, visual: list[Tensor]):
    talks: list[Conversation] = [
        [Turn((0, "\nIs it blurry?"), "Yes")],
        [Turn((1, "\nIs the image blurry or is it not blurry at all?"), "No"), Turn(("Rate it.",), "Good")],
    ]
    together = answer_rows(model, visual, talks)
    apart = torch.cat([answer_rows(model, visual, [talk]).hidden_ND for talk in talks])
    assert torch.allclose(together.hidden_ND, apart, atol=1e-5)


@torch.no_grad()
def test_blind_tokens_do_not_attend_to_media_and_the_others_do(model: QualityLMM, visual: list[Tensor]):
    talks: list[Conversation] = [[Turn((0, "\nIs it blurry?"), "Yes good")], [Turn((1, "\nRate it."), "No")]]
    seeing, nobody = answer_rows(model, visual, talks), answer_rows(model, visual, talks, [0, 0])
    assert torch.equal(seeing.hidden_ND, nobody.hidden_ND)
    blind = answer_rows(model, visual, talks, [2, 0])  # a row predicts the token behind it
    first = int(seeing.lengths_C[0])
    assert torch.allclose(blind.hidden_ND[: first - 1], seeing.hidden_ND[: first - 1], atol=1e-5)
    assert not torch.allclose(blind.hidden_ND[first - 1], seeing.hidden_ND[first - 1], atol=1e-3)
    assert torch.allclose(blind.hidden_ND[first:], seeing.hidden_ND[first:], atol=1e-5)


@torch.no_grad()
def test_media_stand_where_they_are_shown_and_in_which_order(model: QualityLMM, visual: list[Tensor]):
    def rows(*question: str | int) -> Tensor:
        return answer_rows(model, visual, [[Turn(question, "Yes")]]).hidden_ND

    assert not torch.allclose(rows(0, 1, "\nSame?"), rows(1, 0, "\nSame?"), atol=1e-3)
    assert not torch.allclose(rows(0, "\nBlurry?"), rows("Blurry?\n", 0), atol=1e-3)
    assert rows("Without a medium?").shape == rows(0, "\nWith one?").shape


@torch.no_grad()
def test_an_opened_answer_begins_with_the_likeliest_token(model: QualityLMM, visual: list[Tensor]):
    talks: list[Conversation] = [[Turn((0, "\nIs it blurry?"), "Yes")], [Turn((1, "\nRate the image, please."), "No")]]
    opened = heads(model, visual, talks)
    logits = opening_logits(model, opened)
    rows = answer_rows(model, visual, talks)
    firsts = torch.tensor([0, len(said(model, "Yes"))])
    assert torch.allclose(logits, model.logits(rows.hidden_ND[firsts]), atol=1e-4)
    texts = model.continue_texts(opened, max_new_tokens=1)
    assert texts == [str(model.tokenizer.decode([token])).strip() for token in logits.argmax(-1).tolist()]


def test_text_is_counted_without_media(model: QualityLMM):
    talk = [Turn((0, 1, "\nBlurry? Or is it not?"), "Yes"), Turn(("Sure?",), "No")]
    text = (
        f"<|im_start|>system\n{model.system}<|im_end|>\n<|im_start|>user\n<img></img><img></img>\nBlurry? Or is it not?"
        "<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
        "No<|im_end|>"
    )
    assert text_tokens(model, talk) == len(model.tokenizer.encode(text, add_special_tokens=False))
