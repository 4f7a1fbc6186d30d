"""A scorer told how to run: what its version says, and scores that do not depend on company."""

from itertools import permutations

import numpy as np
import pytest
import torch
from seeded import frames, seed_weights
from torch import nn

from models.errors import ModelError
from models.scorers import Runtime, TorchScorer
from models.scorers.dover import Dover, DoverScorer
from models.scorers.fast_vqa import FORMS, FastVqa, FastVqaScorer, mean_qualities
from models.scorers.official import PyiqaScorer
from models.scorers.runtime import in_format, passes, place


class Recorder(nn.Module):
    """Keeps the shapes of what it sees, and gives a score per row."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(rows.shape))
        return rows.flatten(1).mean(dim=1) * self.scale


def test_the_version_names_what_is_not_the_default() -> None:
    assert Runtime().suffix == ""
    assert Runtime("cuda", "bf16", channels_last=True, rows=8).suffix == "+cuda+bf16+channels_last+8rows"
    suffixes = {
        Runtime(device, precision, channels_last, rows).suffix
        for device in ("cpu", "cuda")
        for precision in ("fp32", "bf16")
        for channels_last in (False, True)
        for rows in (1, 2)
    }
    assert len(suffixes) == 16
    assert Runtime("cuda", "bf16", channels_last=True, rows=8).exact == Runtime("cuda", rows=8)
    with pytest.raises(ValueError, match="at least one row"):
        Runtime(rows=0)


def test_the_memory_format_changes_strides_and_no_value() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    place(network, Runtime(channels_last=True))
    convolution = network[0].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.is_contiguous()
    place(network, Runtime())
    assert convolution.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    clip_NCTHW = torch.rand(2, 3, 4, 5, 6)
    assert in_format(clip_NCTHW, Runtime(channels_last=True)).is_contiguous(memory_format=torch.channels_last_3d)
    assert in_format(clip_NCTHW.transpose(0, 1), Runtime()).is_contiguous()


def test_bf16_is_autocast() -> None:
    layer = nn.Linear(8, 8)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with passes(Runtime(precision=precision)):
            assert layer(torch.rand(1, 8)).dtype is kind
    assert layer.weight.dtype is torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="no GPU"):
        place(nn.Linear(1, 1), Runtime("cuda"))


def test_passes_have_one_shape_and_media_get_their_own_clips() -> None:
    network, media = Recorder(), [frames(name, length, 8, 8) for name, length in (("a", 6), ("b", 2), ("c", 4))]
    alone = [mean_qualities(network, [medium], 2, Runtime(rows=4))[0] for medium in media]
    assert set(network.shapes) == {(4, 3, 2, 8, 8)}
    network.shapes.clear()
    assert mean_qualities(network, media, 2, Runtime(rows=4)) == alone
    assert network.shapes == [(4, 3, 2, 8, 8)] * 2
    assert mean_qualities(network, media, 2, Runtime()) == pytest.approx(alone, abs=1e-6)
    assert len(set(alone)) == 3


@pytest.mark.slow
@pytest.mark.long
def test_scores_of_fast_vqa_do_not_depend_on_what_they_are_batched_with() -> None:
    network = FastVqa(FORMS["fast_vqa_m"].swin).eval().requires_grad_(requires_grad=False)
    seed_weights(network)
    scorer = FastVqaScorer("fast_vqa_m", network)
    assert isinstance(scorer, TorchScorer)
    stills = [frames(f"still {index}", 1, 150, 170) for index in range(3)]
    for precision in ("fp32", "bf16"):
        scorer.run_as(Runtime(precision=precision, rows=2))
        alone = [scorer.raw(still) for still in stills]  # seeded weights drive the calibrated scores to one end
        for order in list(permutations(range(3)))[1::2]:
            assert scorer._raws([stills[index] for index in order]) == [alone[index] for index in order]
        assert len(set(alone)) == 3


def test_both_branches_of_dover_share_passes() -> None:
    class Branches(Dover):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.technical_part, self.aesthetic_part = Recorder(), Recorder()

        def technical(self, clips_NCTHW: torch.Tensor) -> torch.Tensor:
            return self.technical_part(clips_NCTHW)

        def aesthetic(self, clips_NCTHW: torch.Tensor) -> torch.Tensor:
            return self.aesthetic_part(clips_NCTHW)

    network = Branches()
    scorer = DoverScorer(network)
    assert isinstance(scorer, TorchScorer)
    scorer.run_as(Runtime(rows=2))
    media = [scorer.sampling.of(frames(name, 1, 230, 240) // 3 * (1 + index)) for index, name in enumerate("abc")]
    scores = scorer.score_many(media)
    assert scores == [scorer.score(medium) for medium in media]
    for part in (network.technical_part, network.aesthetic_part):
        assert part.shapes == [(2, 3, 32, 224, 224)] * (2 + 3)


def test_frames_of_a_medium_share_passes_of_a_metric_and_media_do_not() -> None:
    metric = Recorder()
    scorer = PyiqaScorer("topiq_nr", metric)
    assert isinstance(scorer, TorchScorer)
    media = [frames("clip", 5, 20, 30), frames("still", 1, 20, 30)]
    one_by_one = scorer.score_many(media)
    assert metric.shapes == [(1, 3, 20, 30)] * 6
    metric.shapes.clear()
    scorer.run_as(Runtime(rows=2))
    assert scorer.score_many(media) == pytest.approx(one_by_one, abs=1e-6)
    assert [shape[0] for shape in metric.shapes] == [2, 2, 1, 1]
    assert scorer.score_many(media[::-1]) == scorer.score_many(media)[::-1]


def test_a_metric_that_does_not_score_frames_one_by_one_is_refused() -> None:
    class Mean(Recorder):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return super().forward(rows).mean()

    scorer = PyiqaScorer("topiq_nr", Mean())
    assert 0 <= scorer.score(frames("clip", 2, 20, 30)) <= 1
    scorer.run_as(Runtime(rows=2))
    with pytest.raises(ModelError, match=r"topiq_nr does not score 2 frames in a pass"):
        scorer.score(np.zeros((2, 20, 30, 3), np.uint8))
