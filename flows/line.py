"""The flow ``vital``: the line from a pool of media to a benchmarked, registered model, stage by stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.preflight import check_configs, check_keys, check_targets, promotes_by_default
from flows.reannotation import record_data_set, tell_failure
from flows.stages import Line, fetch_inputs
from infra.errors import InfraError
from infra.params import EMBEDDED
from infra.workspace import (
    WorkspaceSpec,
    absolute_pool,
    check_workspace,
    locate_workspace,
    prepare_workspace,
    workspace_params,
)
from tasks.errors import StageError
from tasks.stage import STEPS


class PromotionFailedError(StageError):
    """All stages have run, and then the registry did not work.

    ``outcomes`` says what became of each stage, as the flow would have returned it.
    """

    def __init__(self, message: str, outcomes: dict[str, str]) -> None:
        super().__init__(message)
        self.outcomes = outcomes


@flow(name="vital", persist_result=False, on_failure=[tell_failure], on_crashed=[tell_failure])
def vital(  # noqa: PLR0913 - a deployment's parameters are the form that people fill in
    profile: str = EMBEDDED,
    pool: str | None = None,
    workspace: Path | None = None,
    targets: list[str] | None = None,
    settings: dict[str, Any] | None = None,
    *,
    promote: bool | None = None,
    record: bool = False,
    pull: bool = False,
) -> dict[str, str]:
    """Run the line, or some of its stages.

    Args:
        profile: ``embedded``, or the name of a file in ``infra/profiles``.
        pool: folder, manifest or S3 prefix of media instead of the profile's pool.
        workspace: folder of the run; the checkout itself unless profile, pool or settings ask for another.
        targets: names of the stages to run; all of them if None. They always run in the line's order.
        settings: params sections with values that replace the profile's.
        promote: offer the candidates to the registry; None means: if ``register`` runs in the checkout itself.
        record: record a version of the data set if it keeps the limits of ``compare``; a failure emits an event.
        pull: take finished stages from the DVC remote where somebody has pushed them.

    Returns:
        For each stage, whether it was executed, restored or unchanged; also what became of a record or a promotion.

    Raises:
        VitalError: a parameter is wrong or a stage failed; the message is one line.
        PromotionFailedError: the stages have run, but the registry did not work.
        InfraError: the workspace cannot be prepared.
    """
    spec = WorkspaceSpec(profile, None if pool is None else absolute_pool(pool), settings or {})
    root, chosen = locate_workspace(spec, workspace), check_targets(targets)
    line = _open(root, spec, chosen, record=record, pull=pull)

    # Annotation: what is true of the data.
    line.run("collect", "distort", "score", "describe", "review", "assemble", "validate")
    recorded = {"record": record_data_set(root)} if record else {}

    # Training: the encoder alone, then decoders on top of it, the whole model on instructions, and a probe; two stages,
    # a teacher that reasons, an encoder of several data sets, and a student without a language model.
    line.run("pretrain", "warm_up", "assistant", "linear_probe")
    line.run("two_stage", "teach", "ract", "explain", "rali")

    # Evaluation: against opinion that training never saw.
    line.run("predict", "answer", "reason", "cross_swap", "correlate", "report", "register")

    told = {stage: str(outcome) for stage, outcome in line.outcomes.items()} | recorded
    return told | _offer(root, told, wanted=promotes_by_default(root, chosen) if promote is None else promote)


def _open(root: Path, spec: WorkspaceSpec, stages: Sequence[str], *, record: bool, pull: bool) -> Line:
    """Have the workspace and what it starts from in place, once all that is asked of it has been checked."""
    check_workspace(root, spec)
    check_configs(workspace_params(spec), [*stages, *(STEPS if record else ())], root)
    prepare_workspace(root, spec)
    fetch_inputs()
    line = Line(root, stages, pull=pull)
    if not pull:  # finished stages may come from somebody who has the keys
        check_keys(workspace_params(spec), line.due())
    return line


def _offer(workspace: Path, outcomes: dict[str, str], *, wanted: bool) -> dict[str, str]:
    """What became of the candidates; a registry that does not work takes nothing from what the stages have done."""
    try:
        return {"promote": promote_candidate(workspace)} if wanted else {}
    except InfraError as error:
        raise PromotionFailedError(str(error), outcomes) from error


@task(name="promote", task_run_name="promote", tags=["registry"], cache_policy=NO_CACHE, persist_result=False)
def promote_candidate(workspace: Path) -> str:
    """Offer the workspace's candidate to the registry, which takes it only if its quality gate holds.

    Returns:
        What became of it, in one line.
    """
    from infra.promotion import promote  # noqa: PLC0415 - only this step needs the registry

    told = promote(workspace)
    get_run_logger().info("%s", told)
    create_markdown_artifact(f"# promote\n\n{told}\n", key="promote", description="promotion to the registry")
    return told
