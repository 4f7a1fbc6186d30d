"""The base stage end to end on a small world, and the shipped weights against their recipe."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from skimage.data import astronaut
from transformers import InternVLForConditionalGeneration

from models.quality_lmm import QualityLMM
from models.vision_encoder import EMBEDDED_SPEC, encoder_state, prepare_image
from tasks.errors import StageError
from tasks.records import Modality
from tasks.stage import Place, build_config, stage_config
from tasks.training import base
from tasks.training.base_corpus import keys_of, statements
from tasks.training.base_decoders import start_projector
from tasks.training.base_encoder import (
    MeasuringAxes,
    MeasuringHead,
    Standard,
    optimiser_schedule,
    step,
    whiten_patch_embedding,
)
from tasks.training.base_media import make_media, normalised


@pytest.fixture(scope="module")
def small(checkout: Path) -> base.Config:
    values = yaml.safe_load((checkout / "params.yaml").read_text())["base"]
    values.update(workers=1, threads=1, decoders=["nano", "micro"], held_out=0.25)
    values["scenes"].update(scenes=12, variants=2, clips=6, sides=[112, 140])
    values["encoder"].update(steps=6, batch=4, motion_steps=3, motion_batch=2, whitening_patches=2000)
    values["decoder"].update(steps=8, batch=8, feature_batch=8)
    return build_config(base.Config, "base", values)


@pytest.fixture(scope="module")
def made(small: base.Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, base.Report]:
    folder = tmp_path_factory.mktemp("base")
    place = Place(folder, folder / "work", folder / "work" / "out")
    place.out.mkdir(parents=True)
    return place, base.run(small, place)


def test_makes_decoders_on_one_encoder(made: tuple[Place, base.Report], small: base.Config):
    place, report = made
    assert report.images == 24
    assert report.videos == 6
    assert set(report.reading) == set(small.decoders)
    models = [QualityLMM.from_pretrained(place.out / name) for name in small.decoders]
    first, second = (encoder_state(model) for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert models[0].tokenizer.get_vocab() == models[1].tokenizer.get_vocab()
    shards = [(place.out / name / "model-00001-of-00002.safetensors").read_bytes() for name in small.decoders]
    assert shards[0] == shards[1], "a store must be able to keep the encoder once"
    InternVLForConditionalGeneration.from_pretrained(place.out / "nano")
    assert {path.suffix for path in place.out.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_manifest_tells_files_and_fingerprints(made: tuple[Place, base.Report], small: base.Config):
    place, _ = made
    manifest = json.loads((place.out / "manifest.json").read_text())
    assert manifest["decoders"] == list(small.decoders)
    names = {str(path.relative_to(place.out)) for path in place.out.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == names - {"manifest.json"}
    for name in small.decoders:
        assert manifest["fingerprints"][name] == pytest.approx(base.fingerprint(place.out / name), abs=1e-4)
        assert sum(manifest["fingerprints"][name]) == pytest.approx(1, abs=1e-4)


def test_a_killed_run_goes_on_after_the_last_finished_network(
    made: tuple[Place, base.Report], small: base.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place, report = made

    def forbidden(*_args: object) -> None:
        pytest.fail("a finished network was trained again")

    monkeypatch.setattr(base, "train_image_encoder", forbidden)
    monkeypatch.setattr(base, "train_decoder", forbidden)
    again = Place(place.root, place.work, tmp_path / "out")
    again.out.mkdir()
    assert base.run(small, again) == report
    for path in sorted(place.out.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.out / path.relative_to(place.out)).read_bytes(), path


def test_section_of_the_params_file_fits(checkout: Path):
    config = stage_config("base", yaml.safe_load((checkout / "params.yaml").read_text()))
    assert config.decoders == ("nano", "micro", "mini")


def test_whitened_patches_have_unit_variance(small: base.Config):
    media = [m for m in make_media(small.scenes, EMBEDDED_SPEC, 3, 1) if m.modality is Modality.IMAGE]
    model = base.new_model("nano", base.domain_tokenizer(2048), 0)
    whiten_patch_embedding(model, media, 20_000, 0)
    tiles = normalised(torch.cat([torch.from_numpy(medium.tiles_T3HW) for medium in media]))
    with torch.no_grad():
        patches = model.image_encoder.embeddings.patch_embeddings(tiles).flatten(0, 1)
    assert patches.mean(0).abs().max() < 0.3
    assert patches[:, :60].std(0).mean() == pytest.approx(1, abs=0.2)
    correlation = torch.corrcoef(patches[:, :40].T) - torch.eye(40)
    assert correlation.abs().mean() < 0.1


@dataclasses.dataclass(frozen=True)
class Numbers:
    learning_rate: float
    weight_decay: float
    beta2: float


def test_a_projector_starts_with_what_the_measuring_heads_read():
    torch.manual_seed(0)
    heads = [MeasuringHead(768, 10), MeasuringHead(768, 40)]
    for head in heads:
        torch.nn.init.normal_(head.norm.weight)
        torch.nn.init.normal_(head.norm.bias)
    features = torch.randn(5, 768) * 3 + 1
    measured = torch.cat([head(features) for head in heads], dim=1)
    tokenizer = base.domain_tokenizer(2048)
    for name, width in (("nano", 96), ("mini", 192)):
        model = base.new_model(name, tokenizer, 0)
        start_projector(model, MeasuringAxes.of(*heads))
        read = model.projector.linear_1(model.projector.layer_norm(features))
        rows = min(width // 2, 50)
        assert read[:, : 2 * rows : 2].allclose(measured[:, :rows], atol=1e-3)
        assert read[:, 1 : 2 * rows : 2].allclose(-measured[:, :rows], atol=1e-3)


def test_standard_and_schedule():
    standard = Standard.of(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert standard(torch.tensor([[2.0, 5.0]])).tolist() == [[0.0, 0.0]]
    weight = torch.nn.Parameter(torch.ones(1))
    optimiser, schedule = optimiser_schedule([weight], Numbers(1.0, 0.0, 0.95), 40)
    rates = []
    for _ in range(40):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[0] == 0.5
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[-1] < 0.01
    with pytest.raises(StageError, match="learning_rate"):
        step(optimiser, schedule, weight.sum() * float("nan"), [weight])


def shipped(checkout: Path) -> Path:
    folder = checkout / "artifacts" / "base"
    if not (folder / "manifest.json").is_file():
        pytest.skip("the base weights are not here: dvc pull -r seed artifacts/base")
    return folder


def test_shipped_weights_fit_the_recipe(checkout: Path):
    folder = shipped(checkout)
    manifest = json.loads((folder / "manifest.json").read_text())
    config = stage_config("base", yaml.safe_load((checkout / "params.yaml").read_text()))
    assert manifest["recipe"] == base.digest(dataclasses.asdict(config)), (
        "params.yaml section base and artifacts/base disagree: dvc repro infra/base/dvc.yaml"
    )
    for name in config.decoders:
        assert base.fingerprint(folder / name) == pytest.approx(manifest["fingerprints"][name], abs=2e-4), (
            f"{name}: the code no longer reads pictures as it did when these weights were made"
        )


def test_shipped_decoders_say_levels_and_only_what_is_measured(checkout: Path):
    folder = shipped(checkout)
    said = keys_of(Modality.IMAGE)
    report = json.loads((checkout / "metrics" / "base.json").read_text())
    assert min(report["level_mass"].values()) > 0.95
    assert min(report["reading"].values()) > 0.75
    assert report["megabytes"] <= 20
    photo = astronaut()
    model = QualityLMM.from_pretrained(folder / "micro")
    text = model.generate([prepare_image(photo, model.spec)], max_new_tokens=40)[0]
    listed = {s.lower() for key in said for fifth in range(5) for s in statements(key, fifth, Modality.IMAGE)}
    assert all(part.lower() in listed for part in text.split(". ")), text
