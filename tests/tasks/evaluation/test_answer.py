import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from models.quality_lmm import QualityLMM
from tasks.errors import StageError
from tasks.evaluation import answer
from tasks.evaluation.choices import Resampling
from tasks.instructions import ImportedSource
from tasks.pool import load_candidates
from tasks.question_text import choice_text
from tasks.records import ANSWERS, INSTRUCTIONS, MEDIUM_MARK, REJECTS, Split
from tasks.shards import digest, frame_of, read_table, write_table
from tasks.stage import Place

CONFIG = answer.Config(
    benchmarks=(),
    batch=4,
    threads=1,
    device="cpu",
    max_reject_share=0.0,
    sampling=Resampling(n_bootstrap=50, seed=1, confidence=0.9, min_contents=2),
)
MODELS = ["vital-assistant-small", "vital-base-small", "base-small"]


def question(key: str, split: str, stem: str, letter: str, content: str = "c") -> dict:
    options = ["Yes", "No"]
    row = {"source": "line", "kind": "yes_no", "split": split, "content_id": content, "media": [key]}
    row |= {"modalities": ["image"], "questions": [f"{MEDIUM_MARK}\n{choice_text(stem, options)}"]}
    return row | {
        "instruction_id": digest(key, stem), "answers": [letter], "options": options, "letter": letter
    }  # fmt: skip


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    """A line with an assistant that says B to everything, and questions about its held-out media."""
    write_pretrained(line)
    model = QualityLMM.from_pretrained(line / "artifacts" / "pretrain" / "model")
    token = model.tokenizer.encode("B", add_special_tokens=False)[0]
    with torch.no_grad():
        hidden = model.language_model.norm.weight
        hidden.zero_()
        hidden[0] = 1.0
        embedding = model.language_model.embed_tokens.weight
        embedding[:, 0] = 5.0  # carries the only direction that the last norm lets through
        embedding[token, 0] = 50.0
    model.save_pretrained(line / "artifacts" / "assistant" / "model")
    pool = load_candidates(place_for(line, "x"))
    rows = []
    for part in (Split.TRAIN, Split.HELD_OUT):
        mine = pool[(pool["split"] == part) & (pool["modality"] == "image")]
        for number, row in enumerate(mine.itertuples()):
            letter = "AB"[number % 3 > 0]
            rows += [question(row.id, part, stem, letter, row.content_id) for stem in ("Is it blurry?", "Is it noisy?")]
    write_table(line / "artifacts" / "assistant" / "instructions.parquet", INSTRUCTIONS, frame_of(INSTRUCTIONS, rows))
    return place_for(line, "answer")


def test_every_model_answers_every_held_out_question_by_its_first_character(place: Place):
    report = answer.run(CONFIG, place)
    answers = read_table(place.out / "answers.parquet", ANSWERS)
    asked = read_table(place.root / "artifacts" / "assistant" / "instructions.parquet", INSTRUCTIONS)
    held_out = asked[asked["split"] == Split.HELD_OUT]
    assert list(report.accuracy) == MODELS
    for model in MODELS:
        mine = answers[answers["model"] == model]
        assert set(mine["instruction_id"]) == set(held_out["instruction_id"])
        begins = mine["said"].str.strip().str[:1]
        assert (mine["chosen"].fillna("?") == begins.where(begins.isin(["A", "B"]), "?")).all()
        right = (mine["chosen"] == mine["letter"]).mean()
        assert report.accuracy[model]["all"] == pytest.approx(right, abs=1e-6)
        assert report.unparsed[model] == pytest.approx(mine["chosen"].isna().mean(), abs=1e-6)
    assert report.questions == {"line": len(held_out)}
    assert report.chance == {"all": 0.5, "yes_no": 0.5}


