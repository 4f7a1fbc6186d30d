"""Held-out questions answered by the assistant and by the models it was made from, stored before any metric.

The protocol is the paper's (VITAL, evaluation protocol, Q-Bench): greedy, and the first character of the answer is the
letter; an answer that begins otherwise is wrong. Beside it stands the likeliest of the options' letters, so that a
model that does not know the form of an answer can be told from one that does not know the answer.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from tqdm import tqdm

from models.conversations import heads, opening_logits
from models.quality_lmm import QualityLMM
from tasks.devices import DeviceName, device_named, lacking
from tasks.errors import StageError
from tasks.evaluation.choices import (
    ALL,
    BLIND,
    CHANCE,
    GREEDY,
    LIKELIEST,
    Accuracies,
    BlindAnswers,
    Resampling,
    by_slice,
    table,
)
from tasks.instructions import (
    LINE,
    ImportedSource,
    Instruction,
    external_media,
    instructions_of,
    media_frame,
    read_any_media,
    read_source,
)
from tasks.pool import load_candidates
from tasks.prepared import CachedFeatures, Preparation, encode_media
from tasks.question_text import LETTERS, letter_of
from tasks.records import ANSWERS, INSTRUCTIONS, REJECTS, Split
from tasks.shards import TableParts, frame_of, read_table, write_json, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

_SAID_TOKENS: Final = 8
"""Beginning of an answer that is kept; its first character decides."""


@dataclass(frozen=True)
class Config:
    """What is asked and how.

    Attributes:
        benchmarks: imported question tables (Q-Bench, Q-Bench-Video), asked beside the line's own held-out questions.
        batch: questions that go through the decoder together; it does not change answers.
        threads: CPU threads.
        device: where models compute, one after the other; ``cuda`` is the first GPU.
        max_reject_share: share of undecodable media above which the stage fails.
        sampling: how uncertainty is measured.
    """

    benchmarks: tuple[ImportedSource, ...]
    batch: int
    threads: int
    device: DeviceName
    max_reject_share: float
    sampling: Resampling


@dataclass(frozen=True)
class Report:
    """Shares of right answers to the line's own held-out questions, per model and kind of question (``all`` first).

    Attributes:
        questions: per source. unparsed: share of the greedy answers that begin with no option's letter, per model.
        accuracy: greedy, by the first character. likeliest: of the options' letters alone.
        blind: the most frequent training answer of each wording. chance: a drawn letter.
        accuracy_low, accuracy_high: interval of the assistant over all questions.
        gain, gain_low, gain_high: assistant minus the pre-trained model, greedy, paired.
        gain_over_blind, gain_over_blind_low, gain_over_blind_high: assistant minus blind answers, paired.
        benchmarks: source -> model -> greedy accuracy.
    """

    questions: dict[str, int]
    contents: int
    rejected: int
    unparsed: dict[str, float]
    accuracy: dict[str, dict[str, float]]
    likeliest: dict[str, dict[str, float]]
    blind: dict[str, float]
    chance: dict[str, float]
    accuracy_low: float | None
    accuracy_high: float | None
    gain: float
    gain_low: float | None
    gain_high: float | None
    gain_over_blind: float
    gain_over_blind_low: float | None
    gain_over_blind_high: float | None
    benchmarks: dict[str, dict[str, float]]


@dataclass(frozen=True)
class _Asked:
    """Questions with their media, and what is answered blindly."""

    questions: list[Instruction]
    media: pd.DataFrame
    blind: BlindAnswers


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking(config.device)


def run(config: Config, place: Place) -> Report:
    """Ask; outputs ``answers.parquet``, ``accuracies.json`` and ``rejects.parquet``.

    Raises:
        StageError: there are no questions, or too many media do not decode.
    """
    torch.set_num_threads(config.threads)
    models = answering_models(place)
    asked = _read_questions(config, place)
    loaded = {name: QualityLMM.from_pretrained(folder) for name, folder in models.items()}
    features = encode_media(
        place.work / "features",
        asked.media,
        lambda row: read_any_media(place, row),
        loaded,
        Preparation("answer", config.threads, config.max_reject_share, device_named(config.device)),
    )
    known = next(iter(features.values()))
    usable = [one for one in asked.questions if known.ids.issuperset(one.media)]
    parts = TableParts(place.work / "answers", ANSWERS)
    for name, model in loaded.items():
        if not parts.has(name):
            rows = _answers(name, model.to(device_named(config.device)), usable, features[name], config.batch)
            model.to("cpu")
            blind = {one.instruction_id: asked.blind.letter(one.questions[-1]) for one in usable}
            parts.add(name, frame_of(ANSWERS, [row | {"blind": blind[row["instruction_id"]]} for row in rows]))
    answers = parts.read()
    write_table(place.out / "answers.parquet", ANSWERS, answers)
    write_table(place.out / "rejects.parquet", REJECTS, known.rejects)
    return _report(answers, list(models), len(known.rejects), config.sampling, place.out)


def answering_models(place: Place) -> dict[str, Path]:
    """Name -> folder: the assistant, the pre-trained model that it was made from, and the base of that."""
    decoder = json.loads((place.artifacts("pretrain") / "recipe.json").read_text())["decoder"]
    return {
        f"vital-assistant-{decoder}": place.artifacts("assistant") / "model",
        f"vital-base-{decoder}": place.artifacts("pretrain") / "model",
        f"base-{decoder}": place.artifacts("base") / decoder,
    }


def _read_questions(config: Config, place: Place) -> _Asked:
    """The line's held-out questions and those of the benchmarks, their media, and the line's training questions.

    Raises:
        StageError: there is none, or a benchmark holds conversations without options.
    """
    rows = read_table(place.artifacts("assistant") / "instructions.parquet", INSTRUCTIONS)
    line = [row for row in rows.to_dict("records") if row["split"] == Split.HELD_OUT]
    questions, frames = instructions_of(line), []
    for number, source in enumerate(config.benchmarks):
        imported = instructions_of(read_source(place, source).to_dict("records"), str(number))
        if any(one.letter is None for one in imported):
            msg = f"{source.table} holds conversations without options: name it under assistant.sources instead"
            raise StageError(msg)
        frames.append(external_media(imported, source.root))
        questions += imported
    if not questions:
        raise StageError("there is no question to ask: the pool has no held-out content that questions can be asked of")
    shown = {medium for one in questions for medium in one.media}
    frame = media_frame(load_candidates(place), frames)
    training = [row for row in rows.to_dict("records") if row["split"] == Split.TRAIN]
    turns = [turn for row in training for turn in zip(row["questions"], row["answers"], strict=True)]
    media = pd.DataFrame(frame[[medium in shown for medium in frame["id"]]])
    return _Asked(questions, media, BlindAnswers(turns))


@torch.no_grad()
def _answers(
    name: str, model: QualityLMM, questions: Sequence[Instruction], features: CachedFeatures, batch: int
) -> list[dict[str, Any]]:
    """ANSWERS rows of one model, without the column ``blind``."""
    letter_ids = [_letter_token(model, letter) for letter in LETTERS[: max(len(one.options) for one in questions)]]
    ordered = sorted(questions, key=lambda one: (one.media, one.instruction_id))
    rows = []
    for start in tqdm(range(0, len(ordered), batch), desc=f"answer: {name}", unit="batch"):
        members = ordered[start : start + batch]
        numbers = {key: n for n, key in enumerate(dict.fromkeys(key for one in members for key in one.media))}
        visual = model.visual_tokens([features.read(key) for key in numbers]) if numbers else []
        opened = heads(model, visual, [one.conversation(numbers) for one in members])
        logits_CV = opening_logits(model, opened)
        texts = model.continue_texts(opened, _SAID_TOKENS)
        for one, logits_V, text in zip(members, logits_CV, texts, strict=True):
            best = int(logits_V[letter_ids[: len(one.options)]].argmax())
            rows.append(_answer_row(name, one, text, LETTERS[best]))
    return rows


def _answer_row(name: str, one: Instruction, text: str, likeliest: str) -> dict[str, Any]:
    return {
        "model": name,
        "instruction_id": one.instruction_id,
        "source": one.source,
        "kind": str(one.kind),
        "content_id": one.content_id or one.instruction_id,
        "options": len(one.options),
        "letter": one.letter,
        "said": text,
        "chosen": letter_of(text, len(one.options)),
        "likeliest": likeliest,
    }


def _letter_token(model: QualityLMM, letter: str) -> int:
    """Token that an answer of this letter begins with."""
    return int(model.tokenizer.encode(letter, add_special_tokens=False)[0])


def _report(answers: pd.DataFrame, models: Sequence[str], rejected: int, sampling: Resampling, out: Path) -> Report:
    """Measure, write ``accuracies.json``, and pick the headline figures; the line's own questions take them."""
    sources = sorted(set(answers["source"]))
    measured = {source: Accuracies(pd.DataFrame(answers[answers["source"] == source]), sampling) for source in sources}
    assistant, pretrained = models[0], models[1]
    pairs = [(assistant, other) for other in models[1:]]
    tables = [table(found, pairs, source) for source, found in measured.items()]
    rows = {name: [row for one in tables for row in one[name]] for name in ("accuracies", "differences")}
    write_json(out / "accuracies.json", rows)
    line = measured.get(LINE, measured[sources[0]])
    own = line.of(assistant, ALL, GREEDY)
    gain = line.difference(assistant, (pretrained, GREEDY), ALL, GREEDY)
    over_blind = line.difference(assistant, (assistant, BLIND), ALL, GREEDY)
    lost = {name: float(answers.loc[answers["model"] == name, "chosen"].isna().mean()) for name in models}
    return Report(
        questions={source: found.of(assistant, ALL, GREEDY).questions for source, found in measured.items()},
        contents=own.contents,
        rejected=rejected,
        unparsed={name: round(share, 6) for name, share in lost.items()},
        accuracy={name: by_slice(line, name, GREEDY) for name in models},
        likeliest={name: by_slice(line, name, LIKELIEST) for name in models},
        blind=by_slice(line, assistant, BLIND),
        chance=by_slice(line, assistant, CHANCE),
        accuracy_low=own.low,
        accuracy_high=own.high,
        gain=gain.value,
        gain_low=gain.low,
        gain_high=gain.high,
        gain_over_blind=over_blind.value,
        gain_over_blind_low=over_blind.low,
        gain_over_blind_high=over_blind.high,
        benchmarks={
            source: {name: found.of(name, ALL, GREEDY).value for name in models}
            for source, found in measured.items()
            if source != LINE
        },
    )
