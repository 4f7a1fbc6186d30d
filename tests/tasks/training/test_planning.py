"""What a plan takes for granted: shapes of media against how they are prepared, mixtures, and a strict file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decoders import DECODERS
from models.vision_encoder import EMBEDDED_SPEC, PAPER_SPEC, VisualSpec, prepare_clip, prepare_image
from tasks.errors import ConfigError
from tasks.training.planning import (
    FAMILIES,
    MediumKind,
    medium_shape,
    read_planning,
    scoring_mixture,
    training_mixture,
)

SMALL = [
    replace(EMBEDDED_SPEC, tile_px=28, fragment_px=14, motion_px=8),
    replace(PAPER_SPEC, tile_px=28, motion_px=8),
]


@settings(max_examples=40, deadline=None)
@given(spec=st.sampled_from(SMALL), width=st.integers(20, 200), height=st.integers(20, 200))
def test_an_image_has_as_many_tiles_as_are_prepared(spec: VisualSpec, width: int, height: int):
    prepared = prepare_image(np.zeros((height, width, 3), np.uint8), spec)
    assert medium_shape(MediumKind(1.0, width, height), spec) == (len(prepared.tiles_TCHW), 0)


@settings(max_examples=30, deadline=None)
@given(spec=st.sampled_from(SMALL), frames=st.integers(1, 80), rate=st.sampled_from([4.0, 10.0, 25.0]))
def test_a_clip_has_as_many_tiles_and_motion_frames_as_are_prepared(spec: VisualSpec, frames: int, rate: float):
    prepared = prepare_clip(np.zeros((frames, 30, 30, 3), np.uint8), np.arange(frames) / rate, spec)
    assert prepared.motion_CTHW is not None
    kind = MediumKind(1.0, 30, 30, frames / rate, rate)
    assert medium_shape(kind, spec) == (len(prepared.tiles_TCHW), prepared.motion_CTHW.shape[1])


def test_the_file_is_read_and_knows_every_family(checkout: Path):
    planning = read_planning(checkout, {})
    assert set(planning.workloads) == {record.family for record in DECODERS.values()} == set(FAMILIES)
    for workload in planning.workloads.values():
        planning.device(workload.device)
    changed = read_planning(checkout, {"workloads": {"internvl3": {"mfu": 0.5}}})
    assert changed.workloads["internvl3"].mfu == 0.5
    assert changed.workloads["tiny"] == planning.workloads["tiny"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prices": {}}, "unknown key 'prices'"),
        ({"reserve": 1.5}, "reserve must lie in"),
        ({"reserve": "much"}, "planning.reserve: expected float"),
        ({"workloads": {"tiny": {"samples_per_medium": 0.5}}}, "samples_per_medium must be at least 1"),
        ({"workloads": {"tiny": {"media": {"clip": {"frames_per_second": 0.0}}}}}, "for one frame at least"),
        ({"workloads": {"tiny": {"scored": {"painting": 3}}}}, "'painting', which is no kind of media"),
        (
            {"workloads": {"tiny": {"media": {"photograph": {"share": 0.0}, "clip": {"share": 0.0}}}}},
            "must have a share",
        ),
    ],
)
def test_a_wrong_value_is_told(changes: dict[str, object], told: str, checkout: Path):
    with pytest.raises(ConfigError, match=told):
        read_planning(checkout, changes)


def test_unknown_devices_families_and_tasks_are_told(checkout: Path):
    planning = read_planning(checkout, {})
    with pytest.raises(ConfigError, match="unknown device 'abacus'; the devices are h200, "):
        planning.device("abacus")
    with pytest.raises(ConfigError, match="no workload of the family 'large'; there are tiny, internvl3"):
        planning.workload("large")
    with pytest.raises(ConfigError, match="answers has no task 'poem'"):
        training_mixture({"poem": 1.0}, planning.workload("tiny"), EMBEDDED_SPEC, 1.0)


def test_a_pair_is_two_samples_and_a_mixture_has_its_shares(checkout: Path):
    workload = read_planning(checkout, {}).workload("tiny")
    mixture = training_mixture({"single": 3.0, "pair": 1.0, "description": 0.0}, workload, EMBEDDED_SPEC, 0.5)
    shares = {task: sum(s for name, s, _ in mixture.parts if name == task) for task in ("single", "pair")}
    assert shares == {"single": pytest.approx(0.75), "pair": pytest.approx(0.25)}
    clips = sum(share for _, share, samples in mixture.parts if samples[0].frames)
    media = workload.media
    assert clips == pytest.approx(media["clip"].share / (media["clip"].share + media["photograph"].share))
    for name, _, samples in mixture.parts:
        assert len(samples) == (2 if name == "pair" else 1)
        assert {(s.level_rows, s.text_rows, s.encoded) for s in samples} == {(1, 6, 0.5)}
    assert {sample.encoded for example in mixture.longest for sample in example} == {1.0}


def test_text_is_supervised_in_every_token_and_cached_features_are_never_encoded(checkout: Path):
    workload = read_planning(checkout, {}).workload("internvl3")
    mixture = training_mixture({"description": 1.0}, workload, PAPER_SPEC, 0.0)
    for _, _, (sample,) in mixture.parts:
        assert (sample.level_rows, sample.text_rows) == (0, workload.answers["description"])
        assert sample.text_tokens == workload.prompt_tokens + workload.answers["description"]
    assert {sample.encoded for example in mixture.longest for sample in example} == {0.0}


def test_a_benchmark_reads_one_row_of_each_medium(checkout: Path):
    workload = read_planning(checkout, {}).workload("internvl3")
    mixture = scoring_mixture(workload, PAPER_SPEC)
    assert sum(share for _, share, _ in mixture.parts) == pytest.approx(1.0)
    assert {name for name, _, _ in mixture.parts} == set(workload.scored)
    assert {(s.level_rows, s.text_rows) for _, _, samples in mixture.parts for s in samples} == {(1, 0)}
