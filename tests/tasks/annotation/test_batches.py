"""Batch mode against a real HTTP server: paid once whatever ends in between, and one bad line is one bad line."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import told_pool
from lmm_server import Lmm, agreeable, serving, text_of
from told_pool import section

from infra.errors import EndpointRefusedError, EndpointUnavailableError
from infra.object_store import FolderStore
from tasks.annotation import batches, review
from tasks.annotation.answers import spending_folder
from tasks.annotation.calls import stored_calls
from tasks.annotation.desk import Desk
from tasks.annotation.spending import BudgetReachedError
from tasks.stage import Place, build_config

Run = Callable[..., tuple[review.Report, Path]]
FILTER = {"response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}}
UNFIT = {"response": {"status_code": 400, "body": {"error": {"code": "image_too_odd"}}}}
BROKEN = {"response": {"status_code": 500, "body": {}}}


def content(body: dict[str, Any]) -> str:
    if "yes, no or unsure" in text_of(body):
        return json.dumps({"answer": "no" if "Are they right?" in text_of(body) else "yes", "reason": "x"})
    return agreeable(body)


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving(Lmm(brain=content)) as lmm:
        yield lmm


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CANARY_KEY", "sk-canary")
    told_pool.build(tmp_path, images=2, assertions=2, clip=False)
    return tmp_path


@pytest.fixture
def run(root: Path, lmm: Lmm) -> Run:
    def reviewed(name: str = "review", part_samples: int = 100, **changes: Any) -> tuple[review.Report, Path]:
        sizes = {"requests": 200, "poll_s": 0.01} | changes.pop("batches", {})
        settings = section(lmm.address, mode="batch", batches=sizes, **changes) | {"part_samples": part_samples}
        where = root / ".work" / name
        return review.run(build_config(review.Config, "review", settings), Place(root, where, where / "out")), where

    return reviewed


class KilledError(Exception):
    """In the place of a kill: nothing after it runs."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Break off at the n-th look at a batch; 0 never."""
    left = [0]

    def sleep(_: float) -> None:
        if left[0]:
            left[0] -= 1
            if not left[0]:
                raise KilledError

    monkeypatch.setattr(batches.time, "sleep", sleep)
    return lambda looks: left.__setitem__(0, looks)


