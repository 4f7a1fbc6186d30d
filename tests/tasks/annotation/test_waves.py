"""Waves of a review by LMMs: whole clips are shown, and every medium is decoded and encoded once a part."""

import base64
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told_pool
from lmm_server import Lmm, moody, serving
from PIL import Image
from told_pool import section

from models.distortions.clips import encode
from tasks.annotation import exhibits, review
from tasks.annotation.spending import BudgetReachedError
from tasks.stage import Place, build_config


@pytest.fixture
def lmm() -> Iterator[Lmm]:
    with serving(Lmm(brain=moody)) as lmm:
        yield lmm


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CANARY_KEY", "sk-canary")
    return tmp_path


def reviewed(root: Path, lmm: Lmm, name: str = "review", frames: int = 72, **changes: Any) -> list[dict[str, Any]]:
    """Review; returns the requests' bodies."""
    where, before = root / ".work" / name, len(lmm.bodies)
    settings = build_config(review.Config, "review", section(lmm.address, **changes) | {"frames": frames})
    review.run(settings, Place(root, where, where / "out"))
    return lmm.bodies[before:]


def pictures_of(body: dict[str, Any]) -> list[str]:
    content = body["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


def level(url: str) -> float:
    return float(np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))).mean())


def test_judges_see_the_whole_clip_whatever_is_measured(root: Path, lmm: Lmm, monkeypatch: pytest.MonkeyPatch):
    rising = [np.full((48, 64, 3), 20 + 2 * number, np.uint8) for number in range(90)]
    monkeypatch.setattr(told_pool, "encode", lambda _, rate: encode(rising, rate))
    told_pool.build(root, images=0, assertions=2)
    asked = reviewed(root, lmm, frames=1)
    shown = {tuple(pictures_of(body)) for body in asked}
    assert len(shown) == 1
    assert [level(url) for url in shown.pop()] == pytest.approx([20 + 2 * index for index in (15, 45, 75)], abs=3)
    assert reviewed(root, lmm, "other", frames=10) == []  # what is measured changes nothing of what was shown
    more = reviewed(root, lmm, "more", pictures={"frames": 5, "max_side": 64})
    assert {len(pictures_of(body)) for body in more} == {5}  # and what is shown is asked about anew


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often media were decoded and pictures encoded."""
    counts: Counter[str] = Counter()
    for name in ("made_of_pictures", "data_url"):
        original = getattr(exhibits, name)

        def counted(*arguments: Any, name: str = name, original: Any = original) -> Any:
            counts[name] += 1
            return original(*arguments)

        monkeypatch.setattr(exhibits, name, counted)
    return counts


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_every_medium_is_decoded_and_encoded_once_a_part(root: Path, lmm: Lmm, made: Counter[str], mode: str):
    told_pool.build(root, images=40, assertions=1, clip=False)
    reviewed(root, lmm, mode=mode, batches={"requests": 100, "poll_s": 0.01})
    assert made == {"made_of_pictures": 40, "data_url": 40}
    assert not list((root / ".work").rglob("*.urls"))


def test_a_review_that_was_stopped_goes_on_with_the_pictures_that_it_had(root: Path, lmm: Lmm, made: Counter[str]):
    told_pool.build(root, images=12, assertions=2, clip=False)
    with pytest.raises(BudgetReachedError):
        reviewed(root, lmm, budget={"max_calls": 100})
    reviewed(root, lmm)
    assert made["made_of_pictures"] == 12
