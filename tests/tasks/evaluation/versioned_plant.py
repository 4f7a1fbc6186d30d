"""A checkout in miniature whose annotation is made by rule, under git and DVC: versions of a data set in seconds.

``recipe.json`` says what the stages find: how many photographs, and by how much which version of a scorer is off. Each
stage is one call of this file; the tables have the schemas of the line.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from models.opinion import summarise
from tasks.records import ASSERTIONS, CANDIDATES, EXAMPLES, OPINIONS, REJECTS, REVIEWED, VOTES, RowSchema
from tasks.shards import frame_of, write_json, write_table
from tasks.stage import ANNOTATION

NAMES = ("sharp", "noisy", "whole")
LIMITS = {
    "psi": 0.1,
    "ks": 0.1,
    "mu_shift": 0.02,
    "sigma_shift": 0.02,
    "migrated": 0.1,
    "migrated_far": 0.005,
    "gone": 0.05,
}
RECIPE = {"photos": 200, "versions": dict.fromkeys(NAMES, "1"), "offsets": dict.fromkeys(NAMES, 0.0)}


def _zeros(rows: RowSchema) -> dict[str, Any]:
    empty = {"string": "x", "int64": 0, "double": 0.0, "bool": False}
    return {field.name: empty.get(str(field.type), []) for field in rows.schema}


def _table(out: Path, rows: RowSchema, records: list[dict[str, Any]]) -> None:
    write_table(out, rows, frame_of(rows, [_zeros(rows) | record for record in records]))


def opinions(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of OPINIONS: a photograph's scores depend on its number, the scorer, and the scorer's offset alone."""
    names, records = list(recipe["versions"]), []
    for number in range(recipe["photos"]):
        rng = np.random.default_rng(number)
        base = rng.uniform(0.25, 0.75)
        noise = dict(zip(NAMES, rng.normal(0, 0.05, len(NAMES)), strict=True))
        offsets = {name: noise.get(name, 0.0) + recipe["offsets"].get(name, 0.0) for name in names}
        scores = [float(np.clip(base + offsets[name], 0, 1)) for name in names]
        found = summarise([scores])
        records.append(
            {
                "id": f"p{number:04d}",
                "bytes_sha256": f"{number:064x}",
                "scorers": names,
                "versions": [recipe["versions"][name] for name in names],
                "scores": scores,
                "mu": float(found.mu_N[0]),
                "sigma": float(found.sigma_N[0]),
                "pmod": found.pmod_N5[0].tolist(),
            }
        )
    return records


def make(stage: str, recipe: dict[str, Any], out: Path) -> None:
    """Write what a stage makes."""
    ids = [f"p{number:04d}" for number in range(recipe["photos"])]
    if stage == "collect":
        photos = [
            {"id": key, "parent_id": None, "modality": "image", "split": "train", "source": f"{key}.png",
             "distortion": None, "bytes_sha256": f"{int(key[1:]):064x}"}
            for key in ids
        ]  # fmt: skip
        _table(out / "candidates.parquet", CANDIDATES, photos)
        (out / "media").mkdir()
        (out / "media" / "0.tar").write_bytes(b"media" * recipe["photos"])
    elif stage == "distort":
        _table(out / "candidates.parquet", CANDIDATES, [])
    elif stage == "score":
        _table(out / "opinions.parquet", OPINIONS, opinions(recipe))
    elif stage == "describe":
        _table(out / "assertions.parquet", ASSERTIONS, [{"assertion_id": f"a{i}"} for i in range(len(ids[::4]))])
    elif stage == "review":
        key = [{"assertion_id": f"a{i}", "id": key} for i, key in enumerate(ids[::4])]
        who = {"phase": "cross", "judge": "spectral", "model": "m1", "prompt_version": "1", "round": 1}
        _table(out / "votes.parquet", VOTES, [{**row, **who, "verdict": "keep"} for row in key])
        _table(out / "reviewed.parquet", REVIEWED, [{**row, "kept": i % 5 > 0} for i, row in enumerate(key)])
        (out / "answers").mkdir()
        answers = pd.DataFrame([{"content": row["id"], "assertion": row["assertion_id"], **who} for row in key])
        answers.to_parquet(out / "answers" / "answers.parquet", index=False)
    elif stage == "assemble":
        _table(out / "examples.parquet", EXAMPLES, [{"example_id": key, "task": "single", "ids": [key]} for key in ids])
    elif stage == "validate":
        if recipe.get("invalid"):
            sys.exit("validate failed: expect_in_equals_out_plus_rejects: 3 rows break it, ids a1, b2, c3")
        write_json(out / "results.json", {"success": True})
    if stage in ("collect", "review"):
        reason = "truncated" if stage == "collect" else "no_consensus"
        rejects = [{"stage": stage, "id": f"r{i}", "reason": reason, "detail": str(i)} for i in range(3)]
        _table(out / "rejects.parquet", REJECTS, rejects)


