"""The table of cases against figures computed here."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from tasks.errors import StageError
from tasks.evaluation.agreements import Sampling
from tasks.evaluation.student_cases import (
    as_json,
    case_rows,
    line_of,
    markdown,
    people_scopes,
    scope_json,
    scope_markdown,
    unseen_scopes,
)

SAMPLING = Sampling(
    n_bootstrap=200, seed=1, confidence=0.95, max_undefined_share=0.05, min_samples=5, min_contents=5,
    min_type_samples=3,
)  # fmt: skip


def planted(noise: dict[str, float], contents: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    target = rng.uniform(0.1, 0.9, size=4 * contents)
    frames = []
    for case, size in noise.items():
        for seed in (0, 1):
            score = 0.5 * target + size * rng.standard_normal(len(target))
            ids = [f"m{n}" for n in range(len(target))]
            shown = [f"c{n // 4}" for n in range(len(target))]
            frames.append(
                pd.DataFrame(
                    {"model": f"{case}-seed{seed}", "id": ids, "content_id": shown, "score": score, "target": target}
                )
            )
    return pd.concat(frames, ignore_index=True)


def test_measures_and_gaps():
    cases = ("full", "worse")
    predictions = planted({"full": 0.05, "worse": 0.4})
    full, worse = case_rows(predictions, cases, (0, 1), SAMPLING)
    for row in (full, worse):
        for seed in (0, 1):
            own = predictions[predictions["model"] == f"{row.case}-seed{seed}"]
            assert row.srcc[seed] == pytest.approx(spearmanr(own["score"], own["target"]).statistic, abs=1e-9)
            assert row.plcc[seed] == pytest.approx(pearsonr(own["score"], own["target"]).statistic, abs=1e-9)
            ratio = own["score"].std(ddof=0) / own["target"].std(ddof=0)
            assert row.std_ratio[seed] == pytest.approx(ratio, abs=1e-9)
    assert (full.gap, full.low, full.high) == (None, None, None)
    assert worse.gap == pytest.approx(np.mean(worse.srcc) - np.mean(full.srcc), abs=1e-9)
    assert worse.low is not None
    assert worse.high is not None
    assert worse.low < worse.gap < worse.high < 0


def test_few_contents_have_no_interval():
    rows = case_rows(planted({"full": 0.05, "worse": 0.4}, contents=3), ("full", "worse"), (0, 1), SAMPLING)
    assert rows[1].gap is not None
    assert rows[1].low is None


def test_a_case_without_a_medium_is_refused():
    predictions = planted({"full": 0.05, "worse": 0.4}).iloc[:-1]
    with pytest.raises(StageError, match="do not have the same media"):
        case_rows(predictions, ("full", "worse"), (0, 1), SAMPLING)


def test_the_table_and_the_file_say_the_same():
    rows = case_rows(planted({"full": 0.05, "worse": 0.4}), ("full", "worse"), (0, 1), SAMPLING)
    told = json.loads(json.dumps(as_json(rows, (0, 1))))
    assert told["seeds"] == [0, 1]
    lines = markdown(rows, (0, 1)).splitlines()
    assert lines[0].startswith("| case | SRCC, seeds 0, 1 |")
    for line, row in zip(lines[2:], told["cases"], strict=True):
        assert line.startswith(f"| {row['case']} | {row['srcc'][0]:.3f} {row['srcc'][1]:.3f} |")
    assert f"{told['cases'][1]['gap']:+.3f} [" in lines[3]


def examined(contents: int = 20) -> pd.DataFrame:
    """Two cases and their teacher on the line's media, of four types in turn, and on two tables of rated ones."""
    types = ("lens_blur", "jpeg", "darken", None)
    line = planted({"full": 0.05, "worse": 0.4}, contents).assign(target_kind="machine_opinion")
    line["distortion"] = [types[int(name[1:]) % 4] for name in line["id"]]
    rated = line.assign(target_kind="mos", distortion=None, target=1 - line["target"], content_id=line["id"])
    rated["id"] = [f"{int(name[1:]) % 2}:{name}" for name in rated["id"]]
    every = pd.concat([line, rated], ignore_index=True)
    teacher = every[every["model"] == "full-seed0"].assign(model="teacher")
    rng = np.random.default_rng(5)
    return pd.concat([every, teacher.assign(score=teacher["score"] + 0.2 * rng.standard_normal(len(teacher)))])


