"""The end of a re-annotation: compare with the last version of the data set, record a new one, and tell who listens.

A failed re-annotation leaves the last version in place and emits a Prefect event, on which an automation can act; so
does one that has recorded.
"""

from pathlib import Path
from typing import Any, Final

from prefect import Flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event

from infra.data_set import data_set_name, last_version
from infra.errors import InfraError
from infra.params import EMBEDDED
from infra.registry import Registry
from infra.workspace import CHECKOUT, WorkspaceSpec, locate_workspace

FAILED: Final = "vital.reannotation.failed"
"""Event: the last version stays; the payload says why."""

RECORDED: Final = "vital.reannotation.recorded"
"""Event: a re-annotation is done; the payload says whether there is a new version."""


@task(name="record", task_run_name="record", tags=["registry"], cache_policy=NO_CACHE, persist_result=False)
def record_data_set(workspace: Path) -> str:
    """Compare the workspace's annotation with the last version, and record it if the declared limits hold.

    Returns:
        What became of it, in one line.

    Raises:
        GateError: a limit does not hold.
        InfraError: the registry or the store does not work.
    """
    from tasks.evaluation.compare import compare_with_last, record_version  # noqa: PLC0415 - only this step needs it
    from tasks.evaluation.drift_pages import markdown  # noqa: PLC0415

    compared = compare_with_last(workspace)
    get_run_logger().info("%s", compared)
    if not compared.unchanged:
        create_markdown_artifact(markdown(compared.report), key="drift", description=str(compared))
    told = record_version(compared, workspace)
    get_run_logger().info("%s", told)
    payload = {"told": told, "workspace": str(workspace), "measures": compared.report.get("measures")}
    emit_event(RECORDED, resource=_resource(compared.name), payload=payload)
    return told


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - a hook's form
    """Emit ``FAILED`` for a flow run that was to record a version; a hook of the flow."""
    if not flow_run.parameters.get("record"):
        return
    workspace = _workspace(flow_run.parameters)
    name = data_set_name(workspace)
    try:
        kept = last_version(name, Registry.open())
    except InfraError:
        kept = None  # no registry, so nothing is lost either
    emit_event(
        FAILED,
        resource=_resource(name),
        related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}],
        payload={
            "reason": state.message or state.name,
            "last": None if kept is None else str(kept),
            "workspace": str(workspace),
        },
    )


def _workspace(parameters: dict[str, Any]) -> Path:
    """Where a run works; of a deployment's run only the parameters are known that differ from the flow's defaults."""
    pool, named = parameters.get("pool"), parameters.get("workspace")
    spec = WorkspaceSpec(parameters.get("profile") or EMBEDDED, pool, parameters.get("settings") or {})
    return locate_workspace(spec, None if named is None else Path(named))


def _resource(name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"vital.data-set.{name}", "prefect.resource.name": name, "checkout": str(CHECKOUT)}
