"""A coherent plant for the gate and its rules."""

import shutil
from pathlib import Path

import pandas as pd
import plant
import pytest
import yaml

from tasks.annotation import validate, views
from tasks.stage import Place, read_params, stage_config

Frames = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    """A workspace with a coherent plant, params and pipeline."""
    root = tmp_path_factory.mktemp("plant")
    plant.build_plant(root)
    shutil.copy(checkout / "params.yaml", root)
    shutil.copy(checkout / "dvc.yaml", root)
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
    inputs = [dep for dep in pipeline["stages"]["validate"]["deps"] if dep.startswith(("artifacts/", "metrics/"))]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"validate": {"deps": inputs}}}))
    return root


@pytest.fixture(scope="module")
def config(checkout: Path) -> validate.Config:
    return stage_config("validate", read_params(checkout))


@pytest.fixture(scope="module")
def coherent(planted: Path) -> views.Plant:
    return views.load_plant(Place(planted, planted, planted))


@pytest.fixture
def copied(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted, tmp_path / "plant"))
