"""Models of the line as subjects: a quality LMM, and a two-stage model, whose verdict no medium reaches.

Shape legend: ``N`` questions, ``C`` candidate words, ``L`` layers, ``V`` vocabulary.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.errors import ModelError
from models.instruments.attention_share import AttentionShare, attention_share
from models.instruments.lens import Decoder, find_decoder, layer_logits, read_layers, watched_layers
from models.instruments.opened import Opened, next_logits, open_question, padded
from models.instruments.placement import View, image_views
from models.quality_lmm import QualityLMM
from models.reasoning_text import without_verdict
from models.text_reasoner import Reasoner, TextReasoner
from models.two_stage import TwoStageLMM
from tasks.evaluation.subjects.protocol import Answering, Asked, Floats, Layers, Shown
from tasks.evaluation.subjects.words import next_word_ids, token_texts
from tasks.media import is_video, read_file
from tasks.prepared import decode_medium, prepare_medium
from tasks.records import Modality


class LineSubject:
    """A quality LMM, or a reasoner of texts, that is asked.

    Args:
        name: what reports call it.
        model: in evaluation mode. A reasoner can neither open media nor be asked about them.

    Media are encoded when they are opened; ``Shown.content`` holds their features, before any projector.
    """

    def __init__(self, name: str, model: Reasoner) -> None:
        self._name, self.model = name, model
        self._decoder: Decoder | None = None

    @property
    def name(self) -> str:
        """See ``protocol.Subject``."""
        return self._name

    @torch.no_grad()
    def open(self, path: Path) -> Shown:
        """See ``protocol.Subject``."""
        model = self._seeing()
        data = read_file(path)
        modality = Modality.VIDEO if is_video(data) else Modality.IMAGE
        medium = prepare_medium(decode_medium(data, modality, model.spec), model.spec)
        return Shown(path, modality is Modality.VIDEO, model.visual_features([medium])[0])

    @torch.no_grad()
    def answers(self, asked: Sequence[Asked], answering: Answering) -> list[str]:
        """See ``protocol.Subject``."""
        avoid = asked[0].avoid if asked else ()
        if any(one.avoid != avoid for one in asked):
            raise ModelError("questions that are answered together must avoid the same openings")
        opened = [one.embeddings_XD for one in self._opened(asked)]
        return self.model.continue_texts(opened, answering.max_new_tokens, avoid, answering.draws)

    def word_probabilities(self, asked: Sequence[Asked], words: Sequence[str]) -> Floats:
        """See ``protocol.Subject``."""
        columns = self._word_ids(words)
        logits_NV = next_logits(self.model, self._opened(asked))
        return logits_NV[:, columns].double().softmax(-1).cpu().numpy()

    @torch.no_grad()
    def layers(self, asked: Sequence[Asked], words: Sequence[str], top: int) -> list[Layers]:
        """See ``protocol.Subject``."""
        columns, opened = self._word_ids(words), self._opened(asked)
        rows_NXD, last_N = padded(opened)
        decoder = self._lens(rows_NXD[:1])
        with watched_layers(decoder) as outputs:
            hidden_NXD = self.model.language_model(inputs_embeds=rows_NXD, use_cache=False).last_hidden_state
        given_NV = self.model.logits(hidden_NXD[torch.arange(len(opened)), last_N])
        logits_NLV = layer_logits(decoder, outputs, last_N.tolist(), given_NV)
        readings = [read_layers(logits_LV, columns, top) for logits_LV in logits_NLV]
        return [Layers(one, token_texts(self.model.tokenizer, one.top_ids_LK)) for one in readings]

    @torch.no_grad()
    def attention(self, asked: Sequence[Asked]) -> list[AttentionShare]:
        """See ``protocol.Subject``."""
        return [self._attention(one) for one in self._opened(asked)]

    def token_views(self, height: int, width: int) -> list[View] | None:
        """Where in a picture of so many pixels its tokens lie; None if some lie nowhere."""
        model = self._seeing()
        if model.spec.compatibility.frame_labels:  # marks stand among the tokens
            return None
        return image_views(model.spec, height, width, math.isqrt(model.internvl.config.image_seq_length))

    def _opened(self, asked: Sequence[Asked]) -> list[Opened]:
        """The questions laid out; media that several of them show are projected once."""
        shown = {id(one.medium): one.medium.content for one in asked if one.medium is not None}
        tokens = dict(zip(shown, self._seeing().visual_tokens(list(shown.values())), strict=True)) if shown else {}
        return [
            open_question(self.model, tokens.get(id(one.medium)), one.question, one.opening, one.description)
            for one in asked
        ]

    def _seeing(self) -> QualityLMM:
        if not isinstance(self.model, QualityLMM):
            msg = f"{self.name} reads texts alone and sees no medium"
            raise ModelError(msg)
        return self.model

    def _word_ids(self, words: Sequence[str]) -> list[int]:
        return next_word_ids(self.model.tokenizer, words)

    def _lens(self, any_row_1XD: Tensor) -> Decoder:
        if self._decoder is None:

            def run() -> Tensor:
                return self.model.logits(self.model.language_model(inputs_embeds=any_row_1XD).last_hidden_state)

            whole = self.model.internvl if isinstance(self.model, QualityLMM) else self.model.causal
            self._decoder = find_decoder(whole, run)
        return self._decoder

    def _attention(self, opened: Opened) -> AttentionShare:
        """One question at a time: the weights of all layers are ``L`` squares of its length."""
        language_model = self.model.language_model
        usual = language_model.config._attn_implementation or "sdpa"  # noqa: SLF001 - transformers has no public name
        language_model.set_attn_implementation("eager")  # fused kernels keep no weights
        try:
            output = language_model(inputs_embeds=opened.embeddings_XD[None], use_cache=False, output_attentions=True)
        finally:
            language_model.set_attn_implementation(usual)
        return attention_share(output.attentions, opened.groups, len(opened.embeddings_XD) - 1)


class TwoStageSubject:
    """A two-stage model: questions that show a medium go to its describer, the others to its reasoner.

    Args:
        name: what reports call it.
        model: whose reasoner reads texts.

    Raises:
        ModelError: the reasoner reads media beside the text (``block_mask``).
    """

    def __init__(self, name: str, model: TwoStageLMM) -> None:
        if not isinstance(model.reasoner, TextReasoner):
            msg = f"{name} is a two-stage model of the ablation block_mask: instruments ask those that read texts alone"
            raise ModelError(msg)
        self._name = name
        self.describer, self.reasoner = LineSubject(name, model.describer), LineSubject(name, model.reasoner)

    @property
    def name(self) -> str:
        """See ``protocol.Subject``."""
        return self._name

    def open(self, path: Path) -> Shown:
        """See ``protocol.Subject``."""
        return self.describer.open(path)

    def answers(self, asked: Sequence[Asked], answering: Answering) -> list[str]:
        """See ``protocol.Subject``; sentences of a description that give a verdict away are taken out."""
        part = self._part(asked)
        texts = part.answers(asked, answering)
        return texts if part is self.reasoner else [without_verdict(text).text for text in texts]

    def word_probabilities(self, asked: Sequence[Asked], words: Sequence[str]) -> Floats:
        """See ``protocol.Subject``."""
        return self._part(asked).word_probabilities(asked, words)

    def layers(self, asked: Sequence[Asked], words: Sequence[str], top: int) -> list[Layers]:
        """See ``protocol.Subject``."""
        return self._part(asked).layers(asked, words, top)

    def attention(self, asked: Sequence[Asked]) -> list[AttentionShare]:
        """See ``protocol.Subject``."""
        return self._part(asked).attention(asked)

    def token_views(self, height: int, width: int) -> list[View] | None:
        """See :meth:`LineSubject.token_views`; the reasoner has no such tokens."""
        return self.describer.token_views(height, width)

    def _part(self, asked: Sequence[Asked]) -> LineSubject:
        shows = {one.medium is not None for one in asked}
        if len(shows) > 1:
            raise ModelError("questions that are asked together must all show a medium, or none of them")
        return self.describer if True in shows else self.reasoner
