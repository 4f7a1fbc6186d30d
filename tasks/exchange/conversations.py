"""Instruction data sets of other people as rows of INSTRUCTIONS: conversations about media, in the layout of LLaVA.

One reader knows what their files have in common, a :class:`DataSet` what each may hold. A record that is no
conversation of a person and an assistant about media that the root has is a reject with a reason; nothing is cut,
guessed or replaced.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tasks.errors import StageError
from tasks.exchange.instruction_rows import (
    RESERVED,
    ImportedInstructions,
    MediaRoot,
    RecordRejectedError,
    gathered,
    instruction_row,
    kind_of,
    modality_by_suffix,
)
from tasks.exchange.json_text import Record
from tasks.question_text import LETTERS, options_in
from tasks.records import MEDIUM_MARK, Modality, QuestionKind, Split


@dataclass(frozen=True)
class DataSet:
    """What the records of one data set may hold.

    Attributes:
        title: as it is called. modalities: of its media.
        texts: keys that a turn's text may stand under.
        clip_mark: key whose presence says that the medium is a clip, whatever key its path stands under.
    """

    title: str
    modalities: tuple[Modality, ...] = (Modality.IMAGE,)
    texts: tuple[str, ...] = ("value",)
    clip_mark: str | None = None


_BOTH: Final = (Modality.IMAGE, Modality.VIDEO)
DATA_SETS: Final[dict[str, DataSet]] = {
    # Q-Instruct's README and training scripts: LLaVA records; for mPLUG-Owl2 <|image|> in place of <image>
    "q_pathway": DataSet("Q-Pathway (Q-Instruct)"),
    # a catalogue of public data sets: id, image, conversations of several turns, type, qtype
    "aesmmit": DataSet("AesMMIT"),
    # the released loaders: clips too stand under "image", told by "frames per sec"; one of them reads "content"
    "vqa2": DataSet("VQA2-Stage3", _BOTH, ("value", "content"), "frames per sec"),
    # not released; what its authors' later loader (LLaVA-Assessor) reads: as VQA2's, with "task_mark"
    "omnivqa": DataSet("OmniVQA-Chat", _BOTH, ("value", "content"), "frames per sec"),
}
"""The data sets of VITAL-Assistant (VITAL section 7) by name, each with where its layout was read."""

_MEDIA_KEYS: Final = ("image", "images", "img_path", "video", "video_path")
_SPEAKERS: Final = {"human": "human", "user": "human", "gpt": "assistant", "assistant": "assistant"}
_PLACEHOLDER: Final = re.compile(r"<\|?(?:image|video)\|?>")
_LETTERED: Final = re.compile(r"^\(?([A-Z])(?:[.):]|\s|$)")


def import_instructions(records: Sequence[Record], source: str, root: Path | None) -> ImportedInstructions:
    """Records of one of ``DATA_SETS`` as conversations for training.

    Args:
        source: name of the data set. root: folder of its media; None leaves open whether they are there.

    Raises:
        StageError: the data set is not known, or no record can be used.
    """
    if source not in DATA_SETS:
        msg = f"unknown instruction data set {source!r}; there are {', '.join(DATA_SETS)}"
        raise StageError(msg)
    reader = _Reader(source, MediaRoot(root))
    makers = [(f"{number}", partial(reader.row, record.value)) for number, record in enumerate(records)]
    return gathered(makers, reader.notes, DATA_SETS[source].title)


class _Reader:
    """Reads the records of one data set.

    Attributes:
        notes: what was put into our layout: placeholders that were missing, or stood for a clip's motion.
    """

    def __init__(self, source: str, root: MediaRoot) -> None:
        self._source, self._known, self._root = source, DATA_SETS[source], root
        self.notes: Counter[str] = Counter()

    def row(self, value: dict[str, Any]) -> dict[str, Any]:
        """A row of INSTRUCTIONS.

        Raises:
            RecordRejectedError: the record cannot be used.
        """
        questions, answers = self._turns(value.get("conversations"))
        for text in (*(_PLACEHOLDER.sub("", question) for question in questions), *answers):
            if found := RESERVED.search(text):
                raise RecordRejectedError("reserved_token", f"a text holds {found[0]!r}, which the layout reserves")
        media = self._media(value)
        questions = self._marked(questions, media)
        if not all(question.replace(MEDIUM_MARK, "").strip() for question in questions):
            raise RecordRejectedError("empty_question", "a question has no words")
        stem, options = options_in(questions[-1])
        letter = _letter(answers[-1], options)
        options = options if letter is not None else []
        kind = kind_of(stem, options) if letter is not None else QuestionKind.OPEN
        told = {"answers": answers, "options": options, "letter": letter, "kind": str(kind), "split": str(Split.TRAIN)}
        return instruction_row(self._source, media, questions, **told)

    def _turns(self, told: Any) -> tuple[list[str], list[str]]:
        """Questions and answers, which take turns."""
        if not isinstance(told, list) or not told or not all(isinstance(turn, dict) for turn in told):
            raise RecordRejectedError("no_conversation", "there is no list of turns under 'conversations'")
        speakers = [_SPEAKERS.get(str(turn.get("from", turn.get("role")))) for turn in told]
        if len(told) % 2 or speakers != ["human", "assistant"] * (len(told) // 2):
            raise RecordRejectedError("speakers", f"person and assistant do not take turns: {speakers}")
        texts = [self._text(turn) for turn in told]
        if not all(text.strip() for text in texts[1::2]):
            raise RecordRejectedError("empty_answer", "an answer is empty")
        return [text.strip() for text in texts[::2]], [text.strip() for text in texts[1::2]]

    def _text(self, turn: dict[str, Any]) -> str:
        found = [turn[key] for key in self._known.texts if key in turn]
        if len(found) != 1 or not isinstance(found[0], str):
            raise RecordRejectedError("no_text", f"a turn needs one text under {' or '.join(self._known.texts)}")
        return found[0]

    def _media(self, value: dict[str, Any]) -> list[tuple[str, Modality]]:
        """Path and modality of every medium, in order; text alone has none."""
        keys = [key for key in _MEDIA_KEYS if value.get(key)]
        if len(keys) > 1:
            raise RecordRejectedError("several_media_keys", f"paths stand under {', '.join(keys)}: their order is open")
        if not keys:
            return []
        told = value[keys[0]] if isinstance(value[keys[0]], list) else [value[keys[0]]]
        found = []
        for one in told:
            path = self._root.path(one)
            clip = keys[0].startswith("video") or (self._known.clip_mark is not None and self._known.clip_mark in value)
            modality = Modality.VIDEO if clip else modality_by_suffix(path)
            if modality not in self._known.modalities:
                raise RecordRejectedError(
                    "other_modality", f"{path} is a {modality}, which {self._known.title} has not"
                )
            found.append((path, modality))
        return found

    def _marked(self, questions: list[str], media: Sequence[tuple[str, Modality]]) -> list[str]:
        """Questions with one mark per medium where its placeholder stood.

        A clip may have two placeholders, for frames and for motion; here both are in one place, that of the first.
        """
        counts = [len(_PLACEHOLDER.findall(question)) for question in questions]
        clips_alone = bool(media) and all(modality is Modality.VIDEO for _, modality in media)
        if sum(counts) == len(media):
            return [_PLACEHOLDER.sub(MEDIUM_MARK, question) for question in questions]
        if not sum(counts):
            self.notes["media shown first, since no placeholder says where"] += 1
            return [f"{MEDIUM_MARK}\n" * len(media) + questions[0], *questions[1:]]
        if clips_alone and sum(counts) == 2 * len(media):
            self.notes["placeholders of motion left out: frames and motion of a clip stand together"] += 1
            place = iter(range(sum(counts)))
            return [
                _PLACEHOLDER.sub(lambda _: "" if next(place) % 2 else MEDIUM_MARK, question) for question in questions
            ]
        raise RecordRejectedError("placeholders", f"{sum(counts)} placeholders for {len(media)} media")


def _letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that an answer gives, by letter or in the option's words; None if it gives none."""
    found = _LETTERED.match(answer)
    if found and found[1] in LETTERS[: len(options)]:
        return found[1]
    words = [option.lower().rstrip(". ") for option in options]
    told = answer.lower().rstrip(". ")
    return LETTERS[words.index(told)] if told in words else None
