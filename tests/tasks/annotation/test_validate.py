"""The gate on a coherent plant, and on one that is not: what it publishes, and what it says."""
# ruff: noqa: PD008 - .loc cannot put a list into one cell

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import plant
import pytest
import yaml

from infra.dvc_store import run_dvc
from models.judges import Bands, embedded_annotator, embedded_judges
from models.signals.scale import load_thresholds
from tasks.annotation import validate, views
from tasks.annotation.rules import all_rules, schema_rules
from tasks.errors import ConfigError, GateError, StageError
from tasks.records import CANDIDATES, OPINIONS, Split
from tasks.shards import read_table, write_json
from tasks.stage import Place, build_config, execute, read_params, stage_config

Frames = dict[str, pd.DataFrame]


def test_a_coherent_plant_passes_and_publishes(copied: Path):
    report = execute("validate", copied)
    results = json.loads((copied / "artifacts/validate/results.json").read_text())
    assert results["success"] is True
    assert [entry for entry in results["expectations"] if not entry["success"]] == []
    assert report["expectations"] == len(results["expectations"]) == len({e["name"] for e in results["expectations"]})
    assert report["expectations"] == len(
        [*schema_rules(), *all_rules(stage_config("validate", read_params(copied)).limits)]
    )
    planted = pd.read_parquet(copied / "artifacts/review/reviewed.parquet").query("kept and origin == 'planted'")
    assert report["rejects"] == {"collect": 2, "describe": 6, "distort": 1, "review": 63, "score": 1} | {
        "assemble": len(planted) + 1
    }
    index = (copied / "artifacts/validate/docs/index.html").read_text()
    assert "opinions" in index
    summary = (copied / "artifacts/validate/summary.md").read_text()
    assert "The gate passed" in summary
    assert "| opinions.pmod_sum_error | PMOD sums to 1 | error | 89 | 0 | holds |" in summary


def test_the_verdict_is_byte_identical_in_another_process(copied: Path, checkout: Path):
    execute("validate", copied)
    first = {p.relative_to(copied): p.read_bytes() for p in (copied / "artifacts/validate").rglob("*") if p.is_file()}
    shutil.rmtree(copied / ".work")
    script = f"from pathlib import Path; from tasks.stage import execute; execute('validate', Path({str(copied)!r}))"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=checkout, capture_output=True)
    for path, content in first.items():
        assert (copied / path).read_bytes() == content, path
        assert str(copied).encode() not in content, path


def test_a_failing_gate_names_expectation_rows_and_ids_and_publishes_nothing(copied: Path):
    execute("validate", copied)
    opinions = read_table(copied / "artifacts/score/opinions.parquet", OPINIONS)
    broken = sorted(opinions["id"][[3, 7]])
    for row in (3, 7):
        opinions.at[row, "pmod"] = [0.3, 0.3, 0.3, 0.3, 0.3]
    plant.write(copied, "score", "opinions", OPINIONS, opinions)
    with pytest.raises(GateError) as caught:
        execute("validate", copied)
    message = str(caught.value)
    assert f"opinions.pmod_sum_error (PMOD sums to 1) fails on 2 of 89 rows: {broken[0]}, {broken[1]}" in message
    assert "\n" not in message
    assert ".work/last_failure/validate/summary.md" in message
    assert not (copied / "artifacts/validate").exists()
    failure = copied / ".work/last_failure/validate"
    results = json.loads((failure / "results.json").read_text())
    assert results["success"] is False
    entry = next(e for e in results["expectations"] if e["name"] == "opinions.pmod_sum_error")
    assert (entry["success"], entry["unexpected"], entry["ids"], entry["severity"]) == (False, 2, broken, "error")
    assert (failure / "docs/index.html").is_file()
    assert "The gate **failed**" in (failure / "summary.md").read_text()
    plant.build_plant(copied)
    execute("validate", copied)
    assert json.loads((copied / "artifacts/validate/results.json").read_text())["success"]
    assert not failure.exists()


