"""The stage ``score`` on a Ray cluster, by Ray Data: actors on CPUs decode and score, actors on GPUs share passes.

What is computed is the panel's affair, as on one machine: jobs travel in the same groups, every forward pass has the
same threads and the same shape, so scores are the same to the last bit on processors of the same kind. Rows hold where
media lie, not their bytes: workspace and checkout must be at the same path on all machines. Ray is imported when an
engine is opened, not before. ``RAY_ADDRESS`` names a running cluster; without it one is started on loopback for the
time of the run.
"""

import logging
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final

import pyarrow as pa

from infra.errors import InfraError
from infra.workspace import CHECKOUT
from models.errors import ModelError
from tasks.annotation.panel import Job, Judged, Panel, PanelConfig, Seat, Seen, group_size, groups_of
from tasks.errors import StageError, VitalError
from tasks.pool import read_media
from tasks.stage import Place

log = logging.getLogger(__name__)

_STORE_BYTES: Final = 1 << 30
"""Object store of a cluster that is started here; Ray writes to disk what does not fit."""
_BLOCKS_PER_CPU: Final = 4
_MOST_GROUPS_IN_BLOCK: Final = 64
"""Blocks of jobs are small, so that all actors have work to the end and a lost actor repeats little."""


@dataclass(frozen=True)
class _Task:
    """What every actor is told."""

    config: PanelConfig
    place: Place
    seats: tuple[Seat, ...]

    @property
    def shares(self) -> bool:
        return any(seat.shared for seat in self.seats)

    @property
    def gpus(self) -> int:
        return int(any(seat.runtime is not None and seat.runtime.device == "cuda" for seat in self.seats))


