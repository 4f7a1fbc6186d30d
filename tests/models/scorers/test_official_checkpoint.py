"""A checkpoint is used to its last tensor, or refused by the names of those that do not fit."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import MissingWeightsError, ModelError
from models.scorers.official_checkpoint import fill


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.LayerNorm(2)
        self.register_buffer("index", torch.arange(4))


def state(**changes: Any) -> dict[str, Any]:
    values = {name: torch.full_like(value, 2) for name, value in Network().state_dict().items()}
    values |= {"index": torch.arange(4)} | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in values.items() if value is not None}


def filled(content: Any, folder: Path) -> Network:
    path, network = folder / "some.pth", Network()
    torch.save(content, path)
    fill(network, path)
    return network


@pytest.mark.parametrize("kept", ["bare", "under state_dict"])
def test_every_tensor_is_used_in_either_form_of_the_file(kept: str, tmp_path: Path) -> None:
    content = state() if kept == "bare" else {"state_dict": state(), "validation_results": (np.float64(0.8), 1000)}
    network = filled(content, tmp_path)
    assert all((parameter == 2).all() and not parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_numbers_that_numpy_1_wrote_are_read(tmp_path: Path) -> None:
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save({"state_dict": state(), "validation_results": [np.float64(0.8), np.float32(1)]}, new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(item, data)
    fill(Network(), old)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"first__bias": None}, r"1 missing: first\.bias$"),
        ({"extra": torch.ones(1)}, "1 left over: extra$"),
        ({"first__weight": torch.ones(2, 2)}, r"another shape or kind: first\.weight$"),
        ({"second__bias": torch.ones(2, dtype=torch.int64)}, r"another shape or kind: second\.bias$"),
        ({"index": torch.arange(4).flip(0)}, "another shape or kind: index$"),
        ({"first__bias": None, "other": torch.ones(1)}, r"missing: first\.bias; 1 left over: other$"),
        ({f"n{index}": torch.ones(1) for index in range(9)}, "9 left over: n0, n1, n2, n3, n4, n5 and 3 more$"),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"some.pth does not fit Network: .*{fault}"):
        filled(state(**changes), tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"a": 1}, {"state_dict": {"a": "b"}}])
def test_files_without_tensors_by_name_are_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tensors by name"):
        filled(content, tmp_path)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    with pytest.raises(ModelError, match="damaged or no checkpoint"):
        filled({"state_dict": state(), "more": Harmful()}, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_missing_truncated_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    with pytest.raises(MissingWeightsError, match=r"some\.pth is missing"):
        fill(Network(), path)
    torch.save(state(), path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:10], b"", b"<html>not found</html>"):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"some\.pth is damaged or no checkpoint.*replace") as caught:
            fill(Network(), path)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ModelError, match="damaged"):
        fill(Network(), tmp_path)
