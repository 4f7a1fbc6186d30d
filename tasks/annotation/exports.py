"""Training examples in other people's formats: the VITAL authors' JSON, Q-Instruct's, and a Hugging Face data set.

``authors.json`` holds the training split only, in groups as the released loader reads them: two single opinions of
one modality, one pair, or one text. Paths are members of the media archives: unpack ``artifacts/<stage>/media/*.tar``
into a folder named like the stage, and give that folder's parent as root.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from models.opinion import compatible_opinion
from tasks.annotation.pairs import BETTER, WORSE
from tasks.records import EXAMPLES, Modality, Split, Task
from tasks.shards import atomic, digest, write_json

QUESTION: Final = {
    Modality.IMAGE: "<image>\nDescribe and evaluate the quality of the image.",
    Modality.VIDEO: "<video>\nDescribe and evaluate the quality of the video.",
}
"""What the human says in the style of Q-Instruct; the sentence about images is Q-Instruct's own."""

_PERCENT: Final = 100
_CHILD_SUFFIX: Final = {Modality.VIDEO: ".mp4", Modality.IMAGE: ".webp"}
_LABELS: Final = {BETTER: 1, WORSE: 0}
_TIE_LABEL: Final = 2
_PLACE: Final = pa.struct({"stage": pa.string(), "shard": pa.string(), "offset": pa.int64(), "length": pa.int64()})


@dataclass(frozen=True)
class Scale:
    """The corpus' extremes of the mean score on 0 to 100, which the released recipe maps to 0 and 5."""

    low: float
    high: float


def scale_of(opinions: Iterable[Mapping[str, Any]]) -> Scale:
    """Extremes of the mean score of a corpus; a corpus of one score gets a scale of one point around it."""
    means = [_mean([_PERCENT * score for score in opinion["scores"]]) for opinion in opinions]
    low, high = min(means, default=0.0), max(means, default=float(_PERCENT))
    return Scale(low, high) if low < high else Scale(low - 0.5, high + 0.5)


def authors_sample(path: str, modality: str, scores_100: Sequence[float], answer: str, scale: Scale) -> dict[str, Any]:
    """One sample with its opinion, with the keys and the arithmetic of the released records.

    Args:
        path: of the medium, relative to the root.
        modality: "image" or "video"; also the key of the path.
        scores_100: the scorers' scores on 0 to 100.
        answer: what the model shall say.
        scale: of the corpus.
    """
    mean = _mean(scores_100)
    spread = (sum((score - mean) ** 2 for score in scores_100) / len(scores_100)) ** 0.5
    opinion = compatible_opinion(mean, spread, low=scale.low, high=scale.high)
    return {
        modality: path,
        "mos": list(scores_100),
        "id": f"{path}->{mean}",
        "gt_score": mean,
        "gt_score_norm": opinion.mu5,
        "level_probs_org": opinion.mass_5.tolist(),
        "target_dist": opinion.target_5.tolist(),
        "std": spread,
        "std_norm": opinion.sigma5,
        "alpha": opinion.alpha,
        "beta": opinion.beta,
        "raw_diff": opinion.raw_diff,
        "diff": opinion.diff,
        "conversations": _conversation(answer),
    }


def authors_groups(
    examples: Sequence[Mapping[str, Any]],
    media: Mapping[str, Mapping[str, Any]],
    opinions: Mapping[str, Mapping[str, Any]],
) -> list[list[dict[str, Any]]]:
    """All training examples as the released loader's groups.

    Args:
        examples: rows of EXAMPLES.
        media: candidate rows by id.
        opinions: rows of OPINIONS by id.
    """
    training = [example for example in examples if example["split"] == Split.TRAIN]
    singles = [example for example in training if example["task"] == Task.SINGLE]
    scale = scale_of(opinions[example["ids"][0]] for example in singles)

    def opinion(key: str, answer: str) -> dict[str, Any]:
        row = media[key]
        scores = [_PERCENT * float(score) for score in opinions[key]["scores"]]
        return authors_sample(_path(row), str(row["modality"]), scores, answer, scale)

    groups = [[opinion(example["ids"][0], example["answers"][0]) for example in couple] for couple in _couples(singles)]
    for example in training:
        if example["task"] == Task.PAIR:
            label = _LABELS.get(float(example["preference"]), _TIE_LABEL)
            members = zip(example["ids"], example["answers"], strict=True)
            groups.append([opinion(key, answer) | {"label": label} for key, answer in members])
        elif example["task"] != Task.SINGLE:
            groups.append([_text(example, media[example["ids"][0]])])
    return groups


