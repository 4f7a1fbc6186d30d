"""Who is told when a re-annotation fails; tests/pipeline/test_reannotation.py asks a real server."""

import uuid
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import reannotation
from infra.errors import RegistryError


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(reannotation, "emit_event", lambda name, **more: events.append((name, more)))
    return events


def fail(**parameters: Any) -> None:
    run = SimpleNamespace(id=uuid.UUID(int=1), parameters=parameters)
    state = SimpleNamespace(message="validate failed: 3 rows", name="Failed")
    reannotation.tell_failure(cast("Any", None), cast("Any", run), cast("Any", state))


def test_a_run_that_was_not_to_record_tells_nothing(told: list):
    fail()
    fail(record=False, targets=["collect"])
    assert told == []


def test_a_failed_reannotation_is_told_with_reason_and_what_stays(told: list, monkeypatch: pytest.MonkeyPatch):
    def broken() -> None:
        raise RegistryError("no git")

    monkeypatch.setattr(reannotation.Registry, "open", broken)
    fail(record=True)
    fail(record=True, profile="embedded", pool="/photos/mine", workspace=None, settings=None)
    names = [name for name, _ in told]
    assert names == ["vital.reannotation.failed"] * 2
    first, second = (more for _, more in told)
    assert first["payload"]["reason"] == "validate failed: 3 rows"
    assert first["payload"]["last"] is None
    assert first["resource"]["prefect.resource.id"] == "vital.data-set.vital-data"
    assert second["resource"]["prefect.resource.name"].startswith("vital-data-mine-")
    assert first["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{uuid.UUID(int=1)}"
