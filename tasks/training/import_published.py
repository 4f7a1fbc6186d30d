"""``python -m tasks.training.import_published NAME``: published weights become a model folder of this project.

NAME is a decoder of the paper's profile (``internvl3-8b``: the base that pre-training or a warm-up starts from, made
of the hub's snapshot and the SlowFast file) or a checkpoint that the VITAL authors released: a whole model
(``JZHWS/VITAL-Base-8B``), their vision encoder (it becomes an encoder folder for ``swap_encoder``) or their linear
probe. All are read from their places on this machine (``vital weights``); nothing is downloaded.
"""

import argparse
import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch

from models.compatibility import Compatibility
from models.decoders import DECODERS, decoder_record
from models.errors import ModelError
from models.published import (
    AS_EVALUATED,
    AS_TRAINED,
    MotionStart,
    encoder_from_released,
    from_internvl,
    from_released,
    probe_from_released,
)
from models.weights import RELEASED, RELEASED_ENCODER, RELEASED_PROBE, SLOWFAST, snapshot_folder, weight_records
from tasks.errors import StageError, VitalError

log = logging.getLogger(__name__)

_TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LOOKS: Final = {"evaluated": AS_EVALUATED, "trained": AS_TRAINED}


class _Model(Protocol):
    """What can be written as a folder."""

    def save_pretrained(self, folder: Path) -> None:
        """Write it."""
        ...


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.training.import_published", description=__doc__)
    parser.add_argument("name", choices=[*(r.name for r in DECODERS.values() if r.hub), *RELEASED], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the motion projector, which a base draws anew")
    parser.add_argument("--dtype", choices=_TYPES, default="bfloat16", help="type of all weights (the hub: bfloat16)")
    parser.add_argument(
        "--as",
        dest="look",
        choices=_LOOKS,
        default="evaluated",
        help="how a released whole model looks at media: as they evaluate it, or as they train it, to train it further",
    )
    parser.add_argument("--out", type=Path, default=Path("artifacts/base"), help="folder of model folders")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        how = How(arguments.seed, _TYPES[arguments.dtype], _LOOKS[arguments.look])
        folder = import_published(arguments.name, arguments.out, how)
    except (VitalError, ModelError) as error:
        log.error("import_published failed: %s", error)  # noqa: TRY400 - one line, no traceback
        return 1
    log.info("%s", folder)
    return 0


@dataclass(frozen=True)
class How:
    """How published weights are read.

    Attributes:
        seed: of the motion projector that a base draws anew.
        dtype: type of all weights.
        look: how a released whole model looks at media.
    """

    seed: int = 0
    dtype: torch.dtype = torch.bfloat16
    look: Compatibility = AS_EVALUATED


def import_published(name: str, out: Path, how: How) -> Path:
    """Write the model below ``out`` and return its folder, which appears whole or not at all.

    Raises:
        StageError: the folder is there already.
        MissingWeightsError: a file is not on this machine.
        ModelError: a file does not hold what it should.
    """
    folder = out / name.rpartition("/")[2].lower()
    if folder.exists():
        msg = f"{folder} is there already: remove it to make it anew"
        raise StageError(msg)
    part = out / f".{folder.name}.incoming"
    shutil.rmtree(part, ignore_errors=True)
    _read(name, how).save_pretrained(part)
    part.rename(folder)
    return folder


def _read(name: str, how: How) -> _Model:
    if name == RELEASED_ENCODER:
        return encoder_from_released(snapshot_folder(name), dtype=how.dtype)
    if name == RELEASED_PROBE:
        return probe_from_released(snapshot_folder(name), dtype=how.dtype)
    if name in RELEASED:
        return from_released(snapshot_folder(name), how.look, dtype=how.dtype)
    hub = decoder_record(name).hub
    if hub is None:
        msg = f"decoder {name} has no published weights: the stage base makes it"
        raise StageError(msg)
    motion = MotionStart(weight_records()[SLOWFAST].path, how.seed)
    return from_internvl(snapshot_folder(hub), motion, dtype=how.dtype)


if __name__ == "__main__":
    sys.exit(main())
