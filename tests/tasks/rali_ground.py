"""What tests of the student start from: its section in miniature, and what ``explain`` would have gathered.

``write_planted`` makes a pool of its own: drawn pictures of which what was done, and how much, is known, with texts
from a template. Nobody has judged them.
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from models.rali.codebook import Recipe
from models.rali.student import TowerSpec
from models.rali.views import TileView
from tasks.pool import load_candidates
from tasks.records import CANDIDATES, EXPLANATIONS, OPINIONS, TAUGHT, Split
from tasks.shards import digest, frame_of, write_archive, write_table
from tasks.stage import Place
from tasks.training import rali
from tasks.training.rali_course import AlignConfig, BuildConfig, FitConfig
from tasks.training.trainer import TrainingConfig

TRAINING = TrainingConfig(
    engine="single", seed=1, threads=1, precision="float32", steps=4, batch_examples=8, micro_batches=1,
    learning_rate=2e-3, weight_decay=0.0, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
CONFIG = rali.Config(
    texts=(),
    scores="teacher",
    sources=(),
    view=TileView("fragments", 56, 28, 1),
    frames=4,
    views=2,
    tower=TowerSpec("compact", 12, 16),
    text=rali.TextSpec("decoder", "", 64, "chunks"),
    align=AlignConfig(True, 0.07, False, False, "masked", None),
    build=BuildConfig(True, 6, True, Recipe(8, 6, "buckets", 0)),
    fit=FitConfig(True, 1.0, "basis", 5, 5e-3),
    max_reject_share=0.0,
    training=TRAINING,
)


def write_explained(root: Path) -> None:
    """Stand in for ``explain``: two texts about most media of the training splits, and scores of all."""
    pool = load_candidates(Place(root, root, root))
    shown = pool[pool["split"] != Split.HELD_OUT].to_dict("records")
    said, worth = [], []
    for number, row in enumerate(shown):
        about = {"id": row["id"], "content_id": row["content_id"], "modality": row["modality"]}
        quality = 0.8 - 0.12 * row["severity"] + 0.01 * (number % 5)
        worth.append({**about, "split": row["split"], "teacher": quality, "opinion": 1.0 - quality})
        for turn, text in enumerate(("It looks soft", f"Severity {row['severity']}") if number % 7 else ()):
            key = {"source": ("reviewed", "teacher")[turn], "number": 0, "text": text, "dropped": 0}
            said.append({**about, **key, "seed": None, "temperature": None, "top_p": None})
    folder = root / "artifacts" / "explain"
    write_table(folder / "explanations.parquet", EXPLANATIONS, frame_of(EXPLANATIONS, said))
    write_table(folder / "taught.parquet", TAUGHT, frame_of(TAUGHT, worth))


# ---------------------------------------------------------------------- planted pool

HARMS: dict[str, tuple[float, ...]] = {
    "gaussian_blur": (0.6, 1.0, 1.6, 2.6, 4.2),
    "white_noise": (5, 9, 16, 28, 48),
    "jpeg": (50, 28, 15, 8, 4),
    "darken": (0.82, 0.66, 0.5, 0.36, 0.24),
    "pixelate": (2, 3, 4, 6, 9),
    "impulse_noise": (0.004, 0.012, 0.03, 0.08, 0.2),
}
"""Distortion -> what is done at five levels: radius, deviation, quality, factor, side of a block, share of pixels."""
PLANTED_UNSEEN = ("pixelate", "impulse_noise")
_NAMES = {"gaussian_blur": "blur", "white_noise": "grain", "jpeg": "blocking", "darken": "darkness",
          "pixelate": "mosaic", "impulse_noise": "speckle"}  # fmt: skip
_DEGREES = ("a trace of", "slight", "clear", "strong", "extreme")
_SIDE = 112

PLANTED = dataclasses.replace(
    CONFIG,
    scores="opinion",
    tower=TowerSpec("compact", 24, 32),
    build=BuildConfig(True, 16, True, Recipe(24, 16, "buckets", 0)),
    fit=FitConfig(True, 1.0, "basis", 300, 1e-2),
    training=dataclasses.replace(
        TRAINING, steps=200, batch_examples=48, learning_rate=4e-3, weight_decay=0.05, checkpoint_every=200
    ),
)
"""Sections for the planted pool: no teacher, the planted quality is what is learnt."""


def write_planted(root: Path, learnt: int = 16, held_out: int = 6) -> None:
    """Artifacts of ``collect`` to ``explain`` (no model among them): pictures, each in five levels of six harms."""
    rows, said, worth = [], [], []
    for row, pixels in _planted(learnt, held_out):
        quality = 0.92 - 0.16 * row["severity"]
        rows.append((row, pixels, quality))
        about = {"id": row["id"], "content_id": row["content_id"], "modality": "image"}
        if row["split"] == Split.TRAIN:
            worth.append({**about, "split": row["split"], "teacher": quality, "opinion": quality})
            for number, text in enumerate(_template(row["distortion"], row["severity"])):
                drawn = {"seed": None, "temperature": None, "top_p": None, "dropped": 0}
                said.append({**about, **drawn, "source": "template", "number": number, "text": text})
    folder = root / "artifacts"
    for stage in ("collect", "distort"):
        mine = [(row, data) for row, data, _ in rows if (row["parent_id"] is None) == (stage == "collect")]
        places = write_archive(folder / stage / "media" / "0.tar", [(row["id"], data) for row, data in mine])
        records = [dict.fromkeys(CANDIDATES.columns) | row | dataclasses.asdict(places[row["id"]]) for row, _ in mine]
        write_table(folder / stage / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, records))
    common = {"scorers": ["a"], "versions": ["1"], "sigma": 0.1, "pmod": [0.2] * 5, "mu_clamped": False}
    told = [
        {**common, "id": row["id"], "bytes_sha256": row["id"], "scores": [worth_it], "mu": worth_it}
        for row, _, worth_it in rows
    ]
    write_table(folder / "score" / "opinions.parquet", OPINIONS, frame_of(OPINIONS, told))
    write_table(folder / "explain" / "explanations.parquet", EXPLANATIONS, frame_of(EXPLANATIONS, said))
    write_table(folder / "explain" / "taught.parquet", TAUGHT, frame_of(TAUGHT, worth))


def _planted(learnt: int, held_out: int) -> Iterator[tuple[dict[str, Any], bytes]]:
    for number in range(learnt + held_out):
        rng = np.random.default_rng(number)
        picture, content = _picture(rng), digest("planted", number)
        split = str(Split.TRAIN if number < learnt else Split.HELD_OUT)
        shape = {"width": _SIDE, "height": _SIDE, "frames": 1, "fps": 0.0, "duration_s": 0.0, "seed": 0}
        common = {**shape, "content_id": content, "split": split, "modality": "image", "mime": "x", "source": "test"}
        yield {**common, "id": content, "parent_id": None, "distortion": None, "severity": 0}, _png(picture)
        for kind, amounts in HARMS.items():
            for severity, amount in enumerate(amounts, start=1):
                done = {"id": digest(content, kind, severity), "parent_id": content, "distortion": kind}
                yield {**common, **done, "severity": severity}, _png(_harmed(picture, kind, amount, rng))


def _picture(rng: np.random.Generator) -> np.ndarray:
    """Ellipses and boxes of any colour over a slope, with fine texture: edges, flat places, and detail."""
    side = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    pixels = 130 + 70 * (side[0] - 0.5)[..., None] * rng.uniform(-1, 1, 3) + np.zeros((_SIDE, _SIDE, 3))
    for number in range(14):
        middle, reach = rng.uniform(0, 1, (2, 1, 1)), rng.uniform(0.05, 0.22, (2, 1, 1))
        away = np.abs(side - middle) / reach
        inside = (away.max(axis=0) if number % 2 else (away**2).sum(axis=0)) < 1
        pixels[inside] = rng.uniform(30, 225, 3)
    pixels += 9 * rng.standard_normal((_SIDE // 2, _SIDE // 2, 1)).repeat(2, axis=0).repeat(2, axis=1)
    return np.clip(pixels + 130 - pixels.mean(), 0, 255).astype(np.uint8)


def _harmed(picture: np.ndarray, kind: str, amount: float, rng: np.random.Generator) -> np.ndarray:
    image = Image.fromarray(picture)
    if kind == "gaussian_blur":
        return np.asarray(image.filter(ImageFilter.GaussianBlur(amount)))
    if kind == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(amount))
        return np.asarray(Image.open(buffer))
    if kind == "pixelate":
        few = image.resize((round(_SIDE / amount),) * 2, Image.Resampling.BOX)
        return np.asarray(few.resize((_SIDE, _SIDE), Image.Resampling.NEAREST))
    if kind == "impulse_noise":
        struck = rng.random(picture.shape) < amount
        return np.where(struck, 255 * rng.integers(0, 2, picture.shape), picture).astype(np.uint8)
    changed = picture * amount if kind == "darken" else picture + amount * rng.standard_normal(picture.shape)
    return np.clip(changed, 0, 255).astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _template(kind: str | None, severity: int) -> tuple[str, str]:
    if kind is None:
        return "edges are crisp and areas are clean", "nothing was done to it"
    degree, name = _DEGREES[severity - 1], _NAMES[kind]
    return f"there is {degree} {name}", f"{name}, {degree.removesuffix(' of')}, over the whole picture"
