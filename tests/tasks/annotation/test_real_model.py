"""A real vision-language model behind a real server (transformers serve): random weights, true protocol."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tiny_vlm
import told_pool
from told_pool import section

from infra.object_store import FolderStore
from models.judges import Verdict
from tasks.annotation import review
from tasks.annotation.calls import stored_calls
from tasks.records import VOTES
from tasks.shards import read_table
from tasks.stage import Place, build_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.build(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--port", str(port), "--host", "127.0.0.1"], env=env, start_new_session=True, stderr=subprocess.PIPE
    )
    try:
        _await(process, port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _await(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read().decode()[-2000:] if process.stderr else ""
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    pytest.fail("transformers serve did not start")


@pytest.mark.slow
def test_a_review_by_a_real_model_in_words_and_by_probabilities(
    address: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "store"))
    told_pool.build(tmp_path, images=1, assertions=2)
    role = {"key": None, "model": str(model), "max_output_tokens": 6, "concurrency": 1, "timeout_s": 120.0}
    judges = {
        name: role | {"base_url": address, "kind": kind}
        for name, kind in (("gpt", "chat"), ("gemini", "systemone"), ("qwen", "systemone"))
    }
    params = section(address, role=role, judges=judges) | {"rounds": 3}
    where = tmp_path / ".work"
    report = review.run(build_config(review.Config, "review", params), Place(tmp_path, where, where / "out"))
    votes = read_table(where / "out" / "votes.parquet", VOTES)
    told = votes[votes["judge"] == "gpt"]
    assert set(told["verdict"]) == {Verdict.MALFORMED}  # random weights write no JSON: counted, and nothing breaks
    assert set(told["reason"]) <= {"cut off at the limit of tokens", "not JSON", "empty answer"}
    chosen = votes[votes["judge"] != "gpt"]
    assert Verdict.MALFORMED not in set(chosen["verdict"])  # probabilities need no words
    assert chosen["reason"].str.startswith("probabilities: ").all()
    assert report.kept == 0
    calls = stored_calls(FolderStore(tmp_path / "store"))
    assert len(calls) == report.votes
    assert all(call["tokens_in"] > 100 and not call["estimated"] for call in calls)