def test_the_command_ends_with_one_line_and_code_1(copied: Path, checkout: Path):
    write_json(copied / "metrics/distort.json", {"planned": 500, "children": 76, "rejects": 1})
    found = subprocess.run(
        [sys.executable, "-m", "tasks", "validate"],
        cwd=copied,
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "HOME": str(copied)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert "balance.missing (inputs of a stage = outputs + rejects) fails on 1 of 6 rows: distort" in found.stderr
    assert "Traceback" not in found.stderr


def test_benchmark_media_are_barred_from_training(
    coherent: views.Plant, config: validate.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = coherent.candidates
    trained, held_out = (rows[rows["split"] == split].iloc[0] for split in (Split.TRAIN, Split.HELD_OUT))
    candidates = rows.assign(bytes_sha256=[f"{number:064x}" for number in range(len(rows))])
    listed = candidates.set_index("id")["bytes_sha256"]
    lines = ["# two media of a benchmark", listed[trained["id"]], f"{listed[held_out['id']]}  # held out: allowed"]
    (tmp_path / "hashes.txt").write_text("\n".join(lines))
    monkeypatch.setattr(views, "BENCHMARK_HASHES", tmp_path / "hashes.txt")
    made = validate.make_views(dataclasses.replace(coherent, candidates=candidates), config)
    own = [r for r in all_rules(config.limits) if r.key == "candidates.is_benchmark_medium"]
    (outcome,) = validate.evaluate(made, own, 20)
    assert outcome.ids == [trained["id"]]


def test_a_changed_list_of_benchmark_media_makes_the_gate_stale_and_is_read(
    copied: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = str(views.BENCHMARK_HASHES.relative_to(checkout))
    assert listed in yaml.safe_load((checkout / "dvc.yaml").read_text())["stages"]["validate"]["deps"]
    monkeypatch.setattr(views, "BENCHMARK_HASHES", copied / listed)
    (copied / listed).parent.mkdir(parents=True)
    (copied / listed).write_text("# none\n")
    pipeline = yaml.safe_load((copied / "dvc.yaml").read_text())
    validated = pipeline["stages"]["validate"]
    validated |= {"cmd": "true", "deps": [*validated["deps"], listed]}
    (copied / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    candidates = read_table(copied / "artifacts/collect/candidates.parquet", CANDIDATES)
    opinions = read_table(copied / "artifacts/score/opinions.parquet", OPINIONS)
    whole = {key: 2 * half for key, half in zip(candidates["id"], candidates["bytes_sha256"], strict=True)}
    for frame in (candidates, opinions):  # the plant's hashes are half as long as a SHA-256
        frame["bytes_sha256"] = frame["id"].map(whole).fillna(frame["bytes_sha256"])
    plant.write(copied, "collect", "candidates", CANDIDATES, candidates)
    plant.write(copied, "score", "opinions", OPINIONS, opinions)
    execute("validate", copied)
    run_dvc(copied, "init", "--no-scm", "--quiet")
    run_dvc(copied, "repro", "--quiet")
    assert "up to date" in run_dvc(copied, "status")
    barred = candidates[candidates["split"] == Split.TRAIN].iloc[0]
    (copied / listed).write_text(barred["bytes_sha256"])
    assert "modified" in run_dvc(copied, "status", "validate")
    with pytest.raises(GateError, match=rf"is_benchmark_medium .* fails on 1 of \d+ rows: {barred['id']}"):
        execute("validate", copied)


@pytest.mark.parametrize(("text", "message"), [(None, "is missing"), ("abc\n", "'abc'.*no SHA-256")])
def test_an_unusable_hash_list_is_one_clear_line(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "h.txt").write_text(text)
    with pytest.raises(StageError, match=message):
        views.read_hashes(tmp_path / "h.txt")


def test_a_table_of_another_schema_stops_the_gate(copied: Path):
    path = copied / "artifacts/collect/candidates.parquet"
    frame = read_table(path, CANDIDATES).astype({"width": float}).drop(columns="fps").assign(extra=1)
    frame.to_parquet(path)
    with pytest.raises(GateError, match=r"schema\.types .* fails on 3 of \d+ rows") as caught:
        execute("validate", copied)
    for column in ("width", "fps", "extra"):
        assert f"collect/candidates.{column}" in str(caught.value)


def test_missing_tables_say_what_to_run(copied: Path):
    (copied / "artifacts/review/votes.parquet").unlink()
    with pytest.raises(StageError, match=r"votes\.parquet is missing: run dvc repro review"):
        execute("validate", copied)


def test_a_warning_is_reported_and_does_not_stop_the_line(copied: Path, caplog: pytest.LogCaptureFixture):
    params = yaml.safe_load((copied / "params.yaml").read_text())
    params["validate"]["limits"]["planted_true_kept"] = 0.999
    (copied / "params.yaml").write_text(yaml.safe_dump(params))
    report = execute("validate", copied)
    assert (report["failed_errors"], report["failed_warnings"]) == (0, 1)
    assert "review_true.kept_share" in caplog.text
    results = json.loads((copied / "artifacts/validate/results.json").read_text())
    assert results["success"]
    assert [e["name"] for e in results["expectations"] if not e["success"]] == ["review_true.kept_share"]


def test_the_gate_needs_no_video(tmp_path: Path, config: validate.Config):
    plant.build_plant(tmp_path, videos=False)
    place = Place(tmp_path, tmp_path / "w", tmp_path / "w/out")
    place.out.mkdir(parents=True)
    assert validate.run(config, place).failed_warnings == 0


def test_the_schema_is_checked_once_and_docs_are_built_once(copied: Path, monkeypatch: pytest.MonkeyPatch):
    suites, docs = [], []
    run_suite, build = validate._run_suite, validate._build_docs
    monkeypatch.setattr(validate, "_run_suite", lambda *a: (suites.append(a[2][0].view), run_suite(*a))[1])
    monkeypatch.setattr(validate, "_build_docs", lambda *a: (docs.append(a), build(*a))[1])
    execute("validate", copied)
    assert len(suites) == len(set(suites)) > 10
    assert suites[0] == "schema"
    assert len(docs) == 1


def test_the_gate_asks_for_the_votes_that_review_casts(checkout: Path):
    params = read_params(checkout)
    review, limits = params["review"], params["validate"]["limits"]
    assert (review["rounds"], review["max_revisions"]) == (limits["rounds"], limits["max_revisions"])
    bands = Bands(**review["bands"])
    assert len(embedded_judges(load_thresholds(), bands)) == limits["judges"]
    assert len(embedded_annotator(load_thresholds(), bands)) == limits["self_votes"]


def test_wrong_pair_shares_are_refused(checkout: Path):
    section = read_params(checkout)["validate"] | {"pair_shares": {"better": 0.5, "worse": 0.5, "tie": 0.5}}
    with pytest.raises(ConfigError, match="sum to 1"):
        build_config(validate.Config, "validate", section)