def test_an_assistant_that_always_says_b_is_right_where_b_is_right(place: Place):
    report = answer.run(CONFIG, place)
    mine = read_table(place.out / "answers.parquet", ANSWERS).query("model == 'vital-assistant-small'")
    assert set(mine["chosen"]) == set(mine["likeliest"]) == {"B"}
    share = float((mine["letter"] == "B").mean())
    assert report.accuracy["vital-assistant-small"]["all"] == pytest.approx(share, abs=1e-6)
    assert report.blind["all"] == pytest.approx(share, abs=1e-6)  # in training, too, B is right more often
    assert report.gain_over_blind == 0.0
    assert report.gain == pytest.approx(share - report.accuracy["vital-base-small"]["all"], abs=1e-6)
    told = json.loads((place.out / "accuracies.json").read_text())
    row = next(r for r in told["differences"] if (r["other"], r["measure"]) == ("vital-base-small", "greedy"))
    assert (row["value"], row["low"]) == (
        pytest.approx(report.gain, abs=1e-6),
        pytest.approx(report.gain_low, abs=1e-6),
    )


def test_the_batch_changes_no_answer(place: Place):
    answer.run(CONFIG, place)
    other = Place(place.root, place.work / "other", place.work / "other" / "out")
    answer.run(dataclasses.replace(CONFIG, batch=7), other)
    assert (place.out / "answers.parquet").read_bytes() == (other.out / "answers.parquet").read_bytes()


def test_a_stage_that_is_run_again_asks_no_model_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    first = answer.run(CONFIG, place)

    def never(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(answer, "_answers", never)
    assert answer.run(CONFIG, place) == first


def benchmark(place: Place, **changes: object) -> ImportedSource:
    (place.root / "bench").mkdir()
    Image.new("RGB", (90, 70), (9, 9, 9)).save(place.root / "bench" / "a.png")
    rows = [
        question("a.png", "held_out", stem, letter, f"bench:{stem}") | {"source": "bench"} | changes
        for stem, letter in (("Is it dark?", "A"), ("Is it sharp?", "B"))
    ]
    write_table(place.root / "bench.parquet", INSTRUCTIONS, frame_of(INSTRUCTIONS, rows))
    return ImportedSource("bench.parquet", "bench")


def test_benchmarks_are_told_by_name_beside_the_lines_own_questions(place: Place):
    alone = answer.run(CONFIG, Place(place.root, place.work / "alone", place.work / "alone" / "out"))
    report = answer.run(dataclasses.replace(CONFIG, benchmarks=(benchmark(place),)), place)
    assert report.questions["bench"] == 2
    assert report.benchmarks["bench"]["vital-assistant-small"] == 0.5
    assert (report.accuracy, report.gain, report.blind) == (alone.accuracy, alone.gain, alone.blind)
    rows = read_table(place.out / "answers.parquet", ANSWERS).query("source == 'bench'")
    assert rows["blind"].isna().all()  # no training question has these wordings


def test_conversations_without_options_and_broken_media_are_refused(place: Place):
    with pytest.raises(StageError, match="name it under assistant"):
        answer.run(dataclasses.replace(CONFIG, benchmarks=(benchmark(place, letter=None, options=[]),)), place)
    (place.root / "bench" / "a.png").write_bytes(b"no picture")
    write_table(
        place.root / "bench.parquet",
        INSTRUCTIONS,
        frame_of(INSTRUCTIONS, [question("a.png", "held_out", "Is it dark?", "A")]),
    )
    config = dataclasses.replace(CONFIG, benchmarks=(ImportedSource("bench.parquet", "bench"),))
    with pytest.raises(StageError, match="do not decode"):
        answer.run(config, place)
    report = answer.run(dataclasses.replace(config, max_reject_share=0.5), place)
    assert report.rejected == 1
    assert len(read_table(place.out / "rejects.parquet", REJECTS)) == 1


def test_a_pool_without_a_question_is_an_error(place: Place):
    path = place.root / "artifacts" / "assistant" / "instructions.parquet"
    rows = read_table(path, INSTRUCTIONS)
    write_table(path, INSTRUCTIONS, pd.DataFrame(rows[rows["split"] == "train"]))
    with pytest.raises(StageError, match="there is no question to ask"):
        answer.run(CONFIG, place)
