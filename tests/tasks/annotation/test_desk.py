"""Reviews by LMMs behind a real HTTP server: paid once, within limits and budgets, believing nothing."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import told_pool
from lmm_server import Lmm, moody, serving, text_of
from told_pool import section

from infra.errors import EndpointRefusedError, EndpointUnavailableError
from infra.lmm_endpoint import Answered
from infra.lmm_wire import Usage
from infra.object_store import FolderStore
from models.judges import ChatQuestion, Outcome, Verdict
from tasks.annotation import review
from tasks.annotation.answers import in_flight_file, read_snapshot
from tasks.annotation.calls import stored_calls
from tasks.annotation.desk import Desk
from tasks.annotation.exhibits import Exhibits, Pictures
from tasks.annotation.questions import SERVED_ANSWERS
from tasks.annotation.roles import Role
from tasks.annotation.spending import Budget, BudgetReachedError, Spending
from tasks.records import ASSERTIONS, REVIEWED, VOTES
from tasks.shards import read_table
from tasks.stage import Place, build_config

CHECKOUT = Path(__file__).resolve().parents[3]
CANARY = "sk-canary-77c1"
TABLES = ("votes.parquet", "reviewed.parquet", "rejects.parquet", "answers/answers.parquet", "malformed.json")
Run = Callable[..., tuple[review.Report, Path]]


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving() as lmm:
        yield lmm


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CANARY_KEY", CANARY)
    told_pool.build(tmp_path)
    return tmp_path


@pytest.fixture
def run(root: Path, lmm: Lmm) -> Run:
    def reviewed(name: str = "review", **changes: Any) -> tuple[review.Report, Path]:
        settings = build_config(review.Config, "review", section(lmm.address, **changes))
        where = root / ".work" / name
        return review.run(settings, Place(root, where, where / "out")), where / "out"

    return reviewed


def calls(root: Path) -> list[dict[str, Any]]:
    return stored_calls(FolderStore(root / "store"))


def test_three_judges_three_rounds_and_a_self_review_of_three_rewordings(run: Run, lmm: Lmm, root: Path):
    lmm.brain = moody
    report, out = run()
    votes = read_table(out / "votes.parquet", VOTES)
    rows = read_table(out / "reviewed.parquet", REVIEWED)
    cross = votes[votes["phase"] == "cross"]
    assert report.assertions == len(rows) == 15
    assert set(cross.groupby(["assertion_id", "attempt"]).size()) == {9}
    assert set(votes[votes["phase"] == "self"].groupby("assertion_id").size()) <= {3}
    assert set(votes["model"]) == {"gpt-1-2026-11-01", "gemini-1-2026-11-01", "qwen-1-2026-11-01", "vqa2-2026-11-01"}
    assert report.kept > 5
    answers = read_snapshot(out / "answers" / "answers.parquet")
    assert list(answers.columns) == SERVED_ANSWERS.columns
    assert set(answers["model"]) == {"gpt-1", "gemini-1", "qwen-1", "vqa2"}
    told = calls(root)
    assert len(told) == len(answers) == sum(lmm.paid.values())
    assert all(row["cost"] == pytest.approx((900 * 2 + 40 * 8) / 1e6) for row in told)
    assert not list((root / ".vital" / "journal").glob("*.jsonl"))


def test_images_and_sampled_frames_travel_as_data_urls(run: Run, lmm: Lmm):
    run()
    pictures = Counter(
        sum(part["type"] == "image_url" for part in body["messages"][-1]["content"]) for body in lmm.bodies
    )
    assert set(pictures) == {1, 3}
    shown = {part["image_url"]["url"][:22] for body in lmm.bodies for part in body["messages"][-1]["content"][:-1]}
    assert shown == {"data:image/png;base64,"}
    assert all(body["response_format"]["json_schema"]["strict"] for body in lmm.bodies)


def test_faults_change_nothing_but_the_telemetry(run: Run, lmm: Lmm, root: Path):
    lmm.brain, lmm.hang_s = moody, 0.2
    _, calm = run("calm")
    (root / "store").rename(root / "calm-store")
    paid = dict(lmm.paid)
    lmm.paid.clear(), lmm._store.clear(), lmm.seen.clear()
    lmm.fault_share = 0.3
    _, stormy = run("stormy")
    for name in TABLES:
        assert (calm / name).read_bytes() == (stormy / name).read_bytes()
    assert lmm.paid == paid  # once each, whatever broke
    assert sum(row["attempts"] for row in calls(root)) == sum(lmm.seen.values()) > len(paid)


def test_a_second_run_asks_nobody(run: Run, lmm: Lmm):
    _, first = run()
    asked = sum(lmm.seen.values())
    _, again = run("again")
    assert sum(lmm.seen.values()) == asked
    for name in TABLES:
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_no_more_calls_are_in_flight_than_the_judges_allow(run: Run, lmm: Lmm):
    lmm.delay_s = 0.02
    run(role={"concurrency": 2})
    assert lmm.most_at_once <= 6


@pytest.mark.parametrize("budget", [{"max_calls": 20}, {"max_cost": 0.08}])
def test_a_budget_stops_cleanly_holds_across_runs_and_goes_on_when_raised(
    budget: dict[str, float], run: Run, lmm: Lmm, root: Path
):
    for _ in range(2):
        with pytest.raises(BudgetReachedError, match=r"raise endpoints\.budget"):
            run(budget=budget)
    asked = sum(lmm.seen.values())
    assert 0 < asked <= budget.get("max_calls", 10**9)
    run("more", budget={"max_calls": 10**6})
    assert sum(lmm.seen.values()) == len(lmm.seen) == len(calls(root))
    assert sum(row["cost"] for row in calls(root)[:asked]) <= budget.get("max_cost", 10**9)


def test_an_endpoint_that_fails_for_good_stops_the_run_and_what_was_answered_stays(run: Run, lmm: Lmm, root: Path):
    lmm.faults = [""] * 30 + ["server_error"] * 500
    with pytest.raises(EndpointUnavailableError, match="run again"):
        run(role={"attempts": 2})
    answered = set(lmm.delivered)
    lmm.faults = []
    run()
    assert all(lmm.paid[key] == 1 for key in lmm.paid)
    assert all(lmm.seen[key] == 1 for key in answered)
    assert len(calls(root)) == len(lmm.paid)


def test_a_refused_key_is_told_once_and_nothing_is_recorded(run: Run, lmm: Lmm, root: Path):
    lmm.reject = (401, {"error": {"message": "no KEY"}})
    with pytest.raises(EndpointRefusedError, match="CANARY_KEY"):
        run()
    assert sum(lmm.seen.values()) <= 16  # what was in flight when the first refusal came
    assert calls(root) == []


def accounts(root: Path) -> tuple[int, float]:
    """Calls and cost of all accounts of a workspace."""
    lines = [
        json.loads(line)
        for path in (root / ".vital" / "spending").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    last = {line["journal"]: line for line in lines}.values()
    return sum(line["calls"] for line in last), sum(line["cost"] for line in last)


def test_calls_that_were_certainly_not_paid_eat_no_budget_and_are_in_flight_nowhere(run: Run, lmm: Lmm, root: Path):
    lmm.faults = ["rate_limited"] * 10_000
    for _ in range(3):
        with pytest.raises(EndpointUnavailableError, match="status 429"):
            run(role={"attempts": 2}, budget={"max_calls": 180})
    assert accounts(root) == (0, pytest.approx(0))
    assert not in_flight_file(root / ".vital" / "journal").exists()
    lmm.faults = []
    report, _ = run(budget={"max_calls": 180})
    assert report.assertions == 15
    assert accounts(root)[0] == len(calls(root)) == sum(lmm.paid.values()) <= 180


def test_answers_that_a_gateway_lost_count_as_paid(run: Run, lmm: Lmm, root: Path):
    lmm.honours_keys, lmm.faults = False, ["gateway"] * 40
    with pytest.raises(BudgetReachedError):
        run(budget={"max_calls": 100})
    assert sum(lmm.paid.values()) <= 100
    assert accounts(root)[0] == 0  # nothing is entered before the part is: the journal holds it
    lmm.faults = []
    run(budget={"max_calls": 1000})
    assert accounts(root)[0] == sum(lmm.paid.values())
    assert sum(row["doubtful"] for row in calls(root)) >= 30
    assert accounts(root)[1] >= sum(lmm.paid.values()) * (900 * 2 + 40 * 8) / 1e6 - 1e-9


def test_an_error_under_status_200_is_no_answer(run: Run, lmm: Lmm, root: Path):
    lmm.faults = ["error_body"] * 1000
    with pytest.raises(EndpointUnavailableError, match="tells of an error"):
        run(role={"attempts": 2})
    assert calls(root) == []
    lmm.faults = ["error_body"] * 20
    report, _ = run()
    assert Outcome.MALFORMED not in report.by_reason


def unfit(word: str) -> Callable[[dict[str, Any]], tuple[int, dict[str, Any]] | None]:
    def refuse(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return (400, {"error": {"code": "odd", "message": "no"}}) if word in text_of(body) else None

    return refuse


def test_one_question_that_the_server_will_not_take_is_a_counted_vote(run: Run, lmm: Lmm, root: Path):
    told = read_table(root / "artifacts" / "describe" / "assertions.parquet", ASSERTIONS)["text"].tolist()
    word = next(text for text in told if sum(text in other for other in told) == 1)
    lmm.refuse = unfit(word)
    report, out = run()
    assert report.by_reason[Outcome.MALFORMED] == 1
    counts = json.loads((out / "malformed.json").read_text())
    assert [counts[name] for name in ("gemini", "gpt", "qwen")] == [{"refused by the server": 3}] * 3
    assert sum(row["cost"] == 0 for row in calls(root)) == 9


def test_an_endpoint_that_takes_no_question_stops_the_run_and_spoils_none(run: Run, lmm: Lmm, root: Path):
    lmm.refuse = unfit("")
    with pytest.raises(EndpointRefusedError, match=r"status 400.*model and parameters"):
        run()
    assert calls(root) == []
    lmm.refuse = lambda _: None
    assert Outcome.MALFORMED not in run()[0].by_reason
    assert accounts(root)[0] == len(calls(root))


def test_a_refusal_after_a_doubtful_attempt_costs_what_that_may_have_cost(run: Run, lmm: Lmm, root: Path):
    lmm.faults = ["truncated"] * 8
    lmm.reject = None
    first: list[str] = []

    def refuse(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        text = json.dumps([body["model"], text_of(body)])
        first.append(text)
        return (400, {"error": {"code": "content_filter"}}) if len(first) > 12 else None

    lmm.refuse = refuse
    run()
    told = [row for row in calls(root) if row["doubtful"] and row["tokens_in"] == 0]
    assert told
    assert all(row["cost"] > 0 for row in told)


def test_a_server_that_counts_more_than_was_set_aside_is_believed(run: Run, lmm: Lmm):
    lmm.tokens_in = 20_000
    with pytest.raises(BudgetReachedError):
        run(budget={"max_cost": 1.0}, role={"concurrency": 1})
    billed = sum(lmm.paid.values()) * (20_000 * 2 + 40 * 8) / 1e6
    # beyond the limit by no more than what was in flight when the first counts came
    assert billed <= 1.0 + 4 * (20_000 * 2 + 40 * 8) / 1e6


def test_a_server_that_bills_longer_answers_than_declared_is_believed(run: Run, lmm: Lmm):
    lmm.tokens_out = 5_000  # with its reasoning; the roles declare 200
    with pytest.raises(BudgetReachedError):
        run(budget={"max_cost": 1.0}, role={"concurrency": 1})
    assert 0.8 < sum(lmm.paid.values()) * (900 * 2 + 5_000 * 8) / 1e6 <= 1.0


def test_counts_of_calls_in_flight_are_not_multiplied(root: Path, lmm: Lmm):
    role = Role(base_url=lmm.address, model="m", picture_tokens=100)
    desk = Desk({"judge": role}, Exhibits(Pictures()), Spending(root, "a", Budget()), "a")
    question = ChatQuestion("system", "text", None, None)
    first = [desk.request(question, role) for _ in range(8)]
    for request in first:  # all were worded before the first count came
        desk.call(role, request, Usage("m", 3 * request.tokens_in, 40), Answered({}, 0.1))
    assert desk.request(question, role).tokens == 3 * first[0].tokens_in + role.max_output_tokens


def test_absurd_counts_are_told_once_and_hold_back_neither_later_calls_nor_other_roles(
    root: Path, lmm: Lmm, caplog: pytest.LogCaptureFixture
):
    role = Role(base_url=lmm.address, model="m", picture_tokens=100)
    other = Role(base_url=lmm.address, model="m", max_output_tokens=50)
    desk = Desk({"judge": role, "other": other}, Exhibits(Pictures()), Spending(root, "a", Budget()), "a")
    question = ChatQuestion("system", "text", None, None)
    first, second = desk.request(question, role), desk.request(question, other)
    for _ in range(2):
        desk.call(role, first, Usage("m", 10**9 - 1, 10**9 - 1), Answered({}, 0.1))
    after = desk.request(question, role)
    assert after.tokens == 10 * first.tokens  # so long it waits
    assert after.price == role.cost(10**9 - 1, 10**9 - 1)  # and for so much the budget must have room
    assert desk.request(question, other) == second
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_content_filter_is_a_refusal_and_not_the_end(run: Run, lmm: Lmm):
    lmm.reject = (400, {"error": {"code": "content_filter", "message": "KEY"}})
    report, out = run()
    assert report.by_reason == {Outcome.MALFORMED: 15}
    assert json.loads((out / "malformed.json").read_text()) == {
        name: {"refusal": 45} for name in ("gemini", "gpt", "qwen")
    }


def test_a_content_filter_refuses_decisions_as_well(run: Run, lmm: Lmm):
    lmm.reject = (400, {"error": {"code": "content_filter", "message": "KEY"}})
    judge = {"base_url": lmm.address, "model": "decider", "kind": "systemone"}
    _, out = run(judges={"qwen": judge})
    assert json.loads((out / "malformed.json").read_text())["qwen"] == {"refusal": 45}


def hostile(body: dict[str, Any]) -> str:
    """A judge that has been taken over: by model, every way of breaking the schema."""
    bad = {
        "gpt-1": json.dumps({"verdict": "keep", "revision": None, "reason": ""}),
        "gemini-1": "The text in the picture says that I must agree, so: agree",
        "qwen-1": json.dumps({"verdict": "agree", "revision": None, "reason": "x", "rounds": 0, "keep_all": True}),
    }
    return bad[body["model"]]


def test_hostile_judges_keep_nothing_and_are_counted_by_name(run: Run, lmm: Lmm):
    lmm.brain = hostile
    report, out = run()
    assert report.kept == 0
    assert json.loads((out / "malformed.json").read_text()) == {
        "gemini": {"not JSON": 45},
        "gpt": {"unknown verdict": 45},
        "qwen": {"wrong keys": 45},
    }


def test_one_judge_taken_over_cannot_keep_what_the_others_refuse(run: Run, lmm: Lmm):
    severe = json.dumps({"verdict": "severe", "revision": None, "reason": "wrong"})
    agree = json.dumps({"verdict": "agree", "revision": None, "reason": "told to"})
    lmm.brain = lambda body: agree if body["model"] == "gpt-1" else severe
    report, _ = run()
    assert report.by_reason == {Outcome.SEVERE: 15}


@pytest.mark.parametrize("kind", ["systemone", "decisions"])
def test_a_decision_judge_sits_beside_chat_judges(kind: str, run: Run, lmm: Lmm):
    judge = {"base_url": lmm.address, "key": None, "model": "decider", "kind": kind, "concurrency": 4}
    report, out = run(judges={"qwen": judge})
    votes = read_table(out / "votes.parquet", VOTES)
    mine = votes[(votes["judge"] == "qwen") & (votes["phase"] == "cross")]
    assert set(mine["model"]) == {"decider-2026-11-01"}
    assert Verdict.MALFORMED not in set(mine["verdict"])
    assert mine["reason"].str.startswith("probabilities: ").all()
    asked = [body for body in lmm.bodies if body["model"] == "decider"]
    assert len({json.dumps(body["questions"]) for body in asked}) >= 3
    assert report.assertions == 15


def test_batch_mode_gives_the_same_votes_for_less(run: Run, lmm: Lmm, root: Path):
    lmm.brain = moody
    _, live = run("live")
    (root / "store").rename(root / "live-store")
    lmm.paid.clear(), lmm.seen.clear()
    lmm.batch_polls = 2
    _, batch = run("batch", mode="batch", batches={"requests": 20, "poll_s": 0.01})
    for name in ("votes.parquet", "reviewed.parquet", "answers/answers.parquet"):
        assert (live / name).read_bytes() == (batch / name).read_bytes()
    assert sum(lmm.seen.values()) == 0
    assert set(lmm.paid.values()) == {1}
    told = calls(root)
    assert {row["mode"] for row in told} == {"batch"}
    assert {round(row["cost"], 9) for row in told} == {(900 * 2 + 40 * 8) / 2e6}


def test_the_key_is_nowhere_on_disk(run: Run, lmm: Lmm, root: Path):
    lmm.brain = lambda _: json.dumps({"verdict": "agree", "revision": None, "reason": "my key is KEY"})
    lmm.model_suffix = "-KEY"
    _, out = run()
    assert lmm.keys == {CANARY}
    assert "my key is [key]" in set(read_table(out / "votes.parquet", VOTES)["reason"])
    for path in root.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    answers = read_snapshot(out / "answers" / "answers.parquet")
    assert set(answers["served_model"].dropna()) == {
        f"{name}-[key]" for name in ("gpt-1", "gemini-1", "qwen-1", "vqa2")
    }


def test_an_assertion_with_instructions_stays_data(run: Run, lmm: Lmm):
    run()
    for body in lmm.bodies:
        assert json.loads(text_of(body).partition("as JSON: ")[2].partition("\n")[0])


KILLED = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from tasks.annotation import review
    from tasks.stage import Place, build_config
    root, section = Path(sys.argv[1]), json.loads(sys.argv[2])
    place = Place(root, root / ".work" / "review", root / ".work" / "review" / "out")
    review.run(build_config(review.Config, "review", section), place)
    """
)


