"""The gate on a coherent plant, and on plants with one planted fault each: the right rule names the right rows."""
# ruff: noqa: PD008 - .loc cannot put a list into one cell

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from infra.dvc_store import run_dvc
from models.judges import Bands, embedded_annotator, embedded_judges
from models.signals.scale import load_thresholds
from tasks.annotation import validate, views
from tasks.annotation.rules import all_rules, schema_rules
from tasks.errors import ConfigError, GateError, StageError
from tasks.records import CANDIDATES, OPINIONS, Split, Task
from tasks.shards import read_table, write_json
from tasks.stage import Place, build_config, execute, read_params, stage_config

Frames = dict[str, pd.DataFrame]


def load_plant() -> Any:
    path = Path(__file__).resolve().parents[1] / "plant.py"
    spec = importlib.util.spec_from_file_location("plant", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plant_module = load_plant()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    """A workspace with a coherent plant, params and pipeline."""
    root = tmp_path_factory.mktemp("plant")
    plant_module.build_plant(root)
    shutil.copy(checkout / "params.yaml", root)
    shutil.copy(checkout / "dvc.yaml", root)
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
    inputs = [dep for dep in pipeline["stages"]["validate"]["deps"] if dep.startswith(("artifacts/", "metrics/"))]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"validate": {"deps": inputs}}}))
    return root


@pytest.fixture(scope="module")
def config(checkout: Path) -> validate.Config:
    return stage_config("validate", read_params(checkout))


@pytest.fixture(scope="module")
def coherent(planted: Path) -> views.Plant:
    return views.load_plant(Place(planted, planted, planted))


@pytest.fixture
def copied(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted, tmp_path / "plant"))


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
    plant_module.write(copied, "score", "opinions", OPINIONS, opinions)
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
    plant_module.build_plant(copied)
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


def first(frame: pd.DataFrame, mask: Any = None) -> Any:
    """Index of the first row (that fits)."""
    return frame.index[0] if mask is None else frame.index[np.asarray(mask)][0]


def put(table: str, column: str, value: Any, where: Callable[[pd.DataFrame], Any] | None = None) -> Any:
    """A fault: one value in one row; returns the key's column and value."""

    def corrupt(frames: Frames) -> list[str]:
        frame = frames[table]
        row = first(frame, None if where is None else where(frame))
        old = frame.at[row, column]
        frame[column] = frame[column].astype(object)
        frame.at[row, column] = value(old) if callable(value) else value
        key = {"candidates": "id", "opinions": "id", "examples": "example_id"}.get(table, "assertion_id")
        return [str(frame.at[row, key])]

    return corrupt


def repeat(table: str, key: str) -> Any:
    def corrupt(frames: Frames) -> list[str]:
        frames[table] = pd.concat([frames[table], frames[table].iloc[[0]]], ignore_index=True)
        return [str(frames[table][key].iloc[0])]

    return corrupt


def drop(table: str, stage: str, key: str, where: Callable[[pd.DataFrame], Any] | None = None) -> Any:
    """A fault: a row that vanishes without a reject."""

    def corrupt(frames: Frames) -> list[str]:
        frame = frames[table]
        row = first(frame, None if where is None else where(frame))
        lost = frame.at[row, key]
        frames[table] = frame.drop(index=row).reset_index(drop=True)
        return [f"{stage} {lost[0] if isinstance(lost, np.ndarray | list) else lost}"]

    return corrupt


def plant_in_description(frames: Frames) -> list[str]:
    planted = frames["reviewed"][frames["reviewed"]["origin"] == "planted"].iloc[0]
    examples = frames["examples"]
    row = first(
        examples,
        (examples["task"] == Task.DESCRIPTION) & np.array([planted["id"] in list(ids) for ids in examples["ids"]]),
    )
    examples.at[row, "answers"] = [f"{planted['text']}. {examples.at[row, 'answers'][0]}"]
    return [examples.at[row, "example_id"]]


def move_a_content(frames: Frames) -> list[str]:
    frame = frames["candidates"]
    row = first(frame, (frame["stage"] == "distort") & (frame["split"] == Split.HELD_OUT))
    frame.at[row, "split"] = "train"
    return [frame.at[row, "content_id"]]


