"""What a student without a language model learns from: reasoning text about media, and what the teacher makes of them.

Texts come from anybody: the line's reviewed assertions, answers that a model of the line draws about the media (the
teacher, as RALI has it: several a medium with different seeds), and imported tables (Q-Instruct's files, people's
notes, what another model or an endpoint said). All get one schema, and what gives the verdict away is dropped or told
(``models.reasoning_text``). The teacher's scores are the expectation over its level words.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import pandas as pd
import torch
from tqdm import tqdm

from models.levels import expectation
from models.openings import NOT_DESCRIPTIONS
from models.quality_lmm import QualityLMM, VisualFeatures
from models.rewards import Tags, read_answer
from models.sampling import Draws, Sampling
from models.teaching import AskStyle, question
from tasks.devices import DeviceName, device_named, lacking
from tasks.errors import StageError
from tasks.instructions import ImportedSource, Instruction, imported_instructions, media_frame, read_any_media
from tasks.prepared import CachedFeatures, Preparation, encode_media, stands_on
from tasks.records import EXPLANATIONS, REJECTS, TAUGHT, QuestionKind
from tasks.reviewed_texts import reviewed_texts
from tasks.shards import TableParts, digest, frame_of, write_table
from tasks.stage import Place
from tasks.targets import bounded, scored_candidates
from tasks.text_sieve import Leaks, TextSieve

Explainer = Literal["pretrain", "assistant", "two_stage", "teach", "ract"]
"""A stage of the line whose model can be asked about media."""
REVIEWED_TEXTS: Final = "reviewed"
TEACHER: Final = "teacher"
"""Source of texts that a model of the line draws."""
_WRITER: Final = "writer"
MODEL_FOLDERS: Final[dict[Explainer, str]] = {
    "pretrain": "model",
    "assistant": "model",
    "two_stage": "describer",
    "teach": "model",
    "ract": "model",
}
"""Stage whose model may teach -> folder of the model in its artifacts."""
_TASKS: Final[dict[Explainer, str]] = {"pretrain": "description", "assistant": "description", "two_stage": "perception"}
"""Stage -> the task under which its model was taught to describe (models.questions)."""
_THINKING: Final[dict[Explainer, str]] = {"teach": "teacher.json", "ract": "ract.json"}
"""Stages whose models think aloud before they judge -> file that says how they are asked and read."""


@dataclass(frozen=True)
class Drawn:
    """Texts that a model of the line draws.

    Attributes:
        writer: stage of the line whose model it is; of one that thinks aloud (``teach``, ``ract``) the thought is the
            text.
        per_medium: how many, each with a seed of its own; 0 draws none.
        temperature, top_p: of the draws; temperature 0 gives the greedy answer, once.
        max_new_tokens: of an answer.
    """

    writer: Explainer
    per_medium: int
    temperature: float
    top_p: float
    max_new_tokens: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.per_medium < 0 or self.max_new_tokens < 1:
            raise ValueError("per_medium must be at least 0, max_new_tokens at least 1")
        if self.per_medium > 1 and self.temperature == 0.0:
            raise ValueError("greedy answers are all the same: per_medium above 1 needs a temperature")

    @property
    def sampling(self) -> Sampling:
        """How a token is chosen."""
        return Sampling(self.temperature, self.top_p)


@dataclass(frozen=True)
class Config:
    """What is gathered.

    Attributes:
        teacher: stage of the line whose model scores.
        splits: of the line's contents; never the held-out ones.
        max_media: of them, by a hash of their ids; None takes all.
        reviewed: whether the line's reviewed assertions are texts.
        drawn: what a model of the line says.
        sources: imported instruction tables whose open answers are texts.
        leaks: ``drop`` takes out sentences that give the verdict away, ``keep`` counts them.
        seed: of the draws.
        batch: media that are asked together; it changes no text, and scores by 1e-5 at most.
        max_reject_share: share of undecodable media above which the stage fails.
    """

    teacher: Explainer
    splits: tuple[Literal["train", "warm_up"], ...]
    max_media: int | None
    reviewed: bool
    drawn: Drawn
    sources: tuple[ImportedSource, ...]
    leaks: Leaks
    seed: int
    batch: int
    threads: int
    device: DeviceName
    max_reject_share: float

    def __post_init__(self) -> None:
        """Check that something is asked for."""
        if not self.splits:
            raise ValueError("splits must name one at least")
        if self.batch < 1 or self.threads < 1:
            raise ValueError("batch and threads must be at least 1")


@dataclass(frozen=True)
class Report:
    """Counts.

    Attributes:
        media: that were scored. texts: per source. explained: media with a text, per source.
        distinct: share of different texts among each source's.
        leaks: found, per kind. dropped_sentences: that were taken out for them.
        rejected: texts and media that were not used, per reason.
    """

    media: int
    contents: int
    texts: dict[str, int]
    explained: dict[str, int]
    distinct: dict[str, float]
    leaks: dict[str, int]
    dropped_sentences: int
    rejected: dict[str, int]


def missing(config: Config, root: Any) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking(config.device)


def run(config: Config, place: Place) -> Report:
    """Gather texts and scores.

    Outputs ``explanations.parquet``, ``taught.parquet`` and ``rejects.parquet``.

    Raises:
        StageError: there is nothing to gather, or too many media do not decode.
    """
    torch.set_num_threads(config.threads)
    scored = scored_candidates(place)
    line = bounded(pd.DataFrame(scored[scored["split"].isin(config.splits)]), config.max_media, "explain")
    imported, frames = imported_instructions(place, config.sources)
    sieve = TextSieve("explain", config.leaks)
    told = [one for one in (_of_instruction(one, sieve) for one in imported) if one is not None]
    shown = media_frame(line, frames)
    if shown.empty:
        raise StageError("no medium of the chosen splits has an opinion: run dvc repro score, or name other splits")
    teacher = _Teacher(config, place, shown)
    read = set(shown["id"]) - teacher.features.broken
    texts = [*_of_line(line, config, place, sieve), *told, *teacher.texts(line, sieve)]
    kept = frame_of(EXPLANATIONS, [row for row in texts if row["id"] in read])
    taught = _taught(pd.DataFrame(shown[[name in read for name in shown["id"]]]), line, teacher.scores())
    rejects = pd.concat([teacher.features.rejects, frame_of(REJECTS, sieve.rejects)], ignore_index=True)
    for name, schema, frame in (("explanations", EXPLANATIONS, kept), ("taught", TAUGHT, taught)):
        write_table(place.out / f"{name}.parquet", schema, frame)
    write_table(place.out / "rejects.parquet", REJECTS, rejects)
    return _report(kept, taught, sieve, rejects)


def _report(texts: pd.DataFrame, taught: pd.DataFrame, sieve: TextSieve, rejects: pd.DataFrame) -> Report:
    per_source = {str(name): pd.DataFrame(rows) for name, rows in texts.groupby("source")}
    return Report(
        media=len(taught),
        contents=len(set(taught["content_id"])),
        texts={name: len(rows) for name, rows in per_source.items()},
        explained={name: len(set(rows["id"])) for name, rows in per_source.items()},
        distinct={name: round(len(set(rows["text"])) / len(rows), 6) for name, rows in per_source.items()},
        leaks=dict(sorted(sieve.leaks.items())),
        dropped_sentences=sieve.sentences,
        rejected=dict(sorted(Counter(rejects["reason"]).items())),
    )


def _taught(shown: pd.DataFrame, line: pd.DataFrame, scores: dict[str, float]) -> pd.DataFrame:
    splits = dict(zip(line["id"], line["split"], strict=True))
    opinions = dict(zip(line["id"], line["target"], strict=True))
    rows = [
        {
            "id": name,
            "content_id": content,
            "modality": modality,
            "split": splits.get(name),
            "teacher": scores[name],
            "opinion": opinions.get(name),
        }
        for name, content, modality in zip(shown["id"], shown["content_id"], shown["modality"], strict=True)
    ]
    return frame_of(TAUGHT, rows)


# ---------------------------------------------------------------------------- texts


def _row(sieve: TextSieve, text: str, **about: Any) -> dict[str, Any] | None:
    """A row of EXPLANATIONS, or None for a text that says nothing but a verdict."""
    said = sieve.sieved(text, str(about["id"]), str(about["source"]))
    if said is None:
        return None
    drawn = {"seed": None, "temperature": None, "top_p": None}
    return {**drawn, **about, "text": said.text, "dropped": said.dropped}


def _of_line(line: pd.DataFrame, config: Config, place: Place, sieve: TextSieve) -> Iterator[dict[str, Any]]:
    """The reviewed assertions of each medium as one text."""
    texts = reviewed_texts(place) if config.reviewed else {}
    for name, content, modality in zip(line["id"], line["content_id"], line["modality"], strict=True):
        if name in texts:
            about = {"id": name, "content_id": content, "modality": modality, "number": 0}
            row = _row(sieve, texts[name], source=REVIEWED_TEXTS, **about)
            if row is not None:
                yield row


def _of_instruction(one: Instruction, sieve: TextSieve) -> dict[str, Any] | None:
    """An imported answer about one medium."""
    if one.kind is not QuestionKind.OPEN or len(one.media) != 1 or len(one.answers) != 1:
        sieve.refuse(one.instruction_id, "not_one_answer", f"{one.source}: not one open answer about one medium")
        return None
    key = one.media[0]
    number = int(digest(one.instruction_id)[:12], 16)  # several answers about a medium have their own
    about = {"id": key, "content_id": one.content_id or key, "modality": one.modalities[0], "number": number}
    return _row(sieve, one.answers[0], source=one.source, **about)


# -------------------------------------------------------------------------- teacher


@dataclass(frozen=True)
class _Way:
    """How a model is asked to explain, and where its answer holds the explanation.

    Attributes:
        task: of ``models.questions``; None for one that thinks aloud before it scores.
        style, tags: of such a one, see ``models.teaching``.
    """

    task: str | None
    style: AskStyle = "short"
    tags: Tags = "free"

    @classmethod
    def of(cls, place: Place, writer: Explainer) -> "_Way":
        """That of a stage's model."""
        if writer not in _THINKING:
            return cls(_TASKS[writer])
        told = json.loads((place.artifacts(writer) / _THINKING[writer]).read_text())
        return cls(None, told["question"], told["tags"])

    def prompt(self, model: QualityLMM, medium: VisualFeatures) -> str:
        """What is asked about a medium."""
        if self.task is None:
            return question("score", self.style, is_video=medium.is_video)
        return model.asked(self.task, medium)

    def read(self, said: str) -> str | None:
        """The explanation in an answer; None where it thinks nothing before it judges."""
        return said if self.task else read_answer(said, "score", self.tags).thought or None


