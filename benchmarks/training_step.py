"""A whole training step at InternVL3's sizes: ours against a plain loss head and against full fine-tuning.

    python benchmarks/training_step.py --device cuda                     # InternVL3-1B, all layers, bfloat16 autocast
    python benchmarks/training_step.py --layers 2 --tiles 2 --samples 2  # what two slow cores can do

Random weights in the decoder's shape and random media; the project's own engine, objective and losses. Ways:

    ours        pre-training: encoders learn, decoder and projectors are frozen; the fused loss head
    rows first  the same, but supervised rows become whole logits
    plain head  the same, but float32 logits at every position and their shifted copy, as the authors' code
    full        everything learns, with the fused head

Told for each: milliseconds of a step (the least of ``--repeat``), samples and tokens a second, most memory of the
process (GPU memory on CUDA, resident on a CPU), trained parameters, and time and memory in ratio to the first way.
Each way runs in a process of its own, since memory that was freed is not given back.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from arguments import hub_decoders, natural, positive, present_device
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.decoders import INTERNVIT_300M, INTERNVL3_VOCABULARY, build_internvl_config, decoder_record
from models.internvl_chat import SYSTEM
from models.motion import SLOWFAST_R50
from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_CONTEXT
from models.vision_encoder import PAPER_SPEC, VisualInput
from tasks.records import Task
from tasks.stage import build_config
from tasks.training.base import domain_tokenizer
from tasks.training.batches import Batch
from tasks.training.config import Recompute, TrainingConfig
from tasks.training.engine import SingleEngine, recomputed
from tasks.training.freezing import train_only
from tasks.training.objective import LossConfig, QualityObjective

CHECKOUT = Path(__file__).resolve().parents[1]
WAYS = {"ours": "fused", "rows first": "rows_first", "plain head": "fused", "full": "fused"}
"""Way -> how its supervised rows become log-probabilities."""
TEXT = "moderately strong white noise and a slight loss of detail in the shadows of the picture"
GIGA = 1e9


@dataclass(frozen=True)
class Setting:
    """What every way of one run shares."""

    device: str
    decoder: str
    layers: int | None
    tiles: int
    samples: int
    frames: int
    threads: int
    repeat: int
    recompute: Recompute


def build_model(setting: Setting) -> QualityLMM:
    """Random weights; a small tokenizer stands in for Qwen2.5's, the embeddings are as large as its."""
    record, encoder = decoder_record(setting.decoder), INTERNVIT_300M
    if setting.layers is not None:
        record = dataclasses.replace(record, layers=setting.layers)
        encoder = dataclasses.replace(encoder, layers=setting.layers)
    tokenizer = domain_tokenizer(2048)
    context: Any = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
    torch.manual_seed(0)
    config = build_internvl_config(record, encoder, INTERNVL3_VOCABULARY, int(context))
    return QualityLMM.from_config(config, SLOWFAST_R50, tokenizer, PAPER_SPEC, SYSTEM)


def make_batch(setting: Setting) -> Batch:
    """Samples about media of their own, half of them scored and half described; the last is a clip."""
    torch.manual_seed(1)
    count, spec = setting.samples, PAPER_SPEC
    media = [VisualInput(torch.randn(setting.tiles, 3, spec.tile_px, spec.tile_px), None) for _ in range(count)]
    if setting.frames:
        motion = torch.randn(3, setting.frames, spec.motion_px, spec.motion_px)
        media[-1] = dataclasses.replace(media[-1], motion_CTHW=motion)
    scored = [index % 2 == 0 for index in range(count)]
    sentence = "The quality of the {} is good"
    answers = [
        sentence.format("video" if medium.is_video else "image") if one else TEXT
        for one, medium in zip(scored, media, strict=True)
    ]
    targets_B5 = torch.tensor([[0.1, 0.6, 0.2, 0.1, 0.0] if one else [0.0] * 5 for one in scored])
    tasks = [Task.SINGLE if one else Task.DESCRIPTION for one in scored]
    ids, order = [str(index) for index in range(count)], torch.arange(count)
    unknown = torch.full((count,), torch.nan)
    return Batch(media, list(range(count)), answers, tasks, order, targets_B5, unknown, torch.ones(count), ids)


class PlainHead:
    """The objective as plain fine-tuning code has it: cross entropy over float32 logits at every position."""

    def __init__(self, model: QualityLMM) -> None:
        self.model = model

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Loss per sample; level words are words like others."""
        found: list[Tensor] = []
        hook = self.model.language_model.register_forward_hook(
            lambda _module, _arguments, output: found.append(output.last_hidden_state)
        )
        ids_BL, mask_BL = self.model.answer_ids(batch.answers)
        tokens = self.model.visual_tokens(batch.inputs)
        self.model.hidden_states([tokens[medium] for medium in batch.medium_B], ids_BL, mask_BL)
        hook.remove()
        logits_BXV = self.model.logits(found[0]).float()
        width, lengths_B = ids_BL.shape[1], mask_BL.sum(1)
        labels_BX = torch.full(logits_BXV.shape[:2], -100, device=ids_BL.device)
        for row, (ids_L, length) in enumerate(zip(ids_BL, lengths_B.tolist(), strict=True)):
            end = labels_BX.shape[1] - (width - length)  # padding stands on the right
            labels_BX[row, end - length : end] = ids_L[:length]
        shifted, wanted = logits_BXV[:, :-1].contiguous(), labels_BX[:, 1:].contiguous()
        loss_BX = functional.cross_entropy(shifted.flatten(0, 1), wanted.flatten(), reduction="none")
        return {"all": loss_BX.reshape(wanted.shape).sum(1) / lengths_B}


def read_section(section: str) -> dict[str, Any]:
    """The checkout's parameters of pre-training."""
    return yaml.safe_load((CHECKOUT / "params.yaml").read_text())["pretrain"][section]