def move_a_child(frames: Frames) -> list[str]:
    move_a_content(frames)
    frame = frames["candidates"]
    originals = dict(zip(frame["id"], frame["split"], strict=True))
    return [r.id for r in frame.itertuples() if r.split != originals[r.content_id]]


def train_on_held_out(frames: Frames) -> list[str]:
    examples = frames["examples"]
    row = first(examples, examples["split"] == Split.HELD_OUT)
    examples.at[row, "split"] = "train"
    return [examples.at[row, "example_id"]]


def unbalance_pairs(frames: Frames) -> list[str]:
    examples = frames["examples"]
    frames["examples"] = examples[examples["preference"] != 0.5].reset_index(drop=True)
    return ["0.0", "0.5", "1.0"]


def dissent(frames: Frames) -> list[str]:
    votes, reviewed = frames["votes"], frames["reviewed"]
    kept = reviewed.loc[reviewed["kept"].astype(bool), "assertion_id"].iloc[0]
    votes.at[first(votes, votes["assertion_id"] == kept), "verdict"] = "severe"
    return [kept]


def lose_votes(where: Callable[[pd.DataFrame], Any]) -> Any:
    """A fault: votes on a kept assertion that were never cast."""

    def corrupt(frames: Frames) -> list[str]:
        votes, reviewed = frames["votes"], frames["reviewed"]
        kept = reviewed.loc[reviewed["kept"].astype(bool), "assertion_id"].iloc[0]
        frames["votes"] = votes[~((votes["assertion_id"] == kept) & where(votes))].reset_index(drop=True)
        return [kept]

    return corrupt


def move_votes(frames: Frames) -> list[str]:
    """One judge votes in the place of another."""
    votes, reviewed = frames["votes"], frames["reviewed"]
    kept = reviewed.loc[reviewed["kept"].astype(bool), "assertion_id"].iloc[0]
    judges = sorted(set(votes.loc[votes["phase"] == "cross", "judge"]))
    mine = (votes["assertion_id"] == kept) & (votes["judge"] == judges[0])
    votes.loc[mine, ["judge", "round"]] = [[judges[1], turn] for turn in (4, 5, 6)]
    return [kept]


def keep_all(frames: Frames) -> list[str]:
    frames["reviewed"]["kept"] = True
    return ["describer"]


def lose_a_description(frames: Frames) -> list[str]:
    """A kept assertion whose example vanishes."""
    examples, reviewed = frames["examples"], frames["reviewed"]
    row = first(examples, examples["task"] == Task.DESCRIPTION)
    lost = reviewed[
        (reviewed["id"] == examples.at[row, "ids"][0]) & (reviewed["text"] == examples.at[row, "answers"][0])
    ]
    frames["examples"] = examples.drop(index=row)
    return [f"assemble {lost['assertion_id'].iloc[0]}"]


def is_task(task: Task) -> Callable[[pd.DataFrame], Any]:
    return lambda frame: frame["task"] == task


def is_kept(frame: pd.DataFrame) -> Any:
    return frame["kept"].astype(bool)


