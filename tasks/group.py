"""The processes that run one stage together: who leads, how they meet, and how they are started.

``torchrun`` and ``deepspeed`` start every process with ``RANK``, ``LOCAL_RANK`` and ``WORLD_SIZE`` in its environment;
a process without them is alone. torch is imported only where there is more than one.
"""

import contextlib
import ctypes
import os
import signal
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from tasks.errors import StageError

T = TypeVar("T")

_LAUNCHER: Final = "VITAL_LAUNCHER"
"""Environment variable with the process id of the launcher that :func:`launch` is."""
_PATIENCE: Final = timedelta(days=30)
"""How long processes wait for their leader, which may decode media or write a large file; a dead one ends them all."""
_PR_SET_PDEATHSIG: Final = 1


class GroupFailedError(StageError):
    """A process of the group failed and has said why; there is nothing to add."""


@dataclass(frozen=True)
class Group:
    """This process among those that run the stage.

    Attributes:
        rank: its number; 0 leads.
        size: number of processes, over all machines.
        local_rank: its number on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process speaks, writes and publishes for the others."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What every process brings, in the order of ranks; all must call it."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist  # noqa: PLC0415 - only where there is somebody to meet

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=_control_group())
        return values

    def sent(self, value: T | None, sender: int = 0) -> T:
        """What process ``sender`` brings, in every process; all must call it, and the others' values are not sent."""
        if self.size == 1:
            return value  # type: ignore[return-value]
        import torch.distributed as dist  # noqa: PLC0415 - only where there is somebody to meet

        values: list[Any] = [value if self.rank == sender else None]
        dist.broadcast_object_list(values, src=sender, group=_control_group())
        return values[0]

    def led(self, work: Callable[[], T]) -> T:
        """What ``work`` gives to the leader, which alone does it; the others wait for it."""
        return self.sent(work() if self.leads else None)


@cache
def current() -> Group:
    """The group that this process was started in."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    _end_with_launcher()
    return Group(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))


def join() -> None:
    """Connect torch's default process group, over gloo for tensors on the CPU and over NCCL for those on GPUs."""
    import torch  # noqa: PLC0415
    import torch.distributed as dist  # noqa: PLC0415

    if dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if current().size == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    else:
        dist.init_process_group(backend)


def leave() -> None:
    """Disconnect, if this process has joined."""
    if current().size > 1:
        import torch.distributed as dist  # noqa: PLC0415

        if dist.is_initialized():
            dist.destroy_process_group()


@cache
def _control_group() -> Any:
    """A group of its own for what processes tell each other, so that no GPU waits for it."""
    import torch.distributed as dist  # noqa: PLC0415

    join()
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def launch(arguments: Sequence[str], processes: int, folder: Path) -> None:
    """Run ``python ARGUMENTS`` in ``folder`` in a group of processes on this machine, and wait for them.

    torch's own launcher, as behind ``torchrun --standalone``, in this process: if one member ends early, the others are
    ended; if this process is killed, they end with it.

    Raises:
        GroupFailedError: a member failed; it has said why.
        StageError: a signal ended a member, or this process was told to end.
    """
    from torch.distributed.elastic.multiprocessing import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    os.environ[_LAUNCHER] = str(os.getpid())
    try:
        with contextlib.chdir(folder):
            elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        raise _failure({rank: failure.exitcode for rank, failure in error.failures.items()}, processes) from error
    except SignalException as error:
        msg = f"ended by {error.sigval.name}; run the stage again to continue"
        raise StageError(msg) from error
    finally:
        del os.environ[_LAUNCHER]


def _failure(exit_codes: Mapping[int, int], processes: int) -> StageError:
    """What ended a group, by its members' exit codes; the launcher ends by SIGTERM all that outlive the first."""
    killed = {rank: -code for rank, code in exit_codes.items() if code < 0 and -code != signal.SIGTERM}
    failed = [rank for rank, code in exit_codes.items() if code > 0]
    if failed and not killed:
        return GroupFailedError(f"{len(failed)} of {processes} processes failed")
    rank, number = min((killed or {rank: -code for rank, code in exit_codes.items()}).items())
    name = signal.Signals(number).name
    return StageError(f"process {rank} of {processes} was ended by {name}; run the stage again to continue")


def _end_with_launcher() -> None:
    """Let the kernel end this process when its launcher dies: an orphan would go on writing into the work folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    launcher = os.environ.get(_LAUNCHER)
    if launcher is not None and os.getppid() != int(launcher):
        os.kill(os.getpid(), signal.SIGKILL)  # it died before the line above
