"""The objective against numpy, and what holds of any rewards and any policies."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.errors import ModelError
from models.grpo import (
    GrpoRule,
    advantages,
    answer_weights,
    is_clipped,
    k3,
    live_tokens,
    token_objective,
    wasted,
)
from models.rewards import KindWeights, RewardRule, Score, reward_of

REWARDS = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 8)), elements=st.floats(0.0, 2.0, width=16))
LOGS = st.lists(st.tuples(st.floats(-12, 0, width=32), st.floats(-12, 0, width=32)), min_size=1, max_size=20)


def reference_advantages(rewards: list[float], *, scaled: bool) -> list[float]:
    mean = math.fsum(rewards) / len(rewards)
    spread = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (spread + 1e-4 if scaled else 1.0) for r in rewards]


@settings(deadline=None)
@given(rewards=REWARDS)
def test_advantages_are_those_of_a_plain_loop(rewards: np.ndarray):
    for scale in ("std", "none"):
        found = advantages(rewards, scale)
        for row, group in zip(found, rewards.tolist(), strict=True):
            if len(set(group)) == 1:
                assert row.tolist() == [0.0] * len(group)
            else:
                assert row == pytest.approx(reference_advantages(group, scaled=scale == "std"), abs=1e-6)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 1.25, 1e-9])
@pytest.mark.parametrize("group", [2, 3, 7, 8])
def test_equal_rewards_give_exactly_nothing_and_are_counted(value: float, group: int):
    rewards = [[value] * group, [value] * (group - 1) + [value + 1.0]]
    found = advantages(rewards)
    assert found[0].tolist() == [0.0] * group
    assert (found[1] != 0.0).all()
    assert wasted(rewards).tolist() == [True, False]


def test_a_worked_example():
    assert advantages([[1.0, 2.0, 3.0]])[0] == pytest.approx([-1 / 1.0001, 0.0, 1 / 1.0001])
    assert advantages([[0.0, 1.0]], "none")[0].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [[1.0], [2.0]], [[1.0, math.nan]], [[math.inf, 1.0]]])
def test_rewards_that_are_no_groups_are_refused(rewards: Any):
    with pytest.raises(ModelError):
        advantages(rewards)


@settings(deadline=None)
@given(logs=LOGS, advantage=st.floats(-3, 3, width=32), clip=st.floats(0.05, 0.5))
def test_the_token_objective_is_the_clipped_ratio_of_numpy(logs: Any, advantage: float, clip: float):
    new, old = np.array(logs, dtype=np.float64).T
    ratio = np.exp(new - old)
    expected = -np.minimum(ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage)
    log_probs, drawn, of_answer = (torch.tensor(values) for values in (new, old, np.full_like(new, advantage)))
    assert token_objective(log_probs, drawn, of_answer, clip).numpy() == pytest.approx(expected, abs=1e-6)
    stopped = is_clipped(log_probs, drawn, of_answer, clip).numpy()
    plain = np.isclose(expected, -ratio * advantage, atol=1e-12)
    assert (~plain <= stopped).all()


def test_gradients_stop_where_a_token_has_gone_far_enough():
    old = torch.zeros(4, dtype=torch.float64)
    new = torch.tensor([0.5, 0.5, -0.5, -0.5], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    token_objective(new, old, advantage, 0.2).sum().backward()
    ratio = np.exp([0.5, 0.5, -0.5, -0.5])
    assert new.grad is not None
    assert new.grad.numpy() == pytest.approx([0.0, ratio[1], -ratio[2], 0.0])
    assert is_clipped(new, old, advantage, 0.2).tolist() == [True, False, False, True]


def test_at_the_drawing_policy_the_gradient_is_the_advantage():
    new = torch.tensor([-1.0, -2.0], requires_grad=True)
    token_objective(new, new.detach(), torch.tensor([0.7, -1.3]), 0.2).sum().backward()
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([-0.7, 1.3])


@settings(deadline=None)
@given(logs=LOGS)
def test_the_penalty_is_never_negative_and_nothing_for_equal_policies(logs: Any):
    new, reference = (torch.tensor(values, dtype=torch.float32) for values in zip(*logs, strict=True))
    found = k3(new, reference)
    assert (found >= 0.0).all()
    difference = reference.double().numpy() - new.double().numpy()
    assert found.numpy() == pytest.approx(np.exp(difference) - difference - 1, rel=1e-4, abs=1e-6)
    assert k3(new, new).tolist() == [0.0] * len(new)


def test_the_penalty_is_an_estimate_of_the_divergence():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    expected = float((policy * (policy / reference).log()).sum())
    assert float((policy * k3(policy.log(), reference.log())).sum()) == pytest.approx(expected)


def test_what_follows_the_first_end_does_not_live():
    ids = torch.tensor([[5, 9, 3, 9, 1], [9, 9, 9, 9, 9], [1, 2, 3, 4, 5]])
    assert live_tokens(ids, 9).tolist() == [[True, True, False, False, False], [True] + [False] * 4, [True] * 5]


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=12))
def test_weights_of_answers_make_the_mean_over_sequences_or_over_tokens(lengths: list[int]):
    rng = np.random.default_rng(3)
    tokens = [rng.normal(size=length) for length in lengths]
    means = np.array([values.mean() for values in tokens])
    assert (answer_weights(lengths, "sequence") * means).mean() == pytest.approx(means.mean())
    assert (answer_weights(lengths, "token") * means).mean() == pytest.approx(np.concatenate(tokens).mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "message"), [({"clip": 0.0}, "clip"), ({"clip": 1.0}, "clip"), ({"beta": -1.0}, "beta")]
)
def test_rules_that_make_no_sense_are_refused(values: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        GrpoRule(**({"clip": 0.2, "beta": 0.0, "scale": "std", "average": "sequence"} | values))  # type: ignore[arg-type]


class ToyLM(torch.nn.Module):
    """Says letters one after the other, each in view of the prompt and of the letter before."""

    def __init__(self, prompts: int, letters: int) -> None:
        super().__init__()
        self.prompt = torch.nn.Embedding(prompts, 16)
        self.before = torch.nn.Embedding(letters + 1, 16)
        self.out = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, letters))

    def forward(self, prompt_A: torch.Tensor, before_AL: torch.Tensor) -> torch.Tensor:
        return self.out(self.prompt(prompt_A)[:, None] + self.before(before_AL)).log_softmax(-1)

    @torch.no_grad()
    def draw(self, prompt_A: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
        said_AL = torch.zeros(len(prompt_A), 1, dtype=torch.long)
        for _ in range(length):
            probs = self(prompt_A, said_AL)[:, -1].exp()
            said_AL = torch.cat([said_AL, 1 + torch.multinomial(probs, 1, generator=generator)], dim=1)
        return said_AL[:, 1:]


LETTERS = ("<answer>", '{"rating": 1}', '{"rating": 3}', '{"rating": 5}', "</answer>")
OPENING = "<think>x</think>"


@pytest.mark.parametrize(("average", "beta"), [("sequence", 0.0), ("token", 0.02)])
def test_a_toy_language_model_raises_its_mean_reward(average: Any, beta: float):
    """Three prompts with truths 1, 3 and 5; answers of three tokens, rewarded as a teacher's are."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    letters, truths, group = LETTERS, [Score(0.0), Score(0.5), Score(1.0)], 8
    model, one = ToyLM(len(truths), len(letters)), KindWeights(1.0, 1.0)
    reference = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rule = RewardRule("free", "step", 0.35, one, one, one)
    prompt_A = torch.arange(len(truths)).repeat_interleave(group)
    means = []
    for _ in range(150):
        ids_AL = model.draw(prompt_A, 3, generator)
        live_AL = live_tokens(ids_AL, 1 + letters.index("</answer>"))
        texts = [
            OPENING + "".join(letters[i - 1] for i, alive in zip(ids, live, strict=True) if alive)
            for ids, live in zip(ids_AL.tolist(), live_AL.tolist(), strict=True)
        ]
        rewards = [reward_of(text, truths[p], rule).total for text, p in zip(texts, prompt_A.tolist(), strict=True)]
        means.append(float(np.mean(rewards)))
        worth_A = torch.tensor(advantages(np.reshape(rewards, (-1, group))).ravel(), dtype=torch.float32)
        before_AL = torch.cat([torch.zeros(len(ids_AL), 1, dtype=torch.long), ids_AL[:, :-1]], dim=1)
        logs_AL, held_AL = (
            lm(prompt_A, before_AL).gather(2, ids_AL[..., None] - 1)[..., 0] for lm in (model, reference)
        )
        loss_AL = token_objective(logs_AL, logs_AL.detach(), worth_A[:, None].expand_as(logs_AL), 0.2)
        loss_AL = (loss_AL + beta * k3(logs_AL, held_AL.detach())) * live_AL
        lengths_A = live_AL.sum(1)
        weights_A = torch.tensor(answer_weights(lengths_A.numpy(), average), dtype=torch.float32)
        optimizer.zero_grad()
        (loss_AL.sum(1) / lengths_A * weights_A).mean().backward()
        optimizer.step()
    assert np.mean(means[-10:]) - np.mean(means[:10]) >= 0.3
