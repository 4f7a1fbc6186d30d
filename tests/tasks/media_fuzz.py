"""Mutated media, the same ones in every run of a seed, and a worker process that decodes them under a time limit."""

import os
import select
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import media_corpus as corpus
import numpy as np
from PIL import Image

from models.distortions.clips import encode

Chance = np.random.Generator

CLIP: Final = [np.ascontiguousarray(np.roll(corpus.SMALL, 3 * t, axis=1)) for t in range(8)]
SMALL: Final = Image.fromarray(corpus.SMALL)
EXTREMES: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TIME_LIMIT_S: Final = 60.0
"""No file of the corpus takes a second; a machine that does other work may take many."""


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6
    exif[0x10F] = "maker"
    return exif.tobytes()


SEEDS: Final[dict[str, Callable[[], bytes]]] = {
    "jpeg": lambda: corpus.saved(SMALL, "JPEG", quality=90, exif=_exif()),
    "jpeg progressive": lambda: corpus.saved(SMALL, "JPEG", progressive=True),
    "jpeg cmyk": lambda: corpus.saved(SMALL.convert("CMYK"), "JPEG"),
    "mpo": lambda: corpus.saved(SMALL, "MPO", save_all=True, append_images=[SMALL]),
    "png": lambda: corpus.saved(SMALL, "PNG", exif=_exif()),
    "png palette": lambda: corpus.saved(SMALL.quantize(32), "PNG", transparency=3),
    "png interlaced": corpus.interlaced,
    "png 16 bit": lambda: corpus.png(320, 240, 16, 2, corpus.RGB_16_ROWS),
    "gif": lambda: corpus.saved(SMALL.quantize(64), "GIF"),
    "gif animated": lambda: corpus.saved(SMALL, "GIF", **corpus.TWO),
    "webp": lambda: corpus.saved(SMALL, "WEBP", exif=_exif()),
    "webp lossless": lambda: corpus.saved(SMALL.convert("RGBA"), "WEBP", lossless=True),
    "bmp": lambda: corpus.saved(SMALL, "BMP"),
    "tiff": lambda: corpus.saved(SMALL, "TIFF", tiffinfo={278: 16}),
    "tiff lzw": lambda: corpus.saved(SMALL, "TIFF", compression="tiff_lzw"),
    "tiff deflate": lambda: corpus.saved(SMALL, "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": lambda: corpus.saved(SMALL, "TIFF", compression="jpeg"),
    "heic": lambda: corpus.saved(SMALL, "HEIF"),
    "avif": lambda: corpus.saved(SMALL, "AVIF"),
    "mp4 h264": lambda: encode(CLIP, 25.0),
    "mp4 h265": lambda: encode(CLIP, 25.0, "libx265", 24),
    "mov mjpeg": lambda: corpus.muxed("mov", "mjpeg", CLIP, "yuvj420p"),
    "webm vp9": lambda: corpus.muxed("webm", "libvpx-vp9", CLIP),
    "webm vp8": lambda: corpus.muxed("webm", "libvpx", CLIP),
    "matroska h264": lambda: corpus.muxed("matroska", "libx264", CLIP),
    "avi mpeg4": lambda: corpus.muxed("avi", "mpeg4", CLIP),
}
"""Small whole files of every format that VITAL reads."""


@cache
def seed_file(name: str) -> bytes:
    return SEEDS[name]()


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``count`` files, each with a name from which it can be made again."""
    kinds, seeds = list(_KINDS), list(SEEDS)
    for number in range(count):
        name, kind = seeds[number % len(seeds)], kinds[number // len(seeds) % len(kinds)]
        chance = np.random.default_rng([seed, number])
        content = _KINDS[kind](seed_file(name), chance)
        if name.startswith("png") and chance.random() < 0.7:
            content = _right_checksums(content)
        yield f"{name}, {kind}, seed {seed}, number {number}", content


def _bit_flips(content: bytes, chance: Chance) -> bytes:
    changed = bytearray(content)
    for _ in range(int(chance.choice((1, 1, 4, 16, 128)))):
        changed[int(chance.integers(len(changed)))] ^= 1 << int(chance.integers(8))
    return bytes(changed)


def _truncation(content: bytes, chance: Chance) -> bytes:
    end = int(chance.integers(len(content)))
    tail = (b"", b"", bytes(64), content[-16:])[int(chance.integers(4))]
    return content[:end] + tail


def _header_edit(content: bytes, chance: Chance) -> bytes:
    """Write extreme numbers where sizes, counts and offsets stand: near the start, or near the end (MP4's index)."""
    changed = bytearray(content)
    for _ in range(int(chance.integers(1, 4))):
        width = int(chance.choice((1, 2, 4)))
        reach = min(len(changed) - width, int(chance.choice((32, 128, 1024))))
        at = int(chance.integers(max(1, reach)))
        at = at if chance.random() < 0.6 else len(changed) - width - at
        number = int(chance.choice(EXTREMES)) & ((1 << 8 * width) - 1)
        changed[at : at + width] = number.to_bytes(width, "big" if chance.random() < 0.5 else "little")
    return bytes(changed)


def _splice(content: bytes, chance: Chance) -> bytes:
    """Put a piece of this or of another file into this one, or over a piece of it."""
    donor = content if chance.random() < 0.5 else seed_file(list(SEEDS)[int(chance.integers(len(SEEDS)))])
    start = int(chance.integers(len(donor)))
    piece = donor[start : start + int(chance.integers(1, 2048))]
    at = int(chance.integers(len(content)))
    return content[:at] + piece + content[at + (len(piece) if chance.random() < 0.5 else 0) :]


def _hole(content: bytes, chance: Chance) -> bytes:
    """Take a piece out, or write zeros over it."""
    start = int(chance.integers(len(content)))
    length = int(chance.integers(1, max(2, len(content) // 4)))
    return content[:start] + (bytes(length) if chance.random() < 0.5 else b"") + content[start + length :]


def _noise(content: bytes, chance: Chance) -> bytes:
    start = int(chance.integers(len(content)))
    length = int(chance.choice((4, 32, 512)))
    return content[:start] + chance.bytes(length) + content[start + length :]


_KINDS: Final = {
    "bit flips": _bit_flips,
    "truncation": _truncation,
    "header edit": _header_edit,
    "splice": _splice,
    "hole": _hole,
    "noise": _noise,
}


def _right_checksums(png: bytes) -> bytes:
    """Give every chunk of a PNG the checksum of its content, so that decoders see what stands behind it."""
    fixed, at = bytearray(png), 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(png):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


@dataclass
class Worker:
    """A process of ``fuzz_worker.py``, started anew after every crash or hang."""

    root: Path
    time_limit_s: float = TIME_LIMIT_S
    peak_mib: int = 0
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def ending(self, content: bytes) -> str:
        """How one file ends: what the worker says, or ``CRASH`` with the signal's name, or ``HANG``."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(struct.pack("<Q", len(content)) + content)
            process.stdin.flush()
        except BrokenPipeError:
            return self._died(process)
        ready, _, _ = select.select([process.stdout], [], [], self.time_limit_s)
        if not ready:
            process.kill()
            self._died(process)
            return f"HANG longer than {self.time_limit_s:g} s"
        line = process.stdout.readline().decode().strip()
        return line or self._died(process)

    def close(self) -> None:
        """Let the worker end, and take down how much memory it has used."""
        if self._process is not None:
            said, _ = self._process.communicate(timeout=self.time_limit_s)
            self.peak_mib = max(self.peak_mib, int(said.split()[1]))
            self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(Path(__file__).with_name("fuzz_worker.py"))]
        env = {**os.environ, "PYTHONPATH": str(self.root)}
        self._process = subprocess.Popen(
            command, cwd=self.root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return self._process

    def _died(self, process: "subprocess.Popen[bytes]") -> str:
        self._process = None
        code = process.wait(timeout=self.time_limit_s)
        return f"CRASH {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
