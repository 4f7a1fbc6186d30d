"""``python tests/reference/make_goldens.py FAST_VQA_CHECKOUT DOVER_CHECKOUT``: golden numbers of the official code.

Runs by hand, with torch, torchvision, timm and einops of this environment; writes the JSON files beside itself. The
checkouts are those of github.com/VQAssessment/FAST-VQA-and-FasterVQA and github.com/VQAssessment/DOVER; nothing of them
is copied. Libraries that they import but that views and networks do not need are replaced by empty modules.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.machinery
import io
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from seeded import clips, digest, frames, offset, sample, seed_weights, shapes
from torch import nn

HERE = Path(__file__).parent
UNNEEDED = ("decord", "skvideo", "skvideo.io", "thop", "wandb", "clip", "petrel_client")
GRID = {"fast_vqa": (7, 32), "fast_vqa_m": (4, 8)}
"""Scorer -> cells of its grid, frames that share offsets (options/fast/fast-b.yml and fast-m.yml)."""


class _Anything(types.ModuleType):
    """A module whose every attribute is a function that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name)

    def __call__(self, *_: Any, **__: Any) -> None:
        return None


@contextlib.contextmanager
def official(checkout: Path, package: str) -> Iterator[types.ModuleType]:
    """The official package, imported from its checkout."""
    for name in UNNEEDED:
        sys.modules[name] = _Anything(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.path.insert(0, str(checkout))
    torch.hub.load_state_dict_from_url = lambda **_: {"model": {}}  # ImageNet's weights, which ours replace
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(f"{package}.models")
            importlib.import_module(f"{package}.datasets")
            yield sys.modules[package]
    finally:
        sys.path.remove(str(checkout))


def local_scores(network: nn.Module, key: str, clips_NCTHW: torch.Tensor, **options: Any) -> list[Any]:
    """Local scores of one branch, rounded to six digits."""
    scores = network({key: clips_NCTHW}, reduce_scores=False, **options)[0]
    return np.round(scores[:, 0].double().numpy(), 6).tolist()


def described(network: nn.Module) -> dict[str, Any]:
    """Names and shapes of the state, and hashes of what is not drawn: the indices."""
    state = network.state_dict()
    indices = {name: digest(value.numpy()) for name, value in state.items() if not value.is_floating_point()}
    return {"shapes": shapes(network), "indices": indices}


def fast_vqa(checkout: Path) -> None:
    """Goldens of FAST-VQA-B and FAST-VQA-M."""
    sizes = {"fast_vqa": (32, 224, {}), "fast_vqa_m": (16, 128, {"adaptive_window_size": False})}
    with official(checkout, "fastvqa") as package:
        for name, (length, side, options) in sizes.items():
            kind = {"fast_vqa": "swin_tiny_grpb", "fast_vqa_m": "swin_tiny_grpb_m"}[name]
            network = package.models.DiViDeAddEvaluator(
                backbone={"fragments": {}}, backbone_size=kind, backbone_preserve_keys="fragments"
            )
            seed_weights(network)
            short = clips(f"{name} short", 2, 4, side)
            whole = clips(f"{name} whole", 1, length, side)
            golden = {
                **described(network),
                "short": local_scores(network, "fragments", short, adaptive_window_size=False),
                "whole": local_scores(network, "fragments", whole, **options),
                "views": spliced(package.datasets.get_spatial_fragments, *GRID[name]),
                "indices_of": fragment_runs(package.datasets.FragmentSampleFrames, length),
            }
            write(name, golden)


def dover(checkout: Path) -> None:
    """Goldens of DOVER's branches, its fused score and its resized view."""
    with official(checkout, "dover") as package:
        backbones = {"technical": {"type": "swin_tiny_grpb"}, "aesthetic": {"type": "conv_tiny"}}
        network = package.models.DOVER(
            backbone=backbones, backbone_preserve_keys="technical,aesthetic", divide_head=True
        )
        seed_weights(network)
        golden = described(network)
        for branch in backbones:
            for size, length in (("short", 4), ("whole", 32)):
                seen = clips(f"dover {branch} {size}", 1, length, 224)
                golden[f"{branch} {size}"] = local_scores(network, branch, seen)
        script = importlib.import_module("evaluate_one_video")
        means = [float(np.mean(golden[f"{branch} whole"])) for branch in backbones]
        golden["fused"] = float(script.fuse_results(means))
        views = sys.modules["dover.datasets.dover_datasets"]
        golden["resized"] = resized(views)
        golden["indices_of"] = {
            "technical": fragment_runs(views.UnifiedFrameSampler, 32, 3),
            "aesthetic": fragment_runs(views.UnifiedFrameSampler, 1, 32),
        }
        write("dover", golden)


def spliced(cut: Any, cells: int, aligned: int) -> dict[str, Any]:
    """Hashes of the official fragments with fixed offsets, and samples of frames that the official code enlarges."""
    found: dict[str, Any] = {}
    sides = cells * 32
    drawn = torch.randint
    for height, width in ((sides, sides), (sides + 1, 2 * sides + 37), (3 * sides + 5, sides + 200)):
        calls = iter(range(2))

        def fixed(high: int, size: tuple[int, ...], order: Iterator[int] = calls) -> torch.Tensor:
            turn = next(order)
            places = [offset(i, j, t + turn, high) for i, j, t in np.ndindex(*size)]
            return torch.tensor(places).reshape(size)

        torch.randint = fixed
        video = torch.from_numpy(frames(f"{height}x{width}", 2 * aligned, height, width)).permute(3, 0, 1, 2)
        cut_CTHW = cut(video, fragments_h=cells, fragments_w=cells, fsize_h=32, fsize_w=32, aligned=aligned)
        torch.randint = drawn
        found[f"{height}x{width}"] = digest(cut_CTHW.permute(1, 2, 3, 0).to(torch.uint8).numpy())
    return {"fragments": found, "enlarged": {name: enlarged(cut, cells, *size) for name, size in small(sides).items()}}


def small(side: int) -> dict[str, tuple[int, int]]:
    """Sizes with a side that is too short for the grid."""
    sizes = ((side - 1, side), (side // 2, side - 30), (side * 3 // 4, side * 2), (side + 40, side // 2 + 3))
    return {f"{height}x{width}": (height, width) for height, width in sizes}


def enlarged(cut: Any, cells: int, height: int, width: int) -> list[Any]:
    """Sample of the whole frame as the official code enlarges it, caught on its way to the fragments."""
    caught: list[torch.Tensor] = []
    original = torch.nn.functional.interpolate

    def catching(video: torch.Tensor, **options: Any) -> torch.Tensor:
        caught.append(original(video, **options))
        return caught[0]

    torch.nn.functional.interpolate = catching
    video = torch.from_numpy(frames(f"{height}x{width}", 1, height, width)).permute(3, 0, 1, 2)
    cut(video, fragments_h=cells, fragments_w=cells, fsize_h=32, fsize_w=32, aligned=1)
    torch.nn.functional.interpolate = original
    return sample((caught[0] * 255.0).type_as(video)[:, 0].permute(1, 2, 0).numpy())


def resized(views: Any) -> dict[str, list[Any]]:
    """Samples of frames that the official code resizes, as torchvision did when DOVER was trained: no antialiasing."""
    smoothing = torchvision.transforms.Resize
    torchvision.transforms.Resize = functools.partial(smoothing, antialias=False)
    views.get_resize_function.cache_clear()
    found = {}
    for height, width in ((540, 960), (224, 224), (100, 61)):
        video = torch.from_numpy(frames(f"{height}x{width}", 1, height, width)).permute(3, 0, 1, 2)
        found[f"{height}x{width}"] = sample(views.get_resized_video(video)[:, 0].permute(1, 2, 0).numpy())
    torchvision.transforms.Resize = smoothing
    return found


def fragment_runs(sampler: Any, length: int, runs: int = 4) -> dict[str, list[int]]:
    """The official frame indices where every draw is the middle of its range."""
    drawn = np.random.randint
    np.random.randint = lambda low, high, size: np.full(size, (low + high - 1) // 2)
    chosen = {str(total): sampler(length, runs, 2)(total).tolist() for total in (1, 3, 31, 100, 257, 300, 1801)}
    np.random.randint = drawn
    return chosen


def write(name: str, golden: dict[str, Any]) -> None:
    """Write a golden file, a line per entry."""
    text = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    (HERE / f"{name}.json").write_text("{\n" + text + "\n}\n")


def main() -> None:
    """Make all golden files."""
    parser = argparse.ArgumentParser(prog="make_goldens.py", description=__doc__)
    parser.add_argument("fast_vqa", type=Path, help="checkout of FAST-VQA-and-FasterVQA")
    parser.add_argument("dover", type=Path, help="checkout of DOVER")
    arguments = parser.parse_args()
    fast_vqa(arguments.fast_vqa)
    dover(arguments.dover)


if __name__ == "__main__":
    main()
