"""Attention by groups of tokens: planted heads, real decoders, and kernels that keep their weights to themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from models.errors import ModelError
from models.instruments.attention_share import GROUPS, attention_share

SPANS = {"image": [1, 2, 3], "prompt": [4, 5], "other": [0], "description": [6, 7]}


def planted(target: list[int], mass: float = 1.0) -> torch.Tensor:
    """One head whose last position puts ``mass`` on the target's tokens, evenly, and the rest on all others."""
    row = torch.full((8,), (1.0 - mass) / (8 - len(target)))
    row[target] = mass / len(target)
    weights = torch.eye(8)[None, None].repeat(1, 2, 1, 1)
    weights[0, 1, 7] = row
    return weights


@pytest.mark.parametrize("name", GROUPS)
def test_a_head_that_copies_a_span_puts_its_mass_there(name: str):
    found = attention_share([planted(SPANS[name], 0.97)], SPANS, 7)
    assert found.shares_LHG.shape == (1, 2, 4)
    assert found.shares_LHG[0, 1, GROUPS.index(name)] == pytest.approx(0.97)
    assert found.shares_LHG[0, 0, GROUPS.index("description")] == 1.0, "the other head looks at the token itself"
    assert found.tokens_G.tolist() == [3, 2, 2, 1]


def test_entropy_counts_the_tokens_that_are_looked_at():
    found = attention_share([planted([1, 2, 3])], SPANS, 7)
    assert found.entropy_LH[0] == pytest.approx([0.0, np.log(3)])
    assert found.effective_tokens == pytest.approx(np.sqrt(3))


def test_a_real_decoder_sums_to_one_in_every_layer_and_head():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        attentions = model(torch.randint(30, (2, 9)), output_attentions=True).attentions
    found = attention_share(attentions, SPANS, 7, sequence=1)
    assert found.shares_LHG.shape == (3, 4, 4)
    assert found.shares_LHG.sum(axis=-1) == pytest.approx(np.ones((3, 4)), abs=1e-5)
    assert found.by_layer.sum(axis=-1) == pytest.approx(np.ones(3), abs=1e-5)
    assert found.whole.sum() == pytest.approx(1.0, abs=1e-5)
    row = attentions[2][1, 3, 7]
    wanted = [float(row[SPANS[name]].sum()) for name in GROUPS]
    assert found.shares_LHG[2, 3] == pytest.approx(wanted, abs=1e-6)
    earlier = attention_share(attentions, SPANS, 4, sequence=1)
    assert earlier.tokens_G.tolist() == [3, 0, 1, 1], "later tokens cannot be seen"
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        hidden = model(torch.randint(30, (1, 8)), output_attentions=False)
    with pytest.raises(ModelError, match="eager"):
        attention_share(hidden.attentions, SPANS, 7)
    with pytest.raises(ModelError, match="eager"):
        attention_share([planted([1]), None], SPANS, 7)


def test_groups_must_hold_every_token_once():
    weights = [planted([1])]
    with pytest.raises(ModelError, match="token 0 is in 0 groups"):
        attention_share(weights, {**SPANS, "other": []}, 7)
    with pytest.raises(ModelError, match="token 4 is in 2 groups"):
        attention_share(weights, {**SPANS, "image": [1, 2, 3, 4]}, 7)
    with pytest.raises(ModelError, match="unknown group of tokens 'picture'"):
        attention_share(weights, {"picture": [1]}, 7)
    with pytest.raises(ModelError, match="does not sum to 1"):
        attention_share([weights[0] * 2], SPANS, 7)


