"""The shipped six: real weights, two backends that agree, one answer whatever the batch, and honest errors."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from models.distortions import distort_image, strength
from models.errors import MissingWeightsError, ModelError
from models.scorers import BUILT_INS, CLIP_FRAMES, Sampling, Scorer, load_built_in
from models.scorers.built_in import WEIGHTS, read_card
from models.scorers.identity import identity
from models.scorers.networks import NETWORKS
from models.scorers.protocol import Calibration
from tasks.annotation.train_scorers import RECIPE, read_recipe

NAMES = list(BUILT_INS)
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [np.ascontiguousarray(getattr(skimage.data, name)()[..., :3])[None] for name in PHOTOS]


@pytest.fixture(scope="module")
def scorers() -> dict[str, Scorer]:
    return {name: load_built_in(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_onnx_and_torch_agree(name: str, photos: list[np.ndarray]) -> None:
    onnx, torch_twin = load_built_in(name), load_built_in(name, "torch")
    clip = np.concatenate([photos[0], photos[0][:, :, ::-1]] * (CLIP_FRAMES // 2))
    for frames in [*photos, clip]:
        assert onnx.raw(frames) == pytest.approx(torch_twin.raw(frames), abs=1e-4)
        assert onnx.score(frames) == pytest.approx(torch_twin.score(frames), abs=1e-4)
    assert onnx.version == torch_twin.version


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_raw_scores_do_not_depend_on_the_batch(name: str, backend: str, photos: list[np.ndarray]) -> None:
    scorer = load_built_in(name, backend)  # type: ignore[arg-type]
    sized = [np.asarray(Image.fromarray(photo[0]).resize((448, 416)))[None] for photo in photos]
    if scorer.sampling is Sampling.SCREEN_CLIPS:
        sized = [np.repeat(photo, CLIP_FRAMES, axis=0) for photo in sized]
    alone = np.concatenate([scorer.raw_items(photo) for photo in sized])
    together = scorer.raw_items(np.concatenate(sized))
    assert np.abs(alone - together).max() <= 1e-5


def test_scoring_is_deterministic_and_has_no_memory(scorers: dict[str, Scorer], photos: list[np.ndarray]) -> None:
    for scorer in scorers.values():
        first = [scorer.score(photo) for photo in photos]
        assert [scorer.score(photo) for photo in reversed(photos)] == first[::-1]


def test_scores_lie_in_the_unit_interval_even_for_noise_and_flat_pictures(scorers: dict[str, Scorer]) -> None:
    rng = np.random.default_rng(5)
    odd = [
        rng.integers(0, 256, (1, 400, 500, 3), dtype=np.uint8),
        np.zeros((1, 64, 64, 3), dtype=np.uint8),
        np.full((1, 500, 400, 3), 255, dtype=np.uint8),
        rng.integers(0, 256, (3, 16, 1200, 3), dtype=np.uint8),
    ]
    for scorer in scorers.values():
        assert all(0.0 <= scorer.score(frames) <= 1.0 for frames in odd)


def _rank_correlation(x: list[float], y: list[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize(("kind", "least"), [("gaussian_blur", 0.9), ("jpeg", 0.8), ("white_noise", 0.7)])
def test_the_mean_opinion_orders_severities(
    kind: str, least: float, scorers: dict[str, Scorer], photos: list[np.ndarray]
) -> None:
    correlations = []
    for photo in photos[:3]:
        levels = range(1, 6)
        versions = [photo[0], *(distort_image(photo[0], kind, level, 7) for level in levels)]
        mu = [float(np.mean([scorer.score(version[None]) for scorer in scorers.values()])) for version in versions]
        correlations.append(_rank_correlation(mu, [0.0, *(-float(strength(kind, level)) for level in levels)]))
    assert np.mean(correlations) >= least


def test_no_two_scorers_share_a_weight_and_all_are_small() -> None:
    networks = {name: build() for name, build in NETWORKS.items()}
    assert set(networks) == set(BUILT_INS)
    owners: dict[int, str] = {}
    for name, network in networks.items():
        assert sum(parameter.numel() for parameter in network.parameters()) <= 250_000
        for parameter in network.parameters():
            assert owners.setdefault(id(parameter), name) == name
    files = [path for path in WEIGHTS.iterdir() if path.suffix in {".onnx", ".safetensors"}]
    assert len(files) == 2 * len(BUILT_INS)
    assert sum(path.stat().st_size for path in files) <= 12 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_a_version_stands_for_weights_graph_calibration_and_view(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, scores have changed under a version that was shipped: train again, or take the change back."""
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    files = [(WEIGHTS / f"{name}.{suffix}").read_bytes() for suffix in ("safetensors", "onnx")]
    calibration, view = read_card(WEIGHTS / f"{name}.json").calibration, BUILT_INS[name].view
    release, _, found = card["version"].partition("+")
    assert (int(release), found) == (read_recipe(RECIPE).release, identity(*files, calibration, view))
    assert load_built_in(name).version == card["version"]
    assert card["training"]["recipe"] == dataclasses.asdict(read_recipe(RECIPE).scorers[name])
    bent = Calibration(calibration.raw, tuple(q**1.5 for q in calibration.quality))
    assert identity(*files, bent, view) != found
    assert identity(files[0], files[1] + b"\0", calibration, view) != found
    monkeypatch.setattr("models.scorers.screen.SHORTEST", 700)
    assert identity(*files, calibration, view) != found