def new_folder(folder: Path) -> Path:
    """An empty folder in the place of whatever is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def pipeline(code: Path) -> dict[str, Any]:
    """Every stage of annotation, each reading the one before it and the recipe."""
    stages: dict[str, Any] = {}
    before = ["recipe.json"]
    for stage in ANNOTATION:
        command = f'PYTHONPATH="{code}" "{sys.executable}" "{Path(__file__).resolve()}" {stage}'
        folder = f"artifacts/{stage}"
        stages[stage] = {"cmd": command, "deps": before, "params": [stage], "outs": [folder]}
        before = ["recipe.json", folder]
    return {"stages": stages}


def sh(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


@dataclass(frozen=True)
class VersionedPlant:
    """A checkout whose annotation can be made again under another recipe."""

    root: Path

    def git(self, *arguments: str) -> str:
        return sh(self.root, "git", *arguments)

    def write(self, **changes: Any) -> None:
        """Change the recipe; ``off=("sharp", "2", 0.1)`` is a new version of a scorer."""
        recipe = json.loads((self.root / "recipe.json").read_text())
        if "off" in changes:
            name, version, offset = changes.pop("off")
            recipe["versions"][name], recipe["offsets"][name] = version, offset
        (self.root / "recipe.json").write_text(json.dumps(recipe | changes))

    def annotate(self, **changes: Any) -> None:
        """Change the recipe and make everything again, in this process, as ``dvc repro`` would; DVC records it."""
        self.write(**changes)
        recipe = json.loads((self.root / "recipe.json").read_text())
        for stage in ANNOTATION:
            make(stage, recipe, new_folder(self.root / "artifacts" / stage))
        sh(self.root, sys.executable, "-m", "dvc", "commit", "--quiet", "--force")

    def limit(self, **limits: float) -> None:
        params = yaml.safe_load((self.root / "params.yaml").read_text())
        params["compare"]["limits"] |= limits
        (self.root / "params.yaml").write_text(yaml.safe_dump(params))


def build(root: Path, code: Path) -> VersionedPlant:
    """Make the plant in the new folder ``root``, committed on main, its annotation not yet run."""
    root.mkdir(parents=True, exist_ok=True)
    sh(root, "git", "init", "--quiet", "--initial-branch", "main")
    sh(root, sys.executable, "-m", "dvc", "init", "--quiet")
    config = "[core]\n    remote = store\n    autostage = false\n['remote \"store\"']\n    url = ../.store\n"
    (root / ".dvc" / "config").write_text(config)
    (root / ".gitignore").write_text("/artifacts/\n/.store\n/.vital/\n/.work/\n__pycache__/\n*.log\n/data/\n")
    (root / "recipe.json").write_text(json.dumps(RECIPE))
    params: dict[str, Any] = {stage: {"number": 1} for stage in ANNOTATION}
    params["compare"] = {"limits": LIMITS, "bins": 10, "examples": 2}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline(code), sort_keys=False))
    sh(root, "git", "add", "--all")
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    sh(root, "git", *identity, "commit", "--quiet", "--message", "The plant")
    return VersionedPlant(root)


def copy(plant: VersionedPlant, root: Path) -> VersionedPlant:
    return VersionedPlant(Path(shutil.copytree(plant.root, root, symlinks=True)))


if __name__ == "__main__":
    make(sys.argv[1], json.loads(Path("recipe.json").read_text()), new_folder(Path("artifacts", sys.argv[1])))
