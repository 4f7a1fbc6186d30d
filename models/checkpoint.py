"""InternVL checkpoints on disk: plain transformers folders of safetensors, complete or refused with a precise reason.

What is written has the image encoder in a shard of its own, so that decoders on one encoder have a byte-identical first
shard, which a content-addressed store keeps once; the other shards are bounded in size.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import InternVLConfig, InternVLForConditionalGeneration

from models.errors import MissingWeightsError, ModelError

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""

MAX_SHARD_BYTES: Final = 4 * 2**30
"""Bound on a shard, the encoder's apart; below it, object stores upload in one go."""

_SINGLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_HEAD: Final = "lm_head.weight"
_VISION_KEY: Final = "vision_tower."
_POINTER: Final = b"version https://git-lfs"


def require_files(folder: Path, names: Sequence[str], what: str, remedy: str = "") -> None:
    """Check that a weight folder is complete.

    Args:
        what: what the folder holds. remedy: what to do if it does not.

    Raises:
        MissingWeightsError: naming the first file that is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            remedy = remedy or "make it with the stage that writes this folder, or dvc pull"
            msg = f"{what}: {folder / name} is missing; {remedy}"
            raise MissingWeightsError(msg)


def require_same_tensors(found: Shapes, wanted: Shapes, source: str) -> None:
    """Check that a checkpoint holds exactly the tensors of a network.

    Args:
        source: begins the message, for example ``the encoder in FOLDER does not fit this model``.

    Raises:
        ModelError: naming the first tensor that is missing, too many, or of another shape.
    """
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            problem = f"has no tensor {name}, which should be {list(wanted[name])}"
        elif name not in wanted:
            problem = f"has a tensor {name} {list(found[name])} that no part of the network has"
        elif found[name] != wanted[name]:
            problem = f"tensor {name} is {list(found[name])}, not {list(wanted[name])}"
        else:
            continue
        msg = f"{source}: {problem}"
        raise ModelError(msg)


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    """Shapes of a state dict."""
    return {name: tuple(value.shape) for name, value in state.items()}


def shapes_of_config(config: InternVLConfig) -> Shapes:
    """Shapes of the tensors of an InternVL of this configuration; no memory is taken."""
    with torch.device("meta"):
        return shapes_of(InternVLForConditionalGeneration(config).state_dict())


def checkpoint_shards(folder: Path, what: str, remedy: str = "") -> list[Path]:
    """Safetensors files of a checkpoint, whole, in the order of their names.

    Args:
        what, remedy: as in :func:`require_files`.

    Raises:
        MissingWeightsError: a file is missing, cut, or the pointer that Git leaves in its place.
    """
    require_files(folder, ("config.json",), what, remedy)
    index = folder / _INDEX
    if not index.is_file():
        require_files(folder, (_SINGLE,), f"{what} (neither {_INDEX} nor one file)", remedy)
        names = [_SINGLE]
    else:
        names = sorted(set(read_json(index, what)["weight_map"].values()))
    require_files(folder, names, what, remedy)
    paths = [folder / name for name in names]
    for path in paths:
        _check_whole(path, what)
    return paths


def _check_whole(path: Path, what: str) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            msg = f"{what}: {path} is a Git LFS pointer, not the weights: run git lfs pull in that folder"
            raise MissingWeightsError(msg)
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        msg = f"{what}: {path} is cut or damaged ({error}): copy it there again"
        raise MissingWeightsError(msg) from error


def stored_names(paths: Sequence[Path]) -> Iterator[str]:
    """Names of all tensors in these files."""
    for path in paths:
        with safe_open(path, framework="pt") as file:
            yield from file.keys()


def read_tensors(paths: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Name and value of all tensors in these files; values stay in the files' memory maps until they are used."""
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping: it has no iterator
                yield name, file.get_tensor(name)


