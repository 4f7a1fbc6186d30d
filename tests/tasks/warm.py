"""Command lines in processes that are forked from one which has the heavy libraries loaded, and nothing else.

Each is a process of its own with its own arguments, environment, folder and streams, as a shell would start it, but for
the ten seconds that torch and transformers take to load. What is said about loading itself needs real starts.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

HEAVY = (
    "torch",
    "pandas",
    "transformers.models.internvl.modeling_internvl",
    "transformers.models.qwen2.modeling_qwen2",
)
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(HEAVY))


def call(
    code: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path | None = None,
    timeout: float = 200,
) -> "subprocess.CompletedProcess[str]":
    """Run Python code as ``python -c`` would.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    with TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("out", "err")]
        place = str(cwd or Path.cwd())
        process = _CONTEXT.Process(target=_run, args=(code, list(arguments), dict(environment), place, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([code, *arguments], timeout)
        out, err = (stream.read_bytes().decode() for stream in streams)
    return subprocess.CompletedProcess([code, *arguments], process.exitcode, out, err)


def _run(code: str, arguments: list[str], environment: dict[str, str], cwd: str, streams: list[Path]) -> None:
    for number, path in enumerate((Path(os.devnull), *streams)):
        with path.open("rb" if number == 0 else "wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["-c", *arguments]
    sys.path[:] = ["", *environment.get("PYTHONPATH", "").split(os.pathsep), *sys.path[1:]]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as python -c does
