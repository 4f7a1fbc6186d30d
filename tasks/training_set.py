"""The training set on disk: examples and their media as two Arrow files that are mapped into memory, not read.

Opening it costs the same at a thousand rows and at millions, no row is a Python object until a step draws it, and all
processes of a machine share its pages. Rows are ordered by split and task, so a task's part of a split is a range of
row numbers; media are ordered by split and id, so that an example which shows another split's medium is found by the
smallest and the largest of its row numbers.
"""

import bisect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from tasks.errors import StageError
from tasks.records import SET_EXAMPLES, SET_MEDIA, Split, Task
from tasks.shards import atomic

pc: Any = pyarrow.compute  # its functions are made when it is imported: no type checker knows them

FOLDER: Final = "training_set"
"""Name of the set's folder in ``artifacts/assemble``."""

_EXAMPLES, _MEDIA, _KEY = "examples.arrow", "media.arrow", b"vital"
_SPLITS, _TASKS = [str(split) for split in Split], [str(task) for task in Task]


class MediumRow(NamedTuple):
    """One row of SET_MEDIA."""

    id: str
    content_id: str
    modality: str
    width: int
    height: int
    frames: int
    fps: float
    stage: str
    shard: str
    offset: int
    length: int


class ExampleRow(NamedTuple):
    """One row of SET_EXAMPLES, with the ids of its media; ``targets_S5`` is empty for text tasks."""

    example_id: str
    ids: tuple[str, ...]
    answers: tuple[str, ...]
    targets_S5: NDArray[np.float64]
    preference: float


class Ragged(NamedTuple):
    """Numbers of the media of several examples: those of example ``i`` are ``codes[starts[i] : starts[i + 1]]``."""

    starts: NDArray[np.int64]
    codes: NDArray[np.int32]


def write_training_set(folder: Path, examples: pa.Table, candidates: pd.DataFrame) -> None:
    """Write the set; equal tables give equal bytes.

    Args:
        examples: an EXAMPLES table.
        candidates: rows of CANDIDATES with ``stage``, as :func:`tasks.pool.load_candidates` returns them.

    Raises:
        StageError: a content is in two splits, or an example shows a medium that is unknown or of another split.
    """
    _check_contents(candidates)
    flat = _one(pc.list_flatten(examples["ids"]))
    media, splits = _media_batch(candidates, pc.unique(flat))
    counts = _one(pc.list_value_length(examples["ids"])).to_numpy(zero_copy_only=False)
    found = pc.index_in(flat, value_set=media.column("id").cast(pa.string()))
    codes = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    ranks = _ranks(examples["split"], _SPLITS, "split")
    _check_media(examples["example_id"], np.repeat(np.arange(len(examples)), counts), codes, ranks, splits)
    table = pa.table(
        {
            "example_id": examples["example_id"].cast(pa.large_string()),
            "media": _lists(counts, pa.array(codes)),
            "answers": examples["answers"].cast(SET_EXAMPLES.field("answers").type),
            "targets": _targets(examples["targets"]),
            "preference": pc.fill_null(examples["preference"], float("nan")),
            "split": ranks,
            "task": _ranks(examples["task"], _TASKS, "task"),
        }
    )
    order = pc.sort_indices(table, [(name, "ascending") for name in ("split", "task", "example_id")])
    table = table.take(order)
    metadata = {"parts": _parts(table), "media": len(media)}
    _write(folder / _MEDIA, media, {"splits": splits})
    _write(folder / _EXAMPLES, _batch(table, SET_EXAMPLES), metadata)


