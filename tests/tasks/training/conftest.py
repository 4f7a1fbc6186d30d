"""A tiny model that lays answers out, for stages whose models draw answers and learn from them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.grpo import GrpoRule
from models.rewards import KindWeights, RewardRule
from tasks.stage import Place
from tasks.training import teach
from tasks.training.rollouts import Drawing
from tasks.training.teach_trl import TrlConfig
from tasks.training.teaching_course import ColdStart
from tasks.training.trainer import TrainingConfig

ONE = KindWeights(1.0, 1.0)


@pytest.fixture(scope="session")
def _fluent(_line: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt the layout of answers from the line's examples."""
    root = tmp_path_factory.mktemp("fluent")
    (root / "artifacts").mkdir()
    for name in ("collect", "distort", "review", "assemble", "validate"):
        (root / "artifacts" / name).symlink_to(_line / "artifacts" / name)
    shutil.copytree(_line / "artifacts" / "base" / "small", root / "artifacts" / "pretrain" / "model")
    place = Place(root, root / "work", root / "work" / "out")
    training = TrainingConfig(
        engine="single", seed=5, threads=1, precision="float32", steps=1, batch_examples=12, micro_batches=2,
        learning_rate=1e-5, weight_decay=0.0, warm_up_share=0.0, clip_norm=1.0, checkpoint_every=200, peak_flops=1e9,
    )  # fmt: skip
    config = teach.Config(
        engine="own",
        splits=("train", "warm_up"),
        sources=(),
        shares={"score": 0.5, "degradation": 0.25, "pair": 0.25},
        max_reject_share=0.0,
        trained=("decoder", "projector", "motion_projector"),
        question="short",
        head="fused",
        cold_start=ColdStart(steps=100, batch_examples=16, learning_rate=1e-2),
        drawing=Drawing(group=3, most_tokens=80, temperature=1.0, num_iterations=1),
        rewards=RewardRule("free", "step", 0.35, ONE, ONE, ONE),
        objective=GrpoRule(clip=0.2, beta=0.01, scale="std", average="sequence"),
        probe_tasks=0,
        training=training,
        trl=TrlConfig("none", "sdpa", 3136, 100352),
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
