"""Downloads against a real server on loopback: cut, refused, changed, slow, silent; never half a file in its place."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import download as module
from infra.download import Download
from infra.errors import InfraError
from tests.infra.weight_server import Web, running_web


def archive(size: int = 200_000, seed: int = 1) -> bytes:
    """Bytes with the shape of a weight file, the same at any hour."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("archive/data.pkl"), bytes((seed * i * i) % 251 for i in range(size)))
    return buffer.getvalue()


CONTENT = archive()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_web() as found:
        yield found


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "hub" / "x" / "net.pth"


def fetch(download: Download) -> list[tuple[int, int | None]]:
    told: list[tuple[int, int | None]] = []
    download.run(lambda _: None, lambda have, total: told.append((have, total)))
    return told


def alone(target: Path) -> bool:
    return [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("sha256", ["", SHA256, SHA256[:8]])
def test_a_file_comes_whole_and_tells_its_progress(web: Web, target: Path, sha256: str):
    told = fetch(Download(web.serve("net.pth", CONTENT), target, sha256))
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert alone(target)


def test_a_broken_connection_goes_on_where_it_broke(web: Web, target: Path):
    url = web.serve("net.pth", CONTENT, cuts=[50_000, 120_000])
    fetch(Download(url, target))
    assert target.read_bytes() == CONTENT
    assert [wanted for _, _, wanted in web.asked] == [None, "bytes=50000-", "bytes=120000-"]
    assert alone(target)


def test_a_server_that_always_breaks_off_is_given_up_and_the_part_is_kept(web: Web, target: Path):
    url = web.serve("net.pth", CONTENT, cuts=[30_000, 60_000])
    with pytest.raises(InfraError, match=r"broke off 2 times .*0.1 MB are kept, and the same command goes on"):
        fetch(Download(url, target, tries=2))
    assert not target.exists()
    fetch(Download(url, target))
    assert web.asked[-1][2] == "bytes=60000-"
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_mixed(web: Web, target: Path):
    url = web.serve("net.pth", CONTENT, cuts=[30_000])
    with pytest.raises(InfraError, match="broke off"):
        fetch(Download(url, target, tries=1))
    other = archive(150_000, seed=7)
    web.serve("net.pth", other, etag='"2"')
    fetch(Download(url, target))
    assert target.read_bytes() == other


def test_without_version_and_hash_a_part_is_not_trusted(web: Web, target: Path):
    url = web.serve("net.pth", CONTENT, cuts=[30_000], etag="")
    fetch(Download(url, target))
    assert [wanted for _, _, wanted in web.asked] == [None, None]
    assert target.read_bytes() == CONTENT
    target.unlink()
    url = web.serve("net.pth", CONTENT, cuts=[30_000], etag="")
    fetch(Download(url, target, SHA256))  # the hash of the whole would tell
    assert web.asked[-1][2] == "bytes=30000-"


def test_a_server_without_ranges_and_a_part_that_is_whole(web: Web, target: Path):
    fetch(Download(web.serve("net.pth", CONTENT, cuts=[30_000], ranges=False), target))
    assert target.read_bytes() == CONTENT
    target.unlink()
    (target.parent / ".net.part.pth").write_bytes(CONTENT)
    fetch(Download(web.serve("net.pth", CONTENT), target, SHA256))
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(web: Web, target: Path):
    target.parent.mkdir(parents=True)
    (target.parent / ".net.part.pth").write_bytes(CONTENT + b"more")
    fetch(Download(web.serve("net.pth", CONTENT), target, SHA256))
    assert target.read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(web: Web, target: Path):
    with pytest.raises(InfraError, match=f"did not send net.pth as published: sha256 is {SHA256}, published is 0000"):
        fetch(Download(web.serve("net.pth", CONTENT), target, "0" * 64))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>log in first</html>", CONTENT[:-2000]])
def test_what_is_no_weight_file_is_refused_without_a_hash(web: Web, target: Path, content: bytes):
    with pytest.raises(InfraError, match=r"did not send net.pth as published"):
        fetch(Download(web.serve("net.pth", content), target))
    assert not target.exists()


def test_a_file_that_the_check_refuses_leaves_nothing(web: Web, target: Path):
    def refuse(_: Path) -> None:
        raise InfraError("holds code")

    with pytest.raises(InfraError, match="holds code"):
        Download(web.serve("net.pth", CONTENT), target).run(refuse, lambda *_: None)
    assert not target.exists()


def test_refusals_are_told_at_once_and_passing_faults_are_tried_again(web: Web, target: Path):
    with pytest.raises(InfraError, match="the server answers 404 Not Found"):
        fetch(Download(f"{web.address}/nothing", target))
    assert len(web.asked) == 1
    fetch(Download(web.serve("net.pth", CONTENT, statuses=[503, 500]), target))
    assert target.read_bytes() == CONTENT


def test_slow_is_not_silent(web: Web, target: Path):
    fetch(Download(web.serve("net.pth", CONTENT, pause_s=0.3), target, silence_s=5.0))
    assert target.read_bytes() == CONTENT
    with pytest.raises(InfraError, match="broke off 1 times"):
        fetch(
            Download(web.serve("slow.pth", CONTENT, pause_s=3.0), target.with_name("slow.pth"), tries=1, silence_s=0.5)
        )


def test_nobody_there(target: Path):
    with pytest.raises(InfraError, match=r"http://127.0.0.1:9/net.pth cannot be reached \("):
        fetch(Download("http://127.0.0.1:9/net.pth", target))
    assert not target.exists()


def test_two_commands_do_not_write_the_same_file(web: Web, target: Path):
    url = web.serve("net.pth", CONTENT)

    def again(have: int, total: int | None) -> None:
        assert (have, total) > (0, 0)
        with pytest.raises(InfraError, match="another process is writing"):
            fetch(Download(url, target))

    Download(url, target).run(lambda _: None, again)
    assert target.read_bytes() == CONTENT


def test_a_disk_without_room_is_told_before_anything_is_written(
    web: Web, target: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InfraError, match=r"no space left on the disk for .*net.pth, which needs 0 MB"):
        fetch(Download(web.serve("net.pth", CONTENT), target))


def test_a_killed_download_goes_on(web: Web, target: Path, checkout: Path):
    url = web.serve("net.pth", CONTENT, pause_s=0.5)
    code = (
        "import sys; from pathlib import Path; from infra.download import Download\n"
        "Download(sys.argv[1], Path(sys.argv[2])).run(lambda _: None, lambda have, _: print(have, flush=True))"
    )
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, url, str(target)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    fetch(Download(web.serve("net.pth", CONTENT), target))
    assert target.read_bytes() == CONTENT
    assert alone(target)
