"""A workspace with described samples and nothing else, made in a second: tiny images, one clip, assertions by hand."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from models.distortions.clips import encode
from models.signals.claims import CLAIMS, IMAGE_ATTRIBUTES
from models.signals.wording import phrase
from tasks.records import ASSERTIONS, CANDIDATES, REJECTS
from tasks.shards import digest, frame_of, write_archive, write_table

CHECKOUT = Path(__file__).resolve().parents[2]


def build(root: Path, images: int = 4, assertions: int = 3, *, clip: bool = True) -> list[str]:
    """Publish ``collect``, an empty ``distort`` and ``describe``; returns the samples' ids."""
    media: dict[str, tuple[bytes, str]] = {}
    generator = np.random.default_rng(3)
    for number in range(images):
        base = generator.integers(40, 200, (6, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        sink = io.BytesIO()
        Image.fromarray(base).save(sink, "png")
        media[f"photo{number:03d}.png"] = (sink.getvalue(), "image")
    if clip:
        frames = [generator.integers(0, 255, (64, 96, 3)).astype(np.uint8) for _ in range(10)]
        media["clip.mp4"] = (encode(frames, 24.0), "video")
    folder = root / "artifacts" / "collect"
    placed = write_archive(folder / "media" / "all.tar", ((name, data) for name, (data, _) in media.items()))
    rows, told = [], []
    for name, (data, modality) in media.items():
        sha = hashlib.sha256(data).hexdigest()
        place = {"shard": placed[name].shard, "offset": placed[name].offset, "length": placed[name].length}
        kind = {"modality": modality, "mime": "video/mp4" if modality == "video" else "image/png"}
        size = {"width": 64, "height": 48, "frames": 10 if modality == "video" else 1, "fps": 0.0, "duration_s": 0.0}
        rows.append(
            {"id": sha, "content_id": sha, "split": "held_out", "source": name, "bytes_sha256": sha}
            | kind
            | size
            | place
        )
        told += [_assertion(sha, modality, position) for position in range(assertions)]
    for row in rows:
        row |= {"parent_id": None, "distortion": None, "severity": 0, "seed": 0, "generator": None}
    write_table(folder / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, rows))
    write_table(root / "artifacts" / "distort" / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, []))
    write_table(root / "artifacts" / "describe" / "assertions.parquet", ASSERTIONS, frame_of(ASSERTIONS, told))
    write_table(root / "artifacts" / "describe" / "rejects.parquet", REJECTS, frame_of(REJECTS, []))
    return [row["id"] for row in rows]


def _assertion(sample: str, modality: str, position: int) -> dict[str, object]:
    claims = [claim for claim in CLAIMS if claim.attribute in IMAGE_ATTRIBUTES]
    claim = claims[(int(sample[:6], 16) + 5 * position) % len(claims)]
    text = phrase(claim, modality, f"{sample}/{position}")
    key = {"assertion_id": digest(sample, text), "id": sample, "position": position}
    return {**key, "attribute": str(claim.attribute), "text": text, "origin": "describer", "planted_truth": None}


def section(address: str, **changes: Any) -> dict[str, Any]:
    """Params of a review by three chat judges and an annotator at one address; the key is CANARY_KEY's."""
    role = {"base_url": address, "key": "CANARY_KEY", "price_in": 2.0, "price_out": 8.0, "first_wait_s": 0.01}
    role |= {"longest_wait_s": 0.05, "timeout_s": 5.0, "concurrency": 4, "max_output_tokens": 200}
    role |= changes.pop("role", {})
    judges = {name: role | {"model": f"{name}-1"} for name in ("gpt", "gemini", "qwen")}
    judges |= changes.pop("judges", {})
    endpoints = {"judges": judges, "annotator": role | {"model": "vqa2"}, "pictures": {"frames": 3, "max_side": 64}}
    params = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["review"]
    return params | {"part_samples": 100, "processes": 1, "endpoints": endpoints | changes}
