"""The quality LMM: transformers' InternVL with a motion extractor, read out at the level word or in words.

Shape legend: ``B``, ``N`` samples, ``A`` answers, ``L`` answer tokens, ``K`` visual tokens of one sample, ``P`` tiles,
``S`` tokens per tile, ``T`` motion frames, ``M`` motion channels, ``D`` decoder width, ``V`` vocabulary.

Nothing here knows a loss: ``forward`` gives the hidden states that predict the answer's tokens, ``logits`` turns the
rows that a loss supervises into logits. Sequences are padded on the right under causal attention, so neither padding
nor neighbours in a batch can change a sample.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionModel,
    PreTrainedTokenizerFast,
    Qwen2Model,
)

from models.answering import continued_texts, log_likelihoods
from models.checkpoint import (
    MAX_SHARD_BYTES,
    checkpoint_shards,
    load_internvl,
    require_files,
    save_internvl,
    stored_type,
    tile_side,
)
from models.compatibility import OFF, Compatibility
from models.errors import ModelError
from models.levels import LEVELS, level_token_ids
from models.motion import MotionConfig, MotionExtractor, MotionProjector
from models.questions import STYLES, QuestionStyle, question_of
from models.sampling import GREEDY, Draws
from models.tokenizer import IMAGE_END, IMAGE_START, TURN_END, TURN_START
from models.vision_encoder import (
    VisualInput,
    VisualSpec,
    load_motion_extractor,
    save_motion_extractor,
)
from models.vocabulary_head import VocabularyHead

IMAGE_PREFIX: Final = "The quality of the image is"
VIDEO_PREFIX: Final = "The quality of the video is"
"""The sentence that is forced before the level word, the same in training and evaluation (DESIGN law 6)."""

_LAYOUT_FILE: Final = "quality_lmm.json"


_RELEASED_IMAGE_PREFIX: Final = "The quality of this image is"
_RELEASED_VIDEO_PREFIX: Final = "The overall quality of this video is"
"""What the released code forces at scoring (its training says the sentences above)."""


def level_prefix(medium: "VisualInput | VisualFeatures", compatibility: Compatibility = OFF) -> str:
    """The forced sentence of this medium's modality."""
    if compatibility.evaluation_sentences:
        return _RELEASED_VIDEO_PREFIX if medium.is_video else _RELEASED_IMAGE_PREFIX
    return VIDEO_PREFIX if medium.is_video else IMAGE_PREFIX


@dataclass(frozen=True)
class VisualFeatures:
    """What the encoder says about one medium, before any projector: cache it when the encoder is frozen.

    Attributes:
        tiles_PSC: pixel-shuffled patch features, ``C`` four times the encoder's width.
        motion_TM: motion tokens; None for images.
    """

    tiles_PSC: Tensor
    motion_TM: Tensor | None

    @property
    def is_video(self) -> bool:
        """Whether this medium has a motion stream."""
        return self.motion_TM is not None


Medium = VisualInput | VisualFeatures
"""A medium as pixels, or as features that the encoder has made of it."""


