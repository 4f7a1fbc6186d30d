"""Lengths of sequences in tokens, from the rows of the media and the tokenizer: no medium is opened.

They decide which examples share a micro-batch and, if a step is normalised by tokens, the weight of each example. A
wrong number of visual tokens would pad more, and change nothing else.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from models.quality_lmm import QualityLMM
from models.questions import question_of
from models.view_shape import clip_shape, image_tiles
from models.vision_encoder import VisualSpec
from tasks.records import Modality, Task
from tasks.training.examples import Example
from tasks.training_set import MediumRow

_TEXTS_KEPT: Final = 1 << 16
_FALLBACK_RATE: Final = 25.0
"""Frames per second of a clip that declares none (as in tasks.prepared)."""


class SequenceLengths:
    """Lengths under one model."""

    def __init__(self, model: QualityLMM, row_of: Callable[[str], MediumRow]) -> None:
        """Take the model's tokenizer and views, and a way from a medium's id to its row."""
        self._model, self._row_of = model, row_of
        self._answer = lru_cache(maxsize=_TEXTS_KEPT)(self._count)
        self._text = lru_cache(maxsize=_TEXTS_KEPT)(self._tokens)

    def sequence(self, example: Example) -> int:
        """Visual, question and answer tokens of the example's longest sequence; what all sequences have is left out."""
        return max(
            self.visual(medium) + self._asked(example.task, medium) + self._answer(answer)
            for medium, answer in zip(example.ids, example.answers, strict=True)
        )

    def answer(self, example: Example) -> int:
        """Answer tokens of all the example's sequences, each with its end of turn."""
        return sum(self._answer(answer) for answer in example.answers)

    def visual(self, medium_id: str) -> int:
        """Visual tokens of one medium: those of its tiles, and one per motion frame."""
        tiles, motion = view_size(self._row_of(medium_id), self._model.spec)
        return tiles * self._model.internvl.config.image_seq_length + motion

    def _asked(self, task: Task, medium_id: str) -> int:
        is_video = self._row_of(medium_id).modality == Modality.VIDEO
        return self._text(question_of(task, self._model.question, is_video=is_video))

    def _tokens(self, text: str) -> int:
        return len(self._model.tokenizer.encode(text, add_special_tokens=False))

    def _count(self, answer: str) -> int:
        _, mask_BL = self._model.answer_ids([answer])
        return int(mask_BL.sum())


def view_size(row: MediumRow, spec: VisualSpec) -> tuple[int, int]:
    """Numbers of tiles and of motion frames that the views of a medium have."""
    if row.modality != Modality.VIDEO:
        return image_tiles(row.height, row.width, spec), 0
    return clip_shape(row.frames, row.fps or _FALLBACK_RATE, spec)
