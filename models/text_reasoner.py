"""A decoder that infers quality from words alone: no part of it could see a medium.

It is a plain causal language model with the chat layout and the level words of the quality LMM whose decoder it was
copied from, so its folder is one that ``transformers`` reads as ``Qwen2ForCausalLM``.

Shape legend: ``N`` descriptions, ``D`` decoder width, ``V`` vocabulary.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from models.answering import continued_texts
from models.checkpoint import MAX_SHARD_BYTES, check_fit, checkpoint_shards, has_tied_head, require_files, stored_type
from models.conversations import Conversation, Turn, heads
from models.errors import ModelError
from models.levels import level_token_ids
from models.quality_lmm import QualityLMM, text_layout
from models.questions import STYLES, QuestionStyle
from models.sampling import GREEDY, Draws
from models.vocabulary_head import VocabularyHead

_LAYOUT_FILE: Final = "text_reasoner.json"


class TextReasoner(nn.Module):
    """A decoder with its tokenizer.

    Attributes:
        causal: transformers' model: decoder and vocabulary head.
        tokenizer, system, question: as in :class:`models.quality_lmm.QualityLMM`.
        level_ids: tokens of the five level words, best first.
    """

    def __init__(
        self, causal: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, system: str, question: QuestionStyle
    ) -> None:
        super().__init__()
        if not isinstance(causal.lm_head, VocabularyHead):
            causal.lm_head = VocabularyHead.around(causal.lm_head)
        self.causal = causal
        self.tokenizer = tokenizer
        self.system = system
        self.question: QuestionStyle = question
        self.level_ids = level_token_ids(tokenizer)

    @classmethod
    def of(cls, model: QualityLMM, *, shared: bool) -> "TextReasoner":
        """The decoder of a quality LMM: a copy of it, or the very one."""
        parts = (model.language_model, model.vocabulary_head)
        language_model, head = parts if shared else copy.deepcopy(parts)
        config = cast("Qwen2Config", copy.deepcopy(model.internvl.config.get_text_config()))
        config.tie_word_embeddings = has_tied_head(model.internvl)
        with torch.device("meta"):
            causal = Qwen2ForCausalLM(config)
        causal.model, causal.lm_head = language_model, head
        return cls(causal, model.tokenizer, model.system, model.question).train(model.training)

    @property
    def language_model(self) -> Qwen2Model:
        """The decoder without its vocabulary head."""
        return self.causal.model

    @property
    def vocabulary_head(self) -> VocabularyHead:
        """The decoder's output layer."""
        return cast("VocabularyHead", self.causal.lm_head)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vocabulary_head.weight.device

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Vocabulary logits ``[N, V]``."""
        return self.causal.lm_head(hidden_ND)

    def answers(self, questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy answers; questions of equal length share a batch."""
        return self.continue_texts(heads(self, [], [_asking(question) for question in questions]), max_new_tokens)

    def continue_texts(
        self, heads: Sequence[Tensor], max_new_tokens: int = 32, avoid: Sequence[str] = (), draws: Draws = GREEDY
    ) -> list[str]:
        """As ``QualityLMM.continue_texts``."""
        return continued_texts(self, self.tokenizer, heads, max_new_tokens, avoid, draws)

    def layout(self, tokens_KD: Tensor | None, prompt: str) -> list[str | Tensor]:
        """As ``QualityLMM.layout``.

        Raises:
            ModelError: there is a medium, which this model cannot see.
        """
        if tokens_KD is not None:
            raise ModelError("a reasoner of texts sees no medium: tell it a description")
        return text_layout(self.system, prompt)

    def save_pretrained(self, folder: Path) -> None:
        """Write safetensors that ``Qwen2ForCausalLM.from_pretrained`` reads too, and what the chat layout needs."""
        folder.mkdir(parents=True, exist_ok=True)
        self.causal.save_pretrained(folder, max_shard_size=MAX_SHARD_BYTES)
        self.tokenizer.save_pretrained(folder)
        layout = {"system": self.system, "question": self.question}
        (folder / _LAYOUT_FILE).write_text(json.dumps(layout, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype | None = torch.float32) -> "TextReasoner":
        """Read a folder that :meth:`save_pretrained` wrote; nothing is fetched.

        Args:
            dtype: as in ``QualityLMM.from_pretrained``.

        Raises:
            MissingWeightsError: the folder is incomplete.
            ModelError: its content does not fit this version.
        """
        require_files(folder, ("config.json", "tokenizer.json", _LAYOUT_FILE), "text reasoner")
        shards = checkpoint_shards(folder, "text reasoner")
        layout: dict[str, Any] = json.loads((folder / _LAYOUT_FILE).read_text())
        if layout["question"] not in STYLES:
            msg = f"{folder / _LAYOUT_FILE}: question {layout['question']!r} is none of {', '.join(STYLES)}"
            raise ModelError(msg)
        kind = stored_type(shards) if dtype is None else dtype
        try:
            loaded: Any = Qwen2ForCausalLM.from_pretrained(
                folder, dtype=kind, local_files_only=True, output_loading_info=True
            )
        except (OSError, RuntimeError, ValueError) as error:
            msg = f"{folder} does not load as a text reasoner: {error}"
            raise ModelError(" ".join(msg.split())) from error
        causal, info = cast("tuple[Qwen2ForCausalLM, dict[str, Any]]", loaded)
        check_fit(folder, info)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(causal, tokenizer, layout["system"], layout["question"]).eval()


Reasoner = TextReasoner | QualityLMM
"""A decoder with the chat layout, which can see media or not."""


def _asking(question: str) -> Conversation:
    return (Turn((question,), ""),)