FAULTS = [
    ("candidates.id_is_unique", repeat("candidates", "id")),
    ("candidates.split", put("candidates", "split", "test")),
    ("candidates.modality", put("candidates", "modality", "audio")),
    ("candidates.split_of_content", move_a_child),
    ("contents.splits", move_a_content),
    ("candidates.lineage_holds", put("candidates", "severity", 6, lambda f: f["stage"] == "distort")),
    ("candidates.lineage_holds", put("candidates", "parent_id", "nobody", lambda f: f["stage"] == "distort")),
    ("candidates.lineage_holds", put("candidates", "distortion", "fog", lambda f: f["stage"] == "distort")),
    ("candidates.timing_holds", put("candidates", "frames", 0, lambda f: f["modality"] == "video")),
    ("candidates.shorter_side", put("candidates", "height", 4)),
    ("candidates.length", put("candidates", "length", 0)),
    ("candidates.bytes_sha256", put("candidates", "bytes_sha256", "none")),
    ("opinions.candidate_known", put("opinions", "id", "nobody")),
    ("opinions.bytes_known", put("opinions", "bytes_sha256", "0" * 32)),
    ("opinions.score_count", put("opinions", "scores", lambda s: s[:5])),
    ("opinions.scorers_agree", put("opinions", "scorers", lambda s: [*s[:5], "stranger"])),
    ("opinions.score_max", put("opinions", "scores", lambda s: [1.2, *s[1:]])),
    ("opinions.score_min", put("opinions", "scores", lambda s: [-0.1, *s[1:]])),
    ("opinions.mu_error", put("opinions", "mu", lambda mu: mu + 1e-5)),
    ("opinions.mu_error", put("opinions", "mu", np.nan)),
    ("opinions.sigma_error", put("opinions", "sigma", lambda sigma: sigma * (6 / 5) ** 0.5)),
    ("opinions.pmod_sum_error", put("opinions", "pmod", lambda p: [p[0] + 2e-6, *p[1:]])),
    ("opinions.pmod_mean_error", put("opinions", "pmod", lambda p: [p[0] + 1e-4, p[1] - 1e-4, *p[2:]])),
    ("opinions.pmod_min", put("opinions", "pmod", lambda p: [-0.01, p[1] + p[0] + 0.01, *p[2:]])),
    ("opinions.pmod_sum_error", put("opinions", "pmod", lambda p: p[:4])),
    ("opinions.clamp_told", put("opinions", "mu_clamped", lambda told: not told)),
    ("assertions.modality", put("assertions", "id", "nobody")),
    ("assertions.attribute", put("assertions", "attribute", "beauty")),
    ("assertions.attribute_fits", put("assertions", "attribute", "stability")),
    ("assertions.truth_fits", put("assertions", "planted_truth", None, lambda f: f["origin"] == "planted")),
    ("assertions.is_bare_sentence", put("assertions", "text", "It is dark. ")),
    ("assertions.tells_verdict", put("assertions", "text", "The overall look is fine")),
    ("reviewed.kept_tells_verdict", put("reviewed", "text", "Its Quality is low", is_kept)),
    ("reviewed.reason_fits", put("reviewed", "reason", "severe_deviation", is_kept)),
    ("reviewed.unanimous", dissent),
    ("reviewed.cross_votes", lose_votes(lambda votes: votes["phase"] == "cross")),
    ("reviewed.cross_votes", lose_votes(lambda votes: (votes["judge"] == "spectral") & (votes["round"] == 2))),
    ("reviewed.cross_votes", dissent),
    ("reviewed.self_votes", lose_votes(lambda votes: votes["phase"] == "self")),
    ("reviewed.self_votes", lose_votes(lambda votes: (votes["phase"] == "self") & (votes["round"] == 3))),
    ("reviewed.judges", lose_votes(lambda votes: votes["judge"] == "spatial")),
    ("reviewed.judges", move_votes),
    ("review_describer.kept_share", keep_all),
    ("examples.unknown_ids", put("examples", "ids", ["nobody"], is_task(Task.SINGLE))),
    ("examples.other_split", train_on_held_out),
    ("examples.trains_on_held_out", train_on_held_out),
    ("examples.other_modality", put("examples", "modality", "video", is_task(Task.DISTORTION))),
    ("examples.shape_holds", put("examples", "targets", [], is_task(Task.SINGLE))),
    ("examples.shape_holds", put("examples", "preference", 1.0, is_task(Task.SINGLE))),
    ("examples.target_error", put("examples", "targets", [[0.2] * 5], is_task(Task.SINGLE))),
    ("examples.level_agrees", put("examples", "answers", ["The quality of the image is bad"], is_task(Task.SINGLE))),
    ("examples.preference", put("examples", "preference", 2.0, is_task(Task.PAIR))),
    ("examples.preference_fits", put("examples", "preference", lambda p: 1 - p, lambda f: f["preference"] == 1.0)),
    (
        "examples.tells_verdict",
        put("examples", "answers", ["The quality of the image is poor."], is_task(Task.DESCRIPTION)),
    ),
    ("examples.planted_sentences", plant_in_description),
    (
        "examples.unreviewed_sentences",
        put("examples", "answers", ["There is fog."], is_task(Task.DESCRIPTION)),
    ),
    ("examples.distortion_told", put("examples", "answers", ["slight fog"], is_task(Task.DISTORTION))),
    ("pairs.deviation", unbalance_pairs),
    ("flow.in_is_out_plus_rejects", drop("opinions", "score", "id")),
    ("flow.in_is_out_plus_rejects", lose_a_description),
    ("flow.in_is_out_plus_rejects", drop("reviewed", "review", "assertion_id", is_kept)),
    ("flow.in_is_out_plus_rejects", drop("examples", "assemble", "ids", is_task(Task.SINGLE))),
    ("flow.in_is_out_plus_rejects", drop("rejects", "assemble", "id", lambda f: f["stage"] == "assemble")),
    ("flow.in_is_out_plus_rejects", drop("rejects", "describe", "id", lambda f: f["stage"] == "describe")),
]


