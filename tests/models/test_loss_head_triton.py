"""The kernels in Triton's interpreter against the pass by blocks in float64, and compiled for an H100 without one.

The interpreter must be chosen before Triton is imported, so the kernels run in a process of their own: this file.
bfloat16 is left to a GPU (benchmarks/loss_head.py --device cuda): the interpreter multiplies its raw bits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

CASES = {
    # rows, vocabulary, width, wanted, bias, type: edges that no tile divides and none, several chunks, several splits
    "one token": (5, 200, 40, 1, False, "float32"),
    "five levels, bias": (18, 150, 24, 5, True, "float32"),
    "half": (16, 128, 32, 1, True, "float16"),
}
H100_SHARED_MEMORY = 227 * 1024


def _measure(case: tuple[int, int, int, int, bool, str], *, splits: int) -> dict[str, float]:
    """Largest differences of what the kernels found, relative to the largest true value."""
    from models import loss_head, loss_head_triton

    rows, vocabulary, width, wanted, bias, kind = case
    generator = torch.Generator().manual_seed(rows)
    hidden, weight = (torch.randn(n, width, generator=generator).to(getattr(torch, kind)) for n in (rows, vocabulary))
    offset = torch.randn(vocabulary, generator=generator) if bias else None
    ids = torch.stack([torch.randperm(vocabulary, generator=generator)[:wanted] for _ in range(rows)])
    loss_head_triton.CHUNK_BYTES = rows * hidden.element_size() * 96  # three tiles of 32
    loss_head_triton._cores = lambda _device: splits
    tiles = loss_head_triton.Tiles(rows=16, tokens=32, depth=16, width=32, warps=8, stages=1)
    ours = loss_head.Sums(*loss_head_triton.sums(hidden, weight, offset, ids, wants_rest=True, tiles=tiles))
    bare = loss_head.Sums(*loss_head_triton.sums(hidden, weight, offset, ids, wants_rest=False, tiles=tiles))
    assert bare.rest_ND is None
    exact = loss_head._Rows(hidden.double(), weight.double(), None if offset is None else offset.double(), ids)
    true = loss_head._sums_by_blocks(exact, loss_head._Pass(64, wants_rest=True))
    return {
        "log_probs": _apart(ours.normalised()[0], true.normalised()[0]),
        "log_probs_alone": _apart(bare.normalised()[0], true.normalised()[0]),
        "rest": _apart(ours.rest_ND / ours.normalised()[1], true.rest_ND / true.normalised()[1]),
    }


def _apart(ours: torch.Tensor, true: torch.Tensor) -> float:
    assert ours.dtype == torch.float32
    return ((ours.double() - true).abs().max() / true.abs().max()).item()


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, __file__], cwd=root, env={**environment, "PYTHONPATH": str(root)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("splits", [1, 8])
@pytest.mark.parametrize("name", list(CASES))
def test_kernels_find_what_the_pass_by_blocks_finds(interpreted: dict[str, dict[str, float]], name: str, splits: int):
    found = interpreted[f"{name} {splits}"]
    assert found["log_probs"] < 2e-6
    assert found["log_probs_alone"] < 2e-6
    # halves: the probabilities between the two products are rounded to 11 bits
    assert found["rest"] < (2e-3 if CASES[name][-1] == "float16" else 5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [16, 2048])
def test_kernels_compile_for_an_h100_and_use_its_tensor_cores(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from models import loss_head_triton

    tiles = loss_head_triton.tiles_for(rows, itemsize=2)
    common = {"LOWEST": -3e38, "PRECISION": "ieee", "ROWS": tiles.rows, "TOKENS": tiles.tokens, "DEPTH": tiles.depth}
    for kernel, constants in (
        (loss_head_triton._logits_kernel, {**common, "WANTED": 1, "BIAS": False, "KEEP": True}),
        (loss_head_triton._rest_kernel, {**common, "WIDTH": tiles.width}),
    ):
        compiled = _compiled(kernel, constants, tiles)
        assert compiled.metadata.shared <= H100_SHARED_MEMORY
        assert ("wgmma" if tiles.rows >= 64 else "mma.sync") in compiled.asm["ptx"]
        assert "cp.async" in compiled.asm["ptx"]  # loads run ahead of the products


def _compiled(kernel: Any, constants: dict[str, Any], tiles: Any) -> Any:
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    halves, words = {"hidden", "weight", "bias", "kept"}, {"ids": "*i64"}
    sums = {"tile_max", "tile_sum", "wanted", "max_N", "fade_N", "rest"}
    names = list(kernel.arg_names)
    signature = {
        name: "constexpr" if name in constants
        else "*bf16" if name in halves else "*fp32" if name in sums else words.get(name, "i32")
        for name in names
    }  # fmt: skip
    aligned = [name for name, kind in signature.items() if kind[0] == "*" or name.endswith("stride") or name == "depth"]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},  # as real tensors have it
    )
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return build(source, target=GPUTarget("cuda", 90, 32), options=options)


if __name__ == "__main__":
    measured = {f"{name} {splits}": _measure(case, splits=splits) for name, case in CASES.items() for splits in (1, 8)}
    sys.stdout.write(json.dumps(measured))
