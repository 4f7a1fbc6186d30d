"""Towers: CLIP's against transformers' own figures, the compact one against a loop over blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch.nn import functional
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer, Qwen2Config, Qwen2Model

from models.errors import MissingWeightsError, ModelError
from models.rali.image_towers import CLIP_MEAN, CLIP_STD, FIGURES, ClipTower, CompactTower
from models.rali.text_towers import ClipTextTower, DecoderTextTower
from models.rali.views import TileView

SMALL = TileView("fragments", 28, 14, 1)


def _tiles(media: int, count: int, side: int = 28) -> torch.Tensor:
    return torch.randint(
        0, 256, (media, count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)
    )


def test_normalisation_is_that_of_clips_processor():
    processor = CLIPImageProcessor()
    assert tuple(processor.image_mean) == CLIP_MEAN
    assert tuple(processor.image_std) == CLIP_STD


def test_clips_image_tower_gives_clips_features(clip_folder: Path):
    tiles = _tiles(3, 1)
    tower = ClipTower.from_pretrained(clip_folder, "cls")
    clip = CLIPModel.from_pretrained(clip_folder).eval()
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
    pixels = processor(list(tiles[:, 0].numpy()), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = clip.get_image_features(pixel_values=pixels).pooler_output
        found = tower(tiles)
    assert torch.allclose(found, functional.normalize(wanted, dim=1), atol=1e-5)
    assert (tower.width, tower.side) == (16, 28)


def test_tiles_of_a_medium_are_averaged(clip_folder: Path):
    tower, tiles = ClipTower.from_pretrained(clip_folder, "mixed"), _tiles(2, 3)
    with torch.no_grad():
        apart = torch.stack([tower(tiles[:, [number]]) for number in range(3)]).mean(dim=0)
        assert torch.allclose(tower(tiles), apart, atol=1e-6)


def test_ways_to_pool_differ(clip_folder: Path):
    tiles = _tiles(1, 1)
    with torch.no_grad():
        found = [ClipTower.from_pretrained(clip_folder, pooling)(tiles) for pooling in ("cls", "mean", "mixed")]
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert not torch.allclose(found[0], found[2], atol=1e-3)


def test_clips_text_tower_gives_clips_features(clip_folder: Path):
    texts = ["noisy and dark", "sharp"]
    tower = ClipTextTower.from_pretrained(clip_folder, "error")
    clip, tokenizer = CLIPModel.from_pretrained(clip_folder).eval(), CLIPTokenizer.from_pretrained(clip_folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = clip.get_text_features(**batch).pooler_output
        found = tower.project(tower.features(texts))
    assert torch.allclose(found, functional.normalize(wanted, dim=1), atol=1e-5)


def test_long_texts_are_reported_and_kept(clip_folder: Path):
    texts = ["it is dark", "the sky is noisy. the wall is blurry too."]
    tower = ClipTextTower.from_pretrained(clip_folder, "chunks")
    assert tower.limit == 20
    told = tower.lengths(texts)
    assert (told.texts, told.over, told.over_share, told.lost_share) == (2, 1, 0.5, 0.0)
    assert told.longest == len("".join(texts[1].split()))  # a token a letter
    with torch.no_grad():
        both = tower.features(texts)
        parts = tower.features(["the sky is noisy.", "the wall is blurry t", "oo."])
    assert both.shape == (2, 16)
    assert not torch.allclose(both[1], parts[0], atol=1e-3)
    strict = ClipTextTower.from_pretrained(clip_folder, "error")
    with pytest.raises(ModelError, match="the text tower takes 20"):
        strict.features(texts)


def test_a_decoders_features_are_means_of_its_hidden_states(clip_folder: Path):
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1)
    config.num_attention_heads = config.num_key_value_heads = 2
    decoder = Qwen2Model(config).eval()
    tower = DecoderTextTower(decoder, tokenizer, "chunks", 64, 6)
    texts = ["dark", "noisy and dark", "sharp"]
    found = tower.features(texts)
    for row, text in zip(found, texts, strict=True):
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        with torch.no_grad():
            assert torch.allclose(row, decoder(input_ids=ids).last_hidden_state[0].mean(dim=0), atol=1e-5)
    with pytest.raises(ModelError, match="fit_to"):
        tower.project(found)
    tower.fit_to(found)
    embedding = tower.project(found)
    embedding.sum().backward()
    assert embedding.shape == (3, 6)
    assert tower.linear.weight.grad is not None
    assert all(parameter.grad is None for parameter in decoder.parameters())


def test_a_folder_without_clip_is_one_line(tmp_path: Path):
    with pytest.raises(MissingWeightsError, match="put a CLIP model's files into"):
        ClipTower.from_pretrained(tmp_path, "cls")


def test_figures_of_a_block_are_its_cosine_spectrum():
    tower, tiles = CompactTower(SMALL, 8, 12), _tiles(1, 1)[0]
    found = tower.measure(tiles)
    assert found.shape == (1, 4, FIGURES)
    pixels = tiles[0].numpy().astype(np.float64) * 2 / 255 - 1
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    block = luma[:14, 14:]  # the second of the four, in reading order
    spectrum = dctn(block, norm="ortho") ** 2
    down, across = np.meshgrid(np.arange(14), np.arange(14), indexing="ij")
    ring = np.clip((np.hypot(down, across) - 1) / 14 * 7, 0, 6).astype(int)
    angle = np.arctan2(down, across)
    direction = (angle > np.pi / 6).astype(int) + (angle > np.pi / 3)
    for band in range(7):
        for way in range(3):
            own = (ring == band) & (direction == way) & (down + across > 0)
            energy = spectrum[own].sum() / max(1, own.sum())
            assert found[0, 1, band * 3 + way].item() == pytest.approx(np.log(energy + 1e-5), abs=1e-3)
    assert found[0, 1, -3].item() == pytest.approx(block.mean(), abs=1e-5)


def test_the_compact_tower_takes_any_number_of_frames():
    torch.manual_seed(0)
    tower = CompactTower(SMALL, 8, 12).eval()
    tiles = _tiles(2, 6)
    tower.fit_to(tiles.flatten(0, 1))
    with torch.no_grad():
        three, one = tower(tiles), tower(tiles[:, :2])
        again = tower(tiles[:, :2].repeat(1, 3, 1, 1, 1))
    assert three.shape == one.shape == (2, 8)
    assert torch.allclose(one, again, atol=1e-5)
    assert not torch.allclose(one, three, atol=1e-3)


def test_thumbnails_and_native_tiles_are_told_apart():
    torch.manual_seed(0)
    tower = CompactTower(SMALL, 8, 12).eval()
    torch.nn.init.normal_(tower.roles)
    tiles = _tiles(1, 2)
    with torch.no_grad():
        assert not torch.allclose(tower(tiles), tower(tiles.flip(1)), atol=1e-4)


def test_tiles_must_be_made_of_blocks():
    with pytest.raises(ModelError, match="whole blocks of 14"):
        CompactTower(TileView("fragments", 40, 20, 1), 8, 12)
