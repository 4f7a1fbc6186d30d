"""Reading what DVC wrote."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from infra.errors import InfraError
from infra.offer import read_lock


def test_a_small_number_in_the_lock_is_a_number(tmp_path: Path):
    lock = {"stages": {"validate": {"params": {"params.yaml": {"validate": {"tolerance": 1.0e-6}}}}}}
    YAML().dump(lock, tmp_path / "dvc.lock")  # as DVC does
    assert read_lock(tmp_path) == lock["stages"]


@pytest.mark.parametrize("content", ["a: [", "- a", "\t"])
def test_a_broken_lock_is_one_line(tmp_path: Path, content: str):
    (tmp_path / "dvc.lock").write_text(content)
    with pytest.raises(InfraError) as caught:
        read_lock(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
