"""Image compression types of KADIS: JPEG2000 (9) and JPEG (10), by Pillow's codecs."""

import io

import numpy as np
from PIL import Image

from models.distortions.pixels import Pixels


def jpeg2000(pixels: Pixels, ratio: float, _generator: np.random.Generator) -> Pixels:
    """Compress with JPEG2000 at ``ratio``:1 (irreversible wavelet) and decode."""
    return _through(pixels, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True)


def jpeg(pixels: Pixels, quality: float, _generator: np.random.Generator) -> Pixels:
    """Compress with baseline JPEG at ``quality`` (4:2:0) and decode."""
    return _through(pixels, "JPEG", quality=int(quality), subsampling="4:2:0")


def _through(pixels: Pixels, codec: str, **options: object) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=codec, **options)
    with Image.open(buffer, formats=[codec]) as image:
        return np.asarray(image.convert("RGB"))
