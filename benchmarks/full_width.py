"""The real architecture at its full width on a CPU: ``python benchmarks/full_width.py``.

Random weights in the shape of InternVL3-1B (InternViT-300M of 24 layers, Qwen2.5-0.5B of 24, 151,674 tokens) with
SlowFast-R50: parameters by part, seconds and memory to make it, to write and read it, and to score one picture and one
clip. The baseline of the parameter count is the number of bytes that the hub's bfloat16 file has, 1.88 GB.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import hub_decoders, positive

from models.decoders import (
    INTERNVIT_300M,
    INTERNVL3_IMAGE_TOKEN,
    INTERNVL3_VOCABULARY,
    build_internvl_config,
    decoder_record,
)
from models.internvl_chat import SYSTEM
from models.motion import SLOWFAST_R50
from models.quality_lmm import QualityLMM
from models.tokenizer import build_tokenizer
from models.vision_encoder import PAPER_SPEC, prepare_clip, prepare_image


def timed(told: str, work: Callable[[], Any]) -> Any:
    """Run, and print seconds and the process's peak memory so far."""
    start = time.perf_counter()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{told:<44}{time.perf_counter() - start:>8.1f} s   peak {peak:>5.2f} GiB", flush=True)
    return result


def make(decoder: str) -> QualityLMM:
    """Random weights of torch's default type; a small tokenizer stands in for Qwen2.5's, the embeddings are full."""
    record = decoder_record(decoder)
    config = build_internvl_config(record, INTERNVIT_300M, INTERNVL3_VOCABULARY, INTERNVL3_IMAGE_TOKEN)
    tokenizer = build_tokenizer(["The quality of the image is good"] * 3, ["image", "video"], 700)
    torch.manual_seed(0)
    return QualityLMM.from_config(config, SLOWFAST_R50, tokenizer, PAPER_SPEC, SYSTEM).to(torch.get_default_dtype())


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", choices=hub_decoders(), default="internvl3-1b")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--clip-frames", type=positive, default=16)
    parser.add_argument("--skip-folder", action="store_true", help="do not write and read the model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    model = timed("made", lambda: make(arguments.decoder))
    torch.set_default_dtype(torch.float32)
    for name, part in (
        ("InternVL", model.internvl),
        ("  image encoder", model.image_encoder),
        ("  projector", model.projector),
        ("  decoder with head", None),
        ("motion extractor (fast pathway)", model.motion_extractor),
        ("motion projector", model.motion_projector),
    ):
        others = (model.image_encoder, model.projector)
        sizes = [sum(value.numel() for value in net.parameters()) for net in (part or model.internvl, *others)]
        print(f"{name:<44}{sizes[0] if part else sizes[0] - sizes[1] - sizes[2]:>14,} parameters")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (448, 448, 3), dtype=np.uint8)
    image = prepare_image(picture, PAPER_SPEC)
    frames = rng.integers(0, 256, (arguments.clip_frames, 240, 320, 3), dtype=np.uint8)
    clip = prepare_clip(frames, np.arange(len(frames)) / 25, PAPER_SPEC)
    for name, medium in (("one picture, one tile", image), (f"one clip, {arguments.clip_frames} frames", clip)):
        levels = timed(f"scored {name}", lambda medium=medium: model.level_probabilities([medium]))
        if not bool(levels.isfinite().all()) or abs(float(levels.sum()) - 1) > 1e-5:
            raise SystemExit("the level probabilities are no distribution")
    if not arguments.skip_folder:
        with tempfile.TemporaryDirectory() as folder:
            timed("written", lambda: model.save_pretrained(Path(folder)))
            files = sorted(Path(folder).rglob("*.safetensors"))
            print(f"{'':<44}{sum(f.stat().st_size for f in files):>14,} bytes in {len(files)} files")
            dtype = model.dtype
            del model
            again = timed("read", lambda: QualityLMM.from_pretrained(Path(folder), dtype))
            timed("scored the picture again", lambda: again.level_probabilities([image]))


if __name__ == "__main__":
    main()
