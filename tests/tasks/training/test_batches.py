import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.vision_encoder import VisualInput
from tasks.errors import StageError
from tasks.records import CANDIDATES, Split, Task
from tasks.shards import read_table
from tasks.training.batches import (
    Example,
    Mixture,
    check_splits,
    plan_steps,
    read_examples,
    select_examples,
    task_sequence,
)
from tasks.training.trainer import TrainingConfig

SHARES = {"single": 0.5, "pair": 0.25, "distortion": 0.2, "description": 0.05}
CONFIG = TrainingConfig(
    engine="single", seed=3, threads=1, precision="float32", steps=50, batch_examples=8, micro_batches=2,
    learning_rate=0.05, weight_decay=0.05, warm_up_share=0.2, clip_norm=1.0, checkpoint_every=7,
)  # fmt: skip


class Grey:
    """A source whose media tell their number and their visit."""

    ids = frozenset(f"m{i}" for i in range(40))

    def read(self, medium_id: str, visit: int) -> VisualInput:
        return VisualInput(torch.full((1, 3, 2, 2), float(visit * 100 + int(medium_id[1:]))))


def _examples(counts: Mapping[str, int]) -> list[Example]:
    made = []
    for task, count in counts.items():
        for i in range(count):
            pair = task == "pair"
            made.append(
                Example(
                    example_id=f"{task}{i}",
                    task=Task(task),
                    split=Split.TRAIN,
                    ids=(f"m{i}", f"m{i + 1}") if pair else (f"m{i}",),
                    answers=("good", "poor") if pair else ("good",),
                    targets_S5=np.eye(5)[[1, 3]]
                    if pair
                    else (np.eye(5)[[1]] if task == "single" else np.zeros((0, 5))),
                    preference=1.0 if pair else float("nan"),
                )
            )
    return made


COUNTS = {"single": 20, "pair": 12, "distortion": 15, "description": 3}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.05), st.integers(1, 200))
def test_after_any_number_of_slots_every_task_is_within_one_of_its_share(weights: list[float], slots: int):
    sequence = task_sequence({str(i): w for i, w in enumerate(weights)}, slots)
    shares = np.array(weights) / sum(weights)
    counts = np.array([np.cumsum(sequence == i) for i in range(len(weights))])
    expected = shares[:, None] * np.arange(1, slots + 1)
    assert (counts <= expected + 1).all()
    assert (counts[shares == 0] == 0).all()
    if len(weights) == 2:
        assert (np.abs(counts - expected) <= 1 + 1e-9).all()


@pytest.mark.parametrize("shares", [{}, {"single": 0.0}, {"single": -1.0, "pair": 2.0}])
def test_impossible_shares_are_refused(shares: dict[str, float]):
    with pytest.raises(StageError, match="shares"):
        task_sequence(shares, 4)


def test_a_run_mixes_tasks_by_share_and_sees_each_example_once_an_epoch():
    mixture = Mixture(_examples(COUNTS), Grey(), SHARES, CONFIG)
    seen = [example for step in range(CONFIG.steps) for batch in mixture.step(step) for example in batch.example_ids]
    tasks = Counter(name.rstrip("0123456789") for name in seen)
    assert tasks == {"single": 200, "pair": 100, "distortion": 80, "description": 20}
    singles = [name for name in seen if name.startswith("single")]
    for epoch in range(10):
        assert len(set(singles[20 * epoch : 20 * epoch + 20])) == 20
    assert singles[:20] != singles[20:40]


def test_a_step_depends_on_its_number_alone():
    one, other = (Mixture(_examples(COUNTS), Grey(), SHARES, CONFIG) for _ in range(2))
    for step in range(30):
        one.step(step)
    late, direct = one.step(31), other.step(31)
    assert [b.example_ids for b in late] == [b.example_ids for b in direct]
    again = Mixture(_examples(COUNTS), Grey(), SHARES, dataclasses.replace(CONFIG, seed=4)).step(31)
    assert [b.example_ids for b in again] != [b.example_ids for b in direct]


