"""The table of cases against figures computed here."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from tasks.errors import StageError
from tasks.evaluation.agreements import Sampling
from tasks.evaluation.student_cases import as_json, case_rows, markdown

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
