import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

from tasks import stage
from tasks.errors import ConfigError, StageError

COUNTER = """
from dataclasses import dataclass
from pathlib import Path
import time


@dataclass(frozen=True)
class Config:
    items: int
    pause_s: float


@dataclass(frozen=True)
class Report:
    items: int


def run(config, place):
    parts = place.work / "parts"
    parts.mkdir(exist_ok=True)
    source = (place.root / "source.txt").read_text()
    for i in range(config.items):
        part = parts / str(i)
        if not part.exists():
            with (place.root / "log.txt").open("a") as log:
                log.write(f"{i}\\n")
            part.write_text(f"{source}-{i}")
        time.sleep(config.pause_s)
    (place.out / "all.txt").write_text("\\n".join((parts / str(i)).read_text() for i in range(config.items)))
    return Report(config.items)
"""


@dataclass(frozen=True)
class Inner:
    share: float


@dataclass(frozen=True)
class Sample:
    count: int
    mode: Literal["a", "b"]
    names: tuple[str, ...]
    inner: Inner
    limit: float | None = None


GOOD = {"count": 3, "mode": "a", "names": ["x", "y"], "inner": {"share": 1}}


def test_a_section_becomes_a_typed_frozen_config():
    config = stage.build_config(Sample, "sample", GOOD)
    assert config == Sample(3, "a", ("x", "y"), Inner(1.0), None)
    assert isinstance(config.inner.share, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuont": 3}, "unknown key 'cuont'"),
        ({"count": "3"}, "sample.count"),
        ({"count": True}, "sample.count"),
        ({"mode": "c"}, "sample.mode"),
        ({"names": ["x", 1]}, "sample.names"),
        ({"inner": {"share": "much"}}, "sample.inner.share"),
        ({"inner": {"shares": 1}}, "unknown key 'shares'"),
        ({"limit": "none"}, "sample.limit"),
    ],
)
def test_wrong_parameters_are_named(change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        stage.build_config(Sample, "sample", GOOD | change)


def test_a_missing_parameter_is_named():
    with pytest.raises(ConfigError, match="'count' is missing"):
        stage.build_config(Sample, "sample", {k: v for k, v in GOOD.items() if k != "count"})


@pytest.mark.parametrize(("text", "message"), [(None, "is missing"), ("a: [", "not valid YAML"), ("- a\n", "mapping")])
def test_unreadable_params_are_one_clear_line(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        stage.read_params(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_stage_lists_the_known_ones():
    with pytest.raises(ConfigError, match="collect, distort, score"):
        stage.load_stage("colect")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with one stage, ``counter``, that does its items one by one and logs each."""
    (tmp_path / "counter_stage.py").write_text(COUNTER)
    (tmp_path / "source.txt").write_text("one")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"counter": {"items": 5, "pause_s": 0.0}}))
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"counter": {"deps": ["source.txt"]}}}))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(stage.STAGES, "counter", "counter_stage")
    monkeypatch.delitem(sys.modules, "counter_stage", raising=False)
    return tmp_path


def test_outputs_and_metrics_are_published(workspace: Path):
    assert stage.execute("counter", workspace) == {"items": 5}
    assert (workspace / "artifacts/counter/all.txt").read_text().splitlines()[4] == "one-4"
    assert json.loads((workspace / "metrics/counter.json").read_text()) == {"items": 5}


def test_the_same_inputs_are_published_again_without_work(workspace: Path):
    stage.execute("counter", workspace)
    before = (workspace / "log.txt").read_text()
    (workspace / "artifacts/counter/all.txt").unlink()
    stage.execute("counter", workspace)
    assert (workspace / "log.txt").read_text() == before
    assert (workspace / "artifacts/counter/all.txt").is_file()


@pytest.mark.parametrize("change", ["dependency", "parameter"])
def test_changed_inputs_start_from_nothing(workspace: Path, change: str):
    stage.execute("counter", workspace)
    if change == "dependency":
        (workspace / "source.txt").write_text("two")
    else:
        (workspace / "params.yaml").write_text(yaml.safe_dump({"counter": {"items": 6, "pause_s": 0.0}}))
    stage.execute("counter", workspace)
    assert len((workspace / "log.txt").read_text().splitlines()) == (10 if change == "dependency" else 11)
    assert len(list((workspace / ".work/counter").iterdir())) == 1


HANDED = """
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    items: int
    pause_s: float


def run(config, place):
    source = (place.root / "source.txt").read_text()
    before = None if place.before is None else (place.before / "out" / "all.txt").read_text()
    with (place.root / "log.txt").open("a") as log:
        log.write(json.dumps([source, before]) + "\\n")
    if source == "broken":
        raise ValueError("this run breaks off")
    (place.out / "all.txt").write_text(source)
    return config
"""


def test_finished_work_of_the_same_code_and_parameters_over_other_data_is_handed_on(workspace: Path):
    (workspace / "counter_stage.py").write_text(HANDED)

    def attempt(source: str, items: int = 5) -> list[str | None]:
        (workspace / "source.txt").write_text(source)
        (workspace / "params.yaml").write_text(yaml.safe_dump({"counter": {"items": items, "pause_s": 0.0}}))
        try:
            stage.execute("counter", workspace)
        except ValueError:
            assert source == "broken"
        return json.loads((workspace / "log.txt").read_text().splitlines()[-1])

    assert attempt("one") == ["one", None]
    assert attempt("two") == ["two", "one"]
    assert len(list((workspace / ".work/counter").iterdir())) == 1
    assert attempt("broken") == ["broken", "two"]
    assert attempt("broken") == ["broken", "two"]
    assert attempt("three") == ["three", "two"]  # unfinished work is handed to nobody
    assert len(list((workspace / ".work/counter").iterdir())) == 1
    assert attempt("three", items=6) == ["three", None]
    (workspace / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"counter": {"deps": ["source.txt", str(Path(stage.__file__))]}}})
    )
    assert attempt("four", items=6) == ["four", None]  # other code


def test_a_section_that_a_stage_reads_besides_its_own_is_an_input(workspace: Path):
    pipeline = yaml.safe_load((workspace / "dvc.yaml").read_text())
    pipeline["stages"]["counter"]["params"] = ["counter", "other"]
    (workspace / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    for number, runs in ((1, 1), (1, 1), (2, 2)):
        (workspace / "params.yaml").write_text(yaml.safe_dump({**params, "other": {"number": number}, "third": number}))
        stage.execute("counter", workspace)
        assert len((workspace / "log.txt").read_text().splitlines()) == 5 * runs


def test_telemetry_counts_worker_processes(workspace: Path):
    work = "x = b'x' * 300_000_000; sum(i * i for i in range(4_000_000))"
    script = (workspace / "counter_stage.py").read_text()
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}], check=True)"
    (workspace / "counter_stage.py").write_text(script.replace("    parts = ", f"    {start}\n    parts = "))
    before = resource.getrusage(resource.RUSAGE_SELF)
    stage.execute("counter", workspace)
    after = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads((workspace / ".work" / "telemetry" / "counter.json").read_text())
    own = after.ru_utime + after.ru_stime
    assert own + children.ru_utime + children.ru_stime >= told["cpu_s"] - 0.001
    assert told["cpu_s"] >= before.ru_utime + before.ru_stime + children.ru_utime - 0.001
    assert told["peak_mb"] >= max(before.ru_maxrss / 1024, 286) - 0.1


def test_a_stage_that_reads_a_url_computes_anew_when_dvc_calls_it(workspace: Path):
    pipeline = yaml.safe_load((workspace / "dvc.yaml").read_text())
    pipeline["stages"]["counter"]["deps"].append("remote://pool/")
    (workspace / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    stage.execute("counter", workspace)
    stage.execute("counter", workspace)
    assert (workspace / "log.txt").read_text().split() == [str(i) for i in range(5)] * 2
    assert len(list((workspace / ".work/counter").iterdir())) == 1


def test_finished_work_behind_a_url_is_handed_on(workspace: Path):
    (workspace / "counter_stage.py").write_text(HANDED)
    (workspace / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"counter": {"deps": ["remote://pool/"]}}}))
    for source in ("one", "two", "three"):
        (workspace / "source.txt").write_text(source)
        stage.execute("counter", workspace)
    told = [json.loads(line) for line in (workspace / "log.txt").read_text().splitlines()]
    assert told == [["one", None], ["two", "one"], ["three", "two"]]
    assert len(list((workspace / ".work/counter").iterdir())) == 1


def test_a_dependency_may_be_named_by_params():
    params = {"explain": {"teacher": "ract", "drawn": {"per_medium": 2}}}
    assert stage.resolved("artifacts/${explain.teacher}", params) == "artifacts/ract"
    assert stage.resolved("a/${explain.drawn.per_medium}/${explain.teacher}", params) == "a/2/ract"
    assert stage.resolved("artifacts/collect", {}) == "artifacts/collect"
    with pytest.raises(ConfigError, match=r"names explain\.student, and params\.yaml has no such key"):
        stage.resolved("artifacts/${explain.student}", params)


def test_a_missing_dependency_says_what_to_run(workspace: Path):
    (workspace / "source.txt").unlink()
    with pytest.raises(StageError, match=r"source.txt is missing.*dvc repro"):
        stage.execute("counter", workspace)


def test_what_cannot_be_hashed_of_a_pool_stops_no_stage(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    pool, opened = workspace / "pool", Path.open
    pool.mkdir()
    (pool / os.fsdecode(b"caf\xe9.jpg")).write_text("x")
    (pool / "locked.jpg").write_text("x")
    (pool / "dead.jpg").symlink_to("nowhere")
    (pool / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(pool / "pipe.jpg")

    def refuse(path: Path, *arguments: str) -> object:
        if path.name == "locked.jpg":
            raise PermissionError
        assert path.name != "pipe.jpg"
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    keys = [stage._work_key("counter", {"pool": pool}, {})]
    for name in (os.fsdecode(b"caf\xe9.jpg"), "locked.jpg"):
        (pool / name).unlink()
        keys.append(stage._work_key("counter", {"pool": pool}, {}))
    assert len(set(keys)) == 3


def test_a_killed_stage_continues_and_ends_with_the_same_bytes(workspace: Path):
    (workspace / "params.yaml").write_text(yaml.safe_dump({"counter": {"items": 8, "pause_s": 0.1}}))
    script = (
        "import sys; from pathlib import Path; from tasks import stage\n"
        f"sys.path.insert(0, {str(workspace)!r}); stage.STAGES['counter'] = 'counter_stage'\n"
        f"stage.execute('counter', Path({str(workspace)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    log = workspace / "log.txt"
    deadline = time.monotonic() + 60
    while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (workspace / "artifacts/counter").exists()
    stage.execute("counter", workspace)
    items = log.read_text().splitlines()
    assert len(items) <= 9  # one item may have been under way at the kill
    assert sorted(set(items)) == [str(i) for i in range(8)]
    assert (workspace / "artifacts/counter/all.txt").read_text().splitlines() == [f"one-{i}" for i in range(8)]


def test_what_is_published_anew_is_never_seen_in_part(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever is removed while a stage publishes over an earlier result, it is not what others read."""
    stage.execute("counter", workspace)
    (workspace / "artifacts" / ".counter.old").mkdir()  # what a killed run may have left
    (workspace / "artifacts" / ".counter.old" / "all.txt").touch()
    removed, rmtree = [], shutil.rmtree

    def watched(folder: Path, **options: bool) -> None:
        removed.append(Path(folder).name)
        rmtree(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    stage.execute("counter", workspace)
    assert removed == [".counter.new", ".counter.old", ".counter.old"]
    assert [path.name for path in (workspace / "artifacts").iterdir()] == ["counter"]
    assert (workspace / "artifacts/counter/all.txt").read_text().splitlines()[4] == "one-4"


def test_every_stage_config_is_a_frozen_dataclass_with_a_section(checkout: Path):
    params = stage.read_params(checkout)
    for name in [*stage.STAGES, *stage.RECIPES]:
        kind = stage.load_stage(name).Config
        assert dataclasses.is_dataclass(kind), name
        assert kind.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
        stage.stage_config(name, params)
