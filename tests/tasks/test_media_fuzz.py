"""Mutated files of every format end in pixels or in a reason: no other error, no crash, no hang."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from media_fuzz import SEEDS, Worker, mutants, seed_file

DECODED = {"decoded image", "decoded video"}
REASONS = {
    "empty", "unknown_format", "unsupported", "truncated", "too_large", "too_small", "too_elongated", "animated",
    "no_frames",
}  # fmt: skip
"""What ``tasks.media.probe`` may say."""
SEED = 20261126


@pytest.fixture
def worker(checkout: Path):
    found = Worker(checkout)
    yield found
    found.close()


def endings(worker: Worker, count: int, seed: int, keep: Path) -> Counter[str]:
    """Decode mutants; what ends in something else than pixels or a reason is kept for a look."""
    found, failures = Counter[str](), []
    for name, content in mutants(count, seed):
        ending = worker.ending(content)
        if ending in DECODED | REASONS:
            found[ending] += 1
        else:
            failures.append(f"{name}: {ending}")
            (keep / f"{len(failures):03d}").write_bytes(content)
    assert failures == [], f"files are in {keep}"
    return found


def test_the_seeds_themselves_are_read(worker: Worker):
    told = {name: worker.ending(seed_file(name)) for name in SEEDS}
    assert {name for name, ending in told.items() if ending not in DECODED} == {"gif animated"}
    assert told["gif animated"] == "animated"


def test_mutants_of_a_seed_are_the_same_in_every_run():
    assert list(mutants(60, 5)) == list(mutants(60, 5))
    assert list(mutants(60, 5)) != list(mutants(60, 6))


def test_three_hundred_mutants_end_in_pixels_or_a_reason(worker: Worker, tmp_path: Path):
    found = endings(worker, 312, SEED, tmp_path)  # every seed file under every kind of mutation, twice
    assert found.total() == 312
    assert found["truncated"] > 0
    assert set(found) & DECODED == DECODED


@pytest.mark.long
def test_thousands_of_mutants_end_in_pixels_or_a_reason(worker: Worker, tmp_path: Path):
    count = int(os.environ.get("VITAL_FUZZ_FILES", "2600"))
    seed = int(os.environ.get("VITAL_FUZZ_SEED", SEED))
    found = endings(worker, count, seed, tmp_path)
    worker.close()
    sys.stderr.write(f"\nfuzz: {count} files of seed {seed}: {dict(found.most_common())}, peak {worker.peak_mib} MiB\n")
    assert found.total() == count
    assert 0 < worker.peak_mib < 512


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os.kill(os.getpid(), 11)", "CRASH SIGSEGV"),
        ("import time; time.sleep(60)", "HANG longer than 2 s"),
        ("raise SystemExit(3)", "CRASH exit code 3"),
    ],
)
def test_crashes_and_hangs_are_seen_and_named(code: str, told: str, checkout: Path, monkeypatch: pytest.MonkeyPatch):
    real = sys.executable

    def sick(_: Worker) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([real, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(Worker, "_start", sick)
    assert Worker(checkout, time_limit_s=2).ending(b"x") == told
