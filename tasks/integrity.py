"""What Pillow would decode in part without a word: JPEG data with holes, PNG rows and TIFF strips that are not there.

libjpeg fills missing data with grey, PNG checksums go unread, and rows that no strip covers stay black.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

from tasks.errors import MediaError

_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The seven passes of an interlaced PNG: first column, first row, steps between columns and between rows."""
_PIECE: Final = 1 << 20
_SMALL: Final = 1 << 20
"""Pixels below which padding to whole blocks is of weight and memory is not."""
_JPEG_IN_TIFF: Final = 7
_COMPRESSION, _OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _TABLES = 259, 273, 279, 324, 325, 347
"""TIFF tags."""


def check_integrity(data: bytes, image: Image.Image) -> None:
    """Refuse an opened image that would come out in part.

    Raises:
        MediaError: ``truncated``. What Pillow raises on broken checksums is passed on.
    """
    if image.format in {"JPEG", "MPO"}:
        _check_jpeg(data, image)
    if image.format == "TIFF":
        boxes = [tile[1] for tile in image.tile if tile[1]]  # type: ignore[attr-defined] - it is a TiffImageFile
        if max(box[2] for box in boxes) < image.width or max(box[3] for box in boxes) < image.height:
            raise MediaError("truncated", "the strips of the TIFF do not cover the picture")
        for strip in _jpeg_strips(data, image):
            _check_jpeg(strip, image)
    if image.format == "PNG":
        with Image.open(io.BytesIO(data), formats=["PNG"]) as again:
            again.verify()
        image.load()
        if image.info.get("interlace") or not np.asarray(image.crop((0, image.height - 1, *image.size))).any():
            _check_png_rows(data)  # Pillow unpacks whole rows into zeros, so a last row that is not all zero was there


def _check_jpeg(data: bytes, image: Image.Image) -> None:
    from tasks.video import check_jpeg  # noqa: PLC0415 - other formats do not pay for PyAV

    check_jpeg(data, max(image.width * image.height, _SMALL))


def _jpeg_strips(data: bytes, image: Image.Image) -> Iterator[bytes]:
    """Strips or tiles of a TIFF that are JPEGs, each with the tables that all of them share."""
    tags = image.tag_v2  # type: ignore[attr-defined] - it is a TiffImageFile
    if tags.get(_COMPRESSION) != _JPEG_IN_TIFF:
        return
    tables = tags.get(_TABLES, b"")
    offsets, counts = (_OFFSETS, _COUNTS) if _OFFSETS in tags else (_TILE_OFFSETS, _TILE_COUNTS)
    for offset, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False):
        strip = data[offset : offset + count]
        yield tables[:-2] + strip[2:] if tables else strip


def _check_png_rows(data: bytes) -> None:
    """Refuse a PNG whose data ends before its last row, however right its checksums are."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * _PNG_CHANNELS[colour]
    whole = sum(
        rows * (1 + (columns * bits + 7) // 8)
        for columns, rows in (_passes(width, height) if interlaced else [(width, height)])
        if columns
    )
    inflate, found = zlib.decompressobj(), 0
    for part in _png_data(data):
        left = part
        while left and found < whole:
            found += len(inflate.decompress(left, _PIECE))
            left = inflate.unconsumed_tail
    if found < whole:
        raise MediaError("truncated", f"the PNG data ends after {found} of {whole} bytes")


def _passes(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Columns and rows of each pass."""
    for left, top, across, down in _ADAM7:
        yield -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)


def _png_data(data: bytes) -> Iterator[bytes]:
    """Contents of the chunks that hold the picture; checksums have been verified."""
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length
