"""The stage: whose texts are gathered, what is taken out of them, and what the teacher makes of media."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from models.levels import CENTRES
from models.quality_lmm import QualityLMM
from models.reasoning_text import leaks
from tasks.errors import StageError
from tasks.instructions import ImportedSource
from tasks.pool import load_candidates, read_media
from tasks.prepared import decode_medium, prepare_medium
from tasks.records import EXPLANATIONS, INSTRUCTIONS, MEDIUM_MARK, REJECTS, REVIEWED, TAUGHT, Split
from tasks.shards import frame_of, read_table, write_json, write_table
from tasks.stage import Place
from tasks.training import explain
from tasks.training.teaching_tasks import gather_tasks

CONFIG = explain.Config(
    teacher="pretrain",
    splits=("train", "warm_up"),
    max_media=None,
    reviewed=True,
    drawn=explain.Drawn(writer="pretrain", per_medium=0, temperature=1.0, top_p=1.0, max_new_tokens=8),
    sources=(),
    leaks="drop",
    seed=3,
    batch=4,
    threads=1,
    device="cpu",
    max_reject_share=0.1,
)


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    return place_for(line, "explain")


def changed(**values: Any) -> explain.Config:
    return dataclasses.replace(CONFIG, **values)


def texts(place: Place) -> pd.DataFrame:
    return read_table(place.out / "explanations.parquet", EXPLANATIONS)


def taught(place: Place) -> pd.DataFrame:
    return read_table(place.out / "taught.parquet", TAUGHT)


def test_reviewed_assertions_become_texts_of_the_chosen_splits_alone(place: Place):
    report = explain.run(changed(splits=("warm_up",)), place)
    pool = load_candidates(place).set_index("id")
    found = texts(place)
    assert set(pool.loc[found["id"], "split"]) == {Split.WARM_UP}
    assert set(found["source"]) == {"reviewed"}
    assert set(found["text"]) <= {
        "Edges are crisp. The lighting is sufficient.",
        "The lighting is sufficient.",
        "Edges are crisp.",
    }
    assert found["seed"].isna().all()
    assert report.texts == {"reviewed": len(found)}
    assert report.media == len(taught(place)) == (pool["split"] == Split.WARM_UP).sum()


def test_what_gives_the_verdict_away_is_dropped_and_counted_or_kept_and_counted(place: Place):
    report = explain.run(CONFIG, place)
    found = texts(place)
    assert not any(leaks(text) for text in found["text"])
    assert report.dropped_sentences == found["dropped"].sum() > 0
    assert report.leaks["level"] == report.dropped_sentences
    kept = explain.run(changed(leaks="keep"), place)
    assert kept.leaks == report.leaks
    assert kept.dropped_sentences == 0
    assert any(leaks(text) for text in texts(place)["text"])


def test_a_medium_of_which_nothing_is_left_to_say_is_a_reject_and_keeps_its_score(place: Place):
    path = place.root / "artifacts" / "review" / "reviewed.parquet"
    reviewed = read_table(path, REVIEWED)
    medium = str(load_candidates(place).query("split == 'train'")["id"].iloc[0])
    reviewed.loc[reviewed["id"] == medium, "text"] = "The quality is excellent"
    write_table(path, REVIEWED, reviewed)
    report = explain.run(CONFIG, place)
    assert medium not in set(texts(place)["id"])
    assert medium in set(taught(place)["id"])
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert rejects.loc[rejects["id"] == medium, "reason"].tolist() == ["nothing_left"]
    assert report.rejected == {"nothing_left": 1}


def test_the_teachers_scores_are_expectations_over_its_levels(place: Place):
    explain.run(CONFIG, place)
    scores = taught(place).set_index("id")
    model = QualityLMM.from_pretrained(place.root / "artifacts" / "pretrain" / "model")
    for row in load_candidates(place).query("split == 'train'").head(2).to_dict("records"):
        timing = (row["frames"], row["fps"])
        medium = prepare_medium(decode_medium(read_media(place, row), row["modality"], model.spec, timing), model.spec)
        with torch.no_grad():
            wanted = float(model.level_probabilities([medium]).double().numpy()[0] @ CENTRES)
        assert scores.loc[row["id"], "teacher"] == pytest.approx(wanted, abs=1e-5)
        assert scores.loc[row["id"], "opinion"] in {0.85, 0.6, 0.8 - 0.13 * 2, 0.8 - 0.13 * 3, 0.8 - 0.13 * 5}


def test_drawn_texts_have_a_seed_each_and_come_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    def longer(answers: list[str]) -> list[str]:
        return [f"It shows {answer or 'nothing'}" for answer in answers]

    generate = QualityLMM.generate
    monkeypatch.setattr(QualityLMM, "generate", lambda *given, **named: longer(generate(*given, **named)))
    drawn = explain.Drawn(writer="pretrain", per_medium=3, temperature=1.0, top_p=0.9, max_new_tokens=5)
    config = changed(reviewed=False, drawn=drawn, max_media=4)
    report = explain.run(config, place)
    first = texts(place)
    assert report.media == 4
    assert set(first["source"]) == {"teacher"}
    assert first.groupby("id")["number"].apply(list).map(max).max() <= 2
    assert first["seed"].is_unique
    assert set(first["temperature"]) == {1.0}
    again = Place(place.root, place.work / "again", place.work / "again" / "out")
    explain.run(dataclasses.replace(config, batch=1), again)
    pd.testing.assert_frame_equal(texts(again), first)


def test_greedy_answers_are_not_drawn_several_times():
    with pytest.raises(ValueError, match="all the same"):
        explain.Drawn(writer="pretrain", per_medium=2, temperature=0.0, top_p=1.0, max_new_tokens=5)


def _imported(root: Path, media: dict[str, Any]) -> ImportedSource:
    folder = root / "notes"
    folder.mkdir()
    rows = []
    for name, value in media.items():
        if value is not None:
            Image.fromarray(np.full((60, 80, 3), value, dtype=np.uint8)).save(folder / name)
        row = {"instruction_id": name, "source": "people", "kind": "open", "split": "train", "content_id": None}
        row |= {"media": [name], "modalities": ["image"], "questions": [f"{MEDIUM_MARK} Say what you see."]}
        rows.append(
            row | {"answers": [f"The wall of {name} is grey. It is a poor photo."], "options": [], "letter": None}
        )
    write_table(root / "notes.parquet", INSTRUCTIONS, frame_of(INSTRUCTIONS, rows))
    return ImportedSource("notes.parquet", "notes")


def test_notes_of_people_bring_their_own_media(place: Place):
    source = _imported(place.root, {"a.png": 60, "b.png": 200, "gone.png": None})
    report = explain.run(changed(sources=(source,), reviewed=False, max_reject_share=0.5), place)
    found = texts(place)
    assert found["text"].tolist() == ["The wall of a.png is grey.", "The wall of b.png is grey."]
    assert report.texts == {"people": 2}
    worth = taught(place).set_index("id").loc[found["id"].tolist()]
    assert worth["opinion"].isna().all()
    assert worth["split"].isna().all()
    assert worth["teacher"].between(0.1, 0.9).all()
    assert report.rejected == {"missing": 1}
    with pytest.raises(StageError, match="do not decode"):
        explain.run(changed(sources=(source,), max_reject_share=0.0), place)


def test_without_opinions_there_is_nothing_to_explain(place: Place):
    opinions = place.root / "artifacts" / "score" / "opinions.parquet"
    frame = pd.read_parquet(opinions)
    frame[:0].to_parquet(opinions)
    with pytest.raises(StageError, match="no medium of the chosen splits"):
        explain.run(CONFIG, place)


@pytest.mark.parametrize("writer", ["teach", "ract"])
def test_a_model_that_thinks_aloud_explains_by_its_thought(
    place: Place, write_fluent: Callable[[Path], None], writer: explain.Explainer
):
    artifacts = place.root / "artifacts"
    (artifacts / "pretrain" / "model").rename(artifacts / "kept")
    write_fluent(place.root)
    (artifacts / writer).mkdir()
    (artifacts / "pretrain" / "model").rename(artifacts / writer / "model")
    (artifacts / "kept").rename(artifacts / "pretrain" / "model")  # with another encoder than the writer's
    file = {"teach": "teacher.json", "ract": "ract.json"}[writer]
    write_json(artifacts / writer / file, {"question": "short", "tags": "free"})
    drawn = explain.Drawn(writer=writer, per_medium=2, temperature=1.0, top_p=1.0, max_new_tokens=80)
    alone = taught_by(place, changed(splits=("warm_up",)))
    report = explain.run(changed(splits=("warm_up",), reviewed=False, drawn=drawn, leaks="keep"), place)
    found = texts(place)
    assert report.texts == {"teacher": len(found)}
    assert report.rejected.get("no_thought", 0) + len(found) == 2 * report.media
    assert not found["text"].str.contains("<think>|</think>|<answer>|rating", regex=True).any()
    assert found["seed"].is_unique
    known = {task.thought for task in gather_tasks(place, [Split.TRAIN], (), {"score": 1.0}).tasks}
    assert set(found["text"]) & known, "what it has learnt to think"
    assert taught(place)["teacher"].to_list() == pytest.approx(alone, abs=1e-6), "scores are the teacher's still"


def taught_by(place: Place, config: explain.Config) -> list[float]:
    own = Place(place.root, place.work / "alone", place.work / "alone" / "out")
    own.out.mkdir(parents=True)
    explain.run(config, own)
    return list(taught(own)["teacher"])


@pytest.mark.usefixtures("publish_untaught")
def test_a_model_that_thinks_nothing_is_counted(place: Place):
    drawn = explain.Drawn(writer="teach", per_medium=1, temperature=1.0, top_p=1.0, max_new_tokens=8)
    report = explain.run(changed(splits=("warm_up",), drawn=drawn), place)
    assert report.rejected == {"no_thought": report.media}
    assert set(report.texts) == {"reviewed"}


@pytest.fixture
def publish_untaught(place: Place) -> None:
    """The pre-trained model in the place of the teacher's: it has never seen an answer."""
    folder = place.root / "artifacts" / "teach"
    shutil.copytree(place.root / "artifacts" / "pretrain" / "model", folder / "model")
    write_json(folder / "teacher.json", {"question": "short", "tags": "free"})
