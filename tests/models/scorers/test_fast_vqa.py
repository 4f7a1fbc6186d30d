"""FAST-VQA equals the official code on the same weights, and scores the same medium alike every time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded import clips, digest, frames, seed_weights, shapes
from torch import Tensor, nn

from models.errors import MissingWeightsError, ModelError
from models.scorers import Scorer, load_scorer, records, scorer_version
from models.scorers.fast_vqa import FORMS, FastVqa, FastVqaScorer, load_fast_vqa, logistic

REFERENCE = Path(__file__).parents[2] / "reference"
NAMES = list(FORMS)
SIDES = {"fast_vqa": (32, 224), "fast_vqa_m": (16, 128)}


def golden(name: str) -> dict[str, Any]:
    return json.loads((REFERENCE / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def networks() -> dict[str, FastVqa]:
    found = {name: FastVqa(FORMS[name].swin).eval().requires_grad_(requires_grad=False) for name in NAMES}
    for network in found.values():
        seed_weights(network)
    return found


class Brightness(nn.Module):
    """Stands for a network where only what it sees is at stake."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        self.seen.append(clips_NCTHW)
        return clips_NCTHW.mean(dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_has_the_official_names_shapes_and_indices(name: str, networks: dict[str, FastVqa]) -> None:
    expected, state = golden(name), networks[name].state_dict()
    assert shapes(networks[name]) == expected["shapes"]
    indices = {key: digest(value.numpy()) for key, value in state.items() if not value.is_floating_point()}
    assert indices == expected["indices"]
    parameters = sum(parameter.numel() for parameter in networks[name].parameters())
    assert parameters == {"fast_vqa": 28_078_620, "fast_vqa_m": 27_547_974}[name] + 49_281


@pytest.mark.parametrize("name", NAMES)
def test_short_clips_get_the_official_local_scores_alone_and_together(name: str, networks: dict[str, FastVqa]) -> None:
    expected = np.array(golden(name)["short"])
    seen = clips(f"{name} short", 2, 4, SIDES[name][1])
    with torch.inference_mode():
        together = networks[name](seen).numpy()
        alone = np.concatenate([networks[name](clip[None]).numpy() for clip in seen])
    assert expected.std() > 0.1
    assert np.abs(together - expected).max() < 1e-4
    assert np.abs(together - alone).max() <= 1e-5


def test_clips_of_another_size_are_refused(networks: dict[str, FastVqa]) -> None:
    with pytest.raises(ModelError, match="do not tile a clip of 3 frames of 128x128"):
        networks["fast_vqa_m"](torch.zeros(1, 3, 3, 128, 128))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_clips_of_the_real_size_get_the_official_local_scores(name: str, networks: dict[str, FastVqa]) -> None:
    length, side = SIDES[name]
    with torch.inference_mode():
        scores = networks[name](clips(f"{name} whole", 1, length, side)).numpy()
    assert np.abs(scores - np.array(golden(name)["whole"])).max() < 1e-4


def test_raw_scores_become_qualities_by_the_official_constants() -> None:
    class Constant(nn.Module):
        value = 0.0

        def forward(self, clips_NCTHW: Tensor) -> Tensor:
            return torch.full((len(clips_NCTHW), 1), self.value)

    network, still = Constant(), frames("still", 1, 240, 260)
    scorer = FastVqaScorer("fast_vqa", network)  # type: ignore[arg-type]
    for value, quality in ((-0.110198185, 0.5), (-0.110198185 + 0.04178565, 0.731059), (9.0, 1.0), (-9.0, 0.0)):
        network.value = value
        assert scorer.score(still) == pytest.approx(quality, abs=2e-6)
        assert scorer.raw(still) == pytest.approx(value)
    network.value = float("nan")
    with pytest.raises(ModelError, match="number was due"):
        scorer.score(still)


def test_the_logistic_function_rises_and_saturates_without_overflow() -> None:
    assert logistic(0.0) == 0.5
    assert logistic(1.0) == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    assert [logistic(value) for value in (-1e6, 1e6)] == [0.0, 1.0]


def test_a_video_is_seen_as_four_clips_and_a_still_as_a_static_one() -> None:
    network = Brightness()
    scorer = FastVqaScorer("fast_vqa", network)  # type: ignore[arg-type]
    video = frames("video", 300, 32, 40)  # also a tiny one: it's enlarged sevenfold
    excerpt = scorer.sampling.of(video)
    assert excerpt.shape == (4 * 32, 224, 224, 3)
    scorer.raw(excerpt)
    assert [clip.shape for clip in network.seen] == [(1, 3, 32, 224, 224)] * 4
    still = scorer.raw(video[:1])
    assert network.seen[-1].shape == (1, 3, 32, 224, 224)
    assert (network.seen[-1] == network.seen[-1][:, :, :1]).all()
    assert scorer.raw(scorer.sampling.of(video[:1])) == still


def test_fragments_of_a_video_are_native_pixels_of_its_frames() -> None:
    scorer = FastVqaScorer("fast_vqa", Brightness())  # type: ignore[arg-type]
    rows, columns = np.mgrid[:480, :640]
    frame = np.stack([rows % 256, columns % 256, (rows // 256) * 16 + columns // 256], axis=2).astype(np.uint8)
    cut = scorer.sampling.of(np.stack([frame] * 8))
    assert (np.diff(cut[0, :32, 0, 0].astype(int)) % 256 == 1).all()
    assert (np.diff(cut[0, 0, :32, 1].astype(int)) % 256 == 1).all()
    assert (cut[:32] == cut[:1]).all()
    assert (cut[32] != cut[0]).any()


@pytest.mark.parametrize("size", [(500, 1), (40, 700)])
def test_strips_are_refused(size: tuple[int, int]) -> None:
    scorer = FastVqaScorer("fast_vqa", Brightness())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"too (small|elongated)"):
        scorer.score(np.zeros((1, *size, 3), np.uint8))


@pytest.mark.parametrize("shape", [(31, 224, 224, 3), (32, 224, 223, 3), (64, 480, 640, 3)])
def test_frames_that_are_no_excerpt_are_refused(shape: tuple[int, ...]) -> None:
    scorer = FastVqaScorer("fast_vqa", Brightness())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="hand over the scorer's sampling"):
        scorer.raw(np.zeros(shape, np.uint8))
    with pytest.raises(ModelError, match="uint8"):
        scorer.raw(np.zeros(shape, np.float32))


def test_scores_do_not_depend_on_order_or_batch(networks: dict[str, FastVqa]) -> None:
    scorer = FastVqaScorer("fast_vqa_m", networks["fast_vqa_m"])
    stills = [frames(f"still {index}", 1, 150, 170) for index in range(3)]
    raws = [scorer.raw(still) for still in stills]
    assert [scorer.raw(still) for still in reversed(stills)] == raws[::-1]
    assert len(set(raws)) == 3
    two_clips = scorer.sampling.of(frames("video", 3, 150, 170))[:32]
    alone = [scorer.raw(two_clips[:16]), scorer.raw(two_clips[16:])]
    assert scorer.raw(two_clips) == pytest.approx(np.mean(alone), abs=1e-12)


@pytest.mark.slow
def test_a_checkpoint_in_its_place_is_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networks: dict[str, FastVqa]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    still = frames("still", 1, 150, 170)
    for name in NAMES:
        with pytest.raises(MissingWeightsError, match=r"put FAST_VQA_._1_4\.pth into .*from https://github"):
            load_scorer(name)
    path = records()["fast_vqa_m"].weights[0].path
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": networks["fast_vqa_m"].state_dict(), "validation_results": np.float64(0.8)}, path)
    scorer = load_scorer("fast_vqa_m")
    assert isinstance(scorer, Scorer)
    assert scorer.raw(still) == FastVqaScorer("fast_vqa_m", networks["fast_vqa_m"]).raw(still)
    assert scorer.version == scorer_version("fast_vqa_m") == "vital-1+FAST_VQA_M_1_4.pth"
    with pytest.raises(ModelError, match=r"FAST_VQA_M_1_4\.pth does not fit FastVqa: .*missing: .*fragment_position"):
        load_fast_vqa("fast_vqa", path)
