"""A whole line in miniature, made of photographs in scikit-image: what training and evaluation start from."""

import dataclasses
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tiny_study import make_frame
from transformers import InternVLForConditionalGeneration

from models.decoders import DecoderRecord, EncoderSize, build_internvl_config
from models.distortions import IMAGE_CELLS, distort_image, words
from models.levels import level_of
from models.motion import MotionConfig, MotionExtractor, MotionProjector
from models.opinion import pmod
from models.quality_lmm import IMAGE_PREFIX, VIDEO_PREFIX, QualityLMM
from models.rali.head import BasisHead
from models.rali.image_towers import CompactTower
from models.rali.student import RaliStudent
from models.rali.views import TileView
from models.tokenizer import IMAGE_CONTEXT, build_tokenizer
from models.two_stage import pair
from models.vision_encoder import EMBEDDED_SPEC, save_encoder
from tasks.pool import load_candidates
from tasks.records import CANDIDATES, EXAMPLES, OPINIONS, REVIEWED, Origin, Split, Task
from tasks.shards import digest, frame_of, write_archive, write_json, write_table
from tasks.stage import Place, read_params, stage_config
from tasks.training import pretrain
from tasks.training_set import FOLDER, write_training_set

SPLITS = (
    Split.TRAIN,
    Split.TRAIN,
    Split.TRAIN,
    Split.TRAIN,
    Split.WARM_UP,
    Split.WARM_UP,
    Split.HELD_OUT,
    Split.HELD_OUT,
)
PHOTOS = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "immunohistochemistry",
    "hubble_deep_field",
    "retina",
    "colorwheel",
)
CELLS = (("gaussian_blur", 2), ("gaussian_blur", 5), ("white_noise", 3), ("jpeg", 5))
TINY_SPEC = dataclasses.replace(EMBEDDED_SPEC, tile_px=56, motion_frames=4, motion_px=32)
TINY_ENCODER = EncoderSize(width=48, layers=2, heads=2, mlp_width=96, tile_px=56, patch_px=14, layer_scale=1.0)
TINY_MOTION = MotionConfig(depth=18, slow_width=16, channel_ratio=8)
DECODERS = {"small": 32, "large": 64}


def _png(pixels_HW3: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "PNG")
    return buffer.getvalue()


def _clip(pixels_HW3: np.ndarray, frames: int = 12) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for shift in range(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels_HW3[:96, shift : shift + 128]), format="rgb24"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _media() -> Iterator[tuple[dict[str, Any], bytes, float]]:
    """Rows of CANDIDATES without their place, the bytes, and a quality."""
    for number, (name, split) in enumerate(zip(PHOTOS, SPLITS, strict=True)):
        photo = np.ascontiguousarray(getattr(skimage.data, name)()[..., :3][:160, :200])
        content = digest("photo", name)
        common = {
            "content_id": content,
            "split": str(split),
            "width": 200,
            "height": 160,
            "fps": 0.0,
            "duration_s": 0.0,
        }
        yield {**common, "id": content, "modality": "image", "frames": 1, "severity": 0}, _png(photo), 0.85
        for kind, severity in CELLS:
            child = {
                "id": digest(content, kind, severity),
                "parent_id": content,
                "distortion": kind,
                "severity": severity,
            }
            pixels = distort_image(photo, kind, severity, seed=number)
            yield {**common, **child, "modality": "image", "frames": 1}, _png(pixels), 0.8 - 0.13 * severity
    for number, split in enumerate((Split.TRAIN, Split.WARM_UP, Split.HELD_OUT)):
        photo = np.ascontiguousarray(getattr(skimage.data, PHOTOS[number])()[..., :3])
        content = digest("clip", number)
        row = {
            "id": content,
            "content_id": content,
            "split": str(split),
            "modality": "video",
            "width": 128,
            "height": 96,
        }
        yield {**row, "frames": 12, "fps": 12.0, "duration_s": 1.0, "severity": 0}, _clip(photo), 0.6


