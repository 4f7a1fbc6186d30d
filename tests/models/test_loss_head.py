"""The fused head against float64 mathematics in numpy, finite differences, and whole logits."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models import losses
from models.errors import ModelError
from models.loss_head import BLOCK_LOGITS, BLOCK_WEIGHTS, block_tokens, token_log_probs
from models.opinion import pmod


@dataclasses.dataclass
class Case:
    """A head with rows before it."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    ids: Tensor

    def log_probs(self, block: int | None = None) -> Tensor:
        return token_log_probs(self.hidden, self.weight, self.bias, self.ids, block)

    def to(self, kind: torch.dtype) -> "Case":
        bias = None if self.bias is None else self.bias.to(kind)
        return Case(self.hidden.detach().to(kind).requires_grad_(), self.weight.detach().to(kind), bias, self.ids)

    def logits(self) -> np.ndarray:
        """In float64, of what the tensors hold after rounding to their type."""
        hidden, weight = (tensor.detach().double().numpy() for tensor in (self.hidden, self.weight))
        return hidden @ weight.T + (0.0 if self.bias is None else self.bias.detach().double().numpy())


def _case(rows: int, vocabulary: int, wanted: int, *, bias: bool = False, width: int = 24, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, width, generator=generator) for n in (rows, vocabulary))
    ids = torch.stack([torch.randperm(vocabulary, generator=generator)[:wanted] for _ in range(rows)])
    offset = torch.randn(vocabulary, generator=generator) if bias else None
    return Case(hidden.requires_grad_(), weight, offset, ids)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 9), vocabulary=st.integers(5, 70), wanted=st.sampled_from([1, 5]), block=st.integers(1, 80),
    bias=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_log_probabilities_and_gradients_are_scipys_for_any_block(
    *, rows: int, vocabulary: int, wanted: int, block: int, bias: bool, seed: int
):
    case = _case(rows, vocabulary, wanted, bias=bias, seed=seed)
    upstream = torch.randn(rows, wanted, generator=torch.Generator().manual_seed(seed))
    found = case.log_probs(block)
    found.backward(upstream)
    logits, ids, g = case.logits(), case.ids.numpy(), upstream.double().numpy()
    assert np.allclose(found.detach(), np.take_along_axis(log_softmax(logits, axis=1), ids, 1), atol=1e-5)
    slopes = -g.sum(1, keepdims=True) * softmax(logits, axis=1)
    np.put_along_axis(slopes, ids, np.take_along_axis(slopes, ids, 1) + g, 1)
    assert case.hidden.grad is not None
    assert np.allclose(case.hidden.grad, slopes @ case.weight.double().numpy(), atol=2e-5)


@pytest.mark.parametrize("block", [None, 8])
def test_gradients_of_rows_weight_and_bias_pass_finite_differences(block: int | None):
    case = _case(6, 33, 3, bias=True, width=5)
    assert case.bias is not None
    inputs = [tensor.detach().double().requires_grad_() for tensor in (case.hidden, case.weight, case.bias)]
    assert torch.autograd.gradcheck(lambda h, w, b: token_log_probs(h, w, b, case.ids, block), inputs)


@pytest.mark.parametrize("block", [None, 64])
def test_whole_and_blocked_agree_with_float64_within_a_millionth(block: int | None):
    case = _case(64, 3000, 1, width=96)
    exact = case.to(torch.float64)
    for one in (case, exact):
        (-one.log_probs(block)).mean().backward()
    assert case.hidden.grad is not None
    assert exact.hidden.grad is not None
    assert (case.log_probs(block).double() - exact.log_probs(block)).abs().max() / 20 < 1e-6  # losses reach 20 to 40
    assert (case.hidden.grad.double() - exact.hidden.grad).abs().max() < 1e-6


@pytest.mark.parametrize("alpha_beta", [(1.0, 2.0), (0.5, 0.7), (1.0, 0.0)])
def test_the_focal_gradient_goes_through_the_focal_weight(alpha_beta: tuple[float, float]):
    alpha, beta = alpha_beta
    case = _case(7, 50, 1)
    losses.focal_of(case.log_probs(16)[:, 0], alpha=alpha, beta=beta).sum().backward()
    log_p = log_softmax(case.logits(), axis=1)
    at = np.take_along_axis(log_p, case.ids.numpy(), 1)
    p = np.exp(at)
    # d/d log p of -a (1 - p)^b log p
    slope = alpha * ((1 - p) ** beta * -1 + beta * (1 - p) ** (beta - 1) * p * at)
    one_hot = np.zeros_like(log_p)
    np.put_along_axis(one_hot, case.ids.numpy(), 1.0, 1)
    assert case.hidden.grad is not None
    assert np.allclose(case.hidden.grad, (slope * (one_hot - np.exp(log_p))) @ case.weight.double().numpy(), atol=1e-5)


