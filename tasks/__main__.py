"""``python -m tasks STAGE``: run one stage in the current workspace (what ``dvc.yaml`` calls)."""

import argparse
import logging
import sys
from pathlib import Path

from infra.errors import InfraError
from models.errors import ModelError
from tasks.errors import VitalError
from tasks.stage import RECIPES, STAGES, execute


def main() -> int:
    """Run the stage named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks", description="Run one stage of the plant in this folder.")
    parser.add_argument("stage", choices=[*STAGES, *RECIPES], metavar="STAGE", help=", ".join([*STAGES, *RECIPES]))
    parser.add_argument("--pipeline", default="dvc.yaml", help="pipeline file that declares the stage")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        execute(arguments.stage, Path.cwd(), pipeline=arguments.pipeline)
    except (VitalError, ModelError, InfraError) as error:
        logging.getLogger("tasks").error("%s failed: %s", arguments.stage, error)  # noqa: TRY400 - one line, no traceback
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