def _write_pool(artifacts: Path) -> list[tuple[dict[str, Any], float]]:
    found = list(_media())
    for stage in ("collect", "distort"):
        mine = [(row, data) for row, data, _ in found if (row.get("parent_id") is None) == (stage == "collect")]
        places = write_archive(artifacts / stage / "media" / "0.tar", [(row["id"], data) for row, data in mine])
        records = []
        for row, data in mine:
            filled = dict.fromkeys(CANDIDATES.columns) | row | {"source": "test", "mime": "x", "seed": 0}
            filled |= dataclasses.asdict(places[row["id"]]) | {"bytes_sha256": digest(data)}
            records.append(filled)
        write_table(artifacts / stage / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, records))
    return [(row, quality) for row, _, quality in found]


def _write_opinions(artifacts: Path, media: list[tuple[dict[str, Any], float]]) -> None:
    records = [
        {
            "id": row["id"],
            "bytes_sha256": row["id"],
            "scorers": ["a"],
            "versions": ["1"],
            "scores": [quality],
            "mu": quality,
            "sigma": 0.1,
            "pmod": pmod(quality, 0.1).tolist(),
            "mu_clamped": False,
        }
        for row, quality in media
    ]
    write_table(artifacts / "score" / "opinions.parquet", OPINIONS, frame_of(OPINIONS, records))


def _write_review(artifacts: Path, media: list[tuple[dict[str, Any], float]]) -> None:
    """Two kept assertions about every image, a refused one, and a planted one that was kept."""
    records = []
    for row, _ in media:
        blurred = row.get("distortion") == "gaussian_blur"
        told = [
            ("Sharpness is low" if blurred else "Edges are crisp", "sharpness", Origin.DESCRIBER, True),
            ("The lighting is sufficient", "exposure", Origin.DESCRIBER, True),
            ("The colors are dull", "colour", Origin.DESCRIBER, False),
            ("Noise is strong", "noise", Origin.PLANTED, True),
        ]
        for position, (text, attribute, origin, kept) in enumerate(told if row["modality"] == "image" else told[:1]):
            key = {"assertion_id": digest(row["id"], text), "id": row["id"], "position": position, "text": text}
            reason = "unanimous" if kept else "severe_deviation"
            key |= {"attribute": attribute, "origin": origin, "planted_truth": None, "kept": kept, "reason": reason}
            records.append(key)
    write_table(artifacts / "review" / "reviewed.parquet", REVIEWED, frame_of(REVIEWED, records))


def _sentence(row: dict[str, Any], quality: float) -> str:
    return f"{VIDEO_PREFIX if row['modality'] == 'video' else IMAGE_PREFIX} {level_of(quality)}"


def _examples(media: list[tuple[dict[str, Any], float]]) -> Iterator[dict[str, Any]]:
    for row, quality in media:
        common = {
            "modality": row["modality"],
            "split": row["split"],
            "ids": [row["id"]],
            "targets": [],
            "preference": None,
        }
        target = pmod(quality, 0.1).tolist()
        yield {**common, "task": Task.SINGLE, "answers": [_sentence(row, quality)], "targets": [target]}
        text = "Sharpness is low" if row.get("distortion") == "gaussian_blur" else "The lighting is sufficient"
        yield {**common, "task": Task.DESCRIPTION, "answers": [text]}
        if row["severity"]:
            yield {**common, "task": Task.DISTORTION, "answers": [words(row["distortion"], row["severity"])]}
    for (first, better), (second, worse) in itertools.combinations(media, 2):
        if first["split"] == second["split"] and first["modality"] == second["modality"]:
            yield {
                "modality": first["modality"],
                "split": first["split"],
                "ids": [first["id"], second["id"]],
                "task": Task.PAIR,
                "answers": [_sentence(first, better), _sentence(second, worse)],
                "targets": [pmod(better, 0.1).tolist(), pmod(worse, 0.1).tolist()],
                "preference": 0.5 if better == worse else float(better > worse),
            }


