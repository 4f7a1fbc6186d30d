import dataclasses

import pytest

from tasks.errors import ConfigError
from tasks.stage import build_config
from tasks.training.config import TrainingConfig

CONFIG = TrainingConfig(
    engine="zero2", seed=3, threads=1, precision="float32", steps=20, batch_examples=6, micro_batches=4,
    learning_rate=0.05, weight_decay=0.05, warm_up_share=0.2, clip_norm=1.0, checkpoint_every=7, processes=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "single"}, "engine single is one process"),
        ({"processes": 5}, "micro_batches and batch_examples must be at least processes"),
        ({"processes": 0}, "processes must be at least 1"),
        ({"peak_flops": 0.0}, "peak_flops must be positive"),
        ({"frozen_precision": "bfloat16"}, "frozen_precision bfloat16 needs precision bfloat16"),
    ],
)
def test_impossible_ways_to_compute_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_only_known_engines_have_a_name():
    values = dataclasses.asdict(CONFIG)
    assert build_config(TrainingConfig, "training", values) == CONFIG
    with pytest.raises(ConfigError, match=r"training\.engine"):
        build_config(TrainingConfig, "training", values | {"engine": "zero4"})


def test_a_checkpoint_depends_on_what_is_computed_and_not_on_how():
    other = dataclasses.replace(
        CONFIG, engine="zero3", processes=3, recompute="both", checkpoint_every=1, peak_flops=1e12
    )
    assert other.lasting() == CONFIG.lasting()
    for change in ({"seed": 4}, {"micro_batches": 5}, {"precision": "bfloat16"}, {"device": "cuda"}, {"threads": 2}):
        assert dataclasses.replace(CONFIG, **change).lasting() != CONFIG.lasting()
