"""The rendered training set of the built-in scorers: one pair of arrays per photograph in a cache folder, and labels.

Rendering is resumable: a photograph's arrays are renamed into place and its labels written last, so a killed run keeps
the photographs it finished.
"""

import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.distortions import GENERATOR
from tasks.annotation.scorer_samples import Rendering, render_clips, render_crops
from tasks.errors import StageError
from tasks.media import IMAGE_SUFFIXES, Pixels, decode_image
from tasks.shards import atomic, digest, write_json

Floats = NDArray[np.float64]

_SAMPLES_VERSION: Final = 3
"""Raised when the renderer or a measure changes what it makes."""
_CLIP_FRAMES_MEASURED: Final = (1, 5)
"""Frames of a clip whose fidelity stands for the clip's: one early, one late."""


@dataclass(frozen=True)
class Labels:
    """What is known of each sample, in the order of the arrays; all from rendering, none from people.

    Attributes:
        photo_N: index of the photograph (the content).
        group_N: crop or clip number, unique over the set; samples of one group show the same pixels undamaged.
        kind_N: distortion name, ``pristine`` or ``mixture``.
        strength_N: 0-5, NaN where no catalogue says it.
        smoothness_N: 1 unless the timing was disturbed.
        fidelity: measure name -> percentile in [0, 1] among the stills of the training contents, higher is better.
    """

    photo_N: NDArray[np.int64]
    group_N: NDArray[np.int64]
    kind_N: NDArray[np.str_]
    strength_N: Floats
    smoothness_N: Floats
    fidelity: dict[str, Floats]

    def target(self, mixture: dict[str, float]) -> Floats:
        """Weighted mean of the measures' percentiles times smoothness, ``[N]`` in [0, 1].

        Raises:
            StageError: the mixture names an unknown measure or weighs nothing.
        """
        unknown = sorted(set(mixture) - set(self.fidelity))
        if unknown or sum(mixture.values()) <= 0:
            msg = f"target mixture {mixture}: known measures are {', '.join(sorted(self.fidelity))}"
            raise StageError(msg)
        total = sum(weight * self.fidelity[name] for name, weight in mixture.items())
        return np.asarray(total / sum(mixture.values()) * self.smoothness_N, dtype=np.float64)


@dataclass(frozen=True)
class TrainingSet:
    """Samples of all photographs: memory-mapped arrays, one per photograph, and their labels."""

    arrays: tuple[NDArray[np.uint8], ...]
    place_N2: NDArray[np.int64]
    labels: Labels

    def sample(self, index: int) -> Pixels:
        """Pixels of one sample: ``[H, W, 3]``, or ``[T, H, W, 3]`` of a clip."""
        array, row = self.place_N2[index]
        return self.arrays[array][row]

    def __len__(self) -> int:
        return len(self.place_N2)


def find_photographs(folders: Sequence[Path], seed: int) -> list[Path]:
    """All image files below the folders, in an order that depends on their content and the seed alone.

    Raises:
        StageError: a folder is missing, or there are fewer than four photographs.
    """
    found: list[tuple[str, Path]] = []
    for folder in folders:
        if not folder.is_dir():
            msg = f"{folder} is not a folder of pristine photographs"
            raise StageError(msg)
        paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)
        found += [(digest(seed, path.read_bytes()), path) for path in paths]
    if len(found) < 4:
        msg = f"{len(found)} photographs are too few to train on: give folders with at least four"
        raise StageError(msg)
    return [path for _, path in sorted(found)]


def render_all(photographs: Sequence[Path], rendering: Rendering, seed: int, cache: Path, workers: int) -> list[Path]:
    """Render what the cache lacks; returns each photograph's folder in it, in the order given."""
    jobs: dict[Path, Path] = {}
    for path in photographs:
        key = digest(_SAMPLES_VERSION, GENERATOR, asdict(rendering), seed, path.read_bytes())
        jobs[path] = cache / key
    missing = [path for path, folder in jobs.items() if not (folder / "labels.json").is_file()]
    if missing:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(_render_photograph, path, rendering, seed, jobs[path]) for path in missing]
            for future in tqdm(as_completed(futures), total=len(futures), desc="render", unit="photo"):
                future.result()
    return list(jobs.values())


