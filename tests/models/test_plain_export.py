"""An exported folder in plain transformers, none of this project's code: the same logits for an image."""

import base64
import copy
import io
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tiny_lmm import SPEC, make_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from models.errors import ModelError
from models.levels import LEVELS
from models.plain_export import export_plain
from models.quality_lmm import IMAGE_PREFIX, QualityLMM
from models.vision_encoder import VisualSpec, prepare_image

DYNAMIC = VisualSpec(
    tile_px=56, tiling="dynamic", fragment_px=56, native_tiles=0, frame_native_tiles=0, max_tiles=6, key_frames=4,
    motion_frames=0, motion_px=32, motion_mean=0.45, motion_std=0.225, motion_limit=100,
)  # fmt: skip
QUESTION = "Is the image blurry?"


@pytest.fixture(scope="module")
def model() -> QualityLMM:
    return make_model(spec=DYNAMIC)


@pytest.fixture(scope="module")
def plain(model: QualityLMM, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("plain")
    export_plain(model, folder)
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def conversation(question: str, image: Any = None) -> list[dict[str, Any]]:
    shown = {"type": "image"} if image is None else {"type": "image", "image": image}
    return [{"role": "user", "content": [shown, {"type": "text", "text": question}]}]


@pytest.mark.parametrize("size", [(90, 130), (56, 56), (200, 60), (64, 64)])
@pytest.mark.parametrize("question", ["", QUESTION])
def test_plain_transformers_gives_the_same_level_logits(
    model: QualityLMM, plain: tuple[Any, Any], size: tuple[int, int], question: str
):
    network, processor = plain
    pixels = np.ascontiguousarray(skimage.data.coffee()[100 : 100 + size[0], 100 : 100 + size[1]])
    text = processor.apply_chat_template(conversation(question), add_generation_prompt=True)
    given = processor(images=[Image.fromarray(pixels)], text=[f"{text}{IMAGE_PREFIX}"], return_tensors="pt")
    with torch.no_grad():
        theirs = network(**given).logits[0, -1]
        medium = prepare_image(pixels, model.spec)
        ids, mask = model.answer_ids([f"{IMAGE_PREFIX} {LEVELS[0]}"], end=False)
        ours = model.logits(model([medium], ids, mask, question)[0, -1:])[0]
    assert torch.allclose(given["pixel_values"], medium.tiles_TCHW, atol=1e-5)
    assert torch.allclose(theirs, ours, atol=1e-5)


def test_it_answers_as_the_model_does(model: QualityLMM, plain: tuple[Any, Any]):
    network, processor = plain
    pixels = np.ascontiguousarray(skimage.data.chelsea()[:120, :160])
    given = processor.apply_chat_template(
        conversation(QUESTION, Image.fromarray(pixels)), add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    ids = network.generate(**given, max_new_tokens=12)[0, given["input_ids"].shape[1] :]
    told = processor.decode(ids, skip_special_tokens=True).strip()
    assert told == model.generate([prepare_image(pixels, model.spec)], QUESTION, max_new_tokens=12)[0]


def test_a_system_message_of_ones_own_replaces_the_models(plain: tuple[Any, Any], model: QualityLMM):
    _, processor = plain
    own = [{"role": "system", "content": "You are curt."}, *conversation(QUESTION)]
    assert processor.apply_chat_template(own) == (
        "<|im_start|>system\nYou are curt.<|im_end|>\n<|im_start|>user\n<IMG_CONTEXT>\nIs the image blurry?<|im_end|>\n"
    )
    assert model.system in processor.apply_chat_template(conversation(QUESTION))


def test_a_video_is_refused(plain: tuple[Any, Any]):
    _, processor = plain
    with pytest.raises(Exception, match="exported for images and text: no video"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])


def test_a_model_that_sees_fragments_is_not_exported(tmp_path: Path):
    with pytest.raises(ModelError, match="tiles of fragments tiling are made by this project alone"):
        export_plain(make_model(spec=SPEC), tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_a_model_that_was_asked_in_training_is_not_exported(model: QualityLMM, tmp_path: Path):
    asked = copy.copy(model)
    asked.question = "asked"
    with pytest.raises(ModelError, match="a server would leave its questions out"):
        export_plain(asked, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


@pytest.mark.slow
def test_transformers_own_server_answers_about_an_image_as_the_model_does(model: QualityLMM, tmp_path: Path):
    folder = tmp_path / "served"
    export_plain(model, folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_for(f"{base}/health", server)
        pixels = np.ascontiguousarray(skimage.data.coffee()[:120, :160])
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
        shown = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
        asked = {"model": str(folder), "messages": [{"role": "user", "content": shown}]}
        asked |= {"max_tokens": 12, "temperature": 0}
        done = httpx.post(f"{base}/v1/chat/completions", json=asked, timeout=120).raise_for_status().json()
    finally:
        server.kill()
        server.wait()
    told = done["choices"][0]["message"]["content"].strip()
    assert told == model.generate([prepare_image(pixels, model.spec)], QUESTION, max_new_tokens=12)[0]


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail("the server did not start")
