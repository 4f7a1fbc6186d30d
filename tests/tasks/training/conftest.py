"""A tiny model that lays answers out, for stages whose models draw answers and learn from them."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.stage import Place
from tasks.training import teach
from tasks.training.teaching_course import ColdStart
from tests.tasks.tiny_teaching import CONFIG, TRAINING


@pytest.fixture(scope="session")
def _fluent(_line: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt the layout of answers from the line's examples."""
    root = tmp_path_factory.mktemp("fluent")
    (root / "artifacts").mkdir()
    for name in ("collect", "distort", "review", "assemble", "validate"):
        (root / "artifacts" / name).symlink_to(_line / "artifacts" / name)
    shutil.copytree(_line / "artifacts" / "base" / "small", root / "artifacts" / "pretrain" / "model")
    place = Place(root, root / "work", root / "work" / "out")
    config = dataclasses.replace(
        CONFIG,
        cold_start=ColdStart(steps=100, batch_examples=16, learning_rate=1e-2),
        drawing=dataclasses.replace(CONFIG.drawing, most_tokens=80),
        probe_tasks=0,
        training=dataclasses.replace(TRAINING, steps=1, learning_rate=1e-5, checkpoint_every=200),
    )
    teach.run(config, place)
    return place.work / "cold_start" / "model"


@pytest.fixture
def write_fluent(_fluent: Path) -> Callable[[Path], None]:
    """Put the fluent model in the place of a workspace's pre-trained one."""

    def write(root: Path) -> None:
        folder = root / "artifacts" / "pretrain" / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(_fluent, folder)

    return write
