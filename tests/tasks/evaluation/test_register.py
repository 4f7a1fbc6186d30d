import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.dvc_tree import folder_listing, listing_hash
from infra.errors import RegistryError
from infra.model_record import Check, read_candidates
from infra.promotion import PromotionOptions, promote_model
from tasks.errors import ConfigError, StageError
from tasks.evaluation.register import Config, gate_checks, list_offers, measures, read_agreement, run
from tasks.records import CORRELATIONS, DIFFERENCES
from tasks.shards import frame_of, write_json, write_table
from tasks.stage import Place, build_config

GATES = {
    "pretrained": {"srcc": 0.55, "gain_over_base": 0.05},
    "encoder": {"srcc": 0.55},
    "zero": {"srcc": 0.4},
    "warm_up": {"gain_over_zero": 0.0, "gain_over_pretrained": -0.05},
    "assistant": {"accuracy_gain_low": 0.0, "accuracy_over_blind": 0.0, "gain_over_pretrained": -0.15},
    "probe": {"srcc": 0.4, "gain_over_control": 0.0},
    "student": {"srcc": 0.4, "gain_over_pretrained": -0.2},
}
SRCC = {
    "vital-base-micro": 0.61,
    "base-micro": 0.5,
    "vital-zero-nano": 0.45,
    "vital-warm-up-nano": 0.58,
    "vital-assistant-micro": 0.57,
    "vital-probe": 0.6,
    "base-probe": 0.54,
    "vital-rali": 0.49,
}


def correlation(model: str, value: float | None, **other: Any) -> dict[str, Any]:
    ends = {"low": None, "high": None} if value is None else {"low": value - 0.1, "high": value + 0.1}
    row = {"target_kind": "machine_opinion", "slice": "all", "statistic": "srcc", "samples": 200, "contents": 40}
    return {**row, "model": model, "value": value, **ends, "note": "", **other}


def difference(model: str, other: str) -> dict[str, Any]:
    gap = SRCC[model] - SRCC[other]
    row = {"target_kind": "machine_opinion", "slice": "all", "statistic": "srcc", "samples": 200, "contents": 40}
    ends = {"difference": gap, "low": gap - 0.02, "high": gap + 0.02, "positive": 0.9, "note": ""}
    return {**row, "model": model, "other": other, **ends}


def answered(source: str, value: float, other: str | None = None, **changes: Any) -> dict[str, Any]:
    """A row of what ``answer`` measured of the assistant."""
    row = {"source": source, "model": "vital-assistant-micro", "slice": "all", "measure": "greedy", "value": value}
    row |= {"low": value - 0.02, "high": value + 0.02, "questions": 90, "contents": 12}
    return row | ({"other": other} if other else {}) | changes


