import dataclasses
import importlib.util
import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.object_store import FolderStore
from models.judges import MeasuringJudge, Outcome, Verdict
from models.signals.claims import parse_claim
from tasks.annotation import describe, review
from tasks.annotation.answers import ANSWERS
from tasks.errors import ConfigError
from tasks.records import ASSERTIONS, REJECTS, REVIEWED, VOTES
from tasks.shards import read_table
from tasks.stage import Place, build_config

CHECKOUT = Path(__file__).resolve().parents[3]
PARAMS = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
TABLES = ("votes.parquet", "reviewed.parquet", "rejects.parquet", "answers/answers.parquet")


def load_small_pool() -> Any:
    spec = importlib.util.spec_from_file_location("small_pool", Path(__file__).with_name("small_pool.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(**changes: Any) -> review.Config:
    return build_config(review.Config, "review", PARAMS["review"] | {"part_samples": 6, "processes": 1} | changes)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("review")
    load_small_pool().build(root)
    section = PARAMS["describe"] | {"share": 0.2, "planted_share": 0.8, "processes": 1}
    settings = build_config(describe.Config, "describe", section)
    describe.run(settings, Place(root, root / ".work" / "describe", root / "artifacts" / "describe"))
    return root


@pytest.fixture
def root(described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    (tmp_path / "artifacts").symlink_to(described / "artifacts")
    return tmp_path


def reviewed(root: Path, settings: review.Config, name: str = "review") -> tuple[review.Report, Path]:
    where = root / ".work" / name
    return review.run(settings, Place(root, where, where / "out")), where / "out"


@pytest.fixture(scope="module")
def undisturbed(described: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[review.Report, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITAL_STORE", str(folder / "store"))
        (folder / "artifacts").symlink_to(described / "artifacts")
        return reviewed(folder, config())


def test_every_assertion_has_an_outcome_and_every_refusal_a_reason(described: Path, undisturbed: Any):
    report, out = undisturbed
    assertions = read_table(described / "artifacts" / "describe" / "assertions.parquet", ASSERTIONS)
    rows, rejects = read_table(out / "reviewed.parquet", REVIEWED), read_table(out / "rejects.parquet", REJECTS)
    assert list(rows["assertion_id"]) == sorted(assertions["assertion_id"])
    assert set(rejects["id"]) == set(rows.loc[~rows["kept"], "assertion_id"])
    assert report.assertions == report.kept + report.rejected == len(rows)
    assert sum(report.by_reason.values()) == len(rows)
    assert set(rows["reason"]) <= set(Outcome)
    assert (rows["kept"] == (rows["reason"] == Outcome.UNANIMOUS)).all()


def test_the_votes_prove_the_protocol(undisturbed: Any):
    _, out = undisturbed
    votes, rows = read_table(out / "votes.parquet", VOTES), read_table(out / "reviewed.parquet", REVIEWED)
    cross = votes[votes["phase"] == "cross"]
    ballots = cross.groupby(["assertion_id", "attempt"])
    assert set(ballots.size()) == {9}
    assert set(ballots["judge"].nunique()) == {3}
    assert set(votes["attempt"]) <= {0, 1, 2}
    last = cross[cross["attempt"] == cross.groupby("assertion_id")["attempt"].transform("max")]
    unanimous = last.groupby("assertion_id")["verdict"].agg(lambda cast: set(cast) == {Verdict.AGREE})
    confirmed = votes[votes["phase"] == "self"].groupby("assertion_id")["verdict"].agg(["size", set])
    for row in rows.to_dict("records"):
        key = row["assertion_id"]
        if row["kept"]:
            assert unanimous[key]
            assert confirmed.loc[key, "size"] == 3
        if row["reason"] == Outcome.SEVERE:
            assert Verdict.SEVERE in set(last.loc[last["assertion_id"] == key, "verdict"])
        if row["reason"] == Outcome.SELF_INCONSISTENT:
            assert unanimous[key]
    revised = rows[rows["assertion_id"].isin(cross.loc[cross["attempt"] == 1, "assertion_id"])]
    assert all(parse_claim(text) is not None for text in revised["text"])


def test_judges_measure_with_different_families_on_different_pixels(undisturbed: Any):
    _, out = undisturbed
    votes = read_table(out / "votes.parquet", VOTES)
    first = votes[(votes["phase"] == "cross") & (votes["attempt"] == 0)]
    assert set(first["model"]) == {"measured-spectral", "measured-structural", "measured-statistical"}
    assert set(votes.loc[votes["phase"] == "self", "model"]) == {"measured-spatial"}
    told = first.pivot_table(index=["assertion_id", "judge"], columns="round", values="reason", aggfunc="first")
    assert (told[1] != told[2]).mean() > 0.3  # rounds are not copies; probabilities near 0 and 1 print alike


def test_planted_falsehoods_fall_and_planted_truths_stand(undisturbed: Any):
    report, _ = undisturbed
    assert report.planted["false"] >= 15
    assert report.planted["false_rejected"] + report.planted["false_corrected"] >= 0.9
    assert report.planted["true_kept"] >= 0.6
    assert set(report.error_phi) == {"spectral/statistical", "spectral/structural", "statistical/structural"}


def test_the_report_is_plain_json(undisturbed: Any):
    report, _ = undisturbed
    assert json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))["votes"] == report.votes


def test_two_processes_give_the_same_bytes(root: Path, undisturbed: Any):
    report, out = reviewed(root, config(processes=2))
    assert report == undisturbed[0]
    for name in TABLES:
        assert (out / name).read_bytes() == (undisturbed[1] / name).read_bytes()


def test_a_second_run_asks_nobody_and_says_the_same(root: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch):
    reviewed(root, config())

    def refuse(*_: object) -> None:
        pytest.fail("a judge was asked a question that the store had answered")

    monkeypatch.setattr(MeasuringJudge, "vote", refuse)
    monkeypatch.setattr(review, "load_pixels", refuse)
    _, out = reviewed(root, config(), "again")
    assert (out / "votes.parquet").read_bytes() == (undisturbed[1] / "votes.parquet").read_bytes()


def test_new_bands_ask_again_and_old_answers_stay(root: Path):
    reviewed(root, config())
    before = set(FolderStore(root / "store").list("answers/"))
    reviewed(root, config(bands={"agree_at": 0.5, "severe_at": 0.8}), "again")
    after = set(FolderStore(root / "store").list("answers/"))
    assert before < after


def test_the_snapshot_holds_every_answer_that_was_used(undisturbed: Any):
    _, out = undisturbed
    answers, votes = read_table(out / "answers" / "answers.parquet", ANSWERS), read_table(out / "votes.parquet", VOTES)
    assert len(answers) <= len(votes)
    assert Counter(answers["judge"]).keys() == Counter(votes["judge"]).keys()
    assert set(answers["reason"]) == set(votes["reason"])


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    import yaml
    from models.judges import MeasuringAnnotator, MeasuringJudge
    from tasks.annotation import review
    from tasks.stage import Place, build_config
    root, limit = Path(sys.argv[1]), int(sys.argv[2])
    log, asked = os.open(root / "asked.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0
    def counted(vote):
        def inner(self, assertion, evidence, round_number):
            global asked
            if asked == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            asked += 1
            found = vote(self, assertion, evidence, round_number)
            key = "|".join([evidence.key, self.prompt_version, assertion.text])
            os.write(log, (key + chr(10)).encode())
            return found
        return inner
    for kind in (MeasuringJudge, MeasuringAnnotator):
        kind.vote = counted(kind.vote)
    section = yaml.safe_load(Path("params.yaml").read_text())["review"] | {"part_samples": 6, "processes": 1}
    place = Place(root, root / ".work" / "review", root / ".work" / "review" / "out")
    review.run(build_config(review.Config, "review", section), place)
    """
)


@pytest.mark.slow
def test_killed_again_and_again_no_vote_is_asked_twice_and_the_tables_are_the_same(root: Path, undisturbed: Any):
    codes = []
    for limit in (40, 7, 250, 1, 10**9):
        command = [sys.executable, "-c", KILLED, str(root), str(limit)]
        codes.append(subprocess.run(command, check=False, cwd=CHECKOUT, capture_output=True).returncode)
    assert codes == [-signal.SIGKILL] * 4 + [0]
    asked = (root / "asked.log").read_text().splitlines()
    assert max(Counter(asked).values()) == 1
    answers = read_table(undisturbed[1] / "answers" / "answers.parquet", ANSWERS)
    assert len(asked) == len(answers)
    for name in TABLES:
        assert (root / ".work" / "review" / "out" / name).read_bytes() == (undisturbed[1] / name).read_bytes()
    assert not list((root / ".vital" / "journal").glob("*.jsonl"))


def test_bad_parameters_are_refused():
    for changes in ({"rounds": 0}, {"max_revisions": -1}, {"bands": {"agree_at": 0.2, "severe_at": 0.9}}):
        with pytest.raises(ConfigError, match="review"):
            config(**changes)
