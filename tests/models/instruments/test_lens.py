"""The lens on decoders of several families, and on one whose mind is made up by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from models.errors import ModelError
from models.instruments.lens import (
    Reading,
    effective_candidates,
    find_decoder,
    layer_logits,
    read_layers,
    watched_layers,
)

SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}


def llama(*, tied: bool) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=tied))


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama, RMS norm, untied": lambda: llama(tied=False),
    "llama, RMS norm, tied": lambda: llama(tied=True),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)),
    "gpt-2, layer norm, tied": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2)),
    "gpt-neox, layer norm, untied": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)),
    "gemma-2, capped logits": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.5)
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_is_read_as_if_it_were_the_last_one(family: str):
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name or "ln_f" in name:
                value.add_(0.5 * torch.rand_like(value))  # a norm that does something
    ids_BT = torch.randint(40, (2, 7))
    decoder = find_decoder(model, lambda: model(ids_BT))
    with watched_layers(decoder) as outputs, torch.no_grad():
        given = model(ids_BT).logits
    logits_BLV = layer_logits(decoder, outputs, [6, 3], given[[0, 1], [6, 3]])
    assert logits_BLV.shape == (2, 3, 40)
    assert torch.allclose(logits_BLV[:, -1], given[[0, 1], [6, 3]], atol=1e-4)
    for depth in (1, 2):  # the same weights without the layers behind: what transformers gives at that depth
        short = FAMILIES[family]().eval()
        short.load_state_dict(model.state_dict())
        stack = next(m for m in short.modules() if isinstance(m, nn.ModuleList) and len(m) == 3)
        del stack[depth:]
        short.config.num_hidden_layers = depth
        with torch.no_grad():
            wanted = short(ids_BT, use_cache=False).logits
        assert torch.allclose(logits_BLV[0, depth - 1], wanted[0, 6], atol=1e-4), depth


class Scripted(nn.Module):
    """A decoder whose layers write what a script says, one token a layer."""

    def __init__(self, script: list[int], vocabulary: int = 6) -> None:
        super().__init__()

        class Layer(nn.Module):
            def __init__(self, token: int) -> None:
                super().__init__()
                self.token = token

            def forward(self, hidden: Tensor) -> Tensor:
                return torch.eye(vocabulary)[self.token].expand_as(hidden) * 4.0

        self.layers = nn.ModuleList(Layer(token) for token in script)
        self.norm, self.head = nn.Identity(), nn.Linear(vocabulary, vocabulary, bias=False)
        nn.init.eye_(self.head.weight)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(self.norm(hidden))


def read(script: list[int], candidates: tuple[int, ...] = (1, 2, 3)) -> Reading:
    model, hidden = Scripted(script), torch.zeros(1, 2, 6)
    decoder = find_decoder(model, lambda: model(hidden))
    with watched_layers(decoder) as outputs:
        given = model(hidden)[:, 1]
    return read_layers(layer_logits(decoder, outputs, [1], given)[0], candidates)


def test_a_decoder_that_changes_its_mind_once_commits_where_it_does():
    found = read([1] * 12 + [2] * 8)
    assert (found.commit_layer, found.switches, found.switches_late) == (13, 1, False)
    assert found.distinct_top == 2
    e = np.exp(4.0)
    assert found.level_LC[0] == pytest.approx([e / (e + 2), 1 / (e + 2), 1 / (e + 2)])
    assert found.other_L[0] == pytest.approx(3 / (e + 5))
    assert found.top_ids_LK[0, 0] == 1
    assert found.top_probs_LK[0, 0] == pytest.approx(e / (e + 5))
    assert found.margin == pytest.approx((e - 1) / (e + 2))
    assert found.top_ids_LK.shape == (20, 4)


@pytest.mark.parametrize(
    ("script", "commit", "switches", "late"),
    [
        ([1, 1, 1, 1], 1, 0, False),
        ([2, 1, 2, 1], 4, 3, True),
        ([1] * 18 + [2, 2], 19, 1, True),  # the last tenth of twenty layers is two
        ([1] * 17 + [2] * 3, 18, 1, False),
        ([1] * 19 + [2] + [1], 21, 2, True),  # of 21 layers it is three, rounded up
        ([3] * 28 + [2] * 3 + [1], 32, 2, True),  # the paper's figure: another word up to the end
    ],
)
def test_commit_switches_and_late_switches(script: list[int], commit: int, switches: int, late: bool):  # noqa: FBT001
    found = read(script)
    assert (found.commit_layer, found.switches, found.switches_late) == (commit, switches, late)


def test_tokens_outside_the_candidates_are_no_switch():
    found = read([1, 5, 1, 1])
    assert found.top_ids_LK[1, 0] == 5
    assert found.level_LC[1] == pytest.approx([1 / 3] * 3)
    assert found.other_L[1] > 0.9
    assert found.switches == 0, "among equals the first stays"


def test_effective_candidates_count_how_many_words_are_really_in_use():
    readings = [read([token, 1]) for token in (1, 1, 2, 2, 3, 3, 5, 5)]
    assert effective_candidates(readings, 1) == pytest.approx(4.0)
    assert effective_candidates(readings, 2) == pytest.approx(1.0)
    uneven = [read([token, 1]) for token in (1, 1, 1, 2)]
    assert effective_candidates(uneven, 1) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_what_the_lens_cannot_read_is_refused():
    model = FAMILIES["qwen2"]().eval()
    with pytest.raises(ModelError, match="has no vocabulary head"):
        find_decoder(nn.Linear(2, 2), lambda: None)
    with pytest.raises(ModelError, match="no repeated layers"):
        find_decoder(model, lambda: None)
    ids = torch.randint(40, (1, 4))
    decoder = find_decoder(model, lambda: model(ids))
    with watched_layers(decoder) as outputs, torch.no_grad():
        given = model(ids).logits[:, -1]
    with pytest.raises(ModelError, match="off the model's logits"):
        layer_logits(decoder, outputs, [3], given * 2 + 1)
    with pytest.raises(ModelError, match="two different candidate words"):
        read_layers(torch.zeros(2, 5), [3])
    with pytest.raises(ModelError, match="two different candidate words"):
        read_layers(torch.zeros(2, 5), [3, 3])
