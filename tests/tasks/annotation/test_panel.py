"""Who is admitted, under which version opinions are kept, and that a medium is decoded once."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import skimage.data

from models.errors import ModelError
from models.scorers import BUILT_INS, Excerpt, Runtime, Sampling, load_scorer
from tasks.annotation.opinions import FrameRule
from tasks.annotation.panel import (
    Job,
    Panel,
    PanelConfig,
    Seat,
    Seen,
    TorchConfig,
    expected_seats,
    groups_of,
    opinion_version,
)
from tasks.records import Modality
from tests.tasks.annotation.fake_scorers import Ends, Together
from tests.tasks.annotation.scored_pool import png

RULE = FrameRule(4, 2)
BF16 = TorchConfig(precision="bf16", channels_last=True, rows=2)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.scorers.catalogue._registered", {"ends": Ends, "together": Together})


def panel(*names: str, torch: TorchConfig | None = None) -> PanelConfig:
    return PanelConfig(names, "onnx", RULE, torch or TorchConfig())


def versions(seat: Seat, config: PanelConfig) -> list[str]:
    return [opinion_version(seat, modality, config) for modality in (Modality.IMAGE, Modality.VIDEO)]


def test_an_opinion_is_kept_under_all_that_it_depends_on() -> None:
    onnx, torch = panel(), replace(panel(), backend="torch")
    own, clips = Seat("own", "3", Excerpt(lambda _: ())), Seat("clips", "3", Sampling.CLIPS)
    assert versions(own, onnx) == ["3", "3"]
    assert versions(clips, onnx) == ["3", "3+2clips"]
    assert versions(Seat("frames", "3", Sampling.FRAMES), torch) == ["3+torch", "3+torch+4frames"]
    fast = replace(clips, runtime=Runtime("cuda", "bf16", rows=8))
    assert versions(fast, onnx) == ["3+cuda+bf16+8rows", "3+cuda+bf16+8rows+2clips"]
    exact = replace(fast, runtime=Runtime("cuda", rows=8))
    assert not set(versions(fast, onnx)) & set(versions(exact, onnx))


def test_a_scorer_that_bf16_moves_stays_exact_and_its_version_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        (loose,) = Panel.convene(panel("together", torch=replace(BF16, tolerance=0.006))).seats
        (strict,) = Panel.convene(panel("together", torch=replace(BF16, tolerance=0.003))).seats
    assert loose.runtime == Runtime("cpu", "bf16", channels_last=True, rows=2)
    assert strict.runtime == Runtime(rows=2)
    assert (loose.full_version, strict.full_version) == ("1+bf16+channels_last+2rows", "1+2rows")
    told = [record for record in caplog.records if record.name == "tasks.annotation.panel"]
    assert [record.levelname for record in told] == ["INFO", "WARNING"]
    assert "together stays in fp32" in told[1].getMessage()
    assert "move by 0.0039; the tolerance is 0.003" in told[1].getMessage()


def test_seats_are_foreseen_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    config = panel(*BUILT_INS, "ends", "together", torch=TorchConfig(rows=2))
    assert tuple(expected_seats(config)) == Panel.convene(config).seats
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    config = panel("fast_vqa", "dover", "topiq_nr", "q_align", torch=BF16)
    seats = expected_seats(config)
    assert [seat.name for seat in seats] == ["fast_vqa", "dover", "topiq_nr", "q_align"]
    assert all(seat.full_version.endswith("+bf16+channels_last+2rows") for seat in seats)
    assert [isinstance(seat.sampling, Excerpt) for seat in seats] == [True, True, False, False]
    with pytest.raises(ModelError, match="FAST_VQA_B_1_4"):
        Panel.convene(config)
    with pytest.raises(ModelError, match="unknown scorer"):
        expected_seats(panel("nobody"))


def test_a_look_scores_alone_what_is_alone_and_keeps_the_rest_for_the_judgement() -> None:
    config = panel("ranking", "ends", "together", torch=TorchConfig(rows=2))
    convened = Panel.convene(config)
    photos = [getattr(skimage.data, name)()[:200, :200] for name in ("astronaut", "coffee", "chelsea")]
    jobs = [Job(str(index), {}, ("ranking", "ends", "together")[index:]) for index in range(3)]
    seen = [convened.look(job, png(photo)) for job, photo in zip(jobs, photos, strict=True)]
    assert [set(one.scores) for one in seen] == [{"ranking", "ends"}, {"ends"}, set()]
    assert all(set(one.frames) == {"together"} for one in seen)
    outcomes = convened.judge([*seen, Seen("broken", problem=("truncated", "it ends"))])
    assert [set(outcome.scores) for outcome in outcomes[:3]] == [set(job.wanted) for job in jobs]
    assert outcomes[3].problem == ("truncated", "it ends")
    assert outcomes[0].scores["ranking"] == load_scorer("ranking", threads=1).score(photos[0][None])
    assert [o.scores["together"] for o in outcomes[:3]] == [np.mean(p, dtype=np.float64) / 256 for p in photos]


def test_parts_of_a_panel_hold_the_scorers_of_their_kind() -> None:
    config = panel("ends", "together", torch=TorchConfig(rows=2))
    seats, data = Panel.convene(config).seats, png(skimage.data.coffee())
    looker, judge = (Panel.load(config, seats, shared=shared) for shared in (False, True))
    seen = looker.look(Job("x", {}, ("ends", "together")), data)
    assert judge.judge([seen]) == Panel.convene(config).judge([seen])
    with pytest.raises(KeyError):
        looker.judge([seen])


def test_groups_are_consecutive() -> None:
    assert list(groups_of(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(groups_of([], 3)) == []


@pytest.mark.parametrize("values", [{"rows": 0}, {"tolerance": 0.0}, {"tolerance": 0.5}])
def test_runtimes_without_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TorchConfig(**values)  # type: ignore[arg-type]
