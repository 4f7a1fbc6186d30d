"""Media that subjects are asked about: order, batches, rejects and random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_lmm import make_model

from models.sampling import Sampling
from tasks.errors import MediaError, StageError
from tasks.evaluation.subjects.asking import Rejected, ask_each, check_rejects, drawing, seed_of
from tasks.evaluation.subjects.line import LineSubject
from tasks.evaluation.subjects.protocol import Shown


@pytest.fixture(scope="module")
def subject() -> LineSubject:
    return LineSubject("tiny", make_model())


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((40, 40, 3), 40 * number, np.uint8)).save(path)
        found.append(path)
    found[1].write_bytes(b"no picture")
    return found


@dataclass
class Listener:
    """Remembers what shared a batch; refuses media of some names."""

    batches: list[list[str]]
    refuses: str = ""

    def __call__(self, media: Sequence[Shown]) -> list[str]:
        names = [medium.path.stem for medium in media]
        self.batches.append(names)
        if self.refuses in names:
            raise MediaError("refused", "not this one")
        return names


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_results_and_rejects_come_in_the_order_of_the_files(subject: LineSubject, paths: list[Path], batch: int):
    listener = Listener([])
    found = list(ask_each(subject, paths, listener, batch))
    told = [one.error.reason if isinstance(one, Rejected) else one for one in found]
    assert told == ["0", "unknown_format", "2", "3", "4"]
    assert max(map(len, listener.batches)) <= batch


def test_a_medium_that_a_subject_refuses_costs_its_company_nothing(subject: LineSubject, paths: list[Path]):
    found = list(ask_each(subject, paths, Listener([], "3"), 8))
    told = [one.error.reason if isinstance(one, Rejected) else one for one in found]
    assert told == ["0", "unknown_format", "2", "refused", "4"]


def test_no_file_is_opened_before_its_batch(subject: LineSubject, paths: list[Path]):
    listener = Listener([])
    asked = ask_each(subject, paths, listener, 2)
    next(asked)
    assert listener.batches == [["0"]]


def test_random_numbers_hang_on_path_seed_and_repeat(paths: list[Path]):
    media = [Shown(path, False, None) for path in paths]
    one = drawing(Sampling(1.0), media, 3, 2)
    assert list(one.seeds) == [seed_of(path, 3, 2) for path in paths]
    assert len({seed_of(path, seed, repeat) for path in paths for seed in range(3) for repeat in range(3)}) == 45
    assert all(0 <= seed < 2**30 for seed in one.seeds)


def test_too_many_rejects_are_an_error():
    check_rejects({"truncated": 1}, 20, 0.05)
    with pytest.raises(StageError, match=r"2 of 20 media cannot be asked about \(truncated 2\)"):
        check_rejects({"truncated": 2}, 20, 0.05)
    with pytest.raises(StageError, match="none was named"):
        check_rejects({}, 0, 0.05)
    with pytest.raises(StageError, match="1 of 1"):
        check_rejects({"missing": 1}, 1, 1.0)
