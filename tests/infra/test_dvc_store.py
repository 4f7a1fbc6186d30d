import configparser
import shutil
from pathlib import Path

import pytest

from infra.dvc_store import (
    Location,
    cache_folder,
    config_with_store,
    describe_store,
    remote,
    run_dvc,
    shared_store,
    store_url,
    use_store,
)
from infra.errors import InfraError
from tests.infra.conftest import Plant, dvc


def test_the_repositorys_remotes_are_read_as_dvc_reads_them(checkout: Path):
    listed = dict(line.split()[:2] for line in run_dvc(checkout, "remote", "list").splitlines())
    for name in ("seed", "store"):
        place = remote(checkout, name)
        assert place is not None
        assert place.url == listed[name]
    assert remote(checkout, "nosuch") is None


def test_a_local_configuration_goes_before_the_committed_one(plant: Plant, tmp_path: Path):
    assert remote(plant.root) == Location(str(plant.root / ".store"))
    use_store(plant.root, str(tmp_path / "shared"))
    assert remote(plant.root) == Location(str(tmp_path / "shared"), chosen=True)
    assert run_dvc(plant.root, "remote", "list").split()[1] == str(tmp_path / "shared")
    assert plant.git("status", "--porcelain") == ""


def test_cache_folder(plant: Plant, tmp_path: Path):
    assert cache_folder(plant.root) == plant.root / ".dvc" / "cache"
    dvc(plant.root, "cache", "dir", "--local", str(tmp_path / "elsewhere"))
    assert cache_folder(plant.root) == tmp_path / "elsewhere"


def test_the_opinion_stores_url(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert store_url(tmp_path / "nothing") == str(tmp_path / "nothing" / ".vital" / "store")
    assert store_url(plant.root) == str(plant.root / ".store" / "objects")
    use_store(plant.root, str(tmp_path / "shared"))
    assert store_url(plant.root) == str(tmp_path / "shared" / "objects")
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "named"))
    assert store_url(plant.root) == str(tmp_path / "named")
    shared_store(plant.root).put_if_absent("a", b"1")
    assert (tmp_path / "named" / "a").read_bytes() == b"1"


def test_use_writes_the_local_configuration_and_no_credential(
    plant: Plant, bucket: str, s3_endpoint: str, tmp_path: Path
):
    local = plant.root / ".dvc" / "config.local"
    local.write_text("[cache]\n    shared = group\n['remote \"store\"']\n    url = /old\n    timeout = 3\n")
    use_store(plant.root, f"s3://{bucket}/prefix/", s3_endpoint)
    config = configparser.RawConfigParser()
    config.read(local)
    assert {section: dict(config.items(section)) for section in config.sections()} == {
        "cache": {"shared": "group"},
        "'remote \"store\"'": {"url": f"s3://{bucket}/prefix", "endpointurl": s3_endpoint},
    }
    assert plant.git("status", "--porcelain") == ""
    assert shared_store(plant.root).put_if_absent("a/b", b"1")
    assert store_url(plant.root) == f"s3://{bucket}/prefix/objects"
    use_store(plant.root, str(tmp_path / "back"))
    assert "endpointurl" not in local.read_text()


def test_a_place_that_does_not_answer_is_refused_and_nothing_is_written(
    plant: Plant, bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("infra.s3_store._ATTEMPTS", 1)
    (tmp_path / "file").write_text("")
    for url, endpoint, answer in (
        ("s3://no-such-bucket/x", s3_endpoint, "there is no bucket 'no-such-bucket'"),
        (f"s3://{bucket}", "http://127.0.0.1:9", "does not answer"),
        (str(tmp_path / "file"), None, "cannot be written"),
        (str(tmp_path), s3_endpoint, "is a folder"),
        ("gs://bucket/x", None, "is not a store"),
    ):
        with pytest.raises(InfraError, match=answer):
            use_store(plant.root, url, endpoint)
    assert not (plant.root / ".dvc" / "config.local").exists()
    with pytest.raises(InfraError, match="not a DVC project"):
        use_store(tmp_path, str(tmp_path / "x"))


def test_show_tells_the_problem(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    report = describe_store(plant.root)
    assert (report.store, report.seed, report.problem) == (str(plant.root / ".store"), None, None)
    assert not (plant.root / ".store").exists()
    monkeypatch.setattr("infra.s3_store._ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    text = config_with_store("", Location("s3://bucket", "http://127.0.0.1:9"))
    (plant.root / ".dvc" / "config.local").write_text(text)
    assert "does not answer" in (describe_store(plant.root).problem or "")


@pytest.mark.slow
def test_what_one_clone_has_finished_another_takes_from_s3_and_executes_nothing(
    plant: Plant, bucket: str, s3_endpoint: str, tmp_path: Path
):
    use_store(plant.root, f"s3://{bucket}/dvc", s3_endpoint)
    plant.train(3)  # not committed: the other clone's dvc.lock knows nothing of it
    run_dvc(plant.root, "push", "--run-cache")
    other = plant.clone(tmp_path / "other")
    use_store(other.root, f"s3://{bucket}/dvc", s3_endpoint)
    (other.root / "params.yaml").write_text("pretrain:\n  seed: 3\n")
    run_dvc(other.root, "pull", "--run-cache", "--allow-missing")
    told = run_dvc(other.root, "repro", "--pull")
    assert "is cached" in told
    assert "Running stage" not in told
    assert not (other.root / "executed.log").exists()
    made = Path("artifacts/pretrain/model/weights.bin")
    assert (other.root / made).read_bytes() == (plant.root / made).read_bytes()
    assert "up to date" in run_dvc(other.root, "status")


@pytest.mark.slow
def test_a_committed_run_is_pulled_and_reproduced_without_work(
    plant: Plant, bucket: str, s3_endpoint: str, tmp_path: Path
):
    use_store(plant.root, f"s3://{bucket}/dvc", s3_endpoint)
    run_dvc(plant.root, "push", "--run-cache")
    other = plant.clone(tmp_path / "other")
    use_store(other.root, f"s3://{bucket}/dvc", s3_endpoint)
    told = run_dvc(other.root, "repro", "--pull")
    assert "Running stage" not in told
    assert not (other.root / "executed.log").exists()
    assert (other.root / "artifacts" / "pretrain" / "encoder" / "weights.bin").is_file()
    shutil.rmtree(other.root / "artifacts")
    run_dvc(other.root, "pull")
    assert (other.root / "artifacts" / "pretrain" / "encoder" / "weights.bin").is_file()
