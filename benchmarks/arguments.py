"""Types of arguments that the benchmarks share: a wrong value is one line of argparse, not a traceback."""

import argparse
from collections.abc import Callable
from pathlib import Path


def positive(text: str) -> int:
    """A whole number, at least 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number, at least 0."""
    return _whole(text, 0)


def positives(text: str) -> list[int]:
    """Whole numbers between commas, each at least 1."""
    return [positive(part) for part in text.split(",")]


def fraction(text: str) -> float:
    """A number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        msg = f"{text!r} is no number in [0, 1]"
        raise argparse.ArgumentTypeError(msg)
    return value


def existing_file(text: str) -> Path:
    """A file that is there."""
    if not Path(text).is_file():
        msg = f"there is no file {text}"
        raise argparse.ArgumentTypeError(msg)
    return Path(text)


def existing_folder(text: str) -> Path:
    """A folder that is there."""
    return folder_with()(text)


def folder_with(*names: str) -> Callable[[str], Path]:
    """Type of a folder that holds these files or folders."""

    def of(text: str) -> Path:
        if not Path(text).is_dir():
            msg = f"there is no folder {text}"
            raise argparse.ArgumentTypeError(msg)
        for name in names:
            if not (Path(text) / name).exists():
                msg = f"the folder {text} holds no {name}"
                raise argparse.ArgumentTypeError(msg)
        return Path(text)

    return of


def present_device(text: str) -> str:
    """A device; of a GPU, that this machine shows one."""
    if text == "cuda":
        import torch  # noqa: PLC0415 - seconds that --help need not take

        if not torch.cuda.is_available():
            raise argparse.ArgumentTypeError("this machine shows no GPU")
    return text


def hub_decoders() -> list[str]:
    """Names of the decoders whose sizes are InternVL3's."""
    from models.decoders import DECODERS  # noqa: PLC0415 - the caller has made it importable

    return [record.name for record in DECODERS.values() if record.hub]


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        msg = f"{text!r} is no whole number from {least} up"
        raise argparse.ArgumentTypeError(msg)
    return value