def stored_type(paths: Sequence[Path]) -> torch.dtype:
    """Type in which models are read from these files without loss: bfloat16 if all their numbers are, else float32."""
    kinds: set[str] = set()
    for path in paths:
        with safe_open(path, framework="pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - as above
    return torch.bfloat16 if {kind for kind in kinds if "F" in kind} == {"BF16"} else torch.float32


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A checkpoint's JSON file.

    Raises:
        MissingWeightsError: it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        msg = f"{what}: {path} is cut or damaged ({error}): copy it there again"
        raise MissingWeightsError(msg) from error


def load_internvl(
    folder: Path, dtype: torch.dtype = torch.float32, remedy: str = ""
) -> InternVLForConditionalGeneration:
    """Read an InternVL checkpoint of transformers' layout; nothing is fetched.

    The hub's ``-hf`` conversions load as they are. Their configuration is silent about ``tie_word_embeddings``, whose
    default claims one matrix for input embeddings and vocabulary head, although both are stored; the model that is
    returned says what is so.

    Args:
        dtype: of all weights, whatever they are stored as.
        remedy: what to do if files are missing.

    Raises:
        MissingWeightsError: the checkpoint is not complete.
        ModelError: it is no InternVL, or its tensors are not those of its configuration.
    """
    what = "InternVL checkpoint"
    shards = checkpoint_shards(folder, what, remedy)
    written = read_json(folder / "config.json", what)
    if written.get("model_type") != "internvl":
        msg = f"{folder} holds a model of type {written.get('model_type')!r}, not transformers' internvl"
        raise ModelError(msg)
    config = InternVLConfig.from_pretrained(folder, local_files_only=True)
    if "tie_word_embeddings" not in written:
        config.tie_word_embeddings = not any(name.endswith(_HEAD) for name in stored_names(shards))
    try:
        loaded: Any = InternVLForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        msg = f"{folder} does not load as InternVL: {error}"
        raise ModelError(" ".join(msg.split())) from error
    internvl, info = cast("tuple[InternVLForConditionalGeneration, dict[str, Any]]", loaded)
    check_fit(folder, info)
    internvl.config.tie_word_embeddings = has_tied_head(internvl)
    return internvl


def check_fit(folder: Path, info: Mapping[str, Any]) -> None:
    """Refuse a folder whose tensors are not those of its configuration.

    Args:
        info: what transformers tells with ``output_loading_info``: names per problem.

    Raises:
        ModelError: there is a problem.
    """
    for problem, names in info.items():
        if names:
            msg = f"{folder} does not fit its config.json: {problem.replace('_', ' ')} {sorted(map(str, names))[:3]}"
            raise ModelError(msg)


def has_tied_head(internvl: InternVLForConditionalGeneration) -> bool:
    """Whether input embeddings and vocabulary head are one matrix."""
    return internvl.lm_head.weight is internvl.get_input_embeddings().weight


def tile_side(internvl: InternVLForConditionalGeneration) -> int:
    """Side in pixels of the square tiles that the image encoder was made for."""
    return int(internvl.model.vision_tower.config.image_size[0])


def save_internvl(
    internvl: InternVLForConditionalGeneration, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write configuration, a shard with the image encoder, shards with projector and decoder, and their index.

    Tensors are written from where they are; those of a GPU pass through the host shard by shard.
    """
    tied = has_tied_head(internvl)
    internvl.config.tie_word_embeddings = tied
    kinds = {value.dtype for value in internvl.parameters()}
    if len(kinds) > 1:  # whoever reads all in one type loses nothing
        internvl.config.dtype = max(kinds, key=lambda kind: kind.itemsize)
    internvl.config.save_pretrained(folder)
    state = {name: value for name, value in internvl.state_dict().items() if not (tied and name == _HEAD)}
    shards = [[name for name in state if _VISION_KEY in name]]
    shards += _bounded([name for name in state if _VISION_KEY not in name], state, max_shard_bytes)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: state[name].detach().cpu().contiguous() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    size = sum(value.nbytes for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _bounded(names: Sequence[str], state: Mapping[str, Tensor], max_bytes: int) -> list[list[str]]:
    """Names in order, cut so that no part but one of a single tensor exceeds the bound."""
    parts: list[list[str]] = [[]]
    room = max_bytes
    for name in names:
        if parts[-1] and state[name].nbytes > room:
            parts.append([])
            room = max_bytes
        parts[-1].append(name)
        room -= state[name].nbytes
    return parts