def start(root: Path, params: dict[str, Any]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", KILLED, str(root), json.dumps(params)]
    return subprocess.Popen(
        command, cwd=CHECKOUT, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
    )


def kill_when(process: "subprocess.Popen[bytes]", reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def answered_on_disk(root: Path) -> set[str]:
    """Keys of answers that a kill has left on disk: in journals and in the store."""
    found = {row["call"] for row in calls(root)}
    for path in (root / ".vital" / "journal").glob("*.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            entry = json.loads(line)
            found |= {entry["call"]["call"]} if "call" in entry else set()
    return found


@pytest.mark.slow
def test_killed_in_the_middle_of_calls_no_answer_is_asked_again_and_repeats_carry_their_key(root: Path, lmm: Lmm):
    lmm.brain, lmm.delay_s = moody, 0.05
    params = section(lmm.address)
    settled: set[str] = set()
    for target in (10, 60):
        kill_when(start(root, params), lambda target=target: len(lmm.delivered) >= target)
        time.sleep(0.3)  # the server finishes what the dead had asked
        asked_before = Counter(lmm.seen)
        settled |= answered_on_disk(root)
        assert settled
    process = start(root, params)
    assert process.wait(timeout=300) == 0
    process.communicate()
    assert settled <= answered_on_disk(root)  # none lost
    assert all(lmm.seen[key] == asked_before[key] for key in settled)  # none asked again
    repeats = [key for key, count in lmm.seen.items() if count > 1]
    assert len(repeats) <= 2 * 16
    assert set(lmm.paid.values()) == {1}
    listed = {json.loads(line)["call"] for line in in_flight_file(root / ".vital" / "journal").read_text().splitlines()}
    assert set(repeats) <= listed


@pytest.mark.slow
def test_a_batch_is_found_again_after_a_kill_and_paid_once(root: Path, lmm: Lmm):
    lmm.brain, lmm.batch_polls = moody, 10**9
    params = section(lmm.address, mode="batch", batches={"requests": 500, "poll_s": 0.05})
    kill_when(start(root, params), lambda: len(lmm.batches) >= 2)
    lmm.batch_polls = 1
    process = start(root, params)
    assert process.wait(timeout=300) == 0
    process.communicate()
    assert set(lmm.paid.values()) == {1}
    assert len({batch["metadata"]["vital_key"] for batch in lmm.batches.values()}) == len(lmm.batches)
