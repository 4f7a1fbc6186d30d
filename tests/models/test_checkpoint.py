"""Checkpoints on disk: complete or refused, bounded shards, the same bits again."""

import json
from pathlib import Path

import pytest
import torch
from published_folders import write_internvl, write_weights
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import InternVLForConditionalGeneration

from models.checkpoint import (
    checkpoint_shards,
    load_internvl,
    read_tensors,
    require_files,
    require_same_tensors,
    save_internvl,
    shapes_of,
    shapes_of_config,
    stored_type,
)
from models.decoders import EncoderSize, build_internvl_config, decoder_record
from models.errors import MissingWeightsError, ModelError

SIZE = EncoderSize(width=32, layers=2, heads=2, mlp_width=64, tile_px=56, patch_px=14, layer_scale=1.0)


def network(*, tied: bool) -> InternVLForConditionalGeneration:
    config = build_internvl_config(decoder_record("nano"), SIZE, 300, 299)
    config.tie_word_embeddings = tied
    torch.manual_seed(1)
    return InternVLForConditionalGeneration(config)


@pytest.mark.parametrize("tied", [True, False])
def test_shards_are_bounded_and_hold_every_bit(*, tied: bool, tmp_path: Path):
    model = network(tied=tied)
    save_internvl(model, tmp_path, max_shard_bytes=200_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    names = set()
    for number, file in enumerate(files, 1):
        assert file.name == f"model-{number:05d}-of-{len(files):05d}.safetensors"
        with safe_open(file, framework="pt") as stored:
            held = list(stored.keys())
        names |= set(held)
        assert all(("vision_tower" in name) == (number == 1) for name in held)
        assert number == 1 or len(held) == 1 or file.stat().st_size < 210_000
    assert ("lm_head.weight" in names) == (not tied)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == names
    assert index["metadata"]["total_size"] == sum(value.nbytes for _, value in read_tensors(files))
    again = load_internvl(tmp_path)
    assert again.config.tie_word_embeddings == tied
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_type_to_read_files_in_loses_nothing(tmp_path: Path):
    network(tied=False).bfloat16().save_pretrained(tmp_path / "narrow")
    narrow = sorted((tmp_path / "narrow").glob("*.safetensors"))
    assert stored_type(narrow) == torch.bfloat16
    save_file({"a": torch.ones(2), "b": torch.ones(2).bfloat16()}, tmp_path / "wide.safetensors")
    assert stored_type([tmp_path / "wide.safetensors"]) == torch.float32
    assert stored_type([*narrow, tmp_path / "wide.safetensors"]) == torch.float32
    save_file({"a": torch.ones(2).bfloat16(), "n": torch.tensor(3)}, tmp_path / "counts.safetensors")
    assert stored_type([tmp_path / "counts.safetensors"]) == torch.bfloat16


def test_the_configuration_of_a_model_of_two_types_says_the_wider_one(tmp_path: Path):
    model = network(tied=False).bfloat16()
    model.config.dtype = torch.bfloat16
    model.model.vision_tower.float()
    save_internvl(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    again = load_internvl(tmp_path)
    assert all(torch.equal(value.float(), again.state_dict()[name]) for name, value in model.state_dict().items())


def test_saving_needs_no_second_copy(tmp_path: Path):
    """The written tensors are views of the model's own memory."""
    import safetensors.torch

    model = network(tied=True)
    addresses = {value.data_ptr() for value in model.state_dict().values()}
    seen: list[int] = []

    def spy(tensors: dict[str, torch.Tensor], *rest: object, **options: object) -> None:
        seen.extend(value.data_ptr() for value in tensors.values())
        safetensors.torch.save_file(tensors, *rest, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.checkpoint.save_file", spy)
        save_internvl(model, tmp_path)
    assert len(seen) == len(set(model.state_dict()) - {"lm_head.weight"})
    assert set(seen) <= addresses


def test_types_are_kept_on_disk_and_chosen_at_loading(tmp_path: Path):
    model = network(tied=False).bfloat16()
    save_internvl(model, tmp_path)
    assert {value.dtype for _, value in read_tensors(sorted(tmp_path.glob("*.safetensors")))} == {torch.bfloat16}
    for dtype in (torch.bfloat16, torch.float32):
        again = load_internvl(tmp_path, dtype)
        assert {value.dtype for value in again.parameters()} == {dtype}
        assert all(torch.equal(v.to(dtype), again.state_dict()[n]) for n, v in model.state_dict().items())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("model-00002-of-00003.safetensors", Path.unlink, "model-00002-of-00003.safetensors is missing; do this"),
        ("model-00001-of-00003.safetensors", _cut, "is cut or damaged"),
        ("model-00001-of-00003.safetensors", _pointer, "is a Git LFS pointer"),
        ("model.safetensors.index.json", Path.unlink, r"neither model.safetensors.index.json nor one file.*do this"),
        ("model.safetensors.index.json", _cut, "index.json is cut or damaged"),
        ("config.json", Path.unlink, "config.json is missing; do this"),
    ],
)
def test_incomplete_folders_say_what_is_wrong(name: str, harm: object, said: str, tmp_path: Path):
    write_internvl(tmp_path, 3)
    assert len(checkpoint_shards(tmp_path, "test")) == 3
    harm(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(MissingWeightsError, match=said) as caught:
        load_internvl(tmp_path, remedy="do this")
    assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_the_configuration_are_refused(tmp_path: Path):
    state = write_internvl(tmp_path, 1)
    lacking = {name: value for name, value in state.items() if name != "vision_tower.embeddings.cls_token"}
    extra = {**state, "vision_tower.embeddings.extra": torch.zeros(1)}
    wrong = {**state, "vision_tower.embeddings.cls_token": torch.zeros(1, 1, 5)}
    for tensors, said in ((lacking, "missing keys.*cls_token"), (extra, "unexpected keys.*extra"), (wrong, "not load")):
        write_weights(tmp_path, tensors, 1)
        with pytest.raises(ModelError, match=said) as caught:
            load_internvl(tmp_path)
        assert "\n" not in str(caught.value)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "internvl_chat"}))
    with pytest.raises(ModelError, match="type 'internvl_chat', not transformers' internvl"):
        load_internvl(tmp_path)


def test_one_matrix_that_the_configuration_states_stays_one(tmp_path: Path):
    save_internvl(network(tied=True), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is True
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(ModelError, match=r"missing keys.*lm_head"):
        load_internvl(tmp_path)


def test_first_difference_is_named():
    wanted = {"a": (1, 2), "b": (3,)}
    require_same_tensors({"b": (3,), "a": (1, 2)}, wanted, "it")
    for found, said in (
        ({"a": (1, 2)}, r"it: has no tensor b, which should be \[3\]"),
        ({**wanted, "c": (4,)}, r"it: has a tensor c \[4\] that no part"),
        ({**wanted, "a": (2, 1)}, r"it: tensor a is \[2, 1\], not \[1, 2\]"),
    ):
        with pytest.raises(ModelError, match=said):
            require_same_tensors(found, wanted, "it")


def test_shapes_of_a_configuration_are_those_of_its_network():
    model = network(tied=True)
    assert dict(shapes_of_config(model.config)) == dict(shapes_of(model.state_dict()))


def test_missing_files_name_the_remedy(tmp_path: Path):
    with pytest.raises(MissingWeightsError, match=r"encoder: .*x.json is missing; make it with the stage"):
        require_files(tmp_path, ["x.json"], "encoder")
    with pytest.raises(MissingWeightsError, match="is missing; buy it"):
        require_files(tmp_path, ["x.json"], "encoder", "buy it")