@pytest.mark.parametrize("name", NAMES)
def test_views_that_lie_elsewhere_are_other_versions(name: str) -> None:
    view, calibration = BUILT_INS[name].view, Calibration((0.0, 1.0), (0.0, 1.0))
    before = identity(b"", b"", calibration, view)
    moved = lambda frames: view(np.ascontiguousarray(frames[:, 1:]))  # noqa: E731 - one row lower
    assert identity(b"", b"", calibration, moved) != before


def _difficult() -> dict[str, np.ndarray]:
    """Pictures whose figures hang on rounding, if any do: flat, dark, ramps, blocks, two values."""
    ramp = np.linspace(0, 60, 400).astype(np.uint8)
    chelsea = skimage.data.chelsea()
    pictures = {
        "black": np.zeros((400, 500, 3), np.uint8),
        "ramp": np.broadcast_to(ramp[None, :, None], (300, 400, 3)),
        "dark": chelsea // 24,
        "blocks": np.repeat(np.repeat(chelsea[::24, ::24], 24, 0), 24, 1),
        "two values": np.where(chelsea > 110, 255, 0).astype(np.uint8),
    }
    return {key: np.ascontiguousarray(value)[None] for key, value in pictures.items()}


@pytest.mark.parametrize("name", NAMES)
def test_twins_agree_on_pictures_that_are_flat_dark_or_made_of_blocks(name: str) -> None:
    onnx, torch_twin = load_built_in(name), load_built_in(name, "torch")
    gaps = {key: abs(onnx.raw(picture) - torch_twin.raw(picture)) for key, picture in _difficult().items()}
    assert max(gaps.values()) <= 1e-4, gaps


def test_missing_and_damaged_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"ranking\.json is missing.*train"):
        load_built_in("ranking", folder=tmp_path)
    shutil.copy(WEIGHTS / "ranking.json", tmp_path)
    with pytest.raises(MissingWeightsError, match=r"ranking\.onnx is missing"):
        load_built_in("ranking", folder=tmp_path)
    data = (WEIGHTS / "ranking.onnx").read_bytes()
    (tmp_path / "ranking.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="damaged"):
        load_built_in("ranking", folder=tmp_path)
    (tmp_path / "ranking.json").write_text("{}")
    with pytest.raises(ModelError, match="not a scorer's card"):
        load_built_in("ranking", folder=tmp_path)
    with pytest.raises(ModelError, match="known are"):
        load_built_in("rankin")


def test_wrong_input_is_refused(scorers: dict[str, Scorer]) -> None:
    for bad in (np.zeros((0, 9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8), np.zeros((1, 9, 9, 3), np.float32)):
        with pytest.raises(ModelError, match="uint8"):
            scorers["ranking"].score(bad)


def test_the_light_path_imports_no_heavy_library() -> None:
    program = (
        "import sys, io, numpy as np; from PIL import Image; from tasks.annotation.opinions import *\n"
        "buffer = io.BytesIO(); Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(buffer, 'PNG')\n"
        "print(opinion_of(buffer.getvalue(), load_scorers()).level)\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'prefect', 'dvc', 'pyiqa', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in {"high", "good", "fair", "poor", "low"}


def test_torch_threads_stay_as_they_were() -> None:
    before = torch.get_num_threads()
    load_built_in("level_probs", "torch", threads=1)
    assert torch.get_num_threads() == before
