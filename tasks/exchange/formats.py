"""Import and survey: which format a file has, and the table that it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from tasks.errors import StageError
from tasks.exchange.hub import is_hub_folder, left_out, read_hub, read_parquet, records_text
from tasks.exchange.human_lists import Keys, check_score, keys_of, meaning_of, read_scores, score_rows
from tasks.exchange.instructions import description_rows, is_instructions
from tasks.exchange.json_text import Record, cut, read_records
from tasks.exchange.known_lists import KNOWN, KnownList, fingerprint
from tasks.exchange.questions import inconsistent, is_questions, question_rows
from tasks.exchange.tables import DESCRIPTIONS, HUMAN_SCORES, QUESTIONS, SAMPLES, table_of
from tasks.exchange.training_groups import check_sample, contradictions, is_training, sample_rows
from tasks.human_scale import Meaning
from tasks.records import EXAMPLES, REJECTS, RowSchema
from tasks.shards import frame_of

_JSON: Final = (".json", ".jsonl", ".ndjson")
_CHECKS: Final = {HUMAN_SCORES.name: check_score, SAMPLES.name: check_sample}
"""Table -> what its rows must hold even if somebody wrote them into the table or data set by hand."""


@dataclass(frozen=True)
class Options:
    """What a person says about a file.

    Attributes:
        meaning: of its human scores. media_key, score_key: where a list keeps paths and scores.
    """

    meaning: Meaning | None = None
    media_key: str | None = None
    score_key: str | None = None


@dataclass(frozen=True)
class Imported:
    """A file as a table.

    Attributes:
        table: its schema. frame: its rows. problems: what the file says twice and differently. known: the list of the
            authors that it is. left_out: columns of a data set that no table can hold. rejects: rows of REJECTS;
            only files of descriptions have some.
    """

    table: RowSchema
    frame: pd.DataFrame
    problems: list[str] = field(default_factory=list)
    known: KnownList | None = None
    left_out: list[str] = field(default_factory=list)
    rejects: pd.DataFrame = field(default_factory=lambda: frame_of(REJECTS, []))


def import_file(path: Path, options: Options) -> Imported:
    """Read a JSON or Parquet file, or a folder of the library ``datasets``, into the table of its format.

    Raises:
        StageError: it is missing, damaged, of no known format, or its scores are not declared, contradict what was
            declared, or cannot be.
    """
    if path.is_dir():
        if not is_hub_folder(path):
            msg = f"{path} is a folder that the library datasets did not write (save_to_disk): name a file in it"
            raise StageError(msg)
        return _import_columns(read_hub(path), path.name, options)
    if path.suffix.lower() == ".parquet":
        return _import_columns(read_parquet(path), path.name, options)
    return import_records(read_records(path), path.name, options)


def records_of(path: Path) -> list[Record]:
    """Records of a JSON or Parquet file, or of a data set folder; columns of bytes are left out.

    Raises:
        StageError: it is missing, damaged, or no list of objects.
    """
    if path.is_dir() or path.suffix.lower() == ".parquet":
        found = read_hub(path) if path.is_dir() else read_parquet(path)
        return cut(records_text(found), path.name)
    return read_records(path)


def import_records(records: Sequence[Record], name: str, options: Options) -> Imported:
    """Records of any format as the table of it; see :func:`import_file`."""
    kind = format_of(records)
    if options.meaning is not None and kind is not HUMAN_SCORES:
        msg = f"{name} is a file of {kind.name.replace('_', ' ')}, which has no polarity: leave the declaration away"
        raise StageError(msg)
    rows, rejects = rows_of(kind, records, name, options)
    problems, known = [], None
    if kind is HUMAN_SCORES:
        known = known_list(records, Keys(rows[0]["media_key"], rows[0]["score_key"]), name)
    elif kind is SAMPLES:
        problems = contradictions(rows, [record.value for record in records])
    elif kind is QUESTIONS:
        problems = inconsistent(rows)
    return Imported(kind, frame_of(kind, rows), problems, known, rejects=frame_of(REJECTS, rejects))


def rows_of(
    kind: RowSchema, records: Sequence[Record], name: str, options: Options
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the table ``kind``, and rows of REJECTS for the records of descriptions that are none.

    Raises:
        StageError: a record cannot be a row, or scores are not declared or contradict what was declared.
    """
    if kind is HUMAN_SCORES:
        keys = keys_of(records, options.media_key, options.score_key, name)
        return score_rows(records, keys, meaning_of(records, keys, options.meaning, name), name), []
    if kind is DESCRIPTIONS:
        return description_rows(records, name)
    return (sample_rows if kind is SAMPLES else question_rows)(records, name), []