ANSWERED = {
    "accuracies": [
        answered("bench", 0.2),
        answered("line", 0.66),
        answered("line", 0.7, measure="likeliest"),
        answered("line", 0.8, slice="yes_no"),
        answered("line", 0.3, model="vital-base-micro"),
    ],
    "differences": [
        answered("line", 0.36, "vital-base-micro"),
        answered("line", 0.5, "base-micro"),
        answered("line", 0.05, "blind"),
    ],
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A workspace as the earlier stages leave it (the models are any files: this stage never opens them)."""
    for path in (
        "collect/candidates.parquet",
        "distort/candidates.parquet",
        "score/opinions.parquet",
        "assemble/examples.parquet",
        "validate/results.json",
        "base/micro/model.safetensors",
        "base/nano/model.safetensors",
        "pretrain/model/model.safetensors",
        "pretrain/model/motion/model.safetensors",
        "pretrain/encoder/encoder.safetensors",
        "warm_up/nano/zero/model.safetensors",
        "warm_up/nano/warm/model.safetensors",
        "warm_up/nano/control/model.safetensors",
        "assistant/model/model.safetensors",
        "linear_probe/model/head.safetensors",
        "rali/student/student.onnx",
    ):
        file = tmp_path / "artifacts" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    (tmp_path / "artifacts" / "warm_up" / "rejects.parquet").write_bytes(b"")
    write_json(tmp_path / "artifacts" / "pretrain" / "recipe.json", {"decoder": "micro"})
    rows = [correlation(model, value) for model, value in SRCC.items()]
    rows += [
        correlation("vital-base-micro", 0.52, slice="video"),
        correlation("vital-base-micro", None, slice="undistorted"),
        correlation("vital-base-micro", 0.47, statistic="krcc"),
    ]
    gaps = [
        difference("vital-base-micro", "base-micro"),
        difference("vital-warm-up-nano", "vital-zero-nano"),
        difference("vital-warm-up-nano", "vital-base-micro"),
        difference("vital-assistant-micro", "vital-base-micro"),
        difference("vital-probe", "base-probe"),
        difference("vital-probe", "vital-base-micro"),
        difference("vital-rali", "vital-base-micro"),
    ]
    folder = tmp_path / "artifacts" / "correlate"
    write_table(folder / "correlations.parquet", CORRELATIONS, frame_of(CORRELATIONS, rows))
    write_table(folder / "differences.parquet", DIFFERENCES, frame_of(DIFFERENCES, gaps))
    write_json(tmp_path / "artifacts" / "answer" / "accuracies.json", ANSWERED)
    made = ("collect", "pretrain", "warm_up", "assistant", "linear_probe", "rali", "correlate")
    sections = {name: {"seed": 1} for name in made}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**sections, "register": {"gates": GATES}}))
    out = tmp_path / "artifacts" / "register"
    out.mkdir()
    return Place(tmp_path, tmp_path / ".work", out)


def config(**gates: dict[str, float]) -> Config:
    return build_config(Config, "register", {"gates": {**GATES, **gates}})


def test_every_model_of_the_line_is_offered_with_its_gate(place: Place):
    report = run(config(), place)
    assert report.gate_holds == {
        "vital-assistant": True,
        "vital-base": True,
        "vital-encoder": True,
        "vital-probe": True,
        "vital-rali": True,
        "vital-warm-up-nano": True,
        "vital-zero-nano": True,
    }
    candidates = read_candidates(place.root)
    assert {name: candidate.path for name, candidate in candidates.items()} == {
        "vital-assistant": "artifacts/assistant/model",
        "vital-base": "artifacts/pretrain/model",
        "vital-encoder": "artifacts/pretrain/encoder",
        "vital-probe": "artifacts/linear_probe/model",
        "vital-rali": "artifacts/rali/student",
        "vital-warm-up-nano": "artifacts/warm_up/nano/warm",
        "vital-zero-nano": "artifacts/warm_up/nano/zero",
    }
    assert candidates["vital-warm-up-nano"].parents == ("vital-zero-nano", "vital-encoder", "base-nano")
    assert report.content == {name: candidate.content for name, candidate in candidates.items()}


def test_measures_are_those_of_correlate(place: Place):
    run(config(), place)
    found = read_candidates(place.root)["vital-base"].metrics
    assert found["srcc"] == 0.61
    assert found["srcc_low"] == pytest.approx(0.51)
    assert found["krcc"] == 0.47
    assert found["srcc_video"] == 0.52
    assert found["srcc_undistorted"] is None
    assert found["gain_over_base"] == pytest.approx(0.11)
    assert found["gain_over_base_low"] == pytest.approx(0.09)
    warm = read_candidates(place.root)["vital-warm-up-nano"].metrics
    assert warm["gain_over_zero"] == pytest.approx(0.13)
    assert warm["gain_over_pretrained"] == pytest.approx(-0.03)
    assert "gain_over_control" not in warm  # nobody warmed the base encoder up


def test_the_assistant_is_measured_by_its_scores_and_by_its_answers_to_the_lines_questions(place: Place):
    run(config(), place)
    assistant = read_candidates(place.root)["vital-assistant"]
    assert assistant.parents == ("vital-base",)
    assert set(assistant.params) == {"collect", "pretrain", "warm_up", "assistant"}
    assert set(assistant.made_from) >= {"artifacts/pretrain/model"}
    found = assistant.metrics
    assert (found["srcc"], found["accuracy"], found["accuracy_gain"]) == (0.57, 0.66, 0.36)
    assert found["accuracy_gain_low"] == pytest.approx(0.34)
    assert found["accuracy_over_blind"] == 0.05
    assert found["gain_over_pretrained"] == pytest.approx(-0.04)
    assert "| accuracy | 0.6600 | 0.6400 to 0.6800 |" in assistant.card
    report = run(config(assistant={"accuracy": 0.7}), place)
    assert report.gate_holds["vital-assistant"] is False


def test_the_probe_is_measured_beside_the_probe_of_the_untouched_encoder(place: Place):
    run(config(), place)
    probe = read_candidates(place.root)["vital-probe"]
    assert (probe.kind, probe.parents) == ("probe", ("vital-encoder",))
    assert set(probe.params) == {"collect", "pretrain", "warm_up", "assistant", "linear_probe"}
    assert probe.metrics["gain_over_control"] == pytest.approx(0.06)
    assert probe.metrics["gain_over_pretrained"] == pytest.approx(-0.01)
    assert 'vital.load("vital-probe#prod")' in probe.card
    report = run(config(probe={"gain_over_control": 0.1}), place)
    assert report.gate_holds["vital-probe"] is False


def test_the_student_is_measured_beside_its_teacher(place: Place):
    run(config(), place)
    student = read_candidates(place.root)["vital-rali"]
    assert (student.kind, student.parents) == ("student", ("vital-base",))
    assert set(student.made_from) >= {"artifacts/pretrain/model"}
    assert student.metrics["gain_over_pretrained"] == pytest.approx(-0.12)
    assert "vital score --scorer rali PHOTO" in student.card
    assert run(config(student={"srcc": 0.5}), place).gate_holds["vital-rali"] is False


def test_an_assistant_that_was_asked_benchmarks_alone_is_measured_by_them_and_one_never_asked_is_an_error(place: Place):
    file = place.root / "artifacts" / "answer" / "accuracies.json"
    write_json(file, {"accuracies": ANSWERED["accuracies"][:1], "differences": []})
    run(config(assistant={"accuracy": 0.1}), place)
    assert read_candidates(place.root)["vital-assistant"].metrics["accuracy"] == 0.2
    write_json(file, {"accuracies": ANSWERED["accuracies"][4:], "differences": []})
    with pytest.raises(StageError, match="answer has no measures of vital-assistant-micro"):
        run(config(), place)


def test_a_bound_that_is_missed_and_a_measure_that_is_undefined_do_not_hold(place: Place):
    report = run(config(zero={"srcc": 0.46}, pretrained={"srcc": 0.61, "srcc_undistorted": -1.0}), place)
    assert report.gate_holds["vital-zero-nano"] is False
    assert report.gate_holds["vital-base"] is False
    checks = read_candidates(place.root)["vital-base"].gate
    assert [(str(check), check.holds) for check in checks] == [
        ("srcc >= 0.61 (found 0.6100)", True),
        ("srcc_undistorted >= -1 (found missing)", False),
    ]


def test_a_gate_on_a_measure_that_does_not_exist_is_an_error(place: Place):
    with pytest.raises(ConfigError, match=r"gates.zero: there is no measure 'scrc'; there are .*srcc"):
        run(config(zero={"scrc": 0.1}), place)


@pytest.mark.parametrize("gates", [{"pretrained": {}}, {"other": {"srcc": 0.1}}])
def test_every_kind_needs_a_gate(gates: dict[str, dict[str, float]]):
    with pytest.raises(ConfigError, match="at least one bound for each of pretrained"):
        config(**gates)


def test_hashes_name_files_and_sources(place: Place):
    run(config(), place)
    candidate = read_candidates(place.root)["vital-base"]
    assert [(file.path, file.size) for file in candidate.files] == [
        ("model.safetensors", 32),
        ("motion/model.safetensors", 39),
    ]
    content = b"pretrain/model/model.safetensors"
    assert candidate.files[0].sha256 == hashlib.sha256(content).hexdigest()
    assert candidate.files[0].md5 == hashlib.md5(content).hexdigest()  # noqa: S324 - DVC's names
    examples = hashlib.sha256(b"assemble/examples.parquet").hexdigest()
    assert candidate.made_from["artifacts/assemble/examples.parquet"] == examples
    listing = f"{hashlib.sha256(b'base/micro/model.safetensors').hexdigest()}  model.safetensors\n"
    assert candidate.made_from["artifacts/base/micro"] == hashlib.sha256(listing.encode()).hexdigest()
    assert set(candidate.params) == {"collect", "pretrain"}
    assert set(read_candidates(place.root)["vital-zero-nano"].params) == {"collect", "pretrain", "warm_up"}


def test_content_depends_on_bytes_and_names_alone(place: Place):
    first = run(config(), place).content
    again = run(config(zero={"srcc": 0.9}), place).content
    assert again == first
    (place.root / "artifacts/pretrain/model/motion").rename(place.root / "artifacts/pretrain/model/moved")
    assert run(config(), place).content["vital-base"] != first["vital-base"]


def test_cards_say_what_was_measured(place: Place):
    run(config(zero={"srcc": 0.46}), place)
    card = (place.out / "cards" / "vital-zero-nano.md").read_text()
    assert "On 200 held-out samples of 40 contents" in card
    assert "| srcc | 0.4500 | 0.3500 to 0.5500 |" in card
    assert "- DOES NOT HOLD: srcc >= 0.46 (found 0.4500)" in card
    assert 'vital.load("vital-zero-nano#prod")' in card
    assert read_candidates(place.root)["vital-zero-nano"].card == card


def test_outputs_are_the_same_bytes_each_time(place: Place):
    run(config(), place)
    first = (place.out / "candidates.json").read_bytes()
    run(config(), place)
    assert (place.out / "candidates.json").read_bytes() == first
    assert str(place.root).encode() not in first


def test_human_scores_go_before_machine_opinion(place: Place):
    folder = place.root / "artifacts" / "correlate"
    rows = [correlation("vital-base-micro", 0.61), correlation("vital-base-micro", 0.3, target_kind="mos")]
    write_table(folder / "correlations.parquet", CORRELATIONS, frame_of(CORRELATIONS, rows))
    agreement = read_agreement(folder)
    assert agreement.reference == "mos"
    assert measures(list_offers(place)[0], agreement)["srcc"] == 0.3
    with pytest.raises(StageError, match="vital-zero-nano: correlate has no measures of vital-zero-nano"):
        run(config(pretrained={"srcc": 0.1}), place)


def test_a_model_without_files_is_an_error(place: Place):
    (place.root / "artifacts/pretrain/encoder/encoder.safetensors").unlink()
    with pytest.raises(StageError, match="artifacts/pretrain/encoder holds no files: run dvc repro pretrain"):
        run(config(), place)


def test_checks_compare_with_at_least():
    assert gate_checks("zero", config(), {"srcc": 0.4}) == (Check("srcc", 0.4, 0.4),)
    assert Check("srcc", 0.4, 0.4).holds
    assert not Check("srcc", 0.4, 0.399999).holds
    assert not Check("srcc", -1.0, None).holds
    assert not Check("srcc", -1.0, float("nan")).holds


def test_promotion_reads_what_register_wrote(place: Place):
    run(config(zero={"srcc": 0.46}), place)
    values = json.loads((place.out / "candidates.json").read_text())["candidates"]["vital-zero-nano"]
    assert values["gate_holds"] is False
    made = {"path": "artifacts/register", "md5": listing_hash(folder_listing(place.out))}
    (place.root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"register": {"outs": [made]}}}))
    with pytest.raises(RegistryError, match=r"vital-zero-nano may not be promoted: .*srcc >= 0.46 \(found 0.4500\)"):
        promote_model("vital-zero-nano", place.root, PromotionOptions(checkout=place.root))