class _Teacher:
    """Who scores and who writes, and what they see: each encoder looks at every medium once."""

    def __init__(self, config: Config, place: Place, shown: pd.DataFrame) -> None:
        self._config, self._place = config, place
        self.model = self._model(config.teacher)
        self._writer = self._model(config.drawn.writer) if config.drawn.per_medium else self.model
        encoders = {TEACHER: self.model}
        if not stands_on(self._writer, self.model):
            encoders[_WRITER] = self._writer
        preparation = Preparation("explain", config.threads, config.max_reject_share, device_named(config.device))
        read = partial(read_any_media, place)
        found = encode_media(place.work / "features", shown, read, encoders, preparation)
        self.features: CachedFeatures = found[TEACHER]
        self._seen = found.get(_WRITER, self.features)
        self._shown = [str(name) for name in shown["id"] if str(name) not in self.features.broken]

    def _model(self, stage: Explainer) -> QualityLMM:
        folder = self._place.artifacts(stage) / MODEL_FOLDERS[stage]
        return QualityLMM.from_pretrained(folder).to(device_named(self._config.device))

    def scores(self) -> dict[str, float]:
        """Quality of every medium that decodes."""
        found: dict[str, float] = {}
        for some in _groups(self._shown, self._config.batch, "explain: scores"):
            probabilities = self.model.level_probabilities([self.features.read(name) for name in some])
            found |= dict(zip(some, expectation(probabilities.cpu().numpy()).tolist(), strict=True))
        return found

    def texts(self, line: pd.DataFrame, sieve: TextSieve) -> Iterator[dict[str, Any]]:
        """What is drawn about the line's media; batches that a run before the kill has drawn are taken over."""
        drawn = self._config.drawn
        way = _Way.of(self._place, drawn.writer) if drawn.per_medium else _Way(None)
        known = {str(row["id"]): row for row in line.to_dict("records")}
        names = [name for name in self._shown if name in known] if drawn.per_medium else []
        parts = TableParts(self._place.work / "drawn", EXPLANATIONS)
        for some in _groups(names, self._config.batch, "explain: texts"):
            part = digest(list(some))
            if not parts.has(part):
                parts.add(part, frame_of(EXPLANATIONS, self._draw(some, known, way)))
            for row in parts.read_part(part).to_dict("records"):
                text, about = way.read(str(row.pop("text"))), {str(key): value for key, value in row.items()}
                if text is None:
                    sieve.refuse(str(row["id"]), "no_thought", f"{TEACHER}, answer {row['number']}: it is not laid out")
                    continue
                kept = _row(sieve, text, **{key: value for key, value in about.items() if key != "dropped"})
                if kept is not None:
                    yield kept

    def _draw(self, names: Sequence[str], known: dict[str, dict[str, Any]], way: _Way) -> list[dict[str, Any]]:
        drawn, rows = self._config.drawn, []
        media = [self._seen.read(name) for name in names]
        prompts = [way.prompt(self._writer, medium) for medium in media]
        avoid = NOT_DESCRIPTIONS if way.task else ()
        for number in range(drawn.per_medium):
            seeds = [int(digest(self._config.seed, name, number)[:12], 16) for name in names]
            how = {"avoid": avoid, "draws": Draws(drawn.sampling, seeds)}
            answers = self._writer.generate(media, prompts, max_new_tokens=drawn.max_new_tokens, **how)
            for name, seed, answer in zip(names, seeds, answers, strict=True):
                about = {key: known[name][key] for key in ("id", "content_id", "modality")}
                drawing = {"seed": seed, "temperature": drawn.temperature, "top_p": drawn.top_p, "dropped": 0}
                rows.append({"source": TEACHER, "number": number, "text": answer, **about, **drawing})
        return rows


def _groups(names: Sequence[str], size: int, label: str) -> Iterator[Sequence[str]]:
    with tqdm(total=len(names), desc=label, unit="medium") as bar:
        for first in range(0, len(names), size):
            yield names[first : first + size]
            bar.update(len(names[first : first + size]))