class QualityLMM(nn.Module):
    """An image encoder, a motion extractor, their projectors and a decoder, with one tokenizer.

    Attributes:
        internvl: transformers' model: image encoder, projector, decoder.
        motion_extractor, motion_projector: this project's part.
        tokenizer: the decoder's.
        level_ids: tokens of the five level words in *this* tokenizer, best first.
        spec: how media were prepared when the weights were made.
        system: system message of the chat layout.
        question: whether the user turn holds a question of the task, as it did in training; ``empty`` when made anew.

    Raises:
        ModelError: the parts do not belong together.
    """

    def __init__(
        self,
        internvl: InternVLForConditionalGeneration,
        motion_extractor: MotionExtractor,
        motion_projector: MotionProjector,
        tokenizer: PreTrainedTokenizerFast,
        spec: VisualSpec,
        system: str,
    ) -> None:
        super().__init__()
        internvl.lm_head = VocabularyHead.around(internvl.lm_head)
        self.internvl = internvl
        self.motion_extractor = motion_extractor
        self.motion_projector = motion_projector
        self.tokenizer = tokenizer
        self.level_ids = level_token_ids(tokenizer)
        self.spec = spec
        self.system = system
        self.question: QuestionStyle = "empty"
        self._end_id = _single_token(tokenizer, TURN_END)
        self._check_parts()
        self._known_ids: dict[str, Tensor] = {}  # the few texts that surround every medium, tokenised once

    def _check_parts(self) -> None:
        rows = self.language_model.embed_tokens.num_embeddings
        if len(self.tokenizer) > rows:
            msg = f"the tokenizer has {len(self.tokenizer)} tokens, the decoder's embeddings {rows} rows"
            raise ModelError(msg)
        side = tile_side(self.internvl)
        if self.spec.tile_px != side:
            msg = f"the visual spec makes tiles of {self.spec.tile_px} px, the image encoder takes {side}"
            raise ModelError(msg)
        if self.motion_extractor.config.permuted == self.spec.compatibility.unpermuted_motion:
            raise ModelError("motion extractor and visual spec disagree on the order of motion features (permuted)")
        _single_token(self.tokenizer, IMAGE_START)
        _single_token(self.tokenizer, IMAGE_END)

    @classmethod
    def from_config(
        cls,
        config: InternVLConfig,
        motion: MotionConfig,
        tokenizer: PreTrainedTokenizerFast,
        spec: VisualSpec,
        system: str,
    ) -> "QualityLMM":
        """A model with random weights from torch's global generator, on the CPU, in evaluation mode."""
        internvl = InternVLForConditionalGeneration(config)
        projector = MotionProjector(motion.channels, config.get_text_config().hidden_size)
        return cls(internvl, MotionExtractor(motion), projector, tokenizer, spec, system).eval()

    @property
    def image_encoder(self) -> InternVLVisionModel:
        """The vision tower."""
        return self.internvl.model.vision_tower

    @property
    def projector(self) -> nn.Module:
        """Vision projector (LayerNorm, linear, GELU, linear)."""
        return self.internvl.model.multi_modal_projector

    @property
    def language_model(self) -> Qwen2Model:
        """The decoder without its vocabulary head."""
        return self.internvl.model.language_model

    @property
    def vocabulary_head(self) -> VocabularyHead:
        """The decoder's output layer, for losses that read a few log-probabilities."""
        return cast("VocabularyHead", self.internvl.lm_head)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.internvl.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.internvl.dtype

    # ------------------------------------------------------------------ vision

    def visual_features(self, inputs: Sequence[VisualInput]) -> list[VisualFeatures]:
        """Run image encoder and motion extractor; images never reach the motion extractor.

        All tiles of the batch go through the image encoder together; clips of equal shape through the motion extractor.
        """
        tiles = torch.cat([medium.tiles_TCHW for medium in inputs]).to(self.image_encoder.device)
        tiles_PSC = self.shuffled(self.image_encoder(pixel_values=tiles).last_hidden_state[:, 1:])
        per_medium = tiles_PSC.split([len(medium.tiles_TCHW) for medium in inputs])
        motion = self._motion_tokens(inputs)
        return [VisualFeatures(part, motion.get(index)) for index, part in enumerate(per_medium)]

    def shuffled(self, patches_PQC: Tensor) -> Tensor:
        """Pixel shuffle: patch features ``[P, Q, C]`` of square tiles to ``[P, Q / 4, 4 C]``."""
        side = int(patches_PQC.shape[1] ** 0.5)
        grid = patches_PQC.reshape(len(patches_PQC), side, side, -1)
        merged = self.internvl.model.pixel_shuffle(grid, scale_factor=self.internvl.config.downsample_ratio)
        return merged.reshape(len(patches_PQC), -1, merged.shape[-1])

    def _motion_tokens(self, inputs: Sequence[VisualInput]) -> dict[int, Tensor]:
        shapes: dict[torch.Size, list[int]] = {}
        for index, medium in enumerate(inputs):
            if medium.motion_CTHW is not None:
                shapes.setdefault(medium.motion_CTHW.shape, []).append(index)
        tokens: dict[int, Tensor] = {}
        for members in shapes.values():
            clips = torch.stack([cast("Tensor", inputs[i].motion_CTHW) for i in members])
            weight = next(self.motion_extractor.parameters())
            clips = clips.to(weight.device, weight.dtype)
            tokens.update(zip(members, self.motion_extractor(clips), strict=True))
        return tokens

    def project(self, features: Sequence[VisualFeatures]) -> list[Tensor]:
        """Visual tokens ``[K, D]`` per sample: all tiles in order, then one token per motion frame.

        With ``frame_labels`` a sample has its whole part of the prompt instead, ``<img>`` and ``</img>`` included: a
        video is one such image per key frame and one for its motion stream, each after its label.
        """
        projected = self.projector(torch.cat([item.tiles_PSC for item in features]).to(self.device, self.dtype))
        parts = projected.split([len(item.tiles_PSC) for item in features])
        motion = [
            None if m.motion_TM is None else self.motion_projector(m.motion_TM.to(self.device, self.dtype))
            for m in features
        ]
        if self.spec.compatibility.frame_labels:
            return [self._labelled_block(*pair) for pair in zip(parts, motion, strict=True)]
        flat = [part_PSD.flatten(0, 1) for part_PSD in parts]
        return [kd if td is None else torch.cat([kd, td]) for kd, td in zip(flat, motion, strict=True)]

    def _image_block(self, tokens_KD: Tensor) -> Tensor:
        return torch.cat([self._embed(IMAGE_START), tokens_KD, self._embed(IMAGE_END)])

    def _labelled_block(self, tiles_PSD: Tensor, motion_TD: Tensor | None) -> Tensor:
        """The released code's layout of a medium (``frame_labels`` of :class:`models.compatibility.Compatibility`)."""
        if motion_TD is None:
            return self._image_block(tiles_PSD.flatten(0, 1))
        pieces: list[Tensor] = []
        for number, frame_SD in enumerate(tiles_PSD, 1):
            pieces += [self._embed(f"Frame-{number}: "), self._image_block(frame_SD), self._embed("\n")]
        pieces += [self._embed("Motion Feature: "), self._image_block(motion_TD)]
        return torch.cat(pieces)

    def visual_tokens(self, inputs: Sequence[Medium]) -> list[Tensor]:
        """As :meth:`project`, of media; two videos in a batch are two videos.

        The encoder runs for media that come as pixels; features are taken as they are.
        """
        pixels = [medium for medium in inputs if isinstance(medium, VisualInput)]
        encoded = iter(self.visual_features(pixels) if pixels else [])
        return self.project([m if isinstance(m, VisualFeatures) else next(encoded) for m in inputs])

    # ---------------------------------------------------------------- language

    def asked(self, task: str, medium: Medium) -> str:
        """User text of a task (``models.questions``) about one medium, under this model's style."""
        return question_of(task, self.question, is_video=medium.is_video)

    def answer_ids(self, answers: Sequence[str], *, end: bool = True) -> tuple[Tensor, Tensor]:
        """Tokenise answers, padded on the right.

        Args:
            end: close each answer with the end-of-turn token.

        Returns:
            ids ``[B, L]`` and the boolean mask of real tokens ``[B, L]``.
        """
        rows = [self.tokenizer.encode(text, add_special_tokens=False) for text in answers]
        rows = [[*row, self._end_id] if end else row for row in rows]
        length = max(len(row) for row in rows)
        ids_BL = torch.full((len(rows), length), self._end_id)
        mask_BL = torch.zeros(len(rows), length, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids_BL[index, : len(row)] = torch.tensor(row)
            mask_BL[index, : len(row)] = True
        return ids_BL.to(self.device), mask_BL.to(self.device)

    def forward(
        self,
        inputs: Sequence[Medium],
        answer_ids_BL: Tensor,
        answer_mask_BL: Tensor,
        prompt: str | Sequence[str] = "",
    ) -> Tensor:
        """Hidden states ``[B, L, D]`` (after the final norm); entry ``l`` *predicts* answer token ``l``.

        Args:
            answer_ids_BL: answers, padded on the right. answer_mask_BL: True at real tokens; hidden states elsewhere
                are defined but mean nothing.
            prompt: user text, one for all or one each; empty is the paper's prompt decoupling.
        """
        return self.hidden_states(self.visual_tokens(inputs), answer_ids_BL, answer_mask_BL, prompt)

    def hidden_states(
        self,
        visual: Sequence[Tensor | None],
        answer_ids_BL: Tensor,
        answer_mask_BL: Tensor,
        prompt: str | Sequence[str] = "",
    ) -> Tensor:
        """As :meth:`forward`, from what :meth:`project` gave; None is a conversation without a medium."""
        prompts = [prompt] * len(visual) if isinstance(prompt, str) else list(prompt)
        heads = [self._head_embeddings(tokens, text) for tokens, text in zip(visual, prompts, strict=True)]
        answers_BLD = self.language_model.embed_tokens(answer_ids_BL)
        lengths = [len(head) for head in heads]
        padded_BXD = nn.utils.rnn.pad_sequence(
            [
                torch.cat([head, answer[: int(mask.sum())]])
                for head, answer, mask in zip(heads, answers_BLD, answer_mask_BL, strict=True)
            ],
            batch_first=True,
        )
        hidden_BXD = self.language_model(inputs_embeds=padded_BXD, use_cache=False).last_hidden_state
        first_B1 = torch.tensor(lengths, device=self.device)[:, None] - 1
        positions_BL = first_B1 + torch.arange(answer_ids_BL.shape[1], device=self.device)[None]
        positions_BL = positions_BL.clamp(max=hidden_BXD.shape[1] - 1)
        return hidden_BXD.gather(1, positions_BL[..., None].expand(-1, -1, hidden_BXD.shape[-1]))

    def layout(self, tokens_KD: Tensor | None, prompt: str) -> list[str | Tensor]:
        """Everything before the answer, in order, texts tokenised one by one: system turn, user turn, its opening.

        Args:
            tokens_KD: of :meth:`project`; None for a conversation without a medium. prompt: user text.
        """
        if tokens_KD is None:
            return text_layout(self.system, prompt)
        before, after = _turns(self.system, prompt)
        labelled = self.spec.compatibility.frame_labels  # such tokens bring marks of their own
        block = [tokens_KD] if labelled else [IMAGE_START, tokens_KD, IMAGE_END]
        return [before, *block, f"\n{after}"]

    def _head_embeddings(self, tokens_KD: Tensor | None, prompt: str) -> Tensor:
        pieces = self.layout(tokens_KD, prompt)
        return torch.cat([self._embed(piece) if isinstance(piece, str) else piece for piece in pieces])

    def _embed(self, text: str) -> Tensor:
        if text not in self._known_ids:
            self._known_ids[text] = torch.tensor(self.tokenizer.encode(text, add_special_tokens=False))
        return self.language_model.embed_tokens(self._known_ids[text].to(self.device))

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Vocabulary logits ``[N, V]`` of the rows that are wanted."""
        return self.internvl.lm_head(hidden_ND)

    # ---------------------------------------------------------------- readouts

    @torch.no_grad()
    def level_probabilities(self, inputs: Sequence[Medium]) -> Tensor:
        """Probabilities ``[N, 5]`` of the five levels, best first, after the forced sentence of each modality.

        The user turn is that of training: empty, or the rating question. A model of lower precision multiplies the five
        columns in float32: bfloat16 would tell logits of 20 apart by an eighth alone.
        """
        ids_BL, mask_BL = self.answer_ids(
            [f"{level_prefix(medium, self.spec.compatibility)} {LEVELS[0]}" for medium in inputs], end=False
        )
        hidden_BLD = self(inputs, ids_BL, mask_BL, [self.asked("single", medium) for medium in inputs])
        last_B = mask_BL.sum(1) - 1
        level_BD = hidden_BLD[torch.arange(len(inputs), device=self.device), last_B]
        levels_5 = torch.tensor(self.level_ids, device=self.device)
        if self.dtype == torch.float32:
            return self.logits(level_BD)[:, levels_5].float().softmax(-1)
        return self.vocabulary_head(level_BD, columns_K=levels_5).softmax(-1)

    @torch.no_grad()
    def generate(
        self,
        inputs: Sequence[Medium],
        prompt: str | Sequence[str] = "",
        prefix: str = "",
        max_new_tokens: int = 32,
        avoid: Sequence[str] = (),
        draws: Draws = GREEDY,
    ) -> list[str]:
        """Answers, without the forced ``prefix``; conversations of equal length share a batch.

        Args:
            prompt: of all, or one for each.
            avoid: openings that no answer may have; tells tasks apart that share the empty prompt.
            draws: how answers are drawn, if they are.

        Raises:
            ModelError: there is not a seed for each answer that is drawn.
        """
        prompts = [prompt] * len(inputs) if isinstance(prompt, str) else prompt
        heads = [
            self._head_embeddings(tokens, text)
            for tokens, text in zip(self.visual_tokens(inputs), prompts, strict=True)
        ]
        if prefix:
            heads = [torch.cat([head, self._embed(prefix)]) for head in heads]
        return self.continue_texts(heads, max_new_tokens, avoid, draws)

    def continue_texts(
        self,
        heads: Sequence[Tensor],
        max_new_tokens: int = 32,
        avoid: Sequence[str] = (),
        draws: Draws = GREEDY,
    ) -> list[str]:
        """Continuations of conversations that were opened as embeddings ``[X, D]``; see :meth:`generate`."""
        return continued_texts(self, self.tokenizer, heads, max_new_tokens, avoid, draws)

    @torch.no_grad()
    def answer_log_likelihood(
        self, inputs: Sequence[Medium], answers: Sequence[str], *, prompt: str = "", per_token: bool = False
    ) -> Tensor:
        """Log likelihood ``[N, A]`` of each answer with its end of turn; vision and prompt are computed once a medium.

        Args:
            per_token: divide by the number of tokens, so that long answers are not at a disadvantage.
        """
        ids_AL, mask_AL = self.answer_ids(answers)
        heads = [self._head_embeddings(tokens, prompt) for tokens in self.visual_tokens(inputs)]
        total_NA = torch.stack([log_likelihoods(self, head_XD, ids_AL, mask_AL) for head_XD in heads])
        return total_NA / mask_AL.sum(-1) if per_token else total_NA

    # ------------------------------------------------------------------ folders

    def save_pretrained(self, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        """Write the model as safetensors, in the type of its weights.

        An InternVL checkpoint (image encoder in a shard of its own; projector and decoder in shards of at most
        ``max_shard_bytes``), tokenizer, ``motion/`` and ``quality_lmm.json``. Decoders on one encoder thus share a
        byte-identical shard.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        save_internvl(self.internvl, folder, max_shard_bytes)
        save_motion_extractor(self.motion_extractor, folder / "motion")
        projector = {name: value.cpu().contiguous() for name, value in self.motion_projector.state_dict().items()}
        save_file(projector, folder / "motion" / "projector.safetensors")
        layout: dict[str, Any] = {"spec": dataclasses.asdict(self.spec), "system": self.system}
        if self.question != "empty":  # a folder that names no style has the paper's
            layout["question"] = self.question
        (folder / _LAYOUT_FILE).write_text(json.dumps(layout, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype | None = torch.float32) -> "QualityLMM":
        """Read a folder that :meth:`save_pretrained` wrote.

        Args:
            dtype: type of all weights, whatever they were stored as: float32 for models that are trained or compared
                bit by bit, bfloat16 to hold large ones in half the memory. None takes bfloat16 where all weights are
                stored so, and float32 elsewhere.

        Raises:
            MissingWeightsError: the folder is incomplete.
            ModelError: its content does not fit this version.
        """
        names = ("config.json", "tokenizer.json", _LAYOUT_FILE, "motion/projector.safetensors")
        require_files(folder, names, "quality LMM")
        layout: dict[str, Any] = json.loads((folder / _LAYOUT_FILE).read_text())
        spec = VisualSpec.from_json(layout["spec"])
        if dtype is None:
            dtype = stored_type([*checkpoint_shards(folder, "quality LMM"), *(folder / "motion").glob("*.safetensors")])
        internvl = load_internvl(folder, dtype)
        extractor = load_motion_extractor(folder / "motion", dtype)
        projector = MotionProjector(extractor.config.channels, internvl.config.get_text_config().hidden_size)
        projector.load_state_dict(load_file(folder / "motion" / "projector.safetensors"))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = cls(internvl, extractor, projector.to(dtype), tokenizer, spec, layout["system"]).eval()
        model.question = layout.get("question", "empty")
        if model.question not in STYLES:
            msg = f"{folder / _LAYOUT_FILE}: question {model.question!r} is none of {', '.join(STYLES)}"
            raise ModelError(msg)
        return model


def text_layout(system: str, prompt: str) -> list[str | Tensor]:
    """Everything before the answer of a conversation without a medium."""
    return ["".join(_turns(system, prompt))]


def _turns(system: str, prompt: str) -> tuple[str, str]:
    """What stands before and behind a medium."""
    before = f"{TURN_START}system\n{system}{TURN_END}\n{TURN_START}user\n"
    return before, f"{prompt}{TURN_END}\n{TURN_START}assistant\n"


def _single_token(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        msg = f"the tokenizer does not know the chat token {token!r}: it is not a tokenizer of this model family"
        raise ModelError(msg)
    return ids[0]
