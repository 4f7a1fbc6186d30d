"""Which media belong to a data set, and names that mean nothing."""

import pandas as pd
import pytest

from tasks.data_sets import DataSet

POOL = pd.DataFrame(
    [
        ("a", "image", None, 0),
        ("b", "image", "jpeg", 3),
        ("c", "image", "white_noise", 1),
        ("d", "video", None, 0),
        ("e", "video", "h264_compression", 5),
    ],
    columns=["id", "modality", "distortion", "severity"],
)


@pytest.mark.parametrize(
    ("distortions", "modality", "wanted"),
    [
        ((), None, "abcde"),
        ((), "video", "de"),
        (("original",), None, "ad"),
        (("original", "jpeg"), "image", "ab"),
        (("h264_compression",), "image", ""),
        (None, None, ""),
    ],
)
def test_media_belong_by_what_was_done_to_them(distortions: tuple[str, ...] | None, modality: str | None, wanted: str):
    rows = DataSet("one", distortions, modality, ()).of(POOL)  # type: ignore[arg-type]
    assert "".join(rows["id"]) == wanted


def test_names_are_checked():
    with pytest.raises(ValueError, match="no distortion 'jpg'"):
        DataSet("one", ("jpg",), None, ())
    for name in ("", "a b", "../up", "\u00fc"):
        with pytest.raises(ValueError, match="letters, digits and _"):
            DataSet(name, (), None, ())
