"""The gate's view of texts and examples: what links them to media, votes and opinions, one computed column per rule."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.distortions import CELLS, words
from models.levels import CENTRES, EDGES, LEVELS
from tasks.annotation.views import DESCRIBER, PLANTED, WRONG, Plant, numbers, sentences, truths
from tasks.records import Modality, Split, Task

_SLACK: Final = 1e-6
"""A mean this close to an edge of two levels belongs to both."""


def assertions_view(plant: Plant, verdict_words: Iterable[str]) -> pd.DataFrame:
    """Assertions with their medium's modality and what is wrong with their text."""
    rows = plant.assertions
    modality = dict(zip(plant.candidates["id"], plant.candidates["modality"], strict=True))
    found = [modality.get(key) or "no such candidate" for key in rows["id"]]
    moving = rows["attribute"].isin(["stability", "smoothness"])
    return rows.assign(
        modality=found,
        attribute_fits=~moving | (pd.Series(found, index=rows.index) == Modality.VIDEO),
        truth_fits=(rows["origin"] == PLANTED) == rows["planted_truth"].notna(),
        is_bare_sentence=[bool(text) and text == text.strip() and text[-1] not in ".!?" for text in rows["text"]],
        tells_verdict=_tells_verdict(rows["text"], verdict_words),
    )


def votes_view(plant: Plant) -> pd.DataFrame:
    """Votes with a one-column key, and whether assertion and revision fit."""
    rows = plant.votes
    parts = rows[["assertion_id", "phase", "judge", "round", "attempt"]].astype(str)
    key = [" ".join(values) for values in parts.itertuples(index=False, name=None)]
    return rows.assign(
        vote=key,
        assertion_known=rows["assertion_id"].isin(plant.assertions["assertion_id"]),
        revision_fits=(rows["verdict"] == "revise") == rows["revision"].notna(),
    )


def reviewed_view(plant: Plant, verdict_words: Iterable[str]) -> pd.DataFrame:
    """Outcomes with the votes that carried them: a kept assertion's last ballots are whole and agree without exception.

    ``judges``, ``cross_votes`` and ``self_votes`` count those who agreed on the last ballots; null if it was not kept.
    """
    rows = plant.reviewed
    final = _last_ballots(plant.votes)
    dissent = set(final.loc[final["verdict"] != "agree", "assertion_id"])
    agreed = final[final["verdict"] == "agree"]
    ballots = list(zip(agreed["assertion_id"], agreed["phase"], agreed["judge"], strict=True))
    votes, voters = (Counter((key, phase) for key, phase, _ in found) for found in (ballots, set(ballots)))
    kept = truths(rows["kept"])

    def carried(counts: Mapping[tuple[str, str], int], phase: str) -> list[float]:
        return [counts[key, phase] if k else np.nan for k, key in zip(kept, rows["assertion_id"], strict=True)]

    return rows.assign(
        judges=carried(voters, "cross"),
        cross_votes=carried(votes, "cross"),
        self_votes=carried(votes, "self"),
        unanimous=[not k or key not in dissent for k, key in zip(kept, rows["assertion_id"], strict=True)],
        reason_fits=kept == (rows["reason"] == "unanimous"),
        kept_tells_verdict=kept & _tells_verdict(rows["text"], verdict_words),
    )


def _last_ballots(votes: pd.DataFrame) -> pd.DataFrame:
    """The votes on every assertion's last text, and those of its self-review."""
    last = votes.groupby(["assertion_id", "phase"])["attempt"].transform("max")
    return pd.DataFrame(votes[votes["attempt"] == last])


def review_views(plant: Plant, min_assertions: int) -> dict[str, pd.DataFrame]:
    """A one-row view per kind of assertion with the share that review kept; null where there are too few to judge."""
    planted = plant.reviewed["planted_truth"]
    groups = {
        "describer": (plant.reviewed["origin"] == DESCRIBER).to_numpy(),
        "true": truths(plant.reviewed["planted_truth"]),
        "false": planted.notna().to_numpy() & ~truths(planted),
    }
    views = {}
    for name, mask in groups.items():
        kept = truths(plant.reviewed.loc[mask, "kept"])
        share = float(kept.mean()) if len(kept) >= max(1, min_assertions) else np.nan
        views[f"review_{name}"] = pd.DataFrame([{"group": name, "assertions": len(kept), "kept_share": share}])
    return views


def examples_view(plant: Plant, verdict_words: Iterable[str]) -> pd.DataFrame:
    """Examples with everything that links them to contents, opinions and reviewed text."""
    rows = plant.examples
    known = plant.candidates.set_index("id")
    split, modality = known["split"].to_dict(), known["modality"].to_dict()
    opinion = dict(zip(plant.opinions["id"], plant.opinions["pmod"], strict=True))
    mean = dict(zip(plant.opinions["id"], plant.opinions["mu"], strict=True))
    cells = dict(zip(known.index, zip(known["distortion"], known["severity"], strict=True), strict=True))
    description = rows["task"] == Task.DESCRIPTION
    return rows.assign(
        unknown_ids=[sum(key not in split for key in ids) for ids in rows["ids"]],
        other_split=[sum(split.get(k) != s for k in ids) for ids, s in zip(rows["ids"], rows["split"], strict=True)],
        other_modality=[
            sum(modality.get(k) != m for k in ids) for ids, m in zip(rows["ids"], rows["modality"], strict=True)
        ],
        trains_on_held_out=[
            s != Split.HELD_OUT and any(split.get(k) == Split.HELD_OUT for k in ids)
            for ids, s in zip(rows["ids"], rows["split"], strict=True)
        ],
        shape_holds=[_shape_holds(row) for row in rows.to_dict("records")],
        target_error=[_target_error(row, opinion) for row in rows.to_dict("records")],
        level_agrees=[_level_agrees(row) for row in rows.to_dict("records")],
        preference_fits=[_preference_fits(row, mean) for row in rows.to_dict("records")],
        tells_verdict=(description & _tells_verdict([" ".join(a) for a in rows["answers"]], verdict_words)).astype(
            bool
        ),
        unreviewed_sentences=_unreviewed(plant),
        planted_sentences=_planted(plant),
        distortion_told=[_distortion_told(row, cells) for row in rows.to_dict("records")],
    )