def load_set(folders: Sequence[Path], reference: Sequence[Path], *, clips: bool) -> TrainingSet:
    """Open the stills, or the clips, of rendered photographs.

    Args:
        folders: rendered photographs, in the order that becomes ``photo_N``.
        reference: those whose stills define the percentiles: the training contents.
        clips: open the clips.
    """
    part = "clips" if clips else "stills"
    arrays, places, rows = [], [], []
    for number, folder in enumerate(folders):
        found = _rows(folder, part)
        arrays.append(np.load(folder / f"{part}.npy", mmap_mode="r"))
        places += [(number, row) for row in range(len(found))]
        rows += [{**row, "photo": number} for row in found]
    scale = [row["fidelity"] for folder in reference for row in _rows(folder, "stills")]
    return TrainingSet(tuple(arrays), np.array(places, dtype=np.int64).reshape(-1, 2), _labels(rows, scale))


def _rows(folder: Path, part: str) -> list[dict[str, Any]]:
    return json.loads((folder / "labels.json").read_text())[part]


def _labels(rows: list[dict[str, Any]], scale: list[dict[str, float]]) -> Labels:
    fidelity = {}
    for name in sorted(scale[0]):
        known = np.sort([row[name] for row in scale])
        values = np.array([row["fidelity"][name] for row in rows])
        below, not_above = (np.searchsorted(known, values, side=side) for side in ("left", "right"))
        fidelity[name] = (below + not_above) / (2 * len(known))
    groups = {pair: number for number, pair in enumerate(dict.fromkeys((r["photo"], r["group"]) for r in rows))}
    return Labels(
        photo_N=np.array([row["photo"] for row in rows]),
        group_N=np.array([groups[row["photo"], row["group"]] for row in rows]),
        kind_N=np.array([row["kind"] for row in rows]),
        strength_N=np.array([np.nan if row["strength"] is None else row["strength"] for row in rows]),
        smoothness_N=np.array([row["smoothness"] for row in rows]),
        fidelity=fidelity,
    )


def _render_photograph(path: Path, rendering: Rendering, seed: int, folder: Path) -> None:
    """Render one photograph into ``folder``; runs in a worker process of its own, on one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch  # noqa: PLC0415 - only training pays for it

    torch.set_num_threads(1)
    data = path.read_bytes()
    photo, own_seed = decode_image(data), [seed, int(digest(data)[:8], 16)]
    stills, still_rows = [], []
    for group, versions in enumerate(render_crops(photo, rendering, own_seed)):
        pixels = np.stack([version.pixels_HWC for version in versions])
        fidelity = _fidelity(np.repeat(pixels[:1], len(pixels), axis=0), pixels)
        stills.append(pixels)
        for version, row in zip(versions, fidelity, strict=True):
            strength = None if np.isnan(version.strength) else version.strength
            still_rows.append(
                {"group": group, "kind": version.kind, "strength": strength, "smoothness": 1.0, "fidelity": row}
            )
    clips, clip_rows = [], []
    for group, clip in enumerate(render_clips(photo, rendering, own_seed)):
        clips.append(clip.frames_THWC)
        timed = clip.smoothness < 1.0  # frames that moved in time or place are not comparable one by one
        wanted = [min(frame, rendering.clip_frames - 1) for frame in _CLIP_FRAMES_MEASURED]
        measured = clip.reference_THWC if timed else clip.frames_THWC
        rows = _fidelity(clip.reference_THWC[wanted], measured[wanted])
        fidelity = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        clip_rows.append(
            {"group": group, "kind": clip.kind, "strength": None, "smoothness": clip.smoothness, "fidelity": fidelity}
        )
    _save_array(folder / "stills.npy", np.concatenate(stills))
    _save_array(folder / "clips.npy", np.stack(clips))
    write_json(folder / "labels.json", {"stills": still_rows, "clips": clip_rows})


def _fidelity(reference_NHWC: Pixels, distorted_NHWC: Pixels) -> list[dict[str, float]]:
    import torch  # noqa: PLC0415 - only training pays for it

    from models.fidelity import measure  # noqa: PLC0415 - it needs torch

    first, second = (torch.from_numpy(x).permute(0, 3, 1, 2).float() for x in (reference_NHWC, distorted_NHWC))
    with torch.inference_mode():
        measures = {name: values.tolist() for name, values in measure(first, second).items()}
    return [{name: values[row] for name, values in measures.items()} for row in range(len(first))]


def _save_array(path: Path, array: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    with atomic(path) as file:
        file.write(buffer.getbuffer())