def work_once(way: str, setting: Setting) -> dict[str, float]:
    """The worker: take steps one way."""
    torch.set_num_threads(setting.threads)
    gpu = setting.device == "cuda"
    values = read_section("training") | {
        "device": setting.device, "precision": "bfloat16" if gpu else "float32", "learning_rate": 1e-5,
    }  # fmt: skip
    config = build_config(TrainingConfig, "training", values)
    model = build_model(setting).to(setting.device)
    train_only(model, [model] if way == "full" else [model.image_encoder, model.motion_extractor])
    losses = build_config(LossConfig, "losses", read_section("losses") | {"head": WAYS[way]})
    objective = PlainHead(model) if way == "plain head" else QualityObjective(model, losses)
    engine, batch = SingleEngine(objective, config), make_batch(setting)
    lengths = tokens_of(model, batch)
    with recomputed(model, setting.recompute):
        seconds = min([step(engine, batch, setting) for _ in range(setting.repeat + 1)][1:])  # the first one warms up
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trained = sum(parameter.numel() for parameter in engine.trained.values())
    return {"seconds": seconds, "peak": peak / GIGA, "tokens": lengths, "trained": trained / 1e6}


def step(engine: SingleEngine, batch: Batch, setting: Setting) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    engine.forward(batch)
    engine.backward(float(setting.samples))
    norm = engine.update(1e-5, valid=True)
    if setting.device == "cuda":
        torch.cuda.synchronize()
    assert norm > 0, "nothing has been learnt"
    return time.perf_counter() - started


@torch.no_grad()
def tokens_of(model: QualityLMM, batch: Batch) -> int:
    """Tokens in the decoder's rows, padding left out."""
    per_tile, prompt = model.internvl.config.image_seq_length, len(model.tokenizer.encode(model.system))
    answers = int(model.answer_ids(batch.answers)[1].sum())
    visual = sum(
        len(medium.tiles_TCHW) * per_tile + (medium.motion_CTHW.shape[1] if medium.motion_CTHW is not None else 0)
        for medium in batch.inputs
        if isinstance(medium, VisualInput)
    )
    return visual + answers + prompt * len(batch.answers)


def measure(way: str, setting: Setting) -> dict[str, float]:
    """Run the worker in a process of its own."""
    spec = json.dumps({"way": way, "setting": asdict(setting)})
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", spec]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"{way} failed:\n{done.stderr[-3000:]}"
        raise SystemExit(msg)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=present_device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--decoder", choices=hub_decoders(), default="internvl3-1b")
    parser.add_argument("--layers", type=positive, help="of encoder and decoder; default: all")
    parser.add_argument("--tiles", type=positive, default=7, help="of 448 px, a medium")
    parser.add_argument("--samples", type=positive, default=4, help="in a micro-batch")
    parser.add_argument("--frames", type=natural, default=0, help="motion frames of the last sample")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--repeat", type=positive, default=3)
    parser.add_argument("--recompute", choices=get_args(Recompute), default="none", help="whose layers run again")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = vars(parser.parse_args())
    worker, ways = arguments.pop("worker"), arguments.pop("ways")
    if worker:
        spec = json.loads(worker)
        print(json.dumps(work_once(spec["way"], Setting(**spec["setting"]))))
        return
    setting = Setting(**arguments)
    where = torch.cuda.get_device_name() if setting.device == "cuda" else f"CPU, {setting.threads} threads"
    depth = setting.layers or "all"
    print(f"{setting.decoder}, {depth} layers, {setting.samples} samples of {setting.tiles} tiles, {where}")
    head = ("", "ms", "samples/s", "tokens/s", "GB", "trained, M", "time", "memory")
    print("{:12s} {:>9s} {:>10s} {:>9s} {:>7s} {:>11s} {:>6s} {:>7s}".format(*head))
    first: dict[str, float] = {}
    for way in ways:
        found = measure(way, setting)
        first = first or found
        rates = (setting.samples / found["seconds"], found["tokens"] / found["seconds"])
        ratios = (found["seconds"] / first["seconds"], found["peak"] / first["peak"])
        print(
            f"{way:12s} {found['seconds'] * 1e3:9.0f} {rates[0]:10.2f} {rates[1]:9.0f} {found['peak']:7.2f} "
            f"{found['trained']:11.1f} {ratios[0]:6.2f} {ratios[1]:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
