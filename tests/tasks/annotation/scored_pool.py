"""A pool in miniature as the stage ``score`` finds it: photographs of scikit-image, a clip, and children."""

import hashlib
import io
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from models.distortions import distort_clip, distort_image
from tasks.records import CANDIDATES
from tasks.shards import frame_of, write_archive, write_table
from tasks.stage import Place

PHOTOS = ("astronaut", "coffee", "chelsea")
CELLS = (("gaussian_blur", 2), ("gaussian_blur", 5), ("white_noise", 4), ("jpeg", 5))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def row(key: str, data: bytes, **values: object) -> dict[str, object]:
    values_of = dict.fromkeys(CANDIDATES.columns)
    values_of |= {
        "id": key, "content_id": key, "split": "train", "modality": "image", "mime": "image/png", "width": 1,
        "height": 1, "frames": 1, "fps": 0.0, "duration_s": 0.0, "source": key, "severity": 0, "seed": 0,
        "bytes_sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    return values_of | values


def publish(place: Place, stage: str, media: dict[str, bytes], rows: list[dict[str, object]]) -> None:
    folder = place.root / "artifacts" / stage
    placed = write_archive(folder / "media" / "a.tar", media.items())
    for row in rows:
        found = placed[str(row["id"])]
        row |= {"shard": found.shard, "offset": found.offset, "length": found.length}
    write_table(folder / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, rows))


def make_pool(folder: Path) -> Place:
    """Three photographs and a clip with twelve children, published as ``collect`` and ``distort`` leave them."""
    here = Place(folder, folder / "work", folder / "work" / "out")
    here.out.mkdir(parents=True)
    photos = {name: getattr(skimage.data, name)()[:256, :320, :3] for name in PHOTOS}
    media = {name: png(pixels) for name, pixels in photos.items()}
    panned = [photos["astronaut"][step : step + 200, step : step + 300] for step in range(12)]
    media["clip"] = distort_clip(panned, 25.0, "h264_compression", 1, 0)
    rows = [row(name, data) for name, data in media.items()]
    rows[-1] |= {"modality": "video", "frames": 12, "fps": 25.0, "mime": "video/mp4"}
    publish(here, "collect", media, rows)
    children, child_rows = {}, []
    for name, pixels in photos.items():
        for kind, severity in CELLS:
            key = f"{name}-{kind}-{severity}"
            children[key] = png(distort_image(pixels, kind, severity, 1))
            child_rows.append(
                row(key, children[key], content_id=name, parent_id=name, distortion=kind, severity=severity)
            )
    publish(here, "distort", children, child_rows)
    return here