class TrainingSet:
    """A set that :func:`write_training_set` wrote, mapped."""

    def __init__(self, folder: Path) -> None:
        """Map both files.

        Raises:
            StageError: one is missing, torn, of another version, or they do not belong together.
        """
        self._batch, parts = _map(folder / _EXAMPLES, SET_EXAMPLES)
        self.media = MediaTable(folder / _MEDIA)
        if parts["media"] != len(self.media):
            msg = f"{folder}: examples and media are not of one set; run dvc repro assemble"
            raise StageError(msg)
        self._parts = {(split, task): range(start, end) for split, task, start, end in parts["parts"]}
        media, targets = self._batch.column("media"), self._batch.column("targets")
        self._media = Ragged(media.offsets.to_numpy(), media.flatten().to_numpy())
        self._targets_S5 = targets.flatten().flatten().to_numpy().reshape(-1, 5)
        self._target_starts = targets.offsets.to_numpy()

    def __len__(self) -> int:
        return len(self._batch)

    def rows(self, split: Split, task: Task) -> range:
        """Row numbers of a task's examples in a split, in the order of their ids."""
        return self._parts.get((str(split), str(task)), range(0))

    def example(self, row: int) -> ExampleRow:
        """Read one example."""
        return ExampleRow(
            example_id=self._batch.column("example_id")[row].as_py(),
            ids=tuple(self.media.id(int(code)) for code in self.media_of(row)),
            answers=tuple(self._batch.column("answers")[row].as_py()),
            targets_S5=self._targets_S5[self._target_starts[row] : self._target_starts[row + 1]],
            preference=float(self._batch.column("preference")[row].as_py()),
        )

    def media_of(self, row: int) -> NDArray[np.int32]:
        """Rows of the media that one example shows."""
        return self._media.codes[self._media.starts[row] : self._media.starts[row + 1]]

    def ragged(self, rows: range | NDArray[np.int64]) -> Ragged:
        """Rows of the media that several examples show; a range of examples is not copied."""
        starts, codes = self._media
        if isinstance(rows, range):
            own = starts[rows.start : rows.stop + 1]
            return Ragged(own - own[0], codes[own[0] : own[-1]])
        counts = starts[rows + 1] - starts[rows]
        own = np.concatenate([[0], np.cumsum(counts)])
        inside = np.arange(own[-1]) - np.repeat(own[:-1], counts)
        return Ragged(own, codes[np.repeat(starts[rows], counts) + inside])

    def check_split(self, split: Split) -> None:
        """Prove that every example of ``split`` shows media of its contents only.

        Raises:
            StageError: naming an example that does not.
        """
        allowed = self.media.rows(split)
        for task in Task:
            rows = self.rows(split, task)
            starts, codes = self.ragged(rows)
            if len(codes) and (codes.min() < allowed.start or codes.max() >= allowed.stop):
                wrong = int(np.flatnonzero((codes < allowed.start) | (codes >= allowed.stop))[0])
                number = int(np.searchsorted(starts, wrong, side="right")) - 1
                msg = f"example {self.example(rows[number]).example_id} of split {split} shows media of another split"
                raise StageError(msg)


