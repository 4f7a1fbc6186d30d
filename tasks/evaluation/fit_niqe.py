"""``python -m tasks.evaluation.fit_niqe FOLDER ...``: fit the pristine model of the NIQE baseline on photographs.

Not a stage: the fitted file (11 KB) is tracked beside ``models/niqe.py``, so the baseline is the same in every clone.
Choose photographs without compression artefacts, blur or noise; none of them may be benchmark material.
"""

import argparse
import hashlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from models.errors import ModelError
from models.niqe import PATCH, PRISTINE_FILE, SHARPNESS_THRESHOLD, Pixels, fit_pristine, save_pristine
from tasks.errors import MediaError, StageError, VitalError
from tasks.media import IMAGE_SUFFIXES, decode_image

log = logging.getLogger(__name__)


def fit_folders(folders: Sequence[Path], out: Path) -> int:
    """Fit on every photograph below ``folders`` that is at least one patch large; returns the number of sharp patches.

    Raises:
        StageError: a folder is missing, or no photograph is usable.
        ModelError: too few sharp patches.
    """
    for folder in folders:
        if not folder.is_dir():
            msg = f"{folder} is not a folder"
            raise StageError(msg)
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    seen: list[str] = []
    model, patches = fit_pristine(_decode(paths, seen))
    origin = {
        "photographs": str(len(seen)),
        "patches": str(patches),
        "sharpness_threshold": str(SHARPNESS_THRESHOLD),
        "sources": ", ".join(sorted({folder.name for folder in folders})),
        "content_sha256": hashlib.sha256("".join(sorted(seen)).encode()).hexdigest(),
    }
    save_pristine(out, model, origin)
    return patches


def _decode(paths: Sequence[Path], seen: list[str]) -> Iterator[Pixels]:
    for path in tqdm(paths, desc="fit_niqe"):
        data = path.read_bytes()
        try:
            pixels_HWC = decode_image(data)
        except MediaError as error:
            log.warning("%s is not used: %s", path.name, error)
            continue
        if min(pixels_HWC.shape[:2]) >= PATCH:
            seen.append(hashlib.sha256(data).hexdigest())
            yield pixels_HWC
        else:
            log.warning("%s is not used: a side is shorter than %d pixels", path.name, PATCH)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.evaluation.fit_niqe", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folder of pristine photographs")
    parser.add_argument("--out", type=Path, default=PRISTINE_FILE, help="file to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        patches = fit_folders(arguments.folders, arguments.out)
    except (VitalError, ModelError) as error:
        log.error("fit_niqe failed: %s", error)  # noqa: TRY400 - one line, no traceback
        return 1
    log.info("fitted on %d sharp patches: %s", patches, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