def test_a_soft_target_over_the_whole_vocabulary_has_gradient_q_minus_p():
    case = _case(4, 40, 5)
    case.ids = case.ids[:1].expand(4, -1)
    target = torch.tensor(pmod([0.3, 0.5, 0.6, 0.8], [0.1] * 4))
    losses.level_divergence(case.log_probs(7), target).sum().backward()
    slopes = softmax(case.logits(), axis=1)
    slopes[:, case.ids[0].numpy()] -= target.numpy()
    assert case.hidden.grad is not None
    assert np.allclose(case.hidden.grad, slopes @ case.weight.double().numpy(), atol=1e-5)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_halves_are_summed_in_float32_and_only_results_are_rounded(kind: torch.dtype, tolerance: float):
    case = _case(20, 500, 1, bias=True).to(kind)
    found = case.log_probs(64)
    found.sum().backward()
    expected = np.take_along_axis(log_softmax(case.logits(), axis=1), case.ids.numpy(), 1)
    assert found.dtype == torch.float32
    assert np.allclose(found.detach(), expected, rtol=1e-6, atol=1e-5)
    exact = case.to(torch.float64)
    exact.log_probs(64).sum().backward()
    assert case.hidden.grad is not None
    assert exact.hidden.grad is not None
    assert case.hidden.grad.dtype == kind
    scale = exact.hidden.grad.abs().max()
    assert (case.hidden.grad.double() - exact.hidden.grad).abs().max() <= tolerance * scale


def test_a_trained_head_gets_the_gradients_of_whole_logits():
    case = _case(30, 300, 1, bias=True)
    assert case.bias is not None
    parts = [case.hidden, case.weight.requires_grad_(), case.bias.requires_grad_()]
    upstream = torch.randn(30, 1, generator=torch.Generator().manual_seed(1))
    blocked = torch.autograd.grad((case.log_probs(64) * upstream).sum(), parts)
    logits = torch.nn.functional.linear(*parts)
    whole = torch.autograd.grad((logits.log_softmax(1).gather(1, case.ids) * upstream).sum(), parts)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(blocked, whole, strict=True))


def test_a_frozen_head_gets_no_gradient_and_a_frozen_row_costs_no_sum():
    case = _case(5, 90, 1)
    case.log_probs(16).sum().backward()
    assert case.weight.grad is None
    case.hidden, case.weight = case.hidden.detach(), case.weight.requires_grad_()
    case.log_probs(16).sum().backward()
    assert case.hidden.grad is None
    assert case.weight.grad is not None


def test_rows_that_are_sure_keep_the_digits_of_their_small_gradient():
    # The target's probability is 1 - 1e-9: in float32, p - 1 would be 0.
    weight = torch.tensor([[20.7232658], [0.0], [-1.0]])
    hidden = torch.ones(1, 1, requires_grad=True)
    found = token_log_probs(hidden, weight, None, torch.tensor([[0]]), block=1)
    found.sum().backward()
    logits = weight.double().numpy()[:, 0]
    other = np.exp(logits[1:] - logits[0])
    expected = float((other * (logits[0] - logits[1:])).sum() / (1 + other.sum()))
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx(expected, rel=1e-5)


def test_tokens_that_a_bias_rules_out_change_nothing_even_as_a_whole_block():
    case = _case(6, 40, 1)
    case.ids[:] = torch.arange(20, 26)[:, None]
    case.bias = torch.full((40,), -torch.inf)
    case.bias[20:] = 0.0
    found = case.log_probs(4)
    found.sum().backward()
    expected = log_softmax(case.logits()[:, 20:], axis=1)[np.arange(6), np.arange(6)]
    assert np.allclose(found.detach()[:, 0], expected, atol=1e-5)
    assert case.hidden.grad is not None
    assert torch.isfinite(case.hidden.grad).all()


def test_large_logits_neither_overflow_nor_hide_a_broken_row():
    case = _case(3, 40, 1)
    case.hidden = (case.hidden.detach() * 1e4).requires_grad_()
    assert torch.isfinite(case.log_probs(8)).all()
    with torch.no_grad():
        case.hidden[1] = torch.nan
    broken = case.log_probs(8).isnan()[:, 0]
    assert broken.tolist() == [False, True, False]


def test_the_same_inputs_give_the_same_bits_and_no_rows_give_none():
    case = _case(40, 700, 1)
    first, second = (torch.autograd.grad(case.log_probs(64).sum(), case.hidden)[0] for _ in range(2))
    assert torch.equal(first, second)
    case.hidden, case.ids = case.hidden.detach()[:0].requires_grad_(), case.ids[:0]
    for block in (None, 64):
        case.weight = case.weight.detach().requires_grad_()
        empty = case.log_probs(block)
        empty.sum().backward()
        assert empty.shape == (0, 1)
        assert case.weight.grad is not None
        assert not case.weight.grad.any()


def test_autocast_does_not_lower_the_precision_of_the_sums():
    case = _case(10, 200, 1)
    plain = case.log_probs(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for block in (None, 64):
            assert torch.allclose(case.log_probs(block), plain, atol=1e-5)


@pytest.mark.parametrize("token", [-1, 50])
def test_a_token_outside_the_vocabulary_is_an_error(token: int):
    case = _case(3, 50, 1)
    case.ids[1] = token
    with pytest.raises(ModelError, match="vocabulary of 50"):
        case.log_probs()


@pytest.mark.parametrize(("rows", "width"), [(1, 896), (2048, 896), (410, 3584), (60_000, 896), (8, 64)])
def test_blocks_keep_to_their_bounds(rows: int, width: int):
    block = block_tokens(torch.empty(rows, width, device="meta"), torch.empty(151_674, width, device="meta"))
    assert block % 64 == 0 or block == 151_674
    assert block == 64 or (block * rows <= BLOCK_LOGITS and block * width <= BLOCK_WEIGHTS)


def test_no_buffer_of_rows_times_vocabulary_is_made():
    case = _case(1024, 8192, 1, width=256)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None):  # noqa: ANN204
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.untyped_storage().nbytes() // result.element_size())
            return result

    with Watch():
        case.log_probs().sum().backward()
    assert largest <= BLOCK_LOGITS  # the weight's views, 2**21 elements, are seen too; whole logits are 2**23
