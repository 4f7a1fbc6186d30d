import pickle
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from infra.errors import InfraError, MissingObjectError
from infra.object_store import open_store
from tasks.archives import Archives
from tasks.errors import StageError
from tasks.pool import load_candidates, read_media
from tasks.stage import Place


def _rows(root: Path) -> list:
    return list(load_candidates(Place(root, root, root)).itertuples())


def test_bytes_come_from_the_workspace_unless_a_store_is_named(line: Path, tmp_path: Path):
    place = Place(line, line, line)
    rows = _rows(line)
    assert [Archives(place, None).read(row) for row in rows] == [read_media(place, row) for row in rows]
    for stage in ("collect", "distort"):
        (tmp_path / "elsewhere" / stage).mkdir(parents=True)
        (line / "artifacts" / stage / "media").rename(tmp_path / "elsewhere" / stage / "media")
    with pytest.raises(StageError, match="is missing"):
        Archives(place, None).read(rows[0])
    moved = pickle.loads(pickle.dumps(Archives(place, str(tmp_path / "elsewhere"))))  # noqa: S301 - our own bytes
    assert all(len(moved.read(row)) == row.length for row in rows)
    with pytest.raises(InfraError, match="shorter than its index says"):
        moved.read(rows[0]._replace(length=10**9))
    with pytest.raises(MissingObjectError, match=r"distort/media/9\.tar"):
        moved.read(rows[0]._replace(stage="distort", shard="9.tar"))


def test_bytes_come_from_s3_by_ranges(line: Path, monkeypatch: pytest.MonkeyPatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        from boto3.session import Session

        Session().client("s3").create_bucket(Bucket="archives")
        store = open_store("s3://archives/line")
        place = Place(line, line, line)
        rows = _rows(line)
        expected = [read_media(place, row) for row in rows]
        for stage in ("collect", "distort"):
            for path in (line / "artifacts" / stage / "media").iterdir():
                store.put_if_absent(f"{stage}/media/{path.name}", path.read_bytes())
        archives = Archives(place, "s3://archives/line")
        assert [archives.read(row) for row in rows] == expected
    finally:
        server.stop()
