"""The base's media as tensors: tiles, motion frames and measured properties of every procedural picture and clip.

Each scene has a random stream of its own, so the number of worker processes changes nothing.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.decoders import TINY_ENCODER
from models.vision_encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VisualInput,
    VisualSpec,
    prepare_clip,
    prepare_image,
)
from tasks.records import Modality
from tasks.training.base_corpus import keys_of
from tasks.training.base_images import SceneConfig, changed, moving_view, scene
from tasks.training.base_signals import clip_properties, image_properties, token_statistics

_FRAMES_PER_SECOND = 25.0


@dataclass(frozen=True)
class Medium:
    """One picture or clip, ready for the model.

    Attributes:
        scene: number of the scene it shows; splits are made of scenes.
        tiles_T3HW: uint8 tiles. motion_3THW: float16 motion frames, None for pictures.
        statistics_TSF: float16 statistics of every token of every tile.
        properties: measured values by key.
    """

    scene: int
    modality: Modality
    tiles_T3HW: NDArray[np.uint8]
    motion_3THW: NDArray[np.float16] | None
    statistics_TSF: NDArray[np.float16]
    properties: dict[str, float]

    def visual_input(self) -> VisualInput:
        """Normalised float tensors."""
        motion = None if self.motion_3THW is None else torch.from_numpy(self.motion_3THW).float()
        return VisualInput(normalised(torch.from_numpy(self.tiles_T3HW)), motion)


def normalised(tiles_N3HW: Tensor) -> Tensor:
    """Tiles as the image encoder wants them, from uint8."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (tiles_N3HW.float() / 255 - mean[:, None, None]) / std[:, None, None]


def _to_bytes(tiles_N3HW: Tensor) -> NDArray[np.uint8]:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    values = tiles_N3HW * std[:, None, None] + mean[:, None, None]
    return (values * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def scene_media(index: int, config: SceneConfig, spec: VisualSpec, seed: int) -> list[Medium]:
    """All media of one scene: its variants as pictures and, for the first ``clips`` scenes, one clip."""
    token_px = 2 * TINY_ENCODER.patch_px  # pixel shuffle merges two by two patches
    rng = np.random.default_rng([seed, index])
    original = scene(rng, config.sides)
    media: list[Medium] = []
    for _ in range(config.variants):
        pixels = changed(rng, original)
        media.append(_medium(index, prepare_image(pixels, spec, rng), image_properties(pixels), token_px))
    if index < config.clips:
        frames = moving_view(rng, changed(rng, original), config.clip_frames)
        seconds = np.arange(len(frames)) / _FRAMES_PER_SECOND
        clip = prepare_clip(frames, seconds, spec, rng)
        media.append(_medium(index, clip, clip_properties(frames), token_px))
    return media


def _medium(index: int, seen: VisualInput, properties: dict[str, float], token_px: int) -> Medium:
    tiles = _to_bytes(seen.tiles_TCHW)
    statistics = token_statistics(torch.from_numpy(tiles).float() / 255, token_px).half().numpy()
    motion = None if seen.motion_CTHW is None else seen.motion_CTHW.half().numpy()
    modality = Modality.VIDEO if seen.is_video else Modality.IMAGE
    return Medium(index, modality, tiles, motion, statistics, properties)


def make_media(config: SceneConfig, spec: VisualSpec, seed: int, workers: int) -> list[Medium]:
    """Draw and measure everything, in scene order."""
    jobs = [(index, config, spec, seed) for index in range(config.scenes)]
    with ProcessPoolExecutor(workers, initializer=_single_thread) as pool:
        results = pool.map(_scene_job, jobs, chunksize=16)
        return [medium for media in tqdm(results, total=len(jobs), desc="base: scenes") for medium in media]


def _single_thread() -> None:
    torch.set_num_threads(1)


def _scene_job(job: tuple[int, SceneConfig, VisualSpec, int]) -> list[Medium]:
    return scene_media(*job)


def fifths_of(media: Sequence[Medium]) -> list[dict[str, int]]:
    """Fifth of every property among the media of the same modality: 0 top, 4 bottom."""
    placed: list[dict[str, int]] = [{} for _ in media]
    for modality in Modality:
        members = [index for index, medium in enumerate(media) if medium.modality == modality]
        for key in keys_of(modality) if members else ():
            values = np.array([media[index].properties[key] for index in members])
            bounds = np.quantile(values, (0.8, 0.6, 0.4, 0.2))
            for index, value in zip(members, values, strict=True):
                placed[index][key] = int((value < bounds).sum())
    return placed


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Index batches from successive shuffles of ``range(count)``."""
    rng = np.random.default_rng(seed)
    order = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(order) < size:
            order = np.concatenate([order, rng.permutation(count)])
        yield order[:size]
        order = order[size:]
