"""``python -m flows.crashed_runs``: tell the Prefect server to mark runs as Crashed whose process has gone silent.

A worker reports a child that died, but nobody reports a worker, a machine or a directly started flow that died: such
a run would stay Running for ever. Runs send heartbeats when PREFECT_FLOWS_HEARTBEAT_FREQUENCY is set (prefect.yaml sets
it); this automation reacts when they stop before the run has ended. Calling it again changes nothing.
"""

import argparse
import logging
import sys
from datetime import timedelta
from typing import Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

NAME: Final = "mark silent vital runs as crashed"

_HEARTBEAT: Final = "prefect.flow-run.heartbeat"
_ENDS: Final = ("Completed", "Failed", "Cancelled", "Crashed")

log = logging.getLogger(__name__)


def crash_silent_runs(silence_s: int) -> bool:
    """Create the automation on the server of PREFECT_API_URL unless it is there.

    Args:
        silence_s: seconds without a heartbeat after which a run counts as dead; at least twice the frequency.

    Returns:
        Whether it was created now.
    """
    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(NAME):
            return False
        client.create_automation(_automation(silence_s))
    return True


def _automation(silence_s: int) -> AutomationCore:
    return AutomationCore(
        name=NAME,
        description="A run whose heartbeats stop before it has ended is dead.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_s),
        ),
        actions=[
            ChangeFlowRunState(name=None, state=StateType.CRASHED, message="Its process has gone silent.", force=False)
        ],
    )


def main() -> int:
    """Create the automation; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.crashed_runs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--silence", type=int, default=90, metavar="SECONDS", help="without a heartbeat (default 90)")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    created = crash_silent_runs(arguments.silence)
    log.info("%s: %s", NAME, "created" if created else "is there already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
