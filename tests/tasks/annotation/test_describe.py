import dataclasses
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from models.signals.assertions import problem_of
from models.signals.claims import ATTRIBUTE_OF, Attribute, Degree, Fault, parse_claim
from models.signals.scale import load_thresholds
from tasks.annotation import describe
from tasks.annotation.describe import Config, check_fit, claims_of, is_described, is_planted, planted, run
from tasks.annotation.recipe import implied_fault
from tasks.annotation.sample_pixels import load_pixels
from tasks.errors import ConfigError
from tasks.pool import load_candidates
from tasks.records import ASSERTIONS, CANDIDATES, REJECTS
from tasks.shards import digest, read_table, write_table
from tasks.stage import Place, build_config

CHECKOUT = Path(__file__).resolve().parents[3]


def load_small_pool() -> Any:
    spec = importlib.util.spec_from_file_location("small_pool", Path(__file__).with_name("small_pool.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(**changes: Any) -> Config:
    section = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["describe"]
    fixed = {"share": 0.5, "planted_share": 1.0, "part_samples": 10, "processes": 1}
    return build_config(Config, "describe", section | fixed | changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("describe")
    load_small_pool().build(folder)
    return folder


def described(root: Path, where: Path, settings: Config) -> tuple[Any, pd.DataFrame, pd.DataFrame]:
    report = run(settings, Place(root, where, where / "out"))
    return (
        report,
        read_table(where / "out" / "assertions.parquet", ASSERTIONS),
        read_table(where / "out" / "rejects.parquet", REJECTS),
    )


@pytest.fixture(scope="module")
def outcome(root: Path) -> tuple[Any, pd.DataFrame, pd.DataFrame]:
    return described(root, root / ".work" / "first", config())


def test_every_candidate_is_described_or_rejected_with_a_reason(root: Path, outcome: Any):
    report, assertions, rejects = outcome
    pool = load_candidates(Place(root, root, root))
    assert set(assertions["id"]) | set(rejects["id"]) == set(pool["id"])
    assert not set(assertions["id"]) & set(rejects["id"])
    assert report.candidates == report.described + report.rejected == len(pool)
    assert set(rejects["reason"]) == {"not_sampled"}


def test_assertions_are_single_bare_measurable_and_keyed_by_their_text(outcome: Any):
    _, assertions, _ = outcome
    for row in assertions.to_dict("records"):
        assert problem_of(row["text"]) is None
        claim = parse_claim(row["text"])
        assert claim is not None
        assert claim.attribute == row["attribute"]
        assert row["assertion_id"] == digest(row["id"], row["text"])
    for _, group in assertions.groupby("id"):
        assert sorted(group["position"]) == list(range(len(group)))


def test_images_are_never_told_of_motion_and_media_are_named_rightly(root: Path, outcome: Any):
    _, assertions, _ = outcome
    modality = load_candidates(Place(root, root, root)).set_index("id")["modality"]
    told = assertions.assign(modality=assertions["id"].map(modality))
    images, videos = told[told["modality"] == "image"], told[told["modality"] == "video"]
    assert not set(images["attribute"]) & {"stability", "smoothness"}
    assert not images["text"].str.contains("video").any()
    assert not videos["text"].str.contains("image").any()
    assert len(videos)


def test_planted_assertions_say_what_the_recipe_implies(root: Path, outcome: Any):
    report, assertions, _ = outcome
    pool = load_candidates(Place(root, root, root)).set_index("id")
    marked = assertions[assertions["origin"] == "planted"]
    assert len(marked) == report.planted_true + report.planted_false
    assert report.planted_true >= 10
    for row in marked.to_dict("records"):
        child = pool.loc[row["id"]]
        fault = implied_fault(child["distortion"], int(child["severity"]))
        claim = parse_claim(row["text"])
        assert fault is not None
        assert claim is not None
        if row["planted_truth"]:
            assert (claim.fault, claim.degree) == (fault, Degree.STRONG)
        else:
            assert claim.fault is not fault
    eligible = [key for key, row in pool.iterrows() if is_planted({"id": key, **row.to_dict()}, config())]
    assert set(marked["id"]) == set(eligible)
    assert assertions.loc[assertions["origin"] == "describer", "planted_truth"].isna().all()


def test_planted_words_differ_from_the_describers():
    row = {"id": "x", "distortion": "gaussian_blur", "severity": 5, "modality": "image"}
    first = planted(row, config(), set())
    again = planted(row, config(), {record["text"] for record in first})
    assert [record["planted_truth"] for record in first] == [True, False, False]
    assert not {record["text"] for record in first} & {record["text"] for record in again}


def test_severe_blur_and_noise_are_told(root: Path):
    pool = load_candidates(Place(root, root, root)).set_index("id")
    everything = config(share=1.0, planted_share=0.0, assertions=6)
    _, assertions, _ = described(root, root / ".work" / "all", everything)
    claims = assertions.assign(claim=assertions["text"].map(parse_claim))
    for kinds, fault in ((("gaussian_blur", "lens_blur"), Fault.BLUR), (("white_noise",), Fault.NOISE)):
        ids = pool[(pool["distortion"].isin(kinds)) & (pool["severity"] >= 4) & (pool["modality"] == "image")].index
        told = claims[claims["id"].isin(ids) & (claims["attribute"] == ATTRIBUTE_OF[fault])]
        assert len(told)
        assert all(claim.fault is fault for claim in told["claim"])


def test_the_sample_is_a_property_of_the_id(root: Path):
    pool = load_candidates(Place(root, root, root)).to_dict("records")
    half, more = config(share=0.3), config(share=0.6)
    chosen = {row["id"] for row in pool if is_described(row, half)}
    assert chosen <= {row["id"] for row in pool if is_described(row, more)}
    assert chosen == {row["id"] for row in reversed(pool) if is_described(row, half)}
    many = sum(is_described({"id": str(n)}, half) for n in range(4000))
    assert 1080 < many < 1320


def test_two_processes_and_a_resumed_run_give_the_same_bytes(root: Path, outcome: Any):
    first, where = root / ".work" / "first" / "out", root / ".work" / "second"
    small = config(processes=2)
    assert dataclasses.asdict(run(small, Place(root, where, where / "out"))) == dataclasses.asdict(outcome[0])
    lost = sorted((where / "assertions").glob("*.parquet"))[::2]
    for path in lost:  # what a kill would have left undone
        path.unlink()
    run(small, Place(root, where, where / "out"))
    for name in ("assertions.parquet", "rejects.parquet"):
        assert (where / "out" / name).read_bytes() == (first / name).read_bytes()


def test_a_pool_that_has_grown_is_looked_at_where_it_is_new(
    root: Path, outcome: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(root / "artifacts", tmp_path / "artifacts")
    table = tmp_path / "artifacts" / "distort" / "candidates.parquet"
    children = read_table(table, CANDIDATES)
    told = [row for row in children.to_dict("records") if is_described(row, config()) or is_planted(row, config())]
    late, changed = told[0]["id"], told[1]["id"]
    write_table(table, CANDIDATES, children[children["id"] != late])
    described(tmp_path, tmp_path / "first", config())
    children.loc[children["id"] == changed, "bytes_sha256"] = "0" * 64
    write_table(table, CANDIDATES, children)
    looked: list[str] = []

    def counted(place: Place, row: Any, frames: int) -> Any:
        looked.append(row["id"])
        return load_pixels(place, row, frames)

    monkeypatch.setattr(describe, "load_pixels", counted)
    later = tmp_path / "later"
    report = run(config(), Place(tmp_path, later, later / "out", before=tmp_path / "first"))
    assert dataclasses.asdict(report) == dataclasses.asdict(outcome[0])
    assert sorted(looked) == sorted([late, changed])
    run(config(), Place(tmp_path, later, later / "out"))  # killed at its end, and what it had taken over is gone
    assert sorted(looked) == sorted([late, changed])
    for name in ("assertions.parquet", "rejects.parquet"):
        expected = root / ".work" / "first" / "out" / name
        assert (later / "out" / name).read_bytes() == expected.read_bytes()


def test_unreadable_media_are_rejects_with_a_reason(root: Path, tmp_path: Path):
    shutil.copytree(root / "artifacts", tmp_path / "artifacts")
    victim = read_table(root / "artifacts" / "collect" / "candidates.parquet", CANDIDATES).iloc[0]
    with (tmp_path / "artifacts" / "collect" / "media" / victim["shard"]).open("r+b") as archive:
        archive.seek(victim["offset"] + 200)
        archive.write(bytes(int(victim["length"]) - 200))
    where = tmp_path / ".work"
    report, assertions, rejects = described(tmp_path, where, config(share=1.0))
    refused = rejects[rejects["reason"] != "not_sampled"]
    assert list(refused["id"]) == [victim["id"]]
    assert set(refused["reason"]) == {"truncated"}
    assert victim["id"] not in set(assertions["id"])
    assert report.candidates == report.described + report.rejected


def test_faults_come_first_and_degrees_follow_the_bands():
    reading = dict.fromkeys(Fault, 0.1) | {Fault.BLUR: 0.9, Fault.NOISE: 0.5}
    claims = claims_of(reading, config(assertions=3), "seed")
    assert [(claim.fault, claim.degree) for claim in claims[:2]] == [
        (Fault.BLUR, Degree.STRONG),
        (Fault.NOISE, Degree.SLIGHT),
    ]
    assert claims[2].fault is None
    images = {fault: value for fault, value in reading.items() if fault not in (Fault.SHAKE, Fault.STUTTER)}
    told = claims_of(images, config(assertions=99), "seed")
    assert {claim.attribute for claim in told} == set(Attribute) - {Attribute.STABILITY, Attribute.SMOOTHNESS}


def test_thresholds_of_other_evidence_are_refused():
    fit = config().fit
    check_fit(fit)
    assert fit.evidence == load_thresholds().evidence
    other = dataclasses.replace(fit, evidence=dataclasses.replace(fit.evidence, crops=1))
    with pytest.raises(ConfigError, match="fit_signals"):
        check_fit(other)


def test_bad_parameters_are_refused():
    for changes in ({"share": 1.5}, {"slight_at": 0.9}, {"assertions": 0}):
        with pytest.raises(ConfigError, match="describe"):
            config(**changes)
