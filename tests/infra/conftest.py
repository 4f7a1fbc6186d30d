"""A small plant (git, DVC, stages that make, measure and offer a model) and a real S3 API on loopback."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from infra.model_record import Candidate, Check, hash_folder

PIPELINE = """\
stages:
  pretrain:
    cmd: '"{python}" make.py'
    deps:
      - make.py
    params:
      - pretrain
    outs:
      - artifacts/pretrain
  correlate:
    cmd: mkdir -p artifacts/correlate && cp artifacts/pretrain/model/weights.bin artifacts/correlate/measures
    deps:
      - artifacts/pretrain/model
    outs:
      - artifacts/correlate
  register:
    cmd: mkdir -p artifacts/register && cp offer.json artifacts/register/candidates.json
    deps:
      - artifacts/pretrain
      - artifacts/correlate
    outs:
      - artifacts/register
artifacts:
  vital-base:
    path: artifacts/pretrain/model
    type: model
"""

MAKE = """\
import pathlib, sys
seed = pathlib.Path("params.yaml").read_text().split("seed:")[1].split()[0]
model = pathlib.Path("artifacts/pretrain/model")
(model / "motion").mkdir(parents=True, exist_ok=True)
(model / "weights.bin").write_bytes(bytes(int(seed) + i & 255 for i in range(5000)))
(model / "motion" / "config.json").write_text("{}")
encoder = model.parent / "encoder"
encoder.mkdir(exist_ok=True)
(encoder / "weights.bin").write_bytes(b"encoder" + seed.encode())
with open("executed.log", "a") as log:
    log.write(seed + "\\n")
"""


def sh(folder: Path, *command: str) -> str:
    """Run a program and return what it printed; its complaint is the test's."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def dvc(folder: Path, *arguments: str) -> str:
    return sh(folder, sys.executable, "-m", "dvc", *arguments)


@dataclass(frozen=True)
class Plant:
    """A checkout with one trained model."""

    root: Path

    def git(self, *arguments: str) -> str:
        return sh(self.root, "git", *arguments).strip()

    def candidate(self, *, srcc: float = 0.62, name: str = "vital-base", path: str = "model") -> Candidate:
        """What ``register`` would offer."""
        folder = f"artifacts/pretrain/{path}"
        return Candidate(
            name=name,
            kind="pretrained",
            path=folder,
            files=hash_folder(self.root / folder),
            metrics={"srcc": srcc, "gain": 0.07},
            gate=(Check("srcc", 0.55, srcc), Check("gain", 0.05, 0.07)),
            params={"pretrain": {"seed": self.seed}},
            made_from={},
            parents=("base-micro",),
            card=f"# {name}\n\nA model for tests.\n",
        )

    def offer(self, *candidates: Candidate) -> None:
        """Let the stage ``register`` offer these, so that dvc.lock knows of them."""
        offered = {"candidates": {c.name: c.to_json() for c in candidates}}
        (self.root / "offer.json").write_text(json.dumps(offered))
        dvc(self.root, "repro", "--quiet", "--force", "--single-item", "register")

    @property
    def seed(self) -> int:
        return int((self.root / "params.yaml").read_text().split("seed:")[1].split()[0])

    def train(self, seed: int) -> None:
        """Run the line with another seed, and offer what it made."""
        (self.root / "params.yaml").write_text(f"pretrain:\n  seed: {seed}\n")
        dvc(self.root, "repro", "--quiet", "correlate")
        self.offer(self.candidate())

    def clone(self, folder: Path, *options: str) -> "Plant":
        sh(folder.parent, "git", "clone", "--quiet", *options, f"file://{self.root}", str(folder))
        return replace(self, root=folder)


@pytest.fixture(scope="session")
def plant_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: git and DVC set up, the stage run, everything committed."""
    root = tmp_path_factory.mktemp("template") / "plant"
    root.mkdir()
    sh(root, "git", "init", "--quiet", "--initial-branch", "main")
    dvc(root, "init", "--quiet")
    (root / ".dvc" / "config").write_text("[core]\n    remote = store\n['remote \"store\"']\n    url = ../.store\n")
    (root / ".gitignore").write_text("/artifacts/\n/.store\n/.vital/\nexecuted.log\noffer.json\n__pycache__/\n")
    (root / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    (root / "make.py").write_text(MAKE)
    (root / "metrics").mkdir()
    (root / "metrics" / "pretrain.json").write_text('{"loss": 0.5}\n')
    plant = Plant(root)
    plant.train(1)
    sh(root, "git", "add", "--all")
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    sh(root, "git", *identity, "commit", "--quiet", "--message", "The line")
    return root


@pytest.fixture
def plant(plant_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """A plant of one's own, on a machine where nobody has ever configured git: no identity, an empty HOME."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for variable in ("XDG_CONFIG_HOME", "EMAIL", "VITAL_STORE", "VITAL_CACHE", "GIT_COMMITTER_NAME", "GIT_AUTHOR_NAME"):
        monkeypatch.delenv(variable, raising=False)
    sh(tmp_path, "cp", "-a", str(plant_template), str(tmp_path / "plant"))
    return Plant(tmp_path / "plant")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 API on a free loopback port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket of one's own, with credentials in the environment."""
    import boto3

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    name = f"vital-{abs(hash(request.node.nodeid)) % 10**9}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=name)
    return name