class MediaTable:
    """The media of a set, mapped; rows are numbered by split and id."""

    def __init__(self, path: Path) -> None:
        self._batch, told = _map(path, SET_MEDIA)
        self._splits = {split: range(*bounds) for split, bounds in told["splits"].items()}
        self._ids = self._batch.column("id")

    def __len__(self) -> int:
        return len(self._batch)

    def rows(self, split: Split) -> range:
        """Row numbers of the media of a split's contents."""
        return self._splits.get(str(split), range(0))

    def id(self, row: int) -> str:
        """Id of one medium."""
        return self._ids[row].as_py()

    def row(self, row: int) -> MediumRow:
        """Read one medium's row."""
        return MediumRow(*(column[row].as_py() for column in self._batch.columns))

    def find(self, medium_id: str, split: Split) -> int:
        """Row number of a medium of ``split``.

        Raises:
            StageError: the split has no such medium.
        """
        rows = self.rows(split)
        place = bisect.bisect_left(rows, medium_id, key=self.id)
        if place == len(rows) or self.id(rows[place]) != medium_id:
            msg = f"medium {medium_id} is not among the media of split {split}"
            raise StageError(msg)
        return rows[place]

    def frame(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        """Chosen rows with the columns of SET_MEDIA."""
        return pa.Table.from_batches([self._batch]).take(pa.array(rows)).to_pandas()


def _check_contents(candidates: pd.DataFrame) -> None:
    parts = pd.DataFrame(candidates, columns=["content_id", "split"]).drop_duplicates()
    twice = np.asarray(parts["content_id"])[np.asarray(parts.duplicated("content_id"))]
    if len(twice):
        msg = f"content {twice[0]} is in two splits: training would see what it is tested on"
        raise StageError(msg)


def _media_batch(candidates: pd.DataFrame, shown: pa.Array) -> tuple[pa.RecordBatch, dict[str, list[int]]]:
    """The media that examples show, ordered; and split -> first row and the one behind the last."""
    names = [*SET_MEDIA.names, "split"]
    table = pa.Table.from_pandas(candidates[names], preserve_index=False)
    table = table.filter(pc.is_in(table["id"], value_set=shown))
    table = table.set_column(len(names) - 1, "split", _ranks(table["split"], _SPLITS, "split"))
    table = table.take(pc.sort_indices(table, [("split", "ascending"), ("id", "ascending")]))
    bounds = np.searchsorted(_one(table["split"]).to_numpy(), np.arange(len(_SPLITS) + 1)).tolist()
    splits = {split: bounds[number : number + 2] for number, split in enumerate(_SPLITS)}
    return _batch(table, SET_MEDIA), splits


def _check_media(
    example_ids: pa.ChunkedArray,
    owner: NDArray[np.int64],
    codes: NDArray[np.int32],
    ranks: pa.Array,
    splits: Mapping[str, Sequence[int]],
) -> None:
    """Every medium of an example is known and of the example's split; ``owner`` is the example of each code."""
    bounds = np.array([splits[split] for split in _SPLITS])[ranks.to_numpy()[owner]]
    wrong = np.flatnonzero((codes < bounds[:, 0]) | (codes >= bounds[:, 1]))
    if len(wrong):
        first = int(wrong[0])
        kind = "unknown" if codes[first] < 0 else "of another split"
        msg = f"example {example_ids[int(owner[first])]} shows a medium that is {kind}"
        raise StageError(msg)


def _ranks(column: pa.ChunkedArray, names: Sequence[str], what: str) -> pa.Array:
    found = _one(pc.index_in(column, value_set=pa.array(names)))
    if found.null_count:
        msg = f"the training set knows the {what}s {', '.join(names)}, and a row has another"
        raise StageError(msg)
    return found


def _targets(column: pa.ChunkedArray) -> pa.Array:
    per_example = _one(pc.list_value_length(column)).to_numpy(zero_copy_only=False)
    targets = _one(pc.list_flatten(column))
    if not pc.all(pc.equal(pc.list_value_length(targets), 5), min_count=0).as_py():
        raise StageError("a target has not five level probabilities")
    return _lists(per_example, pa.FixedSizeListArray.from_arrays(targets.flatten(), 5))


def _lists(counts: NDArray[Any], values: pa.Array) -> pa.Array:
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(starts), values)


def _parts(table: pa.Table) -> list[tuple[str, str, int, int]]:
    """Ranges of the ordered rows: split, task, first row, the one behind the last."""
    numbers = [_one(table[name]).to_numpy().astype(np.int64) for name in ("split", "task")]
    codes = numbers[0] * len(_TASKS) + numbers[1]
    bounds = np.searchsorted(codes, np.arange(len(_SPLITS) * len(_TASKS) + 1)).tolist()
    pairs = [(split, task) for split in _SPLITS for task in _TASKS]
    return [(*pair, bounds[number], bounds[number + 1]) for number, pair in enumerate(pairs)]


def _batch(table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_one(table[name]).cast(schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _write(path: Path, batch: pa.RecordBatch, told: Mapping[str, object]) -> None:
    schema = batch.schema.with_metadata({_KEY: json.dumps(told, sort_keys=True).encode()})
    with atomic(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def _map(path: Path, schema: pa.Schema) -> tuple[pa.RecordBatch, dict[str, Any]]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        known = reader.schema.equals(schema) and reader.num_record_batches == 1
        if known:
            return reader.get_batch(0), json.loads(reader.schema.metadata[_KEY])
    except FileNotFoundError as error:
        msg = f"{path} is missing: run dvc repro assemble, or dvc pull"
        raise StageError(msg) from error
    except (pa.ArrowInvalid, KeyError) as error:
        msg = f"{path} is not a whole training set: {error}; run dvc repro assemble"
        raise StageError(msg) from error
    msg = f"{path} was written by another version: run dvc repro assemble"
    raise StageError(msg)
