"""The stage on Ray: the same bytes as on one machine, actors by resource, and a killed run that goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import MissingWeightsError
from tasks.annotation.panel import Panel, TorchConfig
from tasks.annotation.score import Config, run
from tasks.annotation.score_ray import ray_engine
from tasks.errors import StageError
from tasks.records import REJECTS
from tasks.shards import read_table
from tasks.stage import Place
from tests.tasks.annotation.scored_pool import make_pool, png, publish, row

CHECKOUT = Path(__file__).parents[3]
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
CONFIG = Config(
    ("fragments", "ranking", "ends", "together"), 2, 1, "onnx", 4, 0.5, engine="ray", torch=TorchConfig(rows=3)
)
LOCAL = replace(CONFIG, engine="local")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster on loopback whose workers know the fake scorers by entry points."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("fake_scorers.py"), site / "fakes.py")
    package = site / "fakes-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: fakes\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[vital.scorers]\nends = fakes:Ends\ntogether = fakes:Together\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(site)
        for name, value in ENVIRONMENT.items():
            patched.setenv(name, value)
        patched.delenv("RAY_ADDRESS", raising=False)
        import ray

        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 << 20,
            _node_ip_address="127.0.0.1",
            runtime_env={"env_vars": {"PYTHONPATH": f"{CHECKOUT}:{site}"}},
        )
        yield ray
        ray.shutdown()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    return make_pool(tmp_path)


@pytest.mark.slow
def test_both_engines_give_the_same_bytes(place: Place, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good, broken = png(255 - _noise()), png(_noise())[:300]
    media = {"good": good, "broken": broken}
    publish(place, "collect", media, [row(key, data) for key, data in media.items()])
    tables, reports = [], []
    for config in (CONFIG, LOCAL):
        monkeypatch.setenv("VITAL_STORE", str(place.root / config.engine))
        reports.append(run(config, place))
        tables.append([(place.out / f"{name}.parquet").read_bytes() for name in ("opinions", "rejects")])
    assert tables[0] == tables[1]
    assert reports[0] == reports[1]
    assert read_table(place.out / "rejects.parquet", REJECTS)["reason"].to_list() == ["truncated"]
    assert cluster.is_initialized()  # who did not start it does not stop it


@pytest.mark.slow
def test_errors_of_actors_are_told_as_ours(place: Place, cluster: Any) -> None:
    assert cluster.is_initialized()
    with (
        pytest.raises(MissingWeightsError, match="FAST_VQA_B_1_4"),
        ray_engine(replace(CONFIG, scorers=("fast_vqa",)).panel, place),
    ):
        pass
    with pytest.raises(StageError, match="the Ray cluster has no GPU"):
        run(replace(CONFIG, torch=TorchConfig(device="cuda")), place)
    (place.root / "artifacts" / "collect" / "media" / "a.tar").unlink()
    with pytest.raises(StageError, match=r"a\.tar"):
        run(CONFIG, place)


def test_without_ray_the_message_says_what_to_install(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StageError, match=r"pip install 'ray\[data\]'"):
        run(CONFIG, place)


@pytest.mark.slow
def test_a_killed_run_keeps_what_was_done_and_leaves_no_process(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = 3
    program = (
        "import sys; from pathlib import Path; from tasks.stage import Place; from tasks.annotation.score import *\n"
        f"run(Config(('ranking',), 2, 1, 'onnx', {batch}, 0.5, engine='ray'), "
        "Place(Path(sys.argv[1]), Path(sys.argv[1]), Path(sys.argv[1])))"
    )
    store = place.root / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(place.root)],
        cwd=CHECKOUT,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(CHECKOUT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 400  # Ray starts a dozen processes; a busy machine takes minutes
    while not list(store.rglob("*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)  # as the leash of vital run does (infra/process_group.py)
    process.wait()
    saved = len(list(store.rglob("*.parquet")))
    assert saved >= 1
    looked = _count_looks(monkeypatch)
    config = replace(LOCAL, scorers=("ranking",), torch=TorchConfig())
    run(config, place)
    assert len(looked) <= 16 - batch
    table = (place.out / "opinions.parquet").read_bytes()
    monkeypatch.setenv("VITAL_STORE", str(place.root / "other"))
    run(config, place)
    assert (place.out / "opinions.parquet").read_bytes() == table
    while _children_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _children_of(process.pid)


def _noise() -> Any:
    return np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)


def _count_looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    looked: list[str] = []
    original = Panel.look
    monkeypatch.setattr(
        Panel, "look", lambda self, job, data: (looked.append(job.content), original(self, job, data))[1]
    )
    return looked


def _children_of(session: int) -> list[str]:
    """Processes of a session that still run."""
    done = subprocess.run(
        ["ps", "-o", "pid=,stat=,comm=", "-s", str(session)], capture_output=True, text=True, check=False
    )
    return [line for line in done.stdout.splitlines() if " Z" not in line]