def instructions(
    examples: Iterable[Mapping[str, Any]], media: Mapping[str, Mapping[str, Any]], split: Split
) -> list[dict[str, Any]]:
    """The descriptions of a split in the style of Q-Instruct: per sample one question, and its assertions as an answer.

    Args:
        examples: rows of EXAMPLES. media: candidate rows by id. split: whose descriptions.
    """
    told: dict[str, list[str]] = {}
    for example in examples:
        if example["task"] == Task.DESCRIPTION and example["split"] == split:
            told.setdefault(example["ids"][0], []).append(example["answers"][0])
    records = []
    for key in sorted(told):
        modality = Modality(media[key]["modality"])
        answer = " ".join(f"{text}." for text in told[key])
        turns = [{"from": "human", "value": QUESTION[modality]}, {"from": "gpt", "value": answer}]
        records.append({"id": key, str(modality): _path(media[key]), "conversations": turns})
    return records


def write_authors(folder: Path, groups: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Write ``authors.json``, a group per line, and ``authors_meta.json``, which names it to the released trainer."""
    with atomic(folder / "authors.json") as file:
        lines = ",\n".join(json.dumps(group, ensure_ascii=False) for group in groups)
        file.write(f"[\n{lines}\n]\n".encode())
    meta = {"root": ".", "annotation": "authors.json", "data_augment": False, "repeat_time": 1, "length": len(groups)}
    write_json(folder / "authors_meta.json", {"vital": meta})


def write_hugging_face(folder: Path, examples: pd.DataFrame, media: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a ``datasets.DatasetDict`` of the splits that have examples; media by reference into the archives."""
    from datasets import Dataset, DatasetDict  # noqa: PLC0415 - a second that only this export pays
    from datasets.table import InMemoryTable  # noqa: PLC0415

    table = EXAMPLES.to_arrow(examples)
    places = [
        [{name: media[key][name] for name in ("stage", "shard", "offset", "length")} for key in ids]
        for ids in table.column("ids").to_pylist()
    ]
    table = table.append_column("media", pa.array(places, pa.list_(_PLACE)))
    splits = {}
    for split in Split:
        mask = pa.array([value == split for value in table.column("split").to_pylist()], pa.bool_())
        part = table.filter(mask).combine_chunks()
        if not part.num_rows:
            continue  # the library cannot read an empty split back
        # The library's own fingerprint is random; this one says what the rows are.
        fingerprint = digest(str(split), *part.column("example_id").to_pylist())[:16]
        splits[str(split)] = Dataset(InMemoryTable(part), fingerprint=fingerprint)
    DatasetDict(splits).save_to_disk(str(folder))


def _couples(singles: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Two single opinions of one modality per group, as the released loss needs; an odd one goes with the first."""
    couples: list[list[Mapping[str, Any]]] = []
    for modality in ("image", "video"):
        rows = [row for row in singles if row["modality"] == modality]
        couples += [rows[start : start + 2] for start in range(0, len(rows), 2)]
        if len(rows) % 2 and len(rows) > 1:
            couples[-1] = [rows[-1], rows[0]]
    return couples


def _text(example: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    sample: dict[str, Any] = {str(row["modality"]): _path(row)}
    if example["task"] == Task.DESCRIPTION:
        sample["quality"] = example["answers"][0]
    return sample | {"conversations": _conversation(example["answers"][0])}


def _conversation(answer: str) -> list[dict[str, str]]:
    """Prompt decoupling: the human says nothing."""
    return [{"from": "human", "value": ""}, {"from": "gpt", "value": answer}]


def _path(row: Mapping[str, Any]) -> str:
    """Where unpacking the archives puts a medium: originals keep the suffix of their source."""
    original = row["stage"] == "collect"
    suffix = PurePosixPath(str(row["source"])).suffix.lower() if original else _CHILD_SUFFIX[Modality(row["modality"])]
    return f"{row['stage']}/{row['id']}{suffix}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
