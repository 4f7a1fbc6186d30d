"""A small pool of real photographs and clips with children, made by the stages ``collect`` and ``distort`` themselves.

Load it with ``importlib`` (tests are no package); ``build(root)`` publishes both stages below ``root``.
"""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from skimage import data

from models.distortions.clips import encode
from models.opinion import summarise
from tasks.annotation import collect, distort
from tasks.pool import load_candidates
from tasks.records import OPINIONS, REJECTS
from tasks.shards import frame_of, write_table
from tasks.stage import Place, build_config

CHECKOUT = Path(__file__).resolve().parents[3]

PHOTOS = {
    "astronaut": data.astronaut()[:200, 100:360],
    "coffee": data.coffee()[80:280, 100:360],
    "chelsea": data.chelsea()[:200, :260],
    "rocket": data.rocket()[100:300, 200:460],
}


def build(root: Path) -> Place:
    """Collect four photographs and two clips and distort each of them."""
    pool = root / "pool"
    pool.mkdir(parents=True)
    for name, pixels in PHOTOS.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(pool / f"{name}.png")
    for name in ("coffee", "chelsea"):
        source = np.ascontiguousarray(getattr(data, name)()[..., :3])
        frames = [np.ascontiguousarray(source[t : t + 128, 2 * t : 2 * t + 192]) for t in range(24)]
        (pool / f"{name}.mp4").write_bytes(encode(frames, 24.0))
    place = Place(root, root / ".work" / "collect", root / "artifacts" / "collect")
    params = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    collect.run(build_config(collect.Config, "collect", params["collect"] | {"pool": "pool"}), place)
    place = Place(root, root / ".work" / "distort", root / "artifacts" / "distort")
    many = {"children_per_image": 12, "children_per_clip": 4, "image_types_per_clip": 1}
    distort.run(build_config(distort.Config, "distort", params["distort"] | many), place)
    return place


def give_opinions(root: Path, silent: int = 1) -> None:
    """Publish opinions of six made-up scorers that fall with severity; the first ``silent`` candidates have none."""
    pool = load_candidates(Place(root, root, root))
    generator = np.random.default_rng(8)
    quality = 0.85 - 0.13 * pool["severity"].to_numpy(float)
    scores = np.clip(quality[:, None] + generator.normal(0, 0.05, (len(pool), 6)), 0, 1)
    found = summarise(scores)
    records = [
        {
            "id": pool["id"][i],
            "bytes_sha256": pool["bytes_sha256"][i],
            "scorers": [f"scorer{n}" for n in range(6)],
            "versions": ["1"] * 6,
            "scores": scores[i].tolist(),
            "mu": float(found.mu_N[i]),
            "sigma": float(found.sigma_N[i]),
            "pmod": found.pmod_N5[i].tolist(),
            "mu_clamped": bool(found.clamped_N[i]),
        }
        for i in range(silent, len(pool))
    ]
    write_table(root / "artifacts" / "score" / "opinions.parquet", OPINIONS, frame_of(OPINIONS, records))
    write_table(root / "artifacts" / "score" / "rejects.parquet", REJECTS, frame_of(REJECTS, []))
