"""Attention by groups of tokens: planted heads, real decoders, and kernels that keep their weights to themselves."""

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

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
