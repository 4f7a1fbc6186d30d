"""Scorers by name: the official ones say which file belongs where, third-party ones come by entry point."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from models.errors import MissingWeightsError, ModelError
from models.scorers import Sampling, load_scorer, missing_weights, records, scorer_version
from models.scorers.protocol import Pixels

OFFICIAL = ("fast_vqa", "dover", "q_align", "topiq_nr", "liqe", "qualiclip", "fast_vqa_m")


@pytest.fixture
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_the_papers_six_and_ours_are_listed() -> None:
    known = records()
    assert [name for name, record in known.items() if record.origin == "official"] == [
        "fast_vqa", "dover", "q_align", "topiq_nr", "liqe", "qualiclip", "fast_vqa_m",
    ]  # fmt: skip
    assert sum(record.origin == "built-in" for record in known.values()) == 6
    assert all(record.licence and record.modality for record in known.values())
    assert all(record.weights for record in known.values() if record.origin == "official")


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_scorer_without_its_files_says_what_to_put_where(name: str, empty_caches: Path) -> None:
    file = records()[name].weights[0]
    with pytest.raises(MissingWeightsError, match=f"put {file.path.name} into .*from") as caught:
        load_scorer(name)
    assert str(file.path).startswith(str(empty_caches))
    assert len(str(caught.value).splitlines()) == 1


def test_a_plan_lists_every_missing_file_and_nothing_for_the_built_in_six(empty_caches: Path) -> None:
    official = [name for name, record in records().items() if record.origin == "official"]
    lines = missing_weights(official)
    assert len([line for line in lines if "put " in line]) == sum(len(records()[name].weights) for name in official)
    assert [line for line in lines if "put " not in line] == []
    assert missing_weights([name for name, record in records().items() if record.origin == "built-in"]) == []
    assert not (empty_caches / "torch").exists()


def test_a_name_that_nobody_has_is_unknown() -> None:
    with pytest.raises(ModelError, match="unknown scorer"):
        load_scorer("no_such")


def test_versions_are_known_without_loading() -> None:
    assert scorer_version("ranking") == load_scorer("ranking").version
    assert scorer_version("topiq_nr").startswith("pyiqa-")
    assert scorer_version("dover") == "vital-1+DOVER.pth"


class Brightness:
    """The ten lines a third party writes."""

    name, version, sampling = "brightness", "1", Sampling.FRAMES

    def raw(self, frames_THWC: Pixels) -> float:
        return float(frames_THWC.mean())

    def score(self, frames_THWC: Pixels) -> float:
        return self.raw(frames_THWC) / 255.0


def test_a_third_party_scorer_is_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("brightness", f"{__name__}:Brightness", "vital.scorers")
    bad = importlib.metadata.EntryPoint("bad", "builtins:dict", "vital.scorers")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Brightness if self is entry else dict)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry, bad] if "scorers" in group else [])
    assert load_scorer("brightness").score(np.full((1, 4, 4, 3), 51, np.uint8)) == pytest.approx(0.2)
    assert missing_weights(["brightness"]) == []
    with pytest.raises(ModelError, match="is not a Scorer"):
        load_scorer("bad")


@pytest.mark.slow
@pytest.mark.usefixtures("empty_caches")
def test_topiq_loads_from_its_file_through_pyiqa(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from pyiqa.archs.topiq_arch import CFANet
    from pyiqa.utils import download_util

    file = records()["topiq_nr"].weights[0].path
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(file.parent))  # pyiqa fixes it when imported
    torch.manual_seed(0)
    network = CFANet(use_ref=False, pretrained=False, backbone_pretrain=False).eval()
    torch.save({"params": network.state_dict()}, file)
    frames = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    scorer = load_scorer("topiq_nr")
    with torch.inference_mode():
        expected = [network(torch.from_numpy(f).permute(2, 0, 1)[None] / 255.0).item() for f in frames]
    assert scorer.raw(frames) == pytest.approx(np.mean(expected), abs=1e-5)
    assert 0.0 <= scorer.score(frames) <= 1.0
    file.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="do not load"):
        load_scorer("topiq_nr")


def test_a_third_party_scorer_that_does_not_load_is_one_line_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.scorers.catalogue._registered", {"boom": lambda: 1 / 0})
    with pytest.raises(ModelError, match=r"'boom' does not load \(ZeroDivisionError: division by zero\)"):
        load_scorer("boom")