def test_scopes_are_told_apart_and_the_teacher_stands_among_the_cases():
    cases, found = ("full", "worse"), examined()
    strange, familiar, every = unseen_scopes(found, ("lens_blur", "darken"), cases, (0, 1), SAMPLING)
    assert [scope.title for scope in (strange, familiar, every)] == ["unseen types", "seen types", "all"]
    assert [(scope.media, scope.contents) for scope in (strange, familiar, every)] == [(40, 20), (40, 20), (80, 20)]
    line = found[found["target_kind"] != "mos"]
    for scope, kinds in ((strange, ("lens_blur", "darken")), (familiar, ("jpeg", None))):
        part = line[[kind in kinds for kind in line["distortion"].where(line["distortion"].notna(), None)]]
        full, worse, teacher = scope.rows
        own = part[part["model"] == "teacher"]
        assert teacher.srcc == (pytest.approx(spearmanr(own["score"], own["target"]).statistic, abs=1e-9),)
        assert teacher.plcc == (pytest.approx(pearsonr(own["score"], own["target"]).statistic, abs=1e-9),)
        ratio = own["score"].std(ddof=0) / own["target"].std(ddof=0)
        assert teacher.std_ratio == (pytest.approx(ratio, abs=1e-9),)
        for row in (full, worse):
            for seed in (0, 1):
                own = part[part["model"] == f"{row.case}-seed{seed}"]
                assert row.srcc[seed] == pytest.approx(spearmanr(own["score"], own["target"]).statistic, abs=1e-9)
        for row in (worse, teacher):
            assert row.gap == pytest.approx(np.mean(row.srcc) - np.mean(full.srcc), abs=1e-9)
            assert row.low is not None
            assert row.high is not None
            assert row.low < row.gap < row.high < 0


def test_what_people_say_is_a_scope_of_each_table():
    cases, found = ("full", "worse"), examined()
    first, second = people_scopes(found, ["a.parquet", "b.parquet"], cases, (0, 1), SAMPLING)
    assert (first.title, first.media, first.contents) == ("a.parquet", 40, 40)
    assert (second.title, second.media, second.contents) == ("b.parquet", 40, 40)
    for scope, number in ((first, "0:"), (second, "1:")):
        part = found[found["id"].str.startswith(number) & (found["model"] == "full-seed1")]
        assert scope.rows[0].srcc[1] == pytest.approx(spearmanr(part["score"], part["target"]).statistic, abs=1e-9)
        assert scope.rows[0].srcc[1] < 0  # people said the opposite here
        assert scope.rows[2].case == "teacher"


def test_the_cases_own_table_is_the_same_beside_scopes():
    cases, plain = ("full", "worse"), planted({"full": 0.05, "worse": 0.4})
    assert case_rows(line_of(examined()), cases, (0, 1), SAMPLING) == case_rows(plain, cases, (0, 1), SAMPLING)


def test_a_scope_says_the_same_in_its_table_and_its_file():
    cases = ("full", "worse")
    scope = unseen_scopes(examined(contents=4), ("jpeg",), cases, (0, 1), SAMPLING)[0]
    told = json.loads(json.dumps(scope_json(scope)))
    assert (told["title"], told["media"], told["contents"]) == ("unseen types", 4, 4)
    _, heading, _, head, _, *lines = scope_markdown(scope, (0, 1)).splitlines()
    assert heading == "unseen types (4 media of 4 contents):"
    assert head.startswith("| case |")
    for line, row in zip(lines, told["cases"], strict=True):
        assert line.startswith(f"| {row['case']} | {' '.join(f'{value:.3f}' for value in row['srcc'])} |")
        assert row["low"] is None  # four contents are too few
