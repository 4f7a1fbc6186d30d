"""A checkout with a finished tiny line and a study of it, for every floor's tests of studies."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
STUDY: dict[str, Any] = {
    "purpose": "Whether the queue works.",
    "seeds": [0, 1],
    "models": ["vital-base-small", "vital-warm-up-large"],
    "control": "full/vital-base-small",
    "settings": {"pretrain": {"training": {"steps": 3}}},
    "variants": {
        "full": {},
        "level": {"settings": {"pretrain": {"losses": {"target": "level"}}}},
        "zoo": {"stages": ["warm_up"], "start_from": "full", "settings": {"warm_up": {"control": True}}},
    },
}
TRAINING = {"threads": 1, "batch_examples": 4, "steps": 2, "checkpoint_every": 1}
CHANGES: dict[str, Any] = {
    "pretrain": {"decoder": "small", "max_reject_share": 0.1, "training": TRAINING},
    "warm_up": {"decoders": ["large"], "sample_share": 1.0, "max_examples": 8, "training": TRAINING},
    "predict": {"batch": 4, "threads": 1},
    "correlate": {
        "sampling": {"n_bootstrap": 40, "min_samples": 4, "min_contents": 2, "min_type_samples": 2},
    },
}


def laid_on(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings merged."""
    return values | {
        name: laid_on(values[name], new) if isinstance(new, dict) and isinstance(values.get(name), dict) else new
        for name, new in changes.items()
    }


def write_study(root: Path, study: dict[str, Any], name: str = "tiny") -> Path:
    """Write a study file."""
    path = root / "infra" / "studies" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def make_frame(root: Path, study: dict[str, Any] = STUDY) -> Path:
    """A checkout's params, pipeline, code (by links) and a study, without artifacts."""
    root.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(laid_on(params, CHANGES), sort_keys=False))
    (root / "dvc.yaml").write_bytes((CHECKOUT / "dvc.yaml").read_bytes())
    for code in ("tasks", "models"):
        (root / code).symlink_to(CHECKOUT / code)
    write_study(root, study)
    return root


def make_checkout(root: Path, study: dict[str, Any] = STUDY) -> Path:
    """A checkout in which a tiny line has run."""
    spec = importlib.util.spec_from_file_location("line_of_tasks", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_line(make_frame(root, study))
    return root


def make_result(root: Path, trial: str, scores: list[float], **changes: Any) -> dict[str, Any]:
    """Write and return a result as a trial would write it now, of made-up scores in the order of its media."""
    from infra.study_files import read_study
    from infra.trials import INPUTS, params_hash

    study = read_study(root, "tiny")
    found = next(one for one in study.trials() if one.name == trial)
    model = study.models[0] if "pretrain" in found.variant.stages else study.models[-1]
    measures = {
        name: {"value": round(0.5 + sum(scores) % 0.3, 5), "low": 0.1, "high": 0.9}
        for name in ("srcc", "plcc", "undistorted_srcc", "severity_srcc")
    }
    result = {
        "study": "tiny",
        "variant": found.variant.name,
        "seed": found.seed,
        "params": params_hash(found, study.params_of(found, root)),
        "inputs": dict.fromkeys(INPUTS, "0"),
        "code": "c",
        "sizes": {"pretrain_contents": 5},
        "media": "12345678",
        "models": {
            model: {
                "readout": "expectation",
                "measures": measures,
                "scores": " ".join(f"{score:.5f}" for score in scores),
            }
        },
    }
    path = root / "metrics" / "studies" / "tiny" / f"{trial}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result | changes))
    return result | changes
