"""Human scores beside opinions: one scale, declared polarity, nothing lost unseen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.errors import StageError
from tasks.evaluation.human_scores import Human, Polarity, gather
from tasks.evaluation.opinion_tables import Columns

COLUMNS = Columns(scorers="one,two")


@pytest.fixture
def opinions(tmp_path: Path) -> Path:
    path = tmp_path / "opinions.csv"
    frame = {"id": ["a", "b", "c", "d"], "one": [0.1, 0.2, 0.3, 0.4], "two": [0.2, 0.1, 0.4, 0.3]}
    pd.DataFrame(frame | {"mos": [1, 2, 5, 4], "sd": [0.4, 0.8, 0.0, 1.2]}).to_csv(path, index=False)
    return path


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    frame = {"file": ["c", "a", "e", "b"], "score": [20, 80, 900, 50], "dev": [10, 20, 5, 30], "flat": [3, 3, 3, 3]}
    frame |= {"scene": ["s", "s", "t", "u"], "word": ["good", "bad", "good", "bad"], "minus": [-1, 1, 1, 1]}
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


def test_scores_in_the_same_table(opinions: Path):
    found = gather(opinions, COLUMNS, Human("mos", 1, 5, Polarity.MOS, sd="sd"))
    assert found.mos_N.tolist() == [0, 0.25, 1, 0.75]
    assert found.sd_N.tolist() == pytest.approx([0.1, 0.2, 0, 0.3])
    assert found.unmatched == 0


def test_a_dmos_of_another_table_is_turned_and_joined_by_name(opinions: Path, people: Path):
    human = Human("score", 0, 100, Polarity.DMOS, path=people, id="file", sd="dev", sd_range=(0, 50))
    found = gather(opinions, COLUMNS, human)
    assert found.mos_N.tolist() == pytest.approx([0.2, 0.5, 0.8, np.nan], nan_ok=True)
    assert found.sd_N.tolist() == pytest.approx([0.4, 0.6, 0.2, np.nan], nan_ok=True)
    assert found.unmatched == 1  # e, whose 900 is out of range, has no sample here and is not read


def test_groups_of_the_other_table(opinions: Path, people: Path):
    three = opinions.with_name("three.csv")
    pd.read_csv(opinions).head(3).to_csv(three, index=False)
    columns = Columns(scorers="one,two", content="scene", distortion="word")
    found = gather(three, columns, Human("score", 0, 100, Polarity.MOS, path=people, id="file"))
    assert (found.content_N, found.contents_known) == (["s", "u", "s"], True)
    assert found.distortion_N == ["bad", "bad", "good"]


def test_an_empty_cell_is_no_score(opinions: Path):
    opinions.write_text(opinions.read_text().replace("0.4,0.3,4,1.2", "0.4,0.3,,"))
    found = gather(opinions, COLUMNS, Human("mos", 1, 5, Polarity.MOS, sd="sd"))
    assert np.isnan([found.mos_N[3], found.sd_N[3]]).all()
    assert np.isfinite(found.mos_N[:3]).all()


@pytest.mark.parametrize(
    ("human", "columns", "told"),
    [
        (Human("mos", 1, 4, Polarity.MOS), COLUMNS, "mos runs from 1 to 5, outside its range 1 to 4"),
        (Human("stars", 1, 5, Polarity.MOS), COLUMNS, "has no column 'stars'; its columns are id, one"),
        (Human("mos", 1, 5, Polarity.MOS, sd="dev"), COLUMNS, "has no column 'dev'"),
        (Human("mos", 1, 5, Polarity.MOS), Columns(scorers="one,two", content="scene"), "no table has the column of"),
        (Human("mos", 1, 5, Polarity.MOS), Columns(scorers="one,two", distortion="x"), "no table has the column of"),
    ],
)
def test_a_wrong_column_of_the_same_table_is_told(opinions: Path, human: Human, columns: Columns, told: str):
    with pytest.raises(StageError, match=told):
        gather(opinions, columns, human)


@pytest.mark.parametrize(
    ("mos", "given", "told"),
    [
        ("score", {"id": "scene"}, "'s' has more than one human score"),
        ("score", {"id": "nobody"}, "has no column 'nobody'"),
        ("score", {"id": "dev"}, "no sample of the opinions has a human score .*'a' here and '10' there"),
        ("flat", {"id": "file"}, "every human score in 'flat' is the same"),
        ("word", {"id": "file"}, "'word' is not numeric"),
        ("score", {"id": "file", "sd": "minus"}, "negative standard deviation"),
    ],
)
def test_a_table_of_people_that_cannot_be_joined_is_told(
    opinions: Path, people: Path, mos: str, given: dict[str, str], told: str
):
    human = Human(mos, 0, 100, Polarity.MOS, path=people, **given)
    with pytest.raises(StageError, match=told):
        gather(opinions, COLUMNS, human)


def test_groups_that_the_other_table_knows_in_part_are_told(opinions: Path, people: Path):
    human = Human("score", 0, 100, Polarity.MOS, path=people, id="file")
    with pytest.raises(StageError, match="knows 'scene' of 3 of 4 samples"):
        gather(opinions, Columns(scorers="one,two", content="scene"), human)


@pytest.mark.parametrize("ends", [(5, 1), (1, 1), (0, float("nan"))])
def test_a_range_has_a_lower_and_an_upper_end(ends: tuple[float, float]):
    with pytest.raises(StageError, match="write its lower end first"):
        Human("mos", *ends, Polarity.MOS)
    with pytest.raises(StageError, match="write its lower end first"):
        Human("mos", 0, 1, Polarity.MOS, sd_range=ends)
