"""DOVER's branches and their sum equal the official code's on the same weights, technical first."""

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
from models.scorers.dover import Branches, Dover, DoverScorer, fuse
from models.scorers.fast_vqa import logistic

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "reference" / "dover.json").read_text())


@pytest.fixture(scope="module")
def network() -> Dover:
    found = Dover().eval().requires_grad_(requires_grad=False)
    seed_weights(found)
    return found


class Recorder(nn.Module):
    """Stands for the network where only what its branches see is at stake."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[Tensor]] = {"technical": [], "aesthetic": []}

    def technical(self, clips_NCTHW: Tensor) -> Tensor:
        self.seen["technical"].append(clips_NCTHW)
        return torch.tensor([0.1107])

    def aesthetic(self, clips_NCTHW: Tensor) -> Tensor:
        self.seen["aesthetic"].append(clips_NCTHW)
        return torch.tensor([-0.08285 + 0.03774])


def test_the_state_has_the_official_names_shapes_and_indices(network: Dover) -> None:
    assert shapes(network) == GOLDEN["shapes"]
    state = network.state_dict()
    indices = {key: digest(value.numpy()) for key, value in state.items() if not value.is_floating_point()}
    assert indices == GOLDEN["indices"]
    assert sum(parameter.numel() for parameter in network.parameters()) == 56_218_302


def test_short_clips_get_the_official_local_scores_technical_first(network: Dover) -> None:
    expected = {branch: np.array(GOLDEN[f"{branch} short"]) for branch in ("technical", "aesthetic")}
    seen = {branch: clips(f"dover {branch} short", 1, 4, 224) for branch in expected}
    with torch.inference_mode():
        scores = network(seen["technical"], seen["aesthetic"])
        swapped = network(seen["aesthetic"], seen["technical"])
    for branch, found, wrong in zip(expected, scores, swapped, strict=True):
        assert np.abs(found.numpy() - expected[branch]).max() < 1e-4
        assert np.abs(wrong.numpy() - expected[branch]).max() > 1e-2


@pytest.mark.slow
def test_clips_of_the_real_size_get_the_official_branches_and_fused_score(network: Dover) -> None:
    means = {}
    for branch in ("technical", "aesthetic"):
        with torch.inference_mode():
            scores = getattr(network, branch)(clips(f"dover {branch} whole", 1, 32, 224)).numpy()
        assert np.abs(scores - np.array(GOLDEN[f"{branch} whole"])).max() < 1e-4
        means[branch] = float(scores.mean())
    assert logistic(fuse(Branches(**means))) == pytest.approx(GOLDEN["fused"], abs=1e-4)


def test_the_aesthetic_branch_does_not_depend_on_the_batch(network: Dover) -> None:
    seen = clips("dover batch", 3, 2, 64)
    with torch.inference_mode():
        together = network.aesthetic(seen)
        alone = torch.cat([network.aesthetic(clip[None]) for clip in seen])
    assert (together - alone).abs().max() <= 1e-5


def test_branches_are_fused_by_the_official_constants_and_never_swapped() -> None:
    technical, aesthetic = 0.2, -0.05
    expected = (technical - 0.1107) / 0.07355 * 0.6104 + (aesthetic + 0.08285) / 0.03774 * 0.3896
    assert fuse(Branches(technical=technical, aesthetic=aesthetic)) == pytest.approx(expected)
    assert abs(fuse(Branches(technical=aesthetic, aesthetic=technical)) - expected) > 0.1
    means = [float(np.mean(GOLDEN[f"{branch} whole"])) for branch in ("technical", "aesthetic")]
    assert logistic(fuse(Branches(*means))) == pytest.approx(GOLDEN["fused"], abs=1e-6)
    assert abs(logistic(fuse(Branches(*reversed(means)))) - GOLDEN["fused"]) > 1e-3


def test_fragments_go_to_the_technical_branch_and_whole_frames_to_the_aesthetic_one() -> None:
    recorder = Recorder()
    scorer = DoverScorer(recorder)  # type: ignore[arg-type]
    video = np.zeros((640, 240, 300, 3), np.uint8)
    video[..., 0], video[..., 1] = np.arange(300) * 255 // 299, (np.arange(640) // 4).astype(np.uint8)[:, None, None]
    excerpt = scorer.sampling.of(video)
    assert excerpt.shape == (4 * 32, 224, 224, 3)
    assert scorer.branches(excerpt) == Branches(pytest.approx(0.1107), pytest.approx(-0.04511))  # type: ignore[arg-type]
    assert scorer.raw(excerpt) == pytest.approx(0.3896)
    assert scorer.score(excerpt) == pytest.approx(0.596186, abs=2e-6)
    assert [len(recorder.seen[branch]) for branch in ("technical", "aesthetic")] == [9, 3]
    assert all(clip.shape == (1, 3, 32, 224, 224) for found in recorder.seen.values() for clip in found)
    whole = recorder.seen["aesthetic"][0][0, 0, 0, 0]
    assert (whole.diff() > 0).float().mean() > 0.7  # the whole width as one ramp
    assert (whole.diff() >= 0).all()
    assert (recorder.seen["technical"][0][0, 0, 0, 0].diff() < 0).sum() <= 6
    times = excerpt[:, 0, 0, 1]
    assert times[96:].tolist() == sorted(times[96:].tolist())
    assert times[96] < 4
    assert times[127] > 150


def test_a_still_is_a_static_clip_to_both_branches() -> None:
    recorder = Recorder()
    scorer = DoverScorer(recorder)  # type: ignore[arg-type]
    still = frames("still", 1, 250, 260)
    score = scorer.score(still)
    for found in recorder.seen.values():
        assert [clip.shape for clip in found] == [(1, 3, 32, 224, 224)]
        assert (found[0] == found[0][:, :, :1]).all()
    assert scorer.score(scorer.sampling.of(still)) == score


def test_frames_that_are_no_excerpt_are_refused() -> None:
    scorer = DoverScorer(Recorder())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="one of whole frames"):
        scorer.raw(np.zeros((32, 224, 224, 3), np.uint8))
    with pytest.raises(ModelError, match="hand over the scorer's sampling"):
        scorer.raw(np.zeros((64, 240, 224, 3), np.uint8))
    with pytest.raises(ModelError, match="too small"):
        scorer.raw(np.zeros((1, 240, 1, 3), np.uint8))


@pytest.mark.slow
def test_the_checkpoint_in_its_place_is_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Dover
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"put DOVER\.pth into .*from https://github"):
        load_scorer("dover")
    path = records()["dover"].weights[0].path
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    scorer = load_scorer("dover")
    assert isinstance(scorer, Scorer)
    assert scorer.version == scorer_version("dover") == "vital-1+DOVER.pth"
    still = frames("still", 1, 250, 260)
    with monkeypatch.context() as patched:  # one short clip says which weights were loaded
        patched.setattr(
            "models.scorers.dover.mean_qualities",
            lambda branch, media, *_: [branch(_short(seen)).mean().item() for seen in media],
        )
        assert scorer.raw(still) == DoverScorer(network).raw(still)
    torch.save({name: value for name, value in network.state_dict().items() if "aesthetic_head" not in name}, path)
    with pytest.raises(ModelError, match=r"DOVER\.pth does not fit Dover: 4 missing: aesthetic_head\.fc_hid\.bias"):
        load_scorer("dover")


def _short(seen: np.ndarray) -> Tensor:
    return torch.from_numpy(seen[:2]).float().permute(3, 0, 1, 2)[None] / 255.0
