"""``vital weights``: says what is there, takes what fits, fetches what it is told to, and never half a file."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from models import weights as records_module
from models.weights import WeightRecord, weight_records
from tests.infra.test_weight_files import safetensors
from tests.infra.weight_server import REVISION, Web, running_web
from vital.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``vital weights`` with empty caches and no terminal; gives exit code, stdout and stderr."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main(["weights", *map(str, arguments)])
        said = capsys.readouterr()
        return int(exit_info.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as found:
        yield found


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    path = tmp_path / "DOVER.pth"
    torch.save({"state_dict": {"w": torch.arange(6.0)}}, path)
    return path


def change(monkeypatch: pytest.MonkeyPatch, name: str, **fields: object) -> WeightRecord:
    """Let one record have another origin or hash."""
    changed = dataclasses.replace(weight_records()[name], **fields)  # type: ignore[arg-type]
    monkeypatch.setattr(records_module, "weight_records", lambda: {**weight_records(), name: changed})
    return changed


def one_line(err: str) -> str:
    (line,) = err.splitlines()
    assert line.startswith("vital: ")
    return line


def test_everything_is_listed_with_its_place_and_origin(run: Run, tmp_path: Path):
    code, out, err = run("status")
    assert (code, err) == (1, "")
    for name, record in weight_records().items():
        assert record.instruction in out
        assert name in out
    assert "unknown" in out
    assert not (tmp_path / "torch").exists()


def test_json_has_an_object_for_every_file(run: Run, tmp_path: Path):
    code, out, _ = run("status", "--json", "liqe", "DOVER.pth")
    assert code == 1
    liqe, clip, dover = sorted(
        json.loads(out), key=lambda record: (record["owners"][0] != "liqe", -len(record["name"]))
    )
    assert (liqe["name"], clip["name"], dover["name"]) == ("liqe_koniq.pt", "ViT-B-32.pt", "DOVER.pth")
    assert (liqe["sha256"], len(clip["sha256"]), dover["sha256"]) == (None, 64, None)
    assert dover["path"] == str(tmp_path / "torch/hub/vital/DOVER.pth")
    assert {record["state"] for record in (liqe, clip, dover)} == {"missing"}


def test_states_are_told(run: Run, tensors: Path):
    places = {name: record.path for name, record in weight_records().items()}
    for name in ("DOVER.pth", "RN50.pt", "QualiCLIP.pth", "liqe_koniq.pt"):
        places[name].parent.mkdir(parents=True, exist_ok=True)
        places[name].write_bytes(tensors.read_bytes())
    places["QualiCLIP.pth"].write_bytes(tensors.read_bytes()[:-90])
    places["liqe_koniq.pt"].write_bytes(b"<html>")
    told = {record["name"]: record for record in json.loads(run("status", "--json")[1])}
    assert told["DOVER.pth"]["state"] == "present"
    assert told["DOVER.pth"]["found_sha256"] == hashlib.sha256(tensors.read_bytes()).hexdigest()
    assert (told["RN50.pt"]["state"], told["QualiCLIP.pth"]["state"]) == ("wrong hash", "truncated")
    assert told["liqe_koniq.pt"]["state"] == "damaged"
    assert run("status", "dover")[0] == 0
    assert "wrong hash, sha256 is " in run("status", "qualiclip")[1]


def test_a_file_is_added_once(run: Run, tensors: Path, tmp_path: Path):
    code, out, err = run("add", tensors)
    assert (code, err) == (0, "")
    place = tmp_path / "torch/hub/vital/DOVER.pth"
    assert place.read_bytes() == tensors.read_bytes()
    assert f"DOVER.pth is in {place} (sha256 " in out
    assert run("add", tensors) == (0, f"DOVER.pth is in {place} already\n", "")
    torch.save({"other": torch.zeros(2)}, tensors)
    code, _, err = run("add", tensors)
    assert code == 1
    assert "another DOVER.pth is at" in one_line(err)


def test_names_are_recognised_or_asked_for(run: Run, tensors: Path, tmp_path: Path):
    starred = tensors.rename(tmp_path / "FAST_VQA_B_1*4.pth")  # its name on the authors' page
    assert run("add", starred)[0] == 0
    other = starred.rename(tmp_path / "DOVER (1).pth")
    code, _, err = run("add", other)
    assert code == 1
    assert "say --as NAME, which could be DOVER.pth" in one_line(err)
    assert run("add", other, "--as", "DOVER.pth")[0] == 0
    code, _, err = run("add", other, "--as", "nothing")
    assert code == 1
    assert "--as 'nothing' is none of FAST_VQA_B_1_4.pth, DOVER.pth" in one_line(err)


def test_published_hashes_count(run: Run, tensors: Path, monkeypatch: pytest.MonkeyPatch):
    code, _, err = run("add", tensors, "--as", "RN50.pt")
    assert code == 1
    assert "is not RN50.pt as published: wrong hash" in one_line(err)
    sha256 = hashlib.sha256(tensors.read_bytes()).hexdigest()
    place = change(monkeypatch, "RN50.pt", sha256=sha256).path
    place.parent.mkdir(parents=True)
    place.write_bytes(b"PK, damaged")
    code, out, _ = run("add", tensors, "--as", "RN50.pt")  # what is there is wrong, so it gives way
    assert (code, out) == (0, f"RN50.pt is in {place} (as published)\n")


def test_torchscript_comes_in_by_its_whole_published_hash_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "RN50.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    change(monkeypatch, "RN50.pt", sha256=sha256[:8])
    code, _, err = run("add", path)
    assert code == 1
    assert "RN50.pt is not a file of tensors alone" in one_line(err)
    change(monkeypatch, "RN50.pt", sha256=sha256)
    assert run("add", path)[0] == 0


def test_code_and_cut_files_stay_out(run: Run, tensors: Path, tmp_path: Path):
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-90])
    code, _, err = run("add", tensors)
    assert (code, "truncated" in one_line(err)) == (1, True)
    torch.save({"state_dict": os.system}, tensors)
    code, _, err = run("add", tensors)
    assert (code, "not a file of tensors alone" in one_line(err)) == (1, True)
    assert not (tmp_path / "torch").exists()


def test_a_folder_is_a_snapshot(run: Run, tmp_path: Path):
    folder = tmp_path / "downloads" / "InternVL3-1B-hf"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    code, _, err = run("add", folder)
    assert (code, "it holds no weight file" in one_line(err)) == (1, True)
    (folder / "model.safetensors").write_bytes(safetensors())
    code, out, err = run("add", folder)
    assert (code, err) == (0, "")
    assert "OpenGVLab/InternVL3-1B-hf is in" in out
    assert run("status", "OpenGVLab/InternVL3-1B-hf", "decoder internvl3-1b")[0] == 0
    moved = folder.rename(tmp_path / "weights of somebody")
    assert "is not recognised" in one_line(run("add", moved)[2])
    torch.save({"code": os.system}, moved / "pytorch_model.bin")
    code, _, err = run("add", moved, "--as", "q-future/one-align")
    assert (code, "pytorch_model.bin is not a file of tensors alone" in one_line(err)) == (1, True)
    assert not (tmp_path / "hub" / "models--q-future--one-align").exists()


def test_a_clip_is_known_by_its_files_and_its_shapes(run: Run, clip_folder: Path, tmp_path: Path):
    name = "openai/clip-vit-large-patch14"
    code, out, _ = run("status", "rali")
    assert code == 1
    assert f"put the snapshot {name} (" in out
    assert "of it config.json, model.safetensors, tokenizer.json, into " in out
    code, _, err = run("add", clip_folder, "--as", name)
    assert (
        code,
        "text_model.embeddings.position_embedding.weight is [22, 24], and [77, 768] is wanted" in one_line(err),
    ) == (1, True)
    lacking = tmp_path / "clip-vit-large-patch14"
    lacking.mkdir()
    (lacking / "config.json").write_text("{}")
    code, _, err = run("add", lacking)
    assert (code, "2 of 3 files lack, first model.safetensors" in one_line(err)) == (1, True)


def test_fetching_asks_for_the_licence_first(run: Run, web: Web, monkeypatch: pytest.MonkeyPatch):
    change(monkeypatch, "DOVER.pth", origin=web.serve("DOVER.pth", b""))
    code, out, err = run("fetch", "dover")
    assert code == 1
    assert out.endswith("/DOVER.pth, licence: S-Lab, non-commercial\n")
    assert "add --yes to accept" in one_line(err)
    assert web.asked == []


def test_a_file_is_fetched_and_found(run: Run, web: Web, tensors: Path, monkeypatch: pytest.MonkeyPatch):
    content = tensors.read_bytes()
    record = change(monkeypatch, "DOVER.pth", origin=web.serve("DOVER.pth", content, cuts=[500]))
    code, out, err = run("fetch", "dover", "--yes")
    assert (code, err) == (0, "")
    assert out.endswith(f"DOVER.pth is in {record.path}\n")
    assert record.path.read_bytes() == content
    assert run("status", "dover")[0] == 0
    assert run("fetch", "dover", "--yes") == (0, "nothing to fetch: all of it is here\n", "")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"statuses": [404]}, "the server answers 404 Not Found"),
        ({"sha256": "0" * 64}, "published is 0000"),
        ({"code": True}, "not a file of tensors alone"),
        ({"offline": True}, "cannot be reached"),
    ],
)
def test_what_cannot_be_fetched_is_told_with_the_way_by_hand(
    how: dict[str, object], told: str, run: Run, web: Web, tensors: Path, monkeypatch: pytest.MonkeyPatch
):
    if how.pop("code", None):
        torch.save({"code": os.system}, tensors)
    sha256, offline = how.pop("sha256", ""), how.pop("offline", False)
    origin = web.serve("DOVER.pth", tensors.read_bytes(), **how)
    origin = "http://127.0.0.1:9/DOVER.pth" if offline else origin
    record = change(monkeypatch, "DOVER.pth", origin=origin, sha256=sha256)
    code, _, err = run("fetch", "dover", "--yes")
    assert code == 1
    why, sum_of_it = err.splitlines()
    assert told in why
    assert why.endswith(f"by hand: {record.instruction}")
    assert sum_of_it == "vital: 1 of 1 could not be fetched: DOVER.pth"
    assert not record.path.exists()


def test_wrong_names_are_one_line(run: Run, tmp_path: Path):
    for command in ("status", "fetch"):
        code, out, err = run(command, "nobody")
        assert (code, out) == (1, "")
        assert "no weights are called 'nobody'; there are FAST_VQA_B_1_4.pth, " in one_line(err)
    code, _, err = run("add", tmp_path / "none.pth")
    assert (code, "does not exist" in one_line(err)) == (2, True)


@pytest.mark.parametrize("command", ["", "status", "add", "fetch"])
def test_every_command_has_help(command: str, run: Run):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert out.startswith("Usage: vital weights")


def test_a_snapshot_and_a_file_of_the_hub_in_a_process_of_its_own(
    web: Web, tensors: Path, tmp_path: Path, checkout: Path
):
    shard = safetensors(4000)
    web.serve_snapshot("OpenGVLab/InternVL3-1B-hf", {"config.json": b"{}", "model.safetensors": shard})
    web.serve("chaofengc/IQA-PyTorch-Weights/resolve/main/QualiCLIP.pth", tensors.read_bytes())
    names = ["QualiCLIP.pth", "OpenGVLab/InternVL3-1B-hf"]
    environment = {
        **os.environ, "PYTHONPATH": str(checkout), "TORCH_HOME": str(tmp_path / "torch"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": str(tmp_path), "HF_ENDPOINT": web.address,
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    code = "from vital.cli import main; main()"
    command = [sys.executable, "-c", code, "weights", "fetch", *names, "--yes"]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "hub" / "models--OpenGVLab--InternVL3-1B-hf" / "snapshots" / REVISION / "model.safetensors"
    assert kept.read_bytes() == shard
    assert (tmp_path / "torch/hub/pyiqa/QualiCLIP.pth").read_bytes() == tensors.read_bytes()
    environment["HF_HUB_OFFLINE"] = "1"
    command[-3:] = ["OpenGVLab/InternVL3-2B-hf", "--yes"]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert "cannot be had (" in done.stderr.splitlines()[0]
    assert "put the snapshot OpenGVLab/InternVL3-2B-hf (" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2


def test_listing_imports_nothing_heavy(checkout: Path):
    script = "import sys\nfrom vital.cli import main\ntry:\n    main(['weights', 'status', '--json'])\n"
    script += "except SystemExit:\n    pass\n"
    script += "heavy = {'torch', 'prefect', 'dvc', 'pandas', 'boto3', 'transformers', 'httpx', 'huggingface_hub'}\n"
    script += "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