@contextmanager
def ray_engine(config: PanelConfig, place: Place) -> Iterator["RayEngine"]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one here, and load the scorers once to admit them.

    Raises:
        StageError: Ray is not installed, or the cluster lacks what the scorers ask for.
        ModelError: a scorer is unknown or its weights are missing.
    """
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray)
    try:
        resolved = _resolved(ray, config)
        yield RayEngine(ray, resolved, place, _seats(ray, resolved))
    finally:
        if ours:
            ray.shutdown()


class RayEngine:
    """Scores on a cluster.

    Attributes:
        seats: the admitted scorers, in order.
    """

    def __init__(self, ray: Any, config: PanelConfig, place: Place, seats: tuple[Seat, ...]) -> None:
        self._ray, self._task, self.seats = ray, _Task(config, place, seats), seats

    def judged(self, jobs: Sequence[Job]) -> Iterator[Judged]:
        """Judge all jobs, each group as soon as it is done, in any order.

        Raises:
            StageError: a machine or Ray failed, or what the panel raised.
        """
        if not jobs:
            return
        groups = list(groups_of(jobs, group_size(self.seats)))
        try:
            for table in self._dataset(groups).iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for payload in table.column("group").to_pylist():
                    found = pickle.loads(payload)  # noqa: S301 - our own actors wrote it
                    if isinstance(found, _Failure):
                        raise StageError(found.message)
                    yield found
        except self._ray.exceptions.RayError as error:
            raise _told(error) from error

    def _dataset(self, groups: list[list[Job]]) -> Any:
        data, task, found = self._ray.data, self._task, self._ray.cluster_resources()
        all_cpus = max(1, int(found.get("CPU", 1)))
        spared = int(task.shares and not task.gpus and all_cpus > 1)  # one CPU for the judge
        cpus = all_cpus - spared
        size = min(max(len(groups) // (_BLOCKS_PER_CPU * cpus), 1), _MOST_GROUPS_IN_BLOCK)
        _quieten(data)
        common: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "fn_constructor_args": (task,)}
        rows = [{"group": pickle.dumps(group)} for group in groups]
        dataset = data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
            _Lookers, num_cpus=1, compute=data.ActorPoolStrategy(min_size=1, max_size=cpus), **common
        )
        if not task.shares:
            return dataset
        if not task.gpus:
            return dataset.map_batches(_Judges, num_cpus=spared, compute=data.ActorPoolStrategy(size=1), **common)
        most = data.ActorPoolStrategy(min_size=1, max_size=max(1, int(found.get("GPU", 1))))
        return dataset.map_batches(_Judges, num_cpus=0, num_gpus=task.gpus, compute=most, **common)


@dataclass(frozen=True)
class _Failure:
    """An expected error of an actor; Ray Data itself would keep its text alone, in the midst of a trace."""

    message: str


class _Actor:
    """Works on tables of one column, a pickled group per row; a failure is handed on as it is."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """A row with a group -> a row with what was made of it."""
        return _table(map(self._row, table.column("group").to_pylist()))

    def _row(self, payload: bytes) -> bytes:
        found = pickle.loads(payload)  # noqa: S301 - the driver or an actor of this run wrote it
        try:
            made = found if isinstance(found, _Failure) else self.made_of(found)
        except (VitalError, ModelError, InfraError) as error:
            made = _Failure(str(error))
        return pickle.dumps(made, protocol=pickle.HIGHEST_PROTOCOL)

    def made_of(self, group: list[Any]) -> Any:
        """What this actor makes of a group."""
        raise NotImplementedError


class _Lookers(_Actor):
    """An actor on a CPU: decodes a group of media and asks the scorers that take a medium at a time."""

    def __init__(self, task: _Task) -> None:
        self._task, self._panel = task, Panel.load(task.config, task.seats, shared=False)

    def made_of(self, group: list[Job]) -> list[Seen] | Judged:
        """What was seen of each medium, or the outcomes if nobody else is to be asked."""
        seen = [self._panel.look(job, read_media(self._task.place, job.row)) for job in group]
        if self._task.shares:
            return seen
        waited_s, worked_s = sum(one.decode_s for one in seen), sum(one.score_s for one in seen)
        return Judged(self._panel.judge(seen), waited_s, worked_s)


class _Judges(_Actor):
    """An actor with a GPU, or with a CPU where shared passes run on one."""

    def __init__(self, task: _Task) -> None:
        self._panel, self._idle_since = Panel.load(task.config, task.seats, shared=True), perf_counter()

    def made_of(self, group: list[Seen]) -> Judged:
        """The outcomes; what lies between two groups is waiting."""
        started = perf_counter()
        outcomes = self._panel.judge(group)
        waited_s, self._idle_since = started - self._idle_since, perf_counter()
        return Judged(outcomes, waited_s, self._idle_since - started)


def _table(payloads: Iterable[bytes]) -> pa.Table:
    return pa.table({"group": pa.array(list(payloads), pa.large_binary())})


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray  # noqa: PLC0415 - seconds and 200 MB that only this engine pays for
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        msg = f"score.engine is ray, and Ray does not import ({error}): install it with pip install 'ray[data]'"
        raise StageError(msg) from error
    return ray


def _start(ray: Any) -> None:
    """Connect to the named cluster, or start one on loopback; its workers import this checkout's code."""
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": str(CHECKOUT)}},
        "logging_level": logging.WARNING,
    }
    address = os.environ.get("RAY_ADDRESS")
    if address:
        log.info("score: on the Ray cluster at %s", address)
        ray.init(address=address, **common)
        return
    log.info("score: RAY_ADDRESS is not set; starting Ray on this machine for the time of the run")
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        **common,
    )


def _quieten(data: Any) -> None:
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every group travels on, and is saved, as soon as it is done
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def _resolved(ray: Any, config: PanelConfig) -> PanelConfig:
    """The configuration with ``auto`` decided by what the cluster has, not by what this machine has."""
    gpus = ray.cluster_resources().get("GPU", 0) >= 1
    if config.torch.device == "auto":
        return replace(config, torch=replace(config.torch, device="cuda" if gpus else "cpu"))
    if config.torch.device == "cuda" and not gpus:
        raise StageError("score.torch.device is cuda, and the Ray cluster has no GPU: set it to auto or cpu")
    return config


def _seats(ray: Any, config: PanelConfig) -> tuple[Seat, ...]:
    """Convene the panel where its scorers will run, to learn their seats."""
    needs = {"num_cpus": 1, "num_gpus": int(config.torch.device == "cuda")}
    try:
        return ray.get(ray.remote(**needs)(_convene).remote(config))
    except ray.exceptions.RayError as error:
        raise _told(error) from error


def _convene(config: PanelConfig) -> tuple[Seat, ...]:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return Panel.convene(config).seats


def _told(error: Exception) -> Exception:
    """An expected error of a remote function as it was raised there; of all else a line below Ray's trace."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, VitalError | ModelError | InfraError):
        return cause
    log.error("score: Ray failed: %s", error)
    return StageError(f"Ray failed ({type(error).__name__}): its trace stands above")