def _write_family(folder: Path) -> None:
    distortions = sorted({words(kind, severity) for kind, severity in IMAGE_CELLS})
    sentences = [f"{IMAGE_PREFIX} good", "Sharpness is low", "The lighting is sufficient", *distortions]
    tokenizer = build_tokenizer(sentences * 3, ["image", "video"], 900)
    torch.manual_seed(1)
    vision, motion = None, None
    for name, width in DECODERS.items():
        record = DecoderRecord(name, "test", width, 1, 2, 1, 2 * width, tied_embeddings=True)
        image_token = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
        internvl = InternVLForConditionalGeneration(
            build_internvl_config(record, TINY_ENCODER, len(tokenizer), image_token)
        )
        extractor = MotionExtractor(TINY_MOTION)
        model = QualityLMM(
            internvl, extractor, MotionProjector(TINY_MOTION.channels, width), tokenizer, TINY_SPEC, "You judge media."
        )
        vision = vision or model.image_encoder.state_dict()
        motion = motion or extractor.state_dict()
        model.image_encoder.load_state_dict(vision)
        extractor.load_state_dict(motion)
        model.save_pretrained(folder / name)


@pytest.fixture(scope="session")
def _line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_line(tmp_path_factory.mktemp("line"))


def write_line(root: Path) -> Path:
    """Artifacts up to ``validate`` and the tiny base family below ``root``."""
    artifacts = root / "artifacts"
    media = _write_pool(artifacts)
    _write_opinions(artifacts, media)
    _write_review(artifacts, media)
    examples = [{**row, "example_id": digest(row["task"], row["ids"], row["answers"])} for row in _examples(media)]
    table = frame_of(EXAMPLES, examples)
    write_table(artifacts / "assemble" / "examples.parquet", EXAMPLES, table)
    candidates = load_candidates(Place(root, root, root))
    write_training_set(artifacts / "assemble" / FOLDER, EXAMPLES.to_arrow(table), candidates)
    write_json(artifacts / "validate" / "results.json", {"success": True})
    _write_family(artifacts / "base")
    return root


@pytest.fixture
def line(_line: Path, tmp_path: Path) -> Path:
    """A workspace of its own with artifacts up to ``validate`` and a tiny base family (decoders small and large)."""
    root = tmp_path / "workspace"
    shutil.copytree(_line, root)
    return root


@pytest.fixture
def place_for() -> Callable[[Path, str], Place]:
    """Where a stage of a workspace works; its outputs are published by hand with ``publish``."""

    def make(root: Path, stage: str) -> Place:
        work = root / ".work" / stage
        (work / "out").mkdir(parents=True, exist_ok=True)
        return Place(root, work, work / "out")

    return make


@pytest.fixture
def publish() -> Callable[[Place, str], Path]:
    """Copy a stage's outputs to where later stages look."""

    def copy(place: Place, stage: str) -> Path:
        return Path(shutil.copytree(place.out, place.root / "artifacts" / stage, dirs_exist_ok=True))

    return copy


@pytest.fixture
def read_json() -> Callable[[Path], Any]:
    """Read a JSON file."""
    return lambda path: json.loads(path.read_text())


@pytest.fixture
def write_pretrained() -> Callable[[Path], None]:
    """Stand in for the stage ``pretrain``: the small model with a slightly moved encoder, and a recipe."""

    def write(root: Path) -> None:
        model = QualityLMM.from_pretrained(root / "artifacts" / "base" / "small")
        torch.manual_seed(2)
        with torch.no_grad():
            for parameter in (*model.image_encoder.parameters(), *model.motion_extractor.parameters()):
                parameter.add_(0.02 * torch.randn_like(parameter))
        folder = root / "artifacts" / "pretrain"
        model.save_pretrained(folder / "model")
        save_encoder(model, folder / "encoder")
        shares = {"single": 0.5, "pair": 0.25, "distortion": 0.25}
        examples = {"single": 60, "pair": 30, "distortion": 30}
        write_json(folder / "recipe.json", {"decoder": "small", "shares": shares, "examples": examples})

    return write