def spent(root: Path) -> tuple[int, float]:
    """Calls and cost of all accounts of a workspace."""
    lines = [
        json.loads(line)
        for path in spending_folder(root / ".vital" / "journal").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    last = {line["journal"]: line for line in lines}
    return sum(line["calls"] for line in last.values()), sum(line["cost"] for line in last.values())


def calls(root: Path) -> list[dict[str, Any]]:
    return stored_calls(FolderStore(root / "store"))


def test_every_batch_is_settled_in_the_end(run: Run, lmm: Lmm, root: Path):
    report, _ = run()
    assert report.kept == 4
    assert set(lmm.paid.values()) == {1}
    assert len(lmm.batches) == 4  # three judges, and the annotator
    assert [path.name for path in (root / ".vital" / "batches").iterdir()] == ["settled.jsonl"]
    told = calls(root)
    assert spent(root)[0] == len(told) == 48
    assert spent(root)[1] == pytest.approx(sum(row["cost"] for row in told))


@pytest.mark.parametrize(("line", "told"), [(FILTER, "refusal"), (UNFIT, "refused by the server")])
def test_a_question_that_the_provider_refuses_is_a_counted_malformed_vote(
    line: dict[str, Any], told: str, run: Run, lmm: Lmm, root: Path
):
    first: list[str] = []

    def refuse(name: str) -> dict[str, Any] | None:
        first[:] = first or [name]
        return line if name == first[0] else None

    lmm.batch_line = refuse
    report, where = run()
    assert report.by_reason == {"malformed_answer": 1, "unanimous": 3}
    assert json.loads((where / "out" / "malformed.json").read_text()) == {"gpt": {told: 1}}
    assert first[0] not in lmm.paid
    assert sum(row["cost"] == 0 for row in calls(root)) == 1


def test_whether_a_role_has_answered_is_looked_up_once_a_batch(
    run: Run, lmm: Lmm, root: Path, monkeypatch: pytest.MonkeyPatch
):
    looks: list[str] = []
    monkeypatch.setattr(Desk, "has_answered", lambda _, __, role, ___: bool(looks.append(role)))
    lmm.batch_line = lambda _: UNFIT
    with pytest.raises(EndpointRefusedError, match="status 400"):
        run()
    assert looks == ["gpt"]
    assert calls(root) == []


def test_a_parameter_that_the_provider_refuses_stops_the_run_and_spoils_no_question(run: Run, lmm: Lmm, root: Path):
    lmm.batch_line = lambda _: UNFIT
    with pytest.raises(EndpointRefusedError, match=r"status 400.*check model and parameters"):
        run()
    assert calls(root) == []
    lmm.batch_line = lambda _: None
    assert run()[0].kept == 4


def test_a_refused_parameter_is_named_with_its_remedy(run: Run, lmm: Lmm):
    told = {"error": {"message": "Unsupported value: 'temperature'", "param": "temperature"}}
    lmm.batch_line = lambda _: {"response": {"status_code": 400, "body": told}}
    with pytest.raises(EndpointRefusedError, match=r"refuses the parameter temperature.*set temperature to null"):
        run()


def test_lines_that_broke_get_new_batches_now_and_after_the_provider_has_healed(run: Run, lmm: Lmm, root: Path):
    broken: list[str] = []

    def breaking(name: str) -> dict[str, Any] | None:
        broken[:] = broken or [name]
        return BROKEN if name == broken[0] else None

    lmm.batch_line = breaking
    for starts in (1, 2):
        with pytest.raises(EndpointUnavailableError, match="1 lines of batches came back without an answer 3 times"):
            run()
        assert len(lmm.batches) == 2 + 3 * starts
    lmm.batch_line = lambda _: None
    assert run()[0].kept == 4
    assert set(lmm.paid.values()) == {1}
    assert spent(root)[0] == 48  # a line without an answer is given back


@pytest.mark.parametrize("change", ["a sample more", "other parts", "smaller batches"])
def test_a_batch_in_flight_is_found_again_however_the_review_is_cut(
    change: str, run: Run, lmm: Lmm, root: Path, killed: Callable[[int], None]
):
    lmm.batch_polls = 10**9
    killed(3)
    with pytest.raises(KilledError):
        run()
    asked = {name for entry in (root / ".vital" / "batches").glob("vital-*.json") for name in asked_in(entry)}
    assert len(asked) == 36
    lmm.batch_polls = 1
    if change == "a sample more":
        told_pool.build(root, images=3, assertions=2, clip=False)
    run(
        "again", **{"other parts": {"part_samples": 1}, "smaller batches": {"batches": {"requests": 5}}}.get(change, {})
    )
    assert set(lmm.paid.values()) == {1}
    assert asked <= set(lmm.paid)
    assert [path.name for path in (root / ".vital" / "batches").iterdir()] == ["settled.jsonl"]


def asked_in(entry: Path) -> list[str]:
    return list(json.loads(entry.read_text())["asked"])


def test_a_lost_register_is_no_second_payment(run: Run, lmm: Lmm, root: Path, killed: Callable[[int], None]):
    lmm.batch_polls = 10**9
    killed(3)
    with pytest.raises(KilledError):
        run()
    shutil.rmtree(root / ".vital")
    lmm.batch_polls = 1
    run()
    assert set(lmm.paid.values()) == {1}


def test_what_was_fetched_is_kept_though_the_provider_deletes_it(
    run: Run, lmm: Lmm, root: Path, monkeypatch: pytest.MonkeyPatch
):
    original = batches.BatchDesk._settle

    def broken_off(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr(batches.BatchDesk, "_settle", broken_off)
    with pytest.raises(KilledError):
        run()
    monkeypatch.setattr(batches.BatchDesk, "_settle", original)
    paid = dict(lmm.paid)
    lmm.files.clear()
    for batch in lmm.batches.values():
        batch["status"] = "failed"  # and its memory is gone
    run()
    fetched = [name for name in paid if lmm.paid[name] == 1]
    assert fetched
    assert set(lmm.paid.values()) <= {1, 2}
    assert {row["call"] for row in calls(root)} == set(lmm.paid)


def test_a_budget_stops_before_a_batch_and_what_was_paid_is_collected(run: Run, lmm: Lmm, root: Path):
    for _ in range(2):
        with pytest.raises(BudgetReachedError, match=r"raise endpoints\.budget"):
            run(budget={"max_calls": 20}, batches={"requests": 6})
    assert len(calls(root)) == len(lmm.paid) == 18
    assert spent(root)[0] == 18
    assert run(budget={"max_calls": 48})[0].kept == 4
    assert set(lmm.paid.values()) == {1}


def test_a_cancelled_batch_gives_what_it_has(run: Run, lmm: Lmm, root: Path, killed: Callable[[int], None]):
    lmm.batch_polls = 10**9
    killed(1)
    with pytest.raises(KilledError):
        run()
    lmm.batch_polls = 1
    for number, batch in enumerate(lmm.batches.values()):
        lmm.run_batch(batch)
        name = batch["output_file_id"]
        lmm.files[name] = b"\n".join(lmm.files[name].split(b"\n")[:5])
        batch["status"] = "cancelled" if number else "expired"
    settled = {
        json.loads(line)["custom_id"]
        for data in lmm.files.values()
        for line in data.split(b"\n")[:5]
        if b'"response"' in line
    }
    assert len(settled) == 15
    run()
    assert all(lmm.paid[name] == 1 for name in settled)
    assert len(calls(root)) == 48


def test_batch_files_are_cut_by_size(run: Run, lmm: Lmm):
    run(batches={"max_megabytes": 0.02})
    sizes = [len(lmm.files[batch["input_file_id"]]) for batch in lmm.batches.values()]
    assert len(sizes) > 4
    assert max(sizes) <= 0.02e6
    assert set(lmm.paid.values()) == {1}


def test_a_batch_refused_as_a_whole_is_given_back(run: Run, lmm: Lmm, root: Path):
    original = lmm.run_batch

    def failing(batch: dict[str, Any]) -> None:
        batch["status"] = "failed"

    lmm.run_batch = failing  # type: ignore[method-assign]
    with pytest.raises(EndpointRefusedError, match="refuses a batch file as a whole"):
        run()
    lmm.run_batch = original  # type: ignore[method-assign]
    assert run()[0].kept == 4
    assert set(lmm.paid.values()) == {1}
    assert spent(root)[0] == 48