def test_a_real_head_that_copies_a_span_is_seen_to_look_at_it():
    """One head of a GPT-2 gets a key that marks the span's tokens and a query that asks for the mark."""
    config = GPT2Config(vocab_size=4, n_positions=8, n_embd=8, n_layer=1, n_head=2, attn_implementation="eager")
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wpe.weight.zero_()
        model.transformer.wte.weight.copy_(torch.eye(4, 8))  # token 1 is the mark
        attention = model.transformer.h[0].attn.c_attn
        attention.weight.zero_()
        attention.bias.zero_()
        attention.bias[0] = 10.0  # first query channel of the first head
        attention.weight[1, 8] = 10.0  # first key channel of it: how much of the mark a token has
        span = torch.zeros(1, 8, dtype=torch.long)
        span[0, SPANS["description"]] = 1
        attentions = model(span, output_attentions=True).attentions
    found = attention_share(attentions, SPANS, 7)
    assert found.shares_LHG.sum(axis=-1) == pytest.approx(np.ones((1, 2)), abs=1e-5)
    assert found.shares_LHG[0, 0, GROUPS.index("description")] >= 0.95
    assert found.shares_LHG[0, 1] == pytest.approx([3 / 8, 2 / 8, 2 / 8, 1 / 8]), "the other head looks everywhere"
    even = found.evenness[GROUPS.index("description")]
    assert even == pytest.approx((found.shares_LHG[0, 0, 1] + 0.25) / 2 / 0.25), "per token, against even attention"


def test_many_tokens_do_not_win_by_their_number():
    groups = {"image": list(range(90)), "description": list(range(90, 100))}
    rows = torch.full((1, 1, 100, 100), 0.01)
    found = attention_share([rows], groups, 99)
    assert found.whole == pytest.approx([0.9, 0.1, 0, 0])
    assert found.evenness[:2] == pytest.approx([1.0, 1.0])
    assert np.isnan(found.evenness[2:]).all(), "no tokens, no mass for each"
    assert found.concentration[:2] == pytest.approx([0.1, 0.1])
    assert found.effective_within[:2] == pytest.approx([90, 10])


def test_concentration_is_within_a_group():
    groups = {"image": list(range(25)), "prompt": list(range(25, 30))}
    row = torch.zeros(30)
    row[:3], row[3:25], row[29] = 0.1, 0.1 / 22, 0.6
    found = attention_share([row.expand(1, 2, 30, 30)], groups, 29)
    assert found.concentration[0] == pytest.approx(0.3 / 0.4), "a tenth of 25 tokens are 3, rounded up"
    assert found.concentration[2] == pytest.approx(1.0)
    parts = np.array([0.25] * 3 + [0.25 / 22] * 22)
    assert found.effective_within[0] == pytest.approx(np.exp(-(parts * np.log(parts)).sum()))
    assert found.effective_within[2] == pytest.approx(1.0)
    assert found.tokens_of("image") == pytest.approx(row[:25].numpy())
    assert found.tokens_of("prompt") == pytest.approx([0, 0, 0, 0, 0.6])


def test_heads_that_give_a_group_nothing_leave_its_concentration_undefined():
    found = attention_share([planted([1, 2, 3])], SPANS, 7)  # the first head looks at token 7 alone
    image = GROUPS.index("image")
    assert np.isnan(found.top_LHG[0, 0, image])
    assert found.top_LHG[0, 1, image] == pytest.approx(1 / 3)
    assert found.concentration[image] == pytest.approx(1 / 3), "only heads that look there count"
    assert np.isnan(found.effective_within[GROUPS.index("prompt")])


@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.sampled_from([0.1, 1.0, 30.0]))
def test_what_is_within_groups_makes_up_the_whole(seed: int, tokens: int, spread: float):
    rng = np.random.default_rng(seed)
    rows = torch.tensor(rng.normal(size=(2, 1, 3, tokens, tokens)) * spread).softmax(-1)
    group_T = rng.integers(0, 4, tokens)
    groups = {name: np.flatnonzero(group_T == number).tolist() for number, name in enumerate(GROUPS)}
    found = attention_share(list(rows), groups, tokens - 1)
    assert np.allclose(found.shares_LHG.sum(-1), 1.0, atol=1e-5)
    shares, within = found.shares_LHG, np.nan_to_num(found.within_LHG)
    between = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(-1)
    assert np.allclose(found.entropy_LH, between + (shares * within).sum(-1)), "the chain rule of entropy"
    assert found.mean_T.sum() == pytest.approx(1.0)
    assert np.allclose([found.tokens_of(name).sum() for name in GROUPS], found.whole)
