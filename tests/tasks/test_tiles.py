"""Tiles of media: those that scoring sees, further versions, and rejects."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from models.rali.views import TileView
from models.scorers.protocol import Sampling, middle_frames
from tasks.annotation.opinions import FrameRule, decode_frames
from tasks.errors import StageError
from tasks.pool import load_candidates, read_media
from tasks.prepared import Preparation
from tasks.stage import Place
from tasks.tiles import Tiles, TileViews, prepare_tiles

VIEW = TileView("fragments", 56, 28, 1)


def _prepared(place: Place, rows: pd.DataFrame, views: TileViews, share: float = 0.0) -> Tiles:
    return prepare_tiles(place.work / "tiles", rows, partial(read_media, place), views, Preparation("rali", 1, share))


def test_the_first_version_is_what_scoring_shows(line: Path, place_for: Callable[[Path, str], Place]):
    place = place_for(line, "rali")
    rows = load_candidates(place)
    rows = pd.concat([rows[rows["modality"] == "video"], rows[rows["modality"] == "image"].head(2)])
    tiles = _prepared(place, rows, TileViews(VIEW, 4, 2, 0))
    assert tiles.ids == sorted(rows["id"])
    for row in rows.to_dict("records"):
        frames = decode_frames(read_media(place, row), FrameRule(frames=4), [Sampling.FRAMES])
        shown = frames.for_sampling(Sampling.FRAMES)
        assert np.array_equal(tiles.read(row["id"]).numpy(), VIEW.of(shown))
        drawn = tiles.read(row["id"], 1)
        assert drawn.shape == tiles.read(row["id"]).shape
        assert not torch.equal(drawn, tiles.read(row["id"]))
        assert torch.equal(tiles.read(row["id"], 2), tiles.read(row["id"]))


def test_frames_are_chosen_as_scoring_chooses_them():
    for total in (1, 3, 4, 5, 100):
        assert middle_frames(total, 4) == FrameRule(frames=4).singles(total)


def test_broken_media_are_rejects_up_to_a_share(line: Path, place_for: Callable[[Path, str], Place]):
    place = place_for(line, "rali")
    rows = pd.DataFrame(load_candidates(place).query("modality == 'image'").head(4))
    rows.loc[rows.index[0], "length"] = 40
    tiles = _prepared(place, rows, TileViews(VIEW, 4, 1, 0), share=0.3)
    assert len(tiles.ids) == 3
    assert tiles.rejects["id"].tolist() == [rows["id"].iloc[0]]
    with pytest.raises(StageError, match="1 of 4 media do not decode"):
        _prepared(place, rows, TileViews(VIEW, 4, 1, 0))