def pairs_view(plant: Plant, wanted: Mapping[float, float]) -> pd.DataFrame:
    """One row per preference with its share of the pairs and the deviation from the declared ratio (none of none)."""
    pairs = plant.examples[plant.examples["task"] == Task.PAIR]
    counts = Counter(pairs["preference"])
    total = max(1, len(pairs))
    shares = {value: counts.get(value, 0) / total for value in wanted}
    rows = [
        {
            "preference": value,
            "pairs": counts.get(value, 0),
            "share": share,
            "deviation": abs(share - wanted[value]) if len(pairs) else 0.0,
        }
        for value, share in shares.items()
    ]
    return pd.DataFrame(rows)


def _tells_verdict(texts: Iterable[str], words: Iterable[str]) -> NDArray[np.bool_]:
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
    return np.array([bool(pattern.search(text)) for text in texts], dtype=bool)


def _shape_holds(row: dict[str, Any]) -> bool:
    """One sample, two different ones for pairs; an answer each; targets for scoring tasks; preferences for pairs."""
    wanted = 2 if row["task"] == Task.PAIR else 1
    scoring = row["task"] in {Task.SINGLE, Task.PAIR}
    targets = row["targets"] if row["targets"] is not None else ()
    return (
        len(row["ids"]) == len(set(row["ids"])) == len(row["answers"]) == wanted
        and len(targets) == (wanted if scoring else 0)
        and pd.notna(row["preference"]) == (row["task"] == Task.PAIR)
    )


def _target_error(row: dict[str, Any], opinion: Mapping[str, Any]) -> float:
    """Largest difference between the targets and the opinions' PMOD."""
    errors = [0.0]
    for key, target in zip(row["ids"], row["targets"] if row["targets"] is not None else (), strict=False):
        found, wanted = numbers(target), numbers(opinion.get(key))
        errors.append(float(np.abs(found - wanted).max()) if len(found) == len(wanted) == len(LEVELS) else WRONG)
    return max(errors)


def _level_agrees(row: dict[str, Any]) -> bool:
    """Whether each answer ends with the level in whose bin the target's mean lies (either one on an edge)."""
    for answer, target in zip(row["answers"], row["targets"] if row["targets"] is not None else (), strict=False):
        word = answer.rstrip(" .").rpartition(" ")[2]
        if word not in LEVELS or len(target) != len(LEVELS):
            return False
        position = LEVELS.index(word)
        mean = float(numbers(target) @ CENTRES)
        if not EDGES[position + 1] - _SLACK <= mean <= EDGES[position] + _SLACK:
            return False
    return True


def _preference_fits(row: dict[str, Any], mean: Mapping[str, float]) -> bool:
    """Whether the better one of a pair has the higher mean."""
    if row["task"] != Task.PAIR or row["preference"] == 0.5:
        return True
    means = [mean.get(key, np.nan) for key in row["ids"]]
    return len(means) == 2 and bool(means[0] > means[1] if row["preference"] == 1.0 else means[0] < means[1])


def _distortion_told(row: dict[str, Any], cells: Mapping[str, tuple[str, int]]) -> bool:
    """Whether a distortion example names its sample's type and severity."""
    if row["task"] != Task.DISTORTION:
        return True
    told = _cell_words().get(cells.get(row["ids"][0], ("", 0)))
    return told is not None and told in row["answers"][0]


@cache
def _cell_words() -> dict[tuple[str, int], str]:
    return {(kind, severity): words(kind, severity) for kind, severity in CELLS}


def _count_sentences(plant: Plant, hit: Callable[[str, str], bool]) -> list[int]:
    rows = zip(plant.examples["task"], plant.examples["ids"], plant.examples["answers"], strict=True)
    return [
        sum(hit(ids[0], text) for answer in answers for text in sentences(answer))
        if task == Task.DESCRIPTION and len(ids)
        else 0
        for task, ids, answers in rows
    ]


def _unreviewed(plant: Plant) -> list[int]:
    """Sentences of a description that are no kept assertion of its sample."""
    allowed = _trainable(plant)
    return _count_sentences(plant, lambda key, text: (key, text) not in allowed)


def _planted(plant: Plant) -> list[int]:
    """Sentences of a description that were planted, unless review revised a describer's own to the same words."""
    rows = plant.reviewed[plant.reviewed["origin"] == PLANTED]
    planted = {(key, str(text).rstrip(".!?")) for key, text in zip(rows["id"], rows["text"], strict=True)}
    planted -= _trainable(plant)
    return _count_sentences(plant, lambda key, text: (key, text) in planted)


def _trainable(plant: Plant) -> set[tuple[str, str]]:
    """Sample and text of every kept assertion of the describer."""
    kept = plant.reviewed[truths(plant.reviewed["kept"]) & (plant.reviewed["origin"] == DESCRIBER)]
    return {(key, str(text).rstrip(".!?")) for key, text in zip(kept["id"], kept["text"], strict=True)}