@pytest.mark.parametrize(("rule", "fault"), FAULTS, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(FAULTS)])
def test_a_fault_breaks_its_rule_on_its_rows(
    coherent: views.Plant, config: validate.Config, rule: str, fault: Callable[[Frames], list[str]]
):
    frames = {
        field.name: getattr(coherent, field.name).copy(deep=True)
        for field in dataclasses.fields(coherent)
        if field.name != "reported"
    }
    ids = fault(frames)
    made = validate.make_views(views.Plant(**frames, reported=coherent.reported), config)
    own = [r for r in all_rules(config.limits) if r.view == rule.partition(".")[0]]
    outcome = next(o for o in validate.evaluate(made, own, 20) if o.name == rule)
    assert not outcome.success
    assert outcome.problem == ""
    assert outcome.severity == "error"
    assert set(ids) <= set(outcome.ids)
    assert outcome.unexpected in {len(ids), 2 * len(ids)}  # a repeated key is two rows


def test_planted_words_that_review_also_gave_to_the_describer_are_no_fault(
    coherent: views.Plant, config: validate.Config
):
    reviewed = coherent.reviewed.copy(deep=True)
    ours = reviewed[(reviewed["origin"] == "describer") & reviewed["kept"].astype(bool)]
    other = first(reviewed, (reviewed["origin"] == "planted") & reviewed["id"].isin(ours["id"]))
    reviewed.at[other, "text"] = ours.loc[ours["id"] == reviewed.at[other, "id"], "text"].iloc[0]
    made = validate.make_views(dataclasses.replace(coherent, reviewed=reviewed), config)
    assert made["examples"]["planted_sentences"].sum() == 0
    assert made["examples"]["unreviewed_sentences"].sum() == 0


def test_a_tiny_pool_is_not_judged_by_shares(coherent: views.Plant, config: validate.Config):
    examples = coherent.examples[coherent.examples["task"] != Task.PAIR].reset_index(drop=True)
    few = dataclasses.replace(config, limits=dataclasses.replace(config.limits, min_assertions=10_000))
    made = validate.make_views(dataclasses.replace(coherent, examples=examples), few)
    assert (made["pairs"]["deviation"] == 0).all()
    assert made["review_describer"]["kept_share"].isna().all()
    own = [r for r in all_rules(few.limits) if r.view in {"pairs", "review_describer", "review_true", "review_false"}]
    assert all(outcome.success for outcome in validate.evaluate(made, own, 5))


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
    plant_module.write(copied, "collect", "candidates", CANDIDATES, candidates)
    plant_module.write(copied, "score", "opinions", OPINIONS, opinions)
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
    plant_module.build_plant(tmp_path, videos=False)
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


def test_more_revisions_are_allowed_by_params(coherent: views.Plant, config: validate.Config):
    votes = coherent.votes.copy()
    votes.loc[votes["phase"] == "cross", "attempt"] = 3
    made = validate.make_views(dataclasses.replace(coherent, votes=votes), config)
    for allowed, holds in ((2, False), (3, True)):
        limits = dataclasses.replace(config.limits, max_revisions=allowed)
        own = [rule for rule in all_rules(limits) if rule.key == "votes.attempt"]
        assert [outcome.success for outcome in validate.evaluate(made, own, 5)] == [holds]


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
