"""What the flow does after its stages."""

from pathlib import Path

import pytest

from flows import line
from infra.errors import RegistryError


def test_a_registry_that_does_not_work_takes_nothing_from_what_the_stages_did(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def refuse(workspace: Path) -> str:
        msg = f"{workspace} is not a git repository"
        raise RegistryError(msg)

    monkeypatch.setattr(line, "promote_candidate", refuse)
    with pytest.raises(line.PromotionFailedError, match="is not a git repository") as caught:
        line._offer(tmp_path, {"register": "executed"}, wanted=True)
    assert caught.value.outcomes == {"register": "executed"}
    assert line._offer(tmp_path, {"register": "executed"}, wanted=False) == {}
