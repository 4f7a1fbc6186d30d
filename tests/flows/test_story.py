"""What a run tells people about a stage."""

import json
from pathlib import Path

import pytest

from flows.story import HEADLINES, StageStory, figures, headlines, telemetry
from tasks.stage import STAGES


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    values = {"rows": 3, "srcc": 0.123456, "by": {"kind": {"image": 2}}, "shares": [0.5, 0.25], "text": "a|b"}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "score.json").write_text(json.dumps(values))
    (tmp_path / ".work" / "telemetry").mkdir(parents=True)
    (tmp_path / ".work" / "telemetry" / "score.json").write_text('{"wall_s": 1.5, "peak_mb": 200.0}')
    return tmp_path


def test_figures_are_flat_and_short(workspace: Path):
    assert figures(workspace, "score") == {
        "rows": "3",
        "srcc": "0.1235",
        "by.kind.image": "2",
        "shares": "0.5, 0.25",
        "text": "a|b",
    }
    assert figures(workspace, "review") == {}
    assert telemetry(workspace, "review") == {}


def test_a_line_has_stage_outcome_time_and_first_figures(workspace: Path):
    line = StageStory("score", workspace, "executed", 61.25).line()
    assert line.split() == ["score", "executed", "61.2", "s", "rows", "3", "srcc", "0.1235", *line.split()[8:]]
    assert "\n" not in line


def test_a_line_tells_what_people_look_at_first(tmp_path: Path):
    (tmp_path / "metrics").mkdir()
    values = {"base_srcc": 0.4, "srcc": 0.75, "srcc_low": 0.6, "warm_up_srcc": {"mini": 0.7, "deep": {"x": 1}}}
    (tmp_path / "metrics" / "correlate.json").write_text(json.dumps(values))
    assert headlines(tmp_path, "correlate") == {"srcc": "0.75", "srcc_low": "0.6", "warm_up_srcc.mini": "0.7"}
    assert set(HEADLINES) == set(STAGES)


def test_headlines_exist_in_the_figures_of_the_sample_run(checkout: Path):
    for stage, names in HEADLINES.items():
        told = figures(checkout, stage)
        assert told, stage
        missing = [name for name in names if name not in told and not any(key.startswith(f"{name}.") for key in told)]
        assert missing == [], stage


def test_a_page_is_a_table_of_figures_with_its_cost(workspace: Path):
    page = StageStory("score", workspace, "executed", 1.0).page()
    assert "| by.kind.image | 2 |" in page
    assert "| text | a/b |" in page
    assert "peak_mb 200.0" in page


def test_a_failure_tells_its_reason_and_no_old_figures(workspace: Path):
    story = StageStory("score", workspace, "failed", 1.0, "3 rows break it, ids a, b, c")
    assert story.line().endswith("3 rows break it, ids a, b, c")
    assert "**Why:** 3 rows break it, ids a, b, c" in story.page()
    assert "srcc" not in story.page()


def test_the_page_of_the_report_says_where_the_report_lies(workspace: Path):
    page = StageStory("report", workspace, "executed", 1.0).page()
    assert f"`{workspace.resolve()}/artifacts/report/report.html`" in page


def test_a_digest_is_told_by_its_first_digits(tmp_path: Path):
    (tmp_path / "metrics").mkdir()
    values = {"content": {"model": "ab" * 32}, "name": "ab" * 31}
    (tmp_path / "metrics" / "register.json").write_text(json.dumps(values))
    assert figures(tmp_path, "register") == {"content.model": "abababababab", "name": "ab" * 31}
