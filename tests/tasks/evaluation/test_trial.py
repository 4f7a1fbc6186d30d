"""The measuring step of a trial: its scores are the models' own, its measures those of the scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from tiny_study import make_frame

from models.levels import CENTRES
from models.quality_lmm import QualityLMM
from models.vision_encoder import prepare_image, swap_encoder
from tasks.evaluation.trial import measure
from tasks.media import decode_image
from tasks.pool import load_candidates, read_media
from tasks.records import INFERENCES, OPINIONS
from tasks.shards import read_table
from tasks.stage import Place


@pytest.fixture
def root(line: Path, write_pretrained: Callable[[Path], None]) -> Path:
    write_pretrained(line)
    return make_frame(line)


def test_scores_are_those_of_the_model_asked_as_it_was_trained(root: Path):
    folder = root / "artifacts" / "pretrain" / "model"
    empty = measure(root)["models"]["vital-base-small"]
    model = QualityLMM.from_pretrained(folder)
    model.question = "asked"
    model.save_pretrained(folder)
    found = measure(root)
    told = found["models"]["vital-base-small"]
    assert set(found["models"]) == {"vital-base-small"}
    assert told["readout"] == "expectation"
    assert told["scores"] != empty["scores"]
    scores = dict(zip(found["media"]["id"], map(float, told["scores"].split()), strict=True))
    pool = load_candidates(Place(root, root, root))
    held_out = pool[pool["split"] == "held_out"]
    assert set(scores) == set(held_out["id"])
    for _, row in held_out[held_out["modality"] == "image"].iterrows():
        medium = prepare_image(decode_image(read_media(Place(root, root, root), row)), model.spec)
        probs = model.level_probabilities([medium])[0].double().numpy()
        assert scores[row["id"]] == pytest.approx(float(probs @ CENTRES), abs=2e-5)


@pytest.mark.parametrize(("style", "user"), [("asked", "How would you rate the quality of this image?"), ("empty", "")])
def test_a_trials_model_is_rated_after_the_conversation_it_was_trained_with(
    pretrain_asked: Callable[[str], tuple[Path, dict[str, set[str]]]],
    rated: dict[str, set[str]],
    style: str,
    user: str,
):
    root, trained = pretrain_asked(style)
    measure(root)
    sentence = "The quality of the image is"
    assert trained[sentence] == rated[sentence]
    (conversation,) = rated[sentence]
    assert conversation.endswith(f"user\n<img></img>\n{user}<|im_end|>\n<|im_start|>assistant\n")
    (of_clips,) = rated["The quality of the video is"]
    assert of_clips == conversation.replace("this image", "this video")


def test_measures_are_those_of_the_scores_against_the_opinions(root: Path):
    found = measure(root)
    told = found["models"]["vital-base-small"]
    opinions = read_table(root / "artifacts/score/opinions.parquet", OPINIONS).set_index("id")["mu"]
    assert np.allclose(found["media"]["target"], opinions.loc[found["media"]["id"]])
    scores = np.array(told["scores"].split(), dtype=np.float64)
    target = np.array(found["media"]["target"])
    assert told["measures"]["srcc"]["value"] == pytest.approx(spearmanr(scores, target).statistic, abs=1e-5)
    assert told["measures"]["plcc"]["value"] == pytest.approx(pearsonr(scores, target).statistic, abs=1e-5)
    assert set(told["measures"]) == {"srcc", "plcc", "undistorted_srcc", "severity_srcc"}


def test_a_trial_that_only_warms_up_is_measured_by_what_it_made(root: Path, tmp_path: Path):
    pretrained = root / "artifacts" / "pretrain"
    moved = pretrained.rename(tmp_path / "start")
    pretrained.symlink_to(moved)
    base = QualityLMM.from_pretrained(root / "artifacts" / "base" / "large")
    base.save_pretrained(root / "artifacts" / "warm_up" / "large" / "control")
    swap_encoder(base, pretrained / "encoder")
    base.save_pretrained(root / "artifacts" / "warm_up" / "large" / "zero")
    (root / ".work" / "shared").mkdir(parents=True)
    found: dict[str, Any] = measure(root)["models"]
    assert set(found) == {"vital-zero-large", "base-warm-up-large"}
    assert found["vital-zero-large"]["scores"] != found["base-warm-up-large"]["scores"]
    kept = list((root / ".work" / "shared" / "base_features").iterdir())
    assert kept, "the base encoder's features are kept for the other trials"


def test_a_trial_of_two_stages_tells_what_each_model_said_of_every_medium(
    root: Path, write_two_stage: Callable[[Path], None]
):
    write_two_stage(root)
    found = measure(root)
    assert set(found["models"]) == {"one_stage", "pretrained", "two_stage"}
    inferences = read_table(root / ".work/measure/reason/out/inferences.parquet", INFERENCES)
    targets = np.array(found["media"]["target"])
    for name, told in found["models"].items():
        rows = inferences[inferences["model"] == name].sort_values("id")
        assert rows["id"].tolist() == found["media"]["id"]
        scores = np.array([float(np.array(probs) @ CENTRES) for probs in rows["level_probs"]])
        assert np.allclose(np.array(told["scores"].split(), dtype=float), scores, atol=1e-5)
        assert told["measures"]["srcc"]["value"] == pytest.approx(
            spearmanr(scores.round(5), targets).statistic, abs=1e-5
        )
        late = np.array(told["figures"]["late_switch"].split(), dtype=float)
        assert late.tolist() == rows["late_switch"].astype(float).tolist()
    assert set(found["models"]["pretrained"]["figures"]["text_flip"].split()) == {"nan"}
    assert {float(part) for part in found["models"]["two_stage"]["figures"]["text_flip"].split()} == {0.0}
