"""Tables of studies: every number against one that is computed here from the scores alone."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import spearmanr
from tiny_study import STUDY, make_frame, make_result, write_study

from infra.errors import InfraError
from infra.study_files import read_study
from infra.trials import INPUTS, Conditions
from tasks.errors import StageError
from tasks.evaluation.study_table import StudyTable, curve, make_table, markdown, updated

TARGET = [0.1, 0.2, 0.35, 0.4, 0.55, 0.6, 0.75, 0.9]
CONTENT = ["a", "a", "b", "b", "c", "c", "d", "d"]
NOW = Conditions(dict.fromkeys(INPUTS, "0"), "c")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_frame(tmp_path / "checkout")
    folder = root / "metrics/studies/tiny"
    folder.mkdir(parents=True)
    ids = [f"m{number}" for number in range(8)]
    media = {"id": ids, "content_id": CONTENT, "modality": ["image"] * 8, "severity": [0] * 8, "target": TARGET}
    (folder / "media-12345678.json").write_text(json.dumps(media))
    return root


def put(root: Path, trial: str, scores: list[float], **changes: Any) -> None:
    """A result whose measures are those of its scores."""
    result = make_result(root, trial, scores, **changes)
    (told,) = result["models"].values()
    told["measures"]["srcc"]["value"] = float(spearmanr(scores, TARGET).statistic)
    told["measures"]["plcc"]["value"] = float(np.corrcoef(scores, TARGET)[0, 1])
    (root / f"metrics/studies/tiny/{trial}.json").write_text(json.dumps(result))


SCORES = {
    "full-seed0": [0.1, 0.25, 0.3, 0.5, 0.45, 0.6, 0.7, 0.8],
    "full-seed1": [0.2, 0.1, 0.3, 0.4, 0.5, 0.7, 0.6, 0.8],
    "level-seed0": [0.3, 0.1, 0.5, 0.2, 0.4, 0.8, 0.6, 0.7],
    "level-seed1": [0.5, 0.1, 0.2, 0.4, 0.3, 0.6, 0.8, 0.7],
}


@pytest.fixture
def table(root: Path) -> StudyTable:
    for trial, scores in SCORES.items():
        put(root, trial, scores)
    return make_table(read_study(root, "tiny"), root, NOW)


def test_means_deviations_and_values_are_those_of_the_seeds(table: StudyTable):
    rows = {row.name: row for row in table.rows}
    assert set(rows) == {"full/vital-base-small", "level/vital-base-small"}
    for variant in ("full", "level"):
        wanted = [float(spearmanr(SCORES[f"{variant}-seed{seed}"], TARGET).statistic) for seed in (0, 1)]
        row = rows[f"{variant}/vital-base-small"]
        assert row.measures["srcc"] == {0: wanted[0], 1: wanted[1]}
        assert row.mean("srcc") == pytest.approx(sum(wanted) / 2)
        assert row.deviation("srcc") == pytest.approx(abs(wanted[0] - wanted[1]) / np.sqrt(2))


def test_a_difference_draws_the_same_seeds_and_contents_for_both_rows(root: Path, table: StudyTable):
    sampling = yaml.safe_load((root / "params.yaml").read_text())["correlate"]["sampling"]
    drawn = np.random.default_rng(sampling["seed"]).multinomial(4, [0.25] * 4, size=sampling["n_bootstrap"])
    seeds = np.random.default_rng(sampling["seed"]).integers(2, size=(2, sampling["n_bootstrap"]))
    gaps = []
    for counts, (one, other) in zip(drawn, seeds.T, strict=True):
        # a content that is drawn k times brings each of its media k times
        index = [i for i, content in enumerate(CONTENT) for _ in range(counts["abcd".index(content)])]
        target = np.array(TARGET)[index]
        value = {trial: spearmanr(np.array(scores)[index], target).statistic for trial, scores in SCORES.items()}
        level, full = ((value[f"{name}-seed{one}"] + value[f"{name}-seed{other}"]) / 2 for name in ("level", "full"))
        gaps.append(level - full)
    tail = (1 - sampling["confidence"]) / 2
    found = table.against_control["level/vital-base-small"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gaps, [tail, 1 - tail])), abs=1e-9)
    values = {trial: spearmanr(scores, TARGET).statistic for trial, scores in SCORES.items()}
    wanted = (values["level-seed0"] + values["level-seed1"] - values["full-seed0"] - values["full-seed1"]) / 2
    assert found.value == pytest.approx(wanted)
    assert found.seeds == (0, 1)
    assert "full/vital-base-small" not in table.against_control


def test_the_markdown_says_those_numbers_and_what_is_missing(table: StudyTable):
    text = markdown(table)
    line = next(line for line in text.splitlines() if line.startswith("| level |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    row = next(row for row in table.rows if row.variant == "level")
    assert cells[1].split() == [f"{row.measures['srcc'][seed]:.3f}"[1:] for seed in (0, 1)]
    assert cells[2] == f"{row.mean('srcc'):.3f} ± {row.deviation('srcc'):.3f}".replace("0.", ".")
    difference = table.against_control[row.name]
    assert cells[-1] == f"{difference.value:+.3f} ({difference.low:+.3f}, {difference.high:+.3f})".replace("0.", ".")
    assert "* Missing: 2 trials, zoo-seed0, zoo-seed1" in text


def test_without_results_the_table_says_how_to_get_some(root: Path):
    table = make_table(read_study(root, "tiny"), root)
    assert markdown(table) == "No trial has run yet: `vital study run tiny`."
    assert curve(table) is None


def test_stale_results_are_named_and_left_out(root: Path):
    for trial, scores in SCORES.items():
        put(root, trial, scores)
    put(root, "level-seed1", SCORES["level-seed1"], params="0")
    put(root, "full-seed1", SCORES["full-seed1"], inputs=dict.fromkeys(INPUTS, "9"))
    study = read_study(root, "tiny")
    table = make_table(study, root, NOW)
    stale = next(note for note in table.notes if note.startswith("Stale"))
    assert "level-seed1 (settings changed)" in stale
    assert "full-seed1 (collect, distort, score, review, assemble, validate, base changed)" in stale
    assert {row.variant: set(row.measures["srcc"]) for row in table.rows} == {"full": {0}, "level": {0}}
    # a clone without artifacts cannot tell which data are today's, but never mixes two kinds of them
    elsewhere = make_table(study, root, None)
    assert any("full-seed1 (made of other data than the rest)" in note for note in elsewhere.notes)
    assert {row.variant: set(row.measures["srcc"]) for row in elsewhere.rows} == {"full": {0}, "level": {0}}


def test_other_code_is_told_and_not_left_out(root: Path):
    for trial, scores in SCORES.items():
        put(root, trial, scores)
    study = read_study(root, "tiny")
    table = make_table(study, root, Conditions(NOW.inputs, "d"))
    assert any("--new-code" in note for note in table.notes)
    put(root, "level-seed1", SCORES["level-seed1"], code="b")
    table = make_table(study, root, NOW)
    assert any("same code" in note for note in table.notes)
    assert len(table.rows[1].measures["srcc"]) == 2


def test_scores_that_do_not_fit_their_media_are_an_error(root: Path):
    put(root, "full-seed0", SCORES["full-seed0"])
    path = root / "metrics/studies/tiny/full-seed0.json"
    result = json.loads(path.read_text())
    result["models"]["vital-base-small"]["scores"] = "0.1 0.2"
    path.write_text(json.dumps(result))
    with pytest.raises(StageError, match="full-seed0 has 2 scores for 8 media"):
        make_table(read_study(root, "tiny"), root)
    (root / "metrics/studies/tiny/media-12345678.json").unlink()
    with pytest.raises(InfraError, match="media-12345678"):
        make_table(read_study(root, "tiny"), root)


def test_a_study_over_sizes_has_a_column_and_a_curve(root: Path):
    path = root / "infra/studies/tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"size": "pretrain_contents"}))
    for trial, scores in SCORES.items():
        put(root, trial, scores, sizes={"pretrain_contents": 5 if trial.startswith("full") else 2})
    table = make_table(read_study(root, "tiny"), root, NOW)
    assert {row.variant: row.size for row in table.rows} == {"full": 5, "level": 2}
    assert "| variant | contents |" in markdown(table)
    drawn = curve(table)
    assert drawn is not None
    (line,) = re.findall(r'class="s0 line" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawn)
    x_2, y_2, x_5, y_5 = map(float, line)
    assert x_2 < x_5
    means = {row.variant: row.mean("srcc") for row in table.rows}
    assert (y_5 < y_2) == ((means["full"] or 0) > (means["level"] or 0)), "higher SRCC stands higher"
    page = "a\n<!-- study tiny: made by vital study table tiny --write -->\nold\n<!-- end of study tiny -->\nb\n"
    again = updated(page, table)
    assert "![SRCC over contents](studies_tiny.svg)" in again
    assert "old" not in again
    assert updated(again, table) == again
    with pytest.raises(StageError, match="lacks the lines"):
        updated("a", table)


def test_results_of_two_machines_stand_in_one_table_that_says_so(root: Path):
    for trial, scores in SCORES.items():
        put(root, trial, scores)
    folder = root / "metrics/studies/tiny"
    media = json.loads((folder / "media-12345678.json").read_text())
    for name, shift in (("aaaaaaaa", 0.0003), ("bbbbbbbb", 0.03)):
        moved = media | {"target": [target + shift for target in media["target"]]}
        (folder / f"media-{name}.json").write_text(json.dumps(moved))
    elsewhere = dict.fromkeys(INPUTS, "0") | {"score": "1"}
    put(root, "full-seed1", SCORES["full-seed1"], inputs=elsewhere, media="aaaaaaaa")
    put(root, "level-seed1", SCORES["level-seed1"], inputs=elsewhere, media="bbbbbbbb")
    table = make_table(read_study(root, "tiny"), root, None)
    assert "Annotated on several machines: targets of held-out media differ by up to 0.0003." in table.notes
    assert any("level-seed1 (made of other data than the rest)" in note for note in table.notes)
    assert {row.variant: set(row.measures["srcc"]) for row in table.rows} == {"full": {0, 1}, "level": {0}}


def test_figures_are_means_over_media_and_their_differences_pair_seeds_and_contents(root: Path):
    late = {"full": "1 0 nan 1 0 0 1 1", "level": "0 0 nan 0 0 0 1 1"}
    study = STUDY | {"figures": ["late_switch"], "differences": [["full/vital-base-small", "level/vital-base-small"]]}
    write_study(root, study)
    for trial, scores in SCORES.items():
        put(root, trial, scores)
        path = root / f"metrics/studies/tiny/{trial}.json"
        result = json.loads(path.read_text())
        for told in result["models"].values():
            told["figures"] = {"late_switch": late[trial.partition("-")[0]]}
        path.write_text(json.dumps(result))
    table = make_table(read_study(root, "tiny"), root)
    rows = {row.variant: row for row in table.rows}
    assert rows["full"].mean("late_switch") == pytest.approx(4 / 7)
    assert rows["level"].mean("late_switch") == pytest.approx(2 / 7)
    (srcc, figure) = table.differences
    assert (srcc.of, figure.of) == ("SRCC", "late_switch")
    assert figure.value == pytest.approx(2 / 7)
    assert figure.low <= figure.value <= figure.high
    assert "| late switch | `full/vital-base-small` | `level/vital-base-small` | +.286" in markdown(table)
    write_study(root, study | {"figures": ["early_switch"]})
    with pytest.raises(StageError, match="has no figure 'early_switch'; it has late_switch"):
        make_table(read_study(root, "tiny"), root)
