"""Compare what `vital plan` says a device holds under ZeRO with what DeepSpeed's processes hold.

    python benchmarks/plan_zero_error.py [--processes 2]

For each ZeRO stage so many processes (CPU, gloo, float32) take one step of a model of which one half is frozen, with
the settings of `infra/deepspeed`, and the first of them counts bytes: both moments and the flat float32 weights that
AdamW updates, and the weights that stay with the process. Exit code 1 if a figure is off by more than 1 % (DeepSpeed
pads parts to equal sizes).
"""

import argparse
import json
import logging
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from arguments import positive
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.footprint import FLOAT32, Flow, Step
from tasks.training.memory import device_memory, read_sharding

CHECKOUT: Final = Path(__file__).resolve().parents[1]
WIDTH: Final = 512
LAYERS: Final = 3
LIMIT: Final = 0.01
WEIGHTS_CUT: Final = 3


def halves() -> tuple[nn.Module, nn.Module]:
    """A trained and a frozen half."""
    trained, frozen = (nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))) for _ in range(2))
    return trained, frozen.requires_grad_(False)


def work(rank: int, stage: int, processes: int, port: int, answer: Path) -> None:
    """One process: a step, and what it holds after that."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu"}
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed  # noqa: PLC0415 - after the environment says which device

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles for minutes
    deepspeed.init_distributed("gloo")
    trained, frozen = halves()
    section = json.loads((CHECKOUT / "infra" / "deepspeed" / f"zero{stage}.json").read_text())["zero_optimization"]
    section |= {"overlap_comm": False, "reduce_bucket_size": 100_000, "stage3_param_persistence_threshold": 0}
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": section}
    optimizer = torch.optim.AdamW(trained.parameters())
    engine: Any = deepspeed.initialize(model=nn.Sequential(trained, frozen), optimizer=optimizer, config=settings)[0]
    engine.backward(engine(torch.ones(1, WIDTH)).sum())
    engine.step()
    if rank == 0:
        answer.write_text(json.dumps(held(engine, stage)))


def held(engine: Any, stage: int) -> dict[str, int]:
    """Bytes of optimizer and weights in this process."""
    zero = engine.optimizer
    flats = zero.fp32_partitioned_groups_flat if stage >= WEIGHTS_CUT else zero.single_partition_of_fp32_groups
    moments = [value for state in zero.optimizer.state.values() for name, value in state.items() if name != "step"]
    own = [parameter.ds_tensor if stage >= WEIGHTS_CUT else parameter for parameter in engine.module.parameters()]
    return {
        "optimizer": sum(tensor.numel() * tensor.element_size() for tensor in [*flats, *moments]),
        "weights": sum(tensor.numel() * tensor.element_size() for tensor in own),
    }


def predicted(stage: int, processes: int) -> dict[str, float]:
    """The planner's figures; what stage 3 gathers for a moment is not held."""
    parts = dict(zip(("image_encoder", "decoder"), halves(), strict=True))
    parameters = {name: sum(p.numel() for p in half.parameters()) for name, half in parts.items()}
    step = Step({"image_encoder": Flow.TRAINED, "decoder": Flow.THROUGH}, dict.fromkeys(parameters, FLOAT32))
    sharding = read_sharding(CHECKOUT, stage, processes)
    memory = device_memory(parameters, step, sharding, 0.0)
    gathered = 4 * min(sum(parameters.values()), sharding.gathered)
    return {"optimizer": memory.optimizer, "weights": memory.weights - gathered}


def main() -> None:
    """Run every stage, print the table, and fail if the plan is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=positive, default=2)
    processes = parser.parse_args().processes
    table = Table("stage", "optimizer, bytes", "weights, bytes", box=box.SIMPLE_HEAD, pad_edge=False)
    worst = 0.0
    for stage in (1, 2, 3):
        with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
            probe.bind(("127.0.0.1", 0))
            port, answer = probe.getsockname()[1], Path(folder) / "held.json"
            probe.close()
            torch.multiprocessing.spawn(work, (stage, processes, port, answer), nprocs=processes)
            measured, told = json.loads(answer.read_text()), predicted(stage, processes)
        errors = {name: told[name] / measured[name] - 1.0 for name in measured}
        worst = max(worst, *map(abs, errors.values()))
        table.add_row(
            f"ZeRO-{stage}", *(f"{measured[name]:,} {errors[name]:+.2%}" for name in ("optimizer", "weights"))
        )
    Console(width=200).print(table)
    print("measured, and by how much the prediction is off")
    sys.exit(int(worst > LIMIT))


if __name__ == "__main__":
    main()
