"""A reasoner of text: a plain causal language model on disk, and refusals that say what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lmm import make_model
from transformers import AutoTokenizer, Qwen2ForCausalLM

from models.conversations import Turn, heads
from models.errors import MissingWeightsError, ModelError
from models.instruments.lens import find_decoder
from models.text_reasoner import TextReasoner


@pytest.fixture
def reasoner() -> TextReasoner:
    return TextReasoner.of(make_model(), shared=False)


@torch.no_grad()
def test_plain_transformers_reads_the_folder_and_says_the_same(reasoner: TextReasoner, tmp_path: Path):
    reasoner.save_pretrained(tmp_path)
    plain: Any = Qwen2ForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = (
        "<|im_start|>system\nYou look at pictures.<|im_end|>\n<|im_start|>user\nEdges are crisp.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    head = heads(reasoner, [], [(Turn(("Edges are crisp.",), ""),)])[0]
    hidden = reasoner.language_model(inputs_embeds=head[None], use_cache=False).last_hidden_state
    assert torch.allclose(plain(input_ids=ids).logits, reasoner.logits(hidden), atol=1e-5)
    said = plain.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    told = str(tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)).strip()
    assert reasoner.answers(["Edges are crisp."], 5) == [told]


@pytest.mark.parametrize("decoder", ["nano", "mini"])
@torch.no_grad()
def test_a_tied_head_stays_tied(decoder: str, tmp_path: Path):
    made = make_model(1, decoder)
    reasoner = TextReasoner.of(made, shared=False)
    tied = made.vocabulary_head.weight is made.language_model.embed_tokens.weight
    assert (reasoner.vocabulary_head.weight is reasoner.language_model.embed_tokens.weight) is tied
    reasoner.save_pretrained(tmp_path)
    again = TextReasoner.from_pretrained(tmp_path)
    assert (again.vocabulary_head.weight is again.language_model.embed_tokens.weight) is tied
    state = reasoner.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())


def test_the_lens_reads_it(reasoner: TextReasoner):
    found = find_decoder(reasoner.causal, lambda: reasoner.causal(input_ids=torch.tensor([[1, 2, 3]])))
    assert list(found.layers) == list(reasoner.language_model.layers)
    assert found.head is reasoner.vocabulary_head


def test_a_folder_that_is_not_whole_is_refused(reasoner: TextReasoner, tmp_path: Path):
    with pytest.raises(MissingWeightsError, match="text reasoner"):
        TextReasoner.from_pretrained(tmp_path)
    reasoner.save_pretrained(tmp_path)
    layout = tmp_path / "text_reasoner.json"
    layout.write_text(json.dumps(json.loads(layout.read_text()) | {"question": "shouted"}))
    with pytest.raises(ModelError, match="'shouted' is none of"):
        TextReasoner.from_pretrained(tmp_path)
    reasoner.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    written = json.loads(config.read_text())
    config.write_text(json.dumps(written | {"intermediate_size": written["intermediate_size"] + 8}))
    with pytest.raises(ModelError, match="does not load as a text reasoner"):
        TextReasoner.from_pretrained(tmp_path)
    more = {
        "num_hidden_layers": written["num_hidden_layers"] + 1,
        "layer_types": [*written["layer_types"], "full_attention"],
    }
    config.write_text(json.dumps(written | more))
    with pytest.raises(ModelError, match=r"does not fit its config.json: missing keys"):
        TextReasoner.from_pretrained(tmp_path)