def test_a_batch_holds_both_members_of_a_pair_and_each_medium_once():
    (batch, _) = Mixture(_examples({"pair": 12}), Grey(), {"pair": 1.0}, CONFIG).step(3)
    assert len(batch.medium_B) == 2 * len(batch.tasks) == 8
    assert batch.example_B.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert batch.preference_E.tolist() == [1.0] * 4
    assert torch.equal(batch.targets_B5[:2], torch.eye(5)[[1, 3]])
    shown = [int(medium.tiles_TCHW.max()) for medium in batch.inputs if isinstance(medium, VisualInput)]
    numbers = [number % 100 for number in shown]
    assert len(numbers) == len(set(numbers)) == len(batch.inputs)
    for example, first, second in zip(batch.example_ids, batch.medium_B[::2], batch.medium_B[1::2], strict=True):
        number = int(example.removeprefix("pair"))
        assert (numbers[first], numbers[second]) == (number, number + 1)


def test_visits_count_the_steps_that_showed_a_medium():
    plan = plan_steps(_examples(COUNTS), SHARES, CONFIG)
    visits: Counter[str] = Counter()
    for step in plan:
        for draw in step:
            assert draw.visits == tuple(visits[medium] for medium in draw.example.ids)
        visits.update({medium for draw in step for medium in draw.example.ids})


def test_other_tasks_follow_the_pairs_media():
    plan = plan_steps(_examples(COUNTS), SHARES, CONFIG)
    media = sum(len({medium for draw in step for medium in draw.example.ids}) for step in plan)
    samples = sum(len(draw.example.ids) for step in plan for draw in step)
    assert media < 0.7 * samples


def test_a_share_without_examples_is_an_error():
    with pytest.raises(StageError, match="'pair'"):
        Mixture(_examples({"single": 4}), Grey(), {"single": 0.5, "pair": 0.5}, CONFIG)
    with pytest.raises(StageError, match="pair"):
        select_examples(_examples({"single": 4}), Split.TRAIN, {"single": 0.5, "pair": 0.5})


def _candidates(line: Path) -> pd.DataFrame:
    stages = ("collect", "distort")
    return pd.concat([read_table(line / "artifacts" / s / "candidates.parquet", CANDIDATES) for s in stages])


def test_examples_of_a_line_are_read_and_their_splits_hold(line: Path):
    examples = read_examples(line / "artifacts" / "assemble" / "examples.parquet")
    chosen = select_examples(examples, Split.WARM_UP, {"single": 1.0, "pair": 1.0, "distortion": 0.0})
    assert {example.task for example in chosen} == {Task.SINGLE, Task.PAIR}
    assert {example.split for example in chosen} == {Split.WARM_UP}
    pair = next(example for example in chosen if example.task is Task.PAIR)
    assert len(pair.ids) == len(pair.answers) == len(pair.targets_S5) == 2
    assert pair.preference in {0.0, 0.5, 1.0}
    check_splits(chosen, _candidates(line), Split.WARM_UP)


def test_a_content_in_two_splits_is_found(line: Path):
    candidates = _candidates(line)
    child = candidates[candidates["parent_id"].notna()].index[0]
    broken = candidates.reset_index(drop=True)
    broken.loc[broken["id"] == candidates["id"].loc[child].iloc[0], "split"] = "held_out"
    with pytest.raises(StageError, match="two splits"):
        check_splits([], broken, Split.TRAIN)


def test_an_example_that_shows_another_split_is_found(line: Path):
    candidates = _candidates(line)
    examples = read_examples(line / "artifacts" / "assemble" / "examples.parquet")
    train = select_examples(examples, Split.TRAIN, {"single": 1.0})
    held_out = select_examples(examples, Split.HELD_OUT, {"single": 1.0})
    leaking = dataclasses.replace(train[0], ids=held_out[0].ids)
    with pytest.raises(StageError, match=leaking.example_id):
        check_splits([leaking], candidates, Split.TRAIN)
    with pytest.raises(StageError, match=held_out[0].example_id):
        check_splits(held_out, candidates, Split.TRAIN)
