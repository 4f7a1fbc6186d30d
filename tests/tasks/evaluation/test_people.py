"""People's scores in tables, joined to the media that a model is asked about."""

from pathlib import Path

import pytest

from tasks.errors import StageError
from tasks.evaluation.people import People, Rated, rated
from tasks.human_scale import Meaning, Polarity

MOS = Meaning(Polarity.MOS, 1, 5)


def table(folder: Path, text: str) -> Path:
    path = folder / "scores.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("named", ["photos/b.png", "/data/set/photos/b.png", "b.png", "other/b.png", "b.jpg"])
def test_a_row_is_about_the_medium_whose_path_ends_like_its_name(tmp_path: Path, named: str):
    path = table(tmp_path, "path,mos,kind\nset/photos/a.png,3.5,x\nset/photos/b.png,4,y\nset/photos/c.png,,y\n")
    found = rated(People(path, MOS, content="kind"), [named, "photos/c.png", "d.png"])
    assert found == {named: Rated(4.0, "y")}


def test_the_longest_common_ending_counts(tmp_path: Path):
    path = table(tmp_path, "name,score\na/1.png,1\nb/1.png,2\n")
    people = People(path, MOS, mos="score")
    assert rated(people, ["x/b/1.png"])["x/b/1.png"] == Rated(2.0, "b/1.png")
    with pytest.raises(StageError, match=r"2 rows may be about c/1\.png"):
        rated(people, ["c/1.png"])


def test_a_table_about_other_media_is_an_error(tmp_path: Path):
    path = table(tmp_path, "id,mos\nx,1\n")
    with pytest.raises(StageError, match="no score of any of the media: its rows are called like 'x'"):
        rated(People(path, MOS), ["a.png"])
    with pytest.raises(StageError, match="has no column 'wrong'"):
        rated(People(path, MOS, mos="wrong"), ["x"])
    wide = table(tmp_path, "id,mos\nx,6\n")
    with pytest.raises(StageError, match="mos holds 6, outside the declared scale 1 to 5"):
        rated(People(wide, MOS), ["x"])