def format_of(records: Sequence[Record]) -> RowSchema:
    """The table for these records; what is nothing else is a list with human scores."""
    if is_training(records):
        return SAMPLES
    if is_questions(records):
        return QUESTIONS
    return DESCRIPTIONS if is_instructions(records) else HUMAN_SCORES


def known_list(records: Sequence[Record], keys: Keys, name: str) -> KnownList | None:
    """The list of the authors that these records are."""
    paths = [str(record.value.get(keys.media)) for record in records]
    return KNOWN.get(fingerprint(paths, read_scores(records, keys, name)))


def _import_columns(found: pa.Table, name: str, options: Options) -> Imported:
    """A table or data set: our own come back as they were; others are read like JSON with their columns as keys."""
    own = table_of(found.column_names)
    if own is None and set(EXAMPLES.columns) <= set(found.column_names):
        own = EXAMPLES
    if own is not None:
        if options.meaning is not None:
            msg = f"{name} was imported before, with a meaning declared then: leave the declaration away"
            raise StageError(msg)
        idle = [column for column in found.column_names if column not in own.columns]
        rows = own.to_arrow(found.select(own.columns).to_pandas())
        for row in rows.to_pylist() if own.name in _CHECKS else ():
            _CHECKS[own.name](row)
        return Imported(own, rows.to_pandas(), left_out=idle)
    told = import_records(cut(records_text(found), name), name, options)
    return replace(told, left_out=left_out(found))


@dataclass(frozen=True)
class Survey:
    """What one file is.

    Attributes:
        file: its name. kind: name of its table, or empty. rows: records. media, scores: keys. known: title of the list
            of the authors. low, high, mean: of the numbers as they stand. meaning: as known or declared.
        told: in a few words what else there is to know. problem: why it cannot be imported, or empty.
        contradictions: what it says twice and differently.
    """

    file: str
    kind: str = ""
    rows: int = 0
    media: str = ""
    scores: str = ""
    known: str = ""
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    meaning: Meaning | None = None
    told: str = ""
    problem: str = ""
    contradictions: tuple[str, ...] = ()


def survey(path: Path, options: Options) -> Survey:
    """Look at a file as :func:`import_file` would; what it refuses is told, not raised."""
    try:
        found = import_file(path, options)
    except StageError as error:
        return _survey_of_numbers(path, options, str(error))
    return survey_of(path.name, found)


def _survey_of_numbers(path: Path, options: Options, problem: str) -> Survey:
    """What can be said of a file that cannot be imported; the numbers of a list help to declare what they mean."""
    try:
        records = records_of(path)
        kind = format_of(records)
        if kind is not HUMAN_SCORES:
            return Survey(path.name, kind.name, len(records), problem=problem)
        keys = keys_of(records, options.media_key, options.score_key, path.name)
        scores = read_scores(records, keys, path.name)
    except StageError:
        return Survey(path.name, problem=problem)
    numbers = (min(scores), max(scores), fmean(scores))
    return Survey(path.name, kind.name, len(records), keys.media, keys.score, "", *numbers, problem=problem)


def survey_of(name: str, found: Imported) -> Survey:
    """What an imported file is."""
    rows, frame = len(found.frame), found.frame
    common = {"kind": found.table.name, "rows": rows, "contradictions": tuple(found.problems)}
    if found.table is HUMAN_SCORES:
        first = frame.iloc[0]
        scores = [float(score) for score in frame["score"]]
        return Survey(
            name,
            **common,
            media=first["media_key"],
            scores=first["score_key"],
            known=found.known.title if found.known else "",
            low=min(scores),
            high=max(scores),
            mean=fmean(scores),
            meaning=Meaning(first["polarity"], first["low"], first["high"]),
            told=found.known.note if found.known else "",
        )
    if found.table is DESCRIPTIONS:
        kept = sum(len(texts) for texts in frame["assertions"])
        told = f"{len(found.rejects)} records rejected, " if len(found.rejects) else ""
        told += f"{kept} single assertions, {sum(len(texts) for texts in frame['dropped'])} sentences dropped, "
        return Survey(name, **common, told=f"{told}{fmean(frame['tokens']):.2f} tokens a description")
    by_kind = frame["kind" if found.table is QUESTIONS else "task"].value_counts(sort=False)
    return Survey(name, **common, told=", ".join(f"{count} {kind}" for kind, count in by_kind.items()))


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Files and data sets to look at: a folder stands for the JSON files in it.

    Raises:
        StageError: a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir() and not is_hub_folder(path):
            inside = sorted(
                (one for one in path.iterdir() if one.suffix.lower() in _JSON), key=lambda one: one.name.lower()
            )
        if not inside:
            msg = f"{path} holds no {', '.join(_JSON)} file"
            raise StageError(msg)
        found += inside
    return found
