"""``python -m tasks STAGE``: run one stage in the current workspace (what ``dvc.yaml`` calls).

A training stage may run in several processes: it starts them itself (``training.processes``), or ``torchrun`` or
``deepspeed --module`` starts this command in each.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

from infra.errors import InfraError
from models.errors import ModelError
from tasks import group
from tasks.errors import VitalError
from tasks.stage import RECIPES, STAGES, execute

_LEADER_SPEAKS_S: Final = 3.0
"""A process that does not lead waits so long with its complaint: if the leader fails for the same reason, its launcher
ends the others meanwhile, and the reason is told once."""


def main() -> int:
    """Run the stage named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks", description="Run one stage of the plant in this folder.")
    parser.add_argument("stage", choices=[*STAGES, *RECIPES], metavar="STAGE", help=", ".join([*STAGES, *RECIPES]))
    parser.add_argument("--pipeline", default="dvc.yaml", help="pipeline file that declares the stage")
    parser.add_argument("--local_rank", help="given by the deepspeed launcher, and told by LOCAL_RANK too")
    arguments = parser.parse_args()
    here = group.current()
    logging.basicConfig(level=logging.INFO if here.leads else logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not here.leads:
        os.environ["TQDM_DISABLE"] = "1"  # before tqdm is imported
    try:
        execute(arguments.stage, Path.cwd(), pipeline=arguments.pipeline)
    except group.GroupFailedError:
        return 1
    except (VitalError, ModelError, InfraError) as error:
        _complain(f"{arguments.stage} failed: {error}", here)
        return 1
    group.leave()
    return 0


def _complain(message: str, here: group.Group) -> None:
    if not here.leads:
        time.sleep(_LEADER_SPEAKS_S)
        message = f"process {here.rank}: {message}"
    logging.getLogger("tasks").error("%s", message)


if __name__ == "__main__":
    sys.exit(main())
