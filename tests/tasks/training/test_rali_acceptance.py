"""What a student must reach on planted media: its parts are worth something, and no teacher is needed.

The pool is drawn (``rali_ground``): four harms that are learnt and two that are not, at five levels each, with texts
from a template and the planted quality as the score.
"""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from rali_ground import PLANTED, PLANTED_UNSEEN, write_planted
from scipy.stats import spearmanr

from tasks.evaluation.agreements import Sampling
from tasks.evaluation.student_cases import CaseRow, case_rows, unseen_scopes
from tasks.stage import Place
from tasks.training.rali_cases import run_cases
from tasks.training.rali_exam import Exam

SAMPLING = Sampling(
    n_bootstrap=100, seed=1, confidence=0.95, max_undefined_share=0.05, min_samples=5, min_contents=5,
    min_type_samples=3,
)  # fmt: skip
SIX = ("full", "no_alignment", "no_pca", "no_buckets", "no_seed_augmentation", "no_fit")


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    write_planted(line)
    return place_for(line, "rali_cases")


def _mean(row: CaseRow) -> float:
    return statistics.fmean(value for value in row.srcc if value is not None)


def test_a_template_teaches_without_any_teacher_and_unseen_harms_are_told_apart(
    place: Place, record_property: Callable[[str, object], None]
):
    found = run_cases(PLANTED, place, ("full",), (0,), Exam(PLANTED_UNSEEN))
    scopes = unseen_scopes(found, PLANTED_UNSEEN, ("full",), (0,), SAMPLING)
    assert {scope.title: scope.media for scope in scopes} == {"unseen types": 60, "seen types": 126, "all": 186}
    rows = {scope.title: scope.rows[0] for scope in scopes}
    assert all(row.low is None and row.gap is None for row in rows.values())
    for title, row in rows.items():
        record_property(title, {"srcc": row.srcc, "plcc": row.plcc, "std_ratio": row.std_ratio})
    known = found[~found["distortion"].isin(PLANTED_UNSEEN)]
    assert rows["seen types"].srcc[0] == pytest.approx(spearmanr(known["score"], known["target"]).statistic, abs=1e-9)
    assert _mean(rows["seen types"]) >= 0.9
    assert 0.8 <= rows["seen types"].std_ratio[0] <= 1.2
    assert rows["unseen types"].srcc[0] is not None


@pytest.mark.long
def test_the_whole_is_worth_as_much_as_any_ablation_and_alignment_helps(
    place: Place, record_property: Callable[[str, object], None]
):
    seeds = (0, 1, 2)
    rows = {row.case: row for row in case_rows(run_cases(PLANTED, place, SIX, seeds), SIX, seeds, SAMPLING)}
    for name, row in rows.items():
        record_property(name, row.srcc)
    full = _mean(rows["full"])
    for name in SIX[1:]:
        assert full >= _mean(rows[name]) - 0.02, name
    assert full > _mean(rows["no_alignment"])
