"""Paid once: 200 samples reviewed by endpoints, with 10 % injected faults and 20 SIGKILLs, against a real HTTP server.

    python benchmarks/review_endpoint.py [--samples 200] [--kills 20] [--faults 0.1]

Prints what was asked, repeated and paid, and compares the tables with those of an undisturbed review. The peer figure
is that no peer promises it (Ray Data, datatrove, distilabel). Exit code 1 if an answered call was asked again, an
answer was lost, a call was paid twice, or the tables differ.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from arguments import fraction, natural, positive

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "tasks")]

import told_pool  # noqa: E402 - found by the line above

from infra.object_store import FolderStore  # noqa: E402
from tasks.annotation.answers import in_flight_file, recover  # noqa: E402
from tasks.annotation.calls import stored_calls  # noqa: E402
from tasks.records import REVIEWED, VOTES  # noqa: E402
from tasks.shards import read_table  # noqa: E402

TABLES = ("votes.parquet", "reviewed.parquet", "rejects.parquet", "answers/answers.parquet", "malformed.json")
RUN = """
import json, sys
from pathlib import Path
from tasks.annotation import review
from tasks.stage import Place, build_config
root = Path(sys.argv[1])
place = Place(root, root / ".work" / "review", root / ".work" / "review" / "out")
review.run(build_config(review.Config, "review", json.loads(sys.argv[2])), place)
"""


@contextmanager
def server(faults: float) -> Iterator[str]:
    """The misbehaving server as a process of its own; yields its address."""
    command = [sys.executable, str(CHECKOUT / "tests" / "tasks" / "lmm_server.py")]
    command += ["--faults", str(faults), "--delay", "0.01", "--hang", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stats(address: str) -> dict[str, Any]:
    """What the server has counted."""
    with urllib.request.urlopen(f"{address.removesuffix('/v1')}/stats", timeout=30) as told:  # noqa: S310 - loopback
        return json.load(told)


def section(address: str) -> dict[str, Any]:
    """Params of the review: three judges, 3 x 4 calls in flight at most, and 4 of the annotator."""
    role = {"base_url": address, "key": "BENCHMARK_KEY", "price_in": 1.25, "price_out": 10.0, "concurrency": 4}
    role |= {"timeout_s": 2.0, "first_wait_s": 0.02, "longest_wait_s": 0.2, "attempts": 10, "max_output_tokens": 200}
    judges = {name: role | {"model": f"{name}-1"} for name in ("gpt", "gemini", "qwen")}
    endpoints = {"judges": judges, "annotator": role | {"model": "vqa2"}, "pictures": {"max_side": 64, "frames": 3}}
    params = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["review"]
    return params | {"part_samples": 25, "processes": 1, "endpoints": endpoints}


def start(root: Path, params: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """One review as a process; its own group, so that nothing outlives it."""
    env = os.environ | {"VITAL_STORE": str(root / "store"), "BENCHMARK_KEY": "sk-bench", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", RUN, str(root), json.dumps(params)]
    with (root / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=CHECKOUT, env=env, stderr=log, stdout=log)


def answered(root: Path) -> set[str]:
    """Keys of the answers on disk."""
    found = {row["call"] for row in stored_calls(FolderStore(root / "store"))}
    for path in (root / ".vital" / "journal").glob("*.jsonl"):
        entries = (json.loads(line) for line in path.read_bytes().split(b"\n")[:-1])
        found |= {entry["call"]["call"] for entry in entries if "call" in entry}
    return found


def tormented(root: Path, address: str, kills: list[int]) -> dict[str, Any]:
    """Run a review that is killed when the server has seen so many requests, and then to its end."""
    settled: dict[str, int] = {}
    done = 0
    for at in kills:
        process = start(root, section(address))
        while process.poll() is None and stats(address)["requests"] < at:
            time.sleep(0.02)
        done += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.3)  # what was on its way to the server arrives
        seen = stats(address)["seen"]
        settled |= {key: seen.get(key, 0) for key in answered(root) if key not in settled}
    code = start(root, section(address)).wait()
    return {"code": code, "kills": done, "settled": settled}


def report(root: Path, told: dict[str, Any], counts: dict[str, Any]) -> dict[str, int | float]:
    """The figures."""
    final = answered(root)
    settled: dict[str, int] = told["settled"]
    listed = [json.loads(line)["call"] for line in in_flight_file(root / ".vital" / "journal").read_text().splitlines()]
    calls = stored_calls(FolderStore(root / "store"))
    out = root / ".work" / "review" / "out"
    return {
        "SIGKILLs": told["kills"],
        "samples": len(set(read_table(out / "reviewed.parquet", REVIEWED)["id"])),
        "assertions": len(read_table(out / "reviewed.parquet", REVIEWED)),
        "votes": len(read_table(out / "votes.parquet", VOTES)),
        "judgements answered": len(calls),
        "requests sent": counts["requests"],
        "faults injected": sum(count for name, count in counts["injected"].items() if name != "none"),
        "answered on disk at some kill": len(settled),
        "answered calls asked again": sum(counts["seen"][key] != seen for key, seen in settled.items()),
        "answers lost": len(set(settled) - final),
        "calls in flight at a kill (listed)": len(listed),
        "most in flight at one kill": max(Counter(_journals(root)).values(), default=0),
        "in-flight calls asked again": len([key for key in set(listed) if counts["seen"].get(key, 0) > 1]),
        "answered by the server's store": sum(row["replayed"] for row in calls),
        "paid twice with the idempotency key": counts["paid_twice"],
        "cost": round(sum(row["cost"] for row in calls), 4),
    }


def _journals(root: Path) -> list[str]:
    lines = in_flight_file(root / ".vital" / "journal").read_text().splitlines()
    return [json.loads(line)["journal"] for line in lines]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--samples", type=positive, default=200)
    parser.add_argument("--kills", type=natural, default=20)
    parser.add_argument("--faults", type=fraction, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    named = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, stormy = Path(folder) / "calm", Path(folder) / "stormy"
        for root in (calm, stormy):
            told_pool.build(root, named.samples - 1)
        with server(0.0) as address:
            started = time.monotonic()
            assert start(calm, section(address)).wait() == 0, (calm / "log").read_text()
            total = stats(address)["requests"]
            print(f"undisturbed review: {total} calls in {time.monotonic() - started:.0f} s")
        drawn = random.Random(named.seed)  # noqa: S311 - where to kill
        kills = sorted(drawn.sample(range(total // 100, total), named.kills))
        with server(named.faults) as address:
            started = time.monotonic()
            told = tormented(stormy, address, kills)
            print(f"tormented review: {time.monotonic() - started:.0f} s, exit code {told['code']}")
            found = report(stormy, told, stats(address))
        recover(FolderStore(stormy / "store"), stormy / ".vital" / "journal")
        outs = [root / ".work" / "review" / "out" for root in (calm, stormy)]
        same = all((outs[0] / name).read_bytes() == (outs[1] / name).read_bytes() for name in TABLES)
    for name, value in found.items():
        print(f"{name:<40} {value}")
    print(f"{'tables equal to an undisturbed review':<40} {same}")
    broken = ("answered calls asked again", "answers lost", "paid twice with the idempotency key")
    return int(told["code"] != 0 or not same or any(found[name] for name in broken))


if __name__ == "__main__":
    sys.exit(main())