@pytest.fixture
def write_two_stage() -> Callable[[Path], None]:
    """Stand in for the stage ``two_stage``: decoders that were moved a little, each in a way of its own."""

    def write(root: Path) -> None:
        model = QualityLMM.from_pretrained(root / "artifacts" / "pretrain" / "model")
        both = pair(model, "text", shared=False)
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in (*both.describer.language_model.parameters(), *both.reasoner.parameters()):
                parameter.add_(0.02 * torch.randn_like(parameter))
        folder = root / "artifacts" / "two_stage"
        both.save_pretrained(folder)
        both.describer.save_pretrained(folder / "one_stage")

    return write


@pytest.fixture
def write_student() -> Callable[[Path], RaliStudent]:
    """Stand in for the stage ``rali``: a student with random weights."""

    def write(root: Path) -> RaliStudent:
        torch.manual_seed(4)
        view, head = TileView("fragments", 56, 28, 1), BasisHead(8, 4, 6, 0.1)
        for value in (head.vectors, head.get_buffer("components")):
            torch.nn.init.normal_(value)
        torch.nn.init.uniform_(head.scores)
        student = RaliStudent(CompactTower(view, 8, 12).eval(), head, view, 4).eval()
        student.save_pretrained(root / "artifacts" / "rali" / "student")
        return student

    return write


Conversations = dict[str, set[str]]


@pytest.fixture
def rated(monkeypatch: pytest.MonkeyPatch) -> Conversations:
    """Forced sentence of a modality -> the texts that stood before it wherever a model said it, in embedding order."""
    found: Conversations = {}
    texts: list[str] = []
    heads: list[str] = []
    embed, head, hidden = QualityLMM._embed, QualityLMM._head_embeddings, QualityLMM.hidden_states

    def heard_embed(self: QualityLMM, text: str) -> torch.Tensor:
        texts.append(text)
        return embed(self, text)

    def heard_head(self: QualityLMM, tokens_KD: torch.Tensor | None, prompt: str) -> torch.Tensor:
        texts.clear()
        made = head(self, tokens_KD, prompt)
        heads.append("".join(texts))
        return made

    def heard_hidden(self: QualityLMM, visual: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor, *rest: Any) -> Any:
        heads.clear()
        made = hidden(self, visual, ids_BL, mask_BL, *rest)
        for before, row, mask in zip(heads, ids_BL, mask_BL, strict=True):
            words = str(self.tokenizer.decode(row[mask])).split()
            if words[:3] == IMAGE_PREFIX.split()[:3]:
                found.setdefault(" ".join(words[:6]), set()).add(before)
        return made

    monkeypatch.setattr(QualityLMM, "_embed", heard_embed)
    monkeypatch.setattr(QualityLMM, "_head_embeddings", heard_head)
    monkeypatch.setattr(QualityLMM, "hidden_states", heard_hidden)
    return found


@pytest.fixture
def pretrain_asked(
    line: Path, place_for: Callable[[Path, str], Place], publish: Callable[[Place, str], Path], rated: Conversations
) -> Callable[[str], tuple[Path, Conversations]]:
    """Function that trains with a style of question; returns the workspace and what stood before its ratings."""

    def train(question: str) -> tuple[Path, Conversations]:
        place = place_for(make_frame(line), "pretrain")
        config = stage_config("pretrain", read_params(line))
        pretrain.run(dataclasses.replace(config, question=question), place)
        publish(place, "pretrain")
        told = {sentence: set(heads) for sentence, heads in rated.items()}
        rated.clear()
        return line, told

    return train
