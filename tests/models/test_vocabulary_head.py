"""The layer and the two kinds of loss head, against each other and against the plain layer."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from models import losses
from models.vocabulary_head import HeadKind, LossHead, VocabularyHead

IDS = torch.tensor([7, 2, 9, 4, 0])
VOCABULARY, WIDTH, ROWS = 5000, 300, 12  # two blocks


def _linear(*, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, VOCABULARY, bias=bias).requires_grad_(False)


def _hidden() -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_around_shares_the_parameters_and_gives_the_same_logits():
    linear = _linear(bias=True)
    head = VocabularyHead.around(linear)
    assert head.weight is linear.weight
    assert head.bias is linear.bias
    assert {name for name, _ in head.named_parameters()} == {"weight", "bias"}
    assert (head.in_features, head.out_features) == (WIDTH, VOCABULARY)
    assert torch.equal(head(_hidden()), linear(_hidden()))
    assert VocabularyHead.around(_linear()).bias is None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("space", ["levels", "vocabulary"])
def test_both_kinds_give_the_same_level_losses_and_gradients(*, bias: bool, space: losses.LevelSpace):
    head = VocabularyHead.around(_linear(bias=bias))
    target = torch.rand(ROWS, 5, generator=torch.Generator().manual_seed(2))
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for kind in ("fused", "rows_first"):
        hidden = _hidden()
        log_probs = LossHead(head, IDS, cast("HeadKind", kind)).levels(hidden, space)
        losses.level_divergence(log_probs, target / target.sum(1, keepdim=True)).sum().backward()
        assert hidden.grad is not None
        found[kind] = log_probs.detach(), hidden.grad
    for fused, plain in zip(found["fused"], found["rows_first"], strict=True):
        assert torch.allclose(fused, plain, atol=2e-6)


def test_both_kinds_give_the_same_token_losses_and_gradients():
    head = VocabularyHead.around(_linear())
    ids = torch.randint(VOCABULARY, (ROWS,), generator=torch.Generator().manual_seed(3))
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for kind in ("fused", "rows_first"):
        hidden = _hidden()
        log_probs = LossHead(head, IDS, cast("HeadKind", kind)).tokens(hidden, ids)
        losses.focal_of(log_probs).sum().backward()
        assert hidden.grad is not None
        found[kind] = log_probs.detach(), hidden.grad
    for fused, plain in zip(found["fused"], found["rows_first"], strict=True):
        assert torch.allclose(fused, plain, atol=2e-6)


def test_levels_alone_read_five_columns_of_the_weight():
    linear = _linear()
    with torch.no_grad():
        linear.weight[torch.isin(torch.arange(VOCABULARY), IDS, invert=True)] = torch.nan
    head = LossHead(VocabularyHead.around(linear), IDS, "fused")
    hidden = _hidden()
    found = head.levels(hidden, "levels")
    found.sum().backward()
    assert torch.allclose(found.exp().sum(1), torch.ones(ROWS))
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_every_answer_goes_through_the_modules_own_call():
    # ZeRO-3 gathers a partitioned weight in hooks of the module that owns it.
    head = VocabularyHead.around(_linear())
    calls: list[int] = []
    head.register_forward_pre_hook(lambda *_: calls.append(1))
    loss_head = LossHead(head, IDS, "fused")
    loss_head.tokens(_hidden(), torch.zeros(ROWS, dtype=torch.long))
    loss_head.levels(_hidden(), "levels")
    loss_head.levels(_hidden(), "vocabulary")
    assert len(calls) == 3


@pytest.mark.parametrize("space", ["levels", "vocabulary"])
def test_a_trained_head_learns_from_level_rows(space: losses.LevelSpace):
    linear = _linear().requires_grad_(True)
    head = VocabularyHead.around(linear)
    gradients = []
    for kind in ("fused", "rows_first"):
        linear.weight.grad = None
        LossHead(head, IDS, cast("HeadKind", kind)).levels(_hidden(), space)[:, 1].sum().backward()
        assert linear.weight.grad is not None
        gradients.append(linear.weight.grad)
    assert torch.allclose(*gradients, atol=2e-6)
