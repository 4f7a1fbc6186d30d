"""How frozen weights are held while others learn: in half the memory, with the same numbers, given back as found."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.quality_lmm import QualityLMM
from models.vision_encoder import VisualInput
from tasks.errors import StageError
from tasks.training.freezing import bits_of, frozen_stays, hold_frozen, parts_of, train_only


class Parts(nn.Module):
    """Matrices with bfloat16 numbers and without, one that learns, and a table that shares its matrix with a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.exact, self.inexact, self.learns = (nn.Linear(4, 4) for _ in range(3))
        self.norm = nn.LayerNorm(4)
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.table.weight
        self.offset = nn.Parameter(torch.ones(2, 2))
        self.register_buffer("mean", torch.ones(3))
        self.register_buffer("count", torch.tensor(7))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(parameter.bfloat16())
            self.inexact.weight[0, 0] += 1e-6
        train_only(self, [self.learns])


def _types(model: nn.Module) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in model.state_dict().items()}


def test_matrices_that_lose_nothing_are_held_in_half_the_memory_and_given_back():
    model = Parts()
    before = bits_of(model.state_dict())
    rows = model.table(torch.arange(5))
    release = hold_frozen(model, "bfloat16")
    narrow = {name for name, kind in _types(model).items() if kind == torch.bfloat16}
    assert narrow == {"exact.weight", "table.weight", "head.weight"}
    assert model.count.dtype == torch.int64
    held = model.table(torch.arange(5))
    assert held.dtype == torch.float32
    assert torch.equal(held, rows)
    release()
    assert bits_of(model.state_dict()) == before
    assert not model.table._forward_hooks


def test_what_was_read_in_bfloat16_is_widened_where_it_is_no_matrix_and_goes_back_to_what_it_was():
    model = Parts().bfloat16()
    before = _types(model)
    train_only(model, [model.learns])
    assert {kind for name, kind in _types(model).items() if name.startswith("learns.")} == {torch.float32}
    with torch.no_grad(), frozen_stays(model, "bfloat16") as proof:
        inside = _types(model)
        model.learns.weight += 1.0
    assert (inside["exact.weight"], inside["norm.weight"], inside["exact.bias"]) == (
        torch.bfloat16, torch.float32, torch.float32,
    )  # fmt: skip
    after = {name: kind for name, kind in _types(model).items() if not name.startswith("learns.")}
    assert after == {name: kind for name, kind in before.items() if not name.startswith("learns.")}
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad} | dict(model.named_buffers())
    assert proof.frozen_sha256 == bits_of(frozen)


def test_a_frozen_matrix_that_moves_while_it_is_held_is_found():
    model = Parts()

    def train() -> None:
        with torch.no_grad(), frozen_stays(model, "bfloat16"):
            model.exact.weight[0, 0] += 1.0
            model.learns.weight += 1.0

    with pytest.raises(StageError, match="frozen part"):
        train()


def test_in_float32_everything_is_as_it_was():
    model = Parts()
    release = hold_frozen(model, "float32")
    assert set(_types(model).values()) == {torch.float32, torch.int64}
    release()


@pytest.fixture
def base(line: Path) -> Path:
    """A base model as the stage ``base`` writes it: all in bfloat16."""
    folder = line / "artifacts" / "base" / "small"
    QualityLMM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    return folder


def _gradients(model: QualityLMM, trained: Sequence[str]) -> list[Tensor]:
    """Loss and gradients of one step under autocast: an image, a clip, words and levels."""
    generator = torch.Generator().manual_seed(1)
    media = [
        VisualInput(torch.randn(2, 3, 56, 56, generator=generator)),
        VisualInput(
            torch.randn(1, 3, 56, 56, generator=generator),
            torch.randn(3, model.spec.motion_frames, model.spec.motion_px, model.spec.motion_px, generator=generator),
        ),
    ]
    ids_BL, mask_BL = model.answer_ids(["The quality of the image is good", "Sharpness is low"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden_BLD = model(media, ids_BL, mask_BL)
        loss = model.logits(hidden_BLD[mask_BL]).float().logsumexp(1).sum()
        loss = loss - model.vocabulary_head(hidden_BLD[mask_BL], token_ids_NK=ids_BL[mask_BL][:, None]).sum()
        loss = loss + model.vocabulary_head(hidden_BLD[:, 0], columns_K=torch.tensor(model.level_ids)).square().sum()
    loss.backward()
    found = [p.grad for name in trained for m in parts_of(model)[name] for p in m.parameters() if p.grad is not None]
    assert found
    return [loss.detach(), *found]


@pytest.mark.parametrize("trained", [["image_encoder", "motion_extractor"], ["projector"], ["decoder"]])
def test_not_one_number_of_a_step_hangs_on_how_frozen_weights_are_held(base: Path, trained: list):
    found = []
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.float32), ("bfloat16", None)):
        model = QualityLMM.from_pretrained(base, dtype)
        train_only(model, [module for part in trained for module in parts_of(model)[part]])
        hold_frozen(model, precision)
        narrow = sum(p.numel() for p in model.parameters() if p.dtype == torch.bfloat16)
        frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        assert narrow > 0.9 * frozen if precision == "bfloat16" else narrow == 0
        found.append(_gradients(model, trained))
    for one in found[1:]:
        assert len(one) == len(found[0])
        assert all(torch.equal(ours, plain) for ours, plain in zip(one, found[0], strict=True))
