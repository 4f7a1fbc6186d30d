"""Records of published weights: complete, consistent with their owners, and nothing that holds code gets in."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from transformers import CLIPConfig, CLIPModel

from models.decoders import DECODERS
from models.errors import MissingWeightsError, ModelError
from models.scorers import records
from models.weights import CLIP, check_plain, is_torchscript, snapshot_folder, weight_records


def test_every_file_that_a_scorer_needs_has_a_record():
    known = weight_records()
    paths = {record.path for record in known.values()}
    for scorer in records().values():
        for file in scorer.weights:
            assert file.path in paths or file.path.parents[1] in paths
    assert all(record.name == name and record.licence and record.megabytes > 0 for name, record in known.items())
    assert all(record.origin.startswith("https://") for record in known.values())
    assert all(len(record.instruction.splitlines()) == 1 for record in known.values())


def test_hashes_are_those_that_names_and_urls_publish():
    for record in weight_records().values():
        assert record.sha256 in record.origin
        assert len(record.sha256) in {0, 8, 64}
        assert set(record.sha256) <= set("0123456789abcdef")
    assert sum(bool(record.sha256) for record in weight_records().values()) == 3


def test_base_models_are_those_of_the_decoders_and_of_the_papers_profile(checkout: Path):
    hub = {name for name, record in weight_records().items() if record.snapshot and name.startswith("OpenGVLab/")}
    assert hub == {record.hub for record in DECODERS.values()} - {None}
    needs = yaml.safe_load((checkout / "infra/profiles/paper.yaml").read_text())["needs"]
    assert hub | {CLIP} == {snapshot["name"] for snapshot in needs["snapshots"]}


def test_the_students_backbone_is_the_clip_of_the_papers_profile_and_its_shapes_are_those_of_vit_l_14(checkout: Path):
    profile = yaml.safe_load((checkout / "infra/profiles/paper.yaml").read_text())["rali"]
    assert profile["tower"]["weights"] == profile["text"]["weights"] == CLIP
    record = weight_records()[CLIP]
    assert record.path.name == "models--openai--clip-vit-large-patch14"
    assert "config.json, model.safetensors, tokenizer.json" in record.instruction
    shared = {"num_hidden_layers": 24, "projection_dim": 768}
    vision = {**shared, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    with torch.device("meta"):
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768))
    state = {name: tuple(value.shape) for name, value in clip.state_dict().items()}
    assert record.shapes.items() <= state.items()
    assert record.megabytes == pytest.approx(4e-6 * sum(value.numel() for value in clip.parameters()), abs=5)


def test_released_checkpoints_have_records():
    released = {name: record for name, record in weight_records().items() if name.startswith("JZHWS/")}
    assert len(released) == 7
    assert released["JZHWS/VITAL-Linear-Probe"].licence == "MIT, as its page says"
    assert released["JZHWS/VITAL-Vision-Encoder-300M"].licence == "none is stated on its page"
    assert all(record.snapshot and record.owners == (f"released {name[6:]}",) for name, record in released.items())


def test_a_snapshots_folder_is_its_present_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    name = "OpenGVLab/InternVL3-1B-hf"
    with pytest.raises(MissingWeightsError, match=r"put the snapshot OpenGVLab/InternVL3-1B-hf .* vital weights add"):
        snapshot_folder(name)
    cache = weight_records()[name].path
    for revision in ("old", "new"):
        (cache / "snapshots" / revision).mkdir(parents=True)
        (cache / "snapshots" / revision / "config.json").write_text("{}")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("new\n")
    assert snapshot_folder(name) == cache / "snapshots" / "new"
    (cache / "snapshots" / "new" / "config.json").unlink()
    with pytest.raises(MissingWeightsError):
        snapshot_folder(name)


def test_places_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for record in weight_records().values():
        assert record.path.is_relative_to(tmp_path / ("hub" if record.snapshot else "torch"))
    assert weight_records()["q-future/one-align"].path == tmp_path / "hub" / "models--q-future--one-align"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch should-not-exist",)


@pytest.mark.parametrize("layout", ["zip archive", "bare pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    zipped = layout == "zip archive"
    torch.save({"a": torch.zeros(3)}, "good.pth", _use_new_zipfile_serialization=zipped)
    check_plain(Path("good.pth"))
    torch.save({"a": Evil()}, "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"^evil.pth is not a file of tensors alone"):
        check_plain(Path("evil.pth"))
    assert not Path("should-not-exist").exists()
    Path("cut.pth").write_bytes(Path("good.pth").read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cut.pth is not a file of tensors alone"):
        check_plain(Path("cut.pth"))


def test_torchscript_is_told_from_tensors(tmp_path: Path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "net.pt"))
    torch.save({"a": torch.zeros(3)}, tmp_path / "tensors.pt")
    assert is_torchscript(tmp_path / "net.pt")
    assert not is_torchscript(tmp_path / "tensors.pt")
    with pytest.raises(ModelError, match="not a file of tensors alone"):
        check_plain(tmp_path / "net.pt")
