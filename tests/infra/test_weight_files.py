"""Weight files on a machine: what state they are in, and that they come to their place whole or not at all."""

import errno
import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest

from infra import weight_files
from infra.errors import InfraError
from infra.weight_files import (
    State,
    Wanted,
    check_blobs,
    content_state,
    file_state,
    locked,
    place_file,
    place_snapshot,
    snapshot_state,
)
from tests.infra.test_download import CONTENT, SHA256


def safetensors(size: int = 400) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.pth"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    ("content", "sha256", "state"),
    [
        (CONTENT, SHA256, State.PRESENT),
        (CONTENT, SHA256[:8], State.PRESENT),
        (CONTENT, "", State.PRESENT),
        (CONTENT, "00000000", State.WRONG_HASH),
        (CONTENT[:-300], SHA256, State.TRUNCATED),
        (CONTENT[:-300], "", State.TRUNCATED),
        (b"", "", State.TRUNCATED),
        (b"version https://git-lfs.github.com/spec/v1\n", "", State.DAMAGED),
    ],
)
def test_states_of_a_file(content: bytes, sha256: str, state: State, net: Path):
    net.write_bytes(content)
    finding = file_state(net, sha256)
    assert finding.state is state
    assert bool(finding.detail) == (state is not State.PRESENT)
    if finding.sha256:
        assert finding.sha256 == hashlib.sha256(content).hexdigest()


def test_nothing_there_is_missing(tmp_path: Path):
    assert file_state(tmp_path / "none.pth").state is State.MISSING
    assert snapshot_state(tmp_path / "models--a--b").state is State.MISSING


@pytest.mark.parametrize(("cut", "state"), [(None, State.PRESENT), (-1, State.TRUNCATED), (12, State.TRUNCATED)])
def test_safetensors_say_how_long_they_are(cut: int | None, state: State, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors()[:cut])
    assert file_state(path).state is state


def test_a_file_is_placed_whole(net: Path, tmp_path: Path):
    target = tmp_path / "deep" / "er" / "net.pth"
    place_file(net, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["net.pth"]


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_disk_that_fills_up_leaves_what_was_there(
    old: bytes | None, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "hub" / "net.pth"
    if old:
        target.parent.mkdir()
        target.write_bytes(old)

    def fill(_: object, copy: object, __: int) -> None:
        copy.write(CONTENT[:1000])  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fill)
    with pytest.raises(InfraError, match=r"^no space left on the disk for .*net.pth, which needs 0 MB: free some"):
        place_file(net, target, SHA256)
    left = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert left == ({"net.pth": old} if old else {})


def test_a_copy_that_differs_is_not_placed(net: Path, tmp_path: Path):
    with pytest.raises(InfraError, match="differs from it"):
        place_file(net, tmp_path / "hub" / "net.pth", "0" * 64)
    assert list((tmp_path / "hub").iterdir()) == []


def test_two_writers_of_one_file(tmp_path: Path):
    with (
        locked(tmp_path / "part"),
        pytest.raises(InfraError, match="another process is writing"),
        locked(tmp_path / "part"),
    ):
        pass


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for shard in (1, 2):
        (folder / f"model-{shard}.safetensors").write_bytes(safetensors())
    return folder


def test_a_snapshot_is_placed_where_the_hub_finds_it(snapshot: Path, tmp_path: Path):
    from huggingface_hub import try_to_load_from_cache

    cache = tmp_path / "hub"
    folder = cache / "models--owner--one"
    revision = place_snapshot(snapshot, folder)
    assert snapshot_state(folder).state is State.PRESENT
    found = try_to_load_from_cache("owner/one", "model-2.safetensors", cache_dir=cache)
    assert found == str(folder / "snapshots" / revision / "model-2.safetensors")
    again = tmp_path / "other cache" / "models--owner--one"
    assert place_snapshot(folder, again) == revision  # a folder of the hub's cache, as it is
    assert [path.name for path in (again / "snapshots").iterdir()] == [revision]


def test_a_snapshot_that_lacks_a_part_is_refused(snapshot: Path, tmp_path: Path):
    (snapshot / "model-2.safetensors").unlink()
    with pytest.raises(InfraError, match=r"1 of 2 weight files lack, first model-2.safetensors"):
        place_snapshot(snapshot, tmp_path / "hub" / "models--owner--one")
    (snapshot / "model-2.safetensors").write_bytes(safetensors()[:-1])
    with pytest.raises(InfraError, match=r"model-2.safetensors has "):
        place_snapshot(snapshot, tmp_path / "hub" / "models--owner--one")
    assert not (tmp_path / "hub").exists()


def test_a_snapshot_holds_the_files_and_shapes_that_are_wanted_and_no_others_are_copied(snapshot: Path, tmp_path: Path):
    wanted = Wanted(("config.json", "words.json"), {"w": (100,)})
    assert content_state(snapshot, wanted).detail == "1 of 2 files lack, first words.json"
    (snapshot / "words.json").write_text("{}")
    assert content_state(snapshot, wanted).state is State.PRESENT
    folder = tmp_path / "hub" / "models--owner--one"
    several = Wanted((*wanted.files, "model-1.safetensors"))
    shutil.rmtree(folder, ignore_errors=True)
    (snapshot / "model.safetensors.index.json").unlink()
    revision = place_snapshot(snapshot, folder, several)
    kept = {path.name for path in (folder / "snapshots" / revision).iterdir()}
    assert kept == {"config.json", "words.json", "model-1.safetensors"}
    other = snapshot_state(folder, Wanted((), {"w": (25, 4)}))
    assert (other.state, other.detail) == (State.OTHER, "w is [100], and [25, 4] is wanted")
    assert snapshot_state(folder, Wanted((), {"v": (1,)})).detail == "v is not there, and [1] is wanted"


def test_a_snapshot_on_a_full_disk_leaves_nothing(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "hub" / "models--owner--one"
    copy = shutil.copyfile

    def fill(source: Path, target: Path) -> None:
        copy(source, target)
        if source.name == "model-1.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weight_files.shutil, "copyfile", fill)
    with pytest.raises(InfraError, match="no space left"):
        place_snapshot(snapshot, folder)
    assert list((folder / "snapshots").iterdir()) == []
    assert snapshot_state(folder).state is State.MISSING


def test_what_the_hub_has_sent_is_compared_with_the_names_of_its_blobs(tmp_path: Path):
    folder = tmp_path / "models--owner--one"
    files = folder / "snapshots" / ("a" * 40)
    for part in (files, folder / "blobs", folder / "refs"):
        part.mkdir(parents=True)
    (files / "config.json").write_text("{}")
    blob = folder / "blobs" / hashlib.sha256(safetensors()).hexdigest()
    blob.write_bytes(safetensors())
    (files / "model.safetensors").symlink_to(blob)
    (folder / "refs" / "main").write_text("a" * 40)
    check_blobs(folder)
    blob.write_bytes(safetensors()[:-1] + b"x")
    with pytest.raises(
        InfraError, match=r"is wrong hash \(model.safetensors is not what the hub says\): remove the folder"
    ):
        check_blobs(folder)
    assert snapshot_state(folder).state is State.MISSING
