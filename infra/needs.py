"""What a profile needs of a machine beyond its params: GPUs, files, hub snapshots, endpoints' keys.

The section ``needs`` of a profile file is data for the dry run; no stage reads it. The keys that roles behind
endpoints name in params are looked for whether a profile declares them or not.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from infra.errors import InfraError

NEEDS: Final = "needs"
"""Name of the section."""

_KINDS: Final = ("gpus", "files", "snapshots", "endpoints", "code")


def missing_needs(needs: dict[str, Any], checkout: Path) -> list[str]:
    """What of a profile's ``needs`` this machine lacks, one line each: what, where it belongs, and what it is for.

    Raises:
        InfraError: the section names something else than gpus, files, snapshots, endpoints and code.
    """
    if unknown := sorted(set(needs) - set(_KINDS)):
        msg = f"section needs: unknown key {unknown[0]!r}; the keys are {', '.join(_KINDS)}"
        raise InfraError(msg)
    return list(_missing(needs, checkout))


def missing_keys(params: Mapping[str, Any], needs: Mapping[str, Any]) -> list[str]:
    """Environment variables without a value from which roles behind endpoints take their keys, one line each.

    Args:
        params: all sections; a role is a mapping with a ``base_url`` somewhere below a section's ``endpoints``.
        needs: of the profile; ``missing_needs`` tells of the variables that it names.
    """
    told = {endpoint["key"] for endpoint in needs.get("endpoints", [])}
    roles: dict[str, list[str]] = {}
    for section, values in params.items():
        for role, key in _role_keys(section, values.get("endpoints") if isinstance(values, Mapping) else None):
            roles.setdefault(key, []).append(role)
    unset = {key: named for key, named in roles.items() if key not in told and not _is_set(key)}
    return [f"key of {', '.join(named)}: set {key} in the environment" for key, named in unset.items()]


def _role_keys(path: str, values: object) -> Iterator[tuple[str, str]]:
    """Name of each role below some values, and of its key's variable."""
    if not isinstance(values, Mapping):
        return
    if "base_url" in values:
        if isinstance(values.get("key"), str):
            yield path, values["key"]
        return
    for name, inner in values.items():
        yield from _role_keys(f"{path}.{name}", inner)


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())


def _missing(needs: dict[str, Any], checkout: Path) -> Iterator[str]:
    if gpus := needs.get("gpus"):
        found = sum(memory >= gpus["memory_gb"] * 0.9 for memory in gpu_memories_gb())
        if found < gpus["count"]:
            yield f"GPUs: {gpus['count']} of {gpus['memory_gb']} GB, {found} found ({gpus['why']})"
    for file in needs.get("files", []):
        if not (checkout / file["path"]).is_file():
            yield f"file {file['path']} ({file['why']})"
    for snapshot in needs.get("snapshots", []):
        folder = hub_cache() / f"models--{snapshot['name'].replace('/', '--')}"
        if not any(folder.glob("snapshots/*/config.json")):
            told = f"huggingface-cli download {snapshot['name']}, on a machine with a network, into {folder.parent}"
            yield f"hub snapshot {snapshot['name']} ({snapshot['why']}): {told}"
    for endpoint in needs.get("endpoints", []):
        if not _is_set(endpoint["key"]):
            yield f"key of {endpoint['model']} ({endpoint['role']}): set {endpoint['key']} in the environment"
    for part in needs.get("code", []):
        yield f"code of {part['stage']}: {part['why']}"


def gpu_memories_gb() -> list[float]:
    """Memory of each NVIDIA GPU of this machine, GB; empty if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return [float(line) / 1000 for line in done.stdout.split()] if done.returncode == 0 else []


def hub_cache() -> Path:
    """Where the Hugging Face hub keeps snapshots on this machine."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named)
    home = os.environ.get("HF_HOME")
    return (Path(home) if home else Path("~/.cache/huggingface").expanduser()) / "hub"
