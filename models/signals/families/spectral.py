"""Estimators in the frequency domain: power spectra, wavelets, band-limited contrast, grid harmonics."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from models.signals.claims import Attribute
from models.signals.evidence import Evidence

Floats = NDArray[np.float32]

_TILE: Final = 48
_BASE_BAND: Final = (0.02, 0.045)
_FALL_OFF: Final = (((0.22, 0.40), 1.0), ((0.05, 0.10), 0.3))
"""Bands, in cycles per pixel, and their weights: the high one tells fine blur apart, the other one coarse blur, under
which the high one holds nothing but rounding."""
_DAUBECHIES_4: Final = np.array([-0.12940952, -0.22414387, 0.83651630, -0.48296291], dtype=np.float32)
"""High-pass filter of Daubechies' wavelet with two vanishing moments (four taps)."""
_MAD_TO_SIGMA: Final = 0.6745


def band_ratio(evidence: Evidence) -> float:
    """Weighted log ratios of spectral power at higher frequencies to power at the lowest."""
    luma = evidence.luma_NHW
    rows, columns = luma.shape[1] // _TILE, luma.shape[2] // _TILE
    tile = (_TILE, _TILE) if rows and columns else luma.shape[1:]
    rows, columns = max(rows, 1), max(columns, 1)
    cut = luma[:, : rows * tile[0], : columns * tile[1]].reshape(-1, rows, tile[0], columns, tile[1])
    tiles = cut.transpose(0, 1, 3, 2, 4).reshape(-1, *tile)
    window = (np.hanning(tile[0])[:, None] * np.hanning(tile[1])[None]).astype(np.float32)
    power = np.abs(np.asarray(fft.rfft2((tiles - tiles.mean(axis=(1, 2), keepdims=True)) * window))) ** 2
    radius = np.hypot(fft.fftfreq(tile[0])[:, None], fft.rfftfreq(tile[1])[None])
    base = power[:, (radius >= _BASE_BAND[0]) & (radius < _BASE_BAND[1])].mean(axis=1)
    used = base >= np.median(base)  # tiles with the most structure tell most about the fall-off
    rounding = (window**2).sum() / 12  # power that rounding to 8 bits alone has; below it nothing can be told
    reference = np.log(base[used].mean() + rounding)
    fall = 0.0
    for (least, top), weight in _FALL_OFF:
        band = power[used][:, (radius >= least) & (radius < top)].mean()
        fall += weight * float(np.log(band + rounding) - reference)
    return fall


def wavelet_noise(evidence: Evidence) -> float:
    """Log standard deviation of noise: Donoho's median absolute diagonal wavelet coefficient over .6745."""
    once = ndimage.convolve1d(evidence.luma_NHW, _DAUBECHIES_4, axis=1)[:, 2:-2:2]
    diagonal = ndimage.convolve1d(once, _DAUBECHIES_4, axis=2)[:, :, 2:-2:2]
    return float(np.log(np.median(np.abs(diagonal)) / _MAD_TO_SIGMA + 0.05))


def median_luma(evidence: Evidence) -> float:
    """Median luma, [0, 1]."""
    return float(np.median(evidence.tone_luma_P) / 255)


def band_limited_contrast(evidence: Evidence) -> float:
    """Log of Peli's local band-limited contrast: root mean square of a band-pass over the local mean."""
    contrasts = []
    for scale in (3.0, 8.0):
        fine, coarse = (ndimage.gaussian_filter(evidence.luma_NHW, (0, s, s), truncate=2.0) for s in (scale, 2 * scale))
        contrasts.append(np.sqrt((((fine - coarse) / (coarse + 16)) ** 2).mean()))
    return float(np.log(np.mean(contrasts) + 0.003))


def mean_chroma(evidence: Evidence) -> float:
    """Log mean magnitude of the Cb, Cr vector."""
    rgb = evidence.tones_PC.astype(np.float32)
    blue = rgb @ np.array([-0.169, -0.331, 0.5], np.float32)
    red = rgb @ np.array([0.5, -0.419, -0.081], np.float32)
    return float(np.log(np.hypot(blue, red).mean() + 1))


def grid_harmonics(evidence: Evidence) -> float:
    """Log power of gradient profiles at the harmonics of an 8-pixel period over their neighbours (Wang and Bovik)."""
    ratios = []
    for axis in (1, 2):
        profile = np.minimum(np.abs(np.diff(evidence.luma_NHW, axis=axis)), 24).mean(axis=3 - axis)
        length = profile.shape[1] // 8 * 8
        level = profile[:, :length] - profile[:, :length].mean(axis=1, keepdims=True)
        spectrum = np.abs(np.asarray(fft.rfft(level, axis=1))) ** 2
        step = length // 8
        harmonics = np.array([step, 2 * step, 3 * step])
        around = np.concatenate([harmonics + shift for shift in (-3, -2, 2, 3) if step > 3])
        floor = np.median(spectrum[:, around], axis=1) + 0.05 * length
        ratios.append(np.median(spectrum[:, harmonics].sum(axis=1) / floor))
    return float(np.log(np.mean(ratios) + 0.1))


def projection_shake(evidence: Evidence) -> float:
    """Log jerkiness of the global path found by matching the spectra of row and column projections."""
    run = evidence.run_THW
    if len(run) < 4:
        return float(np.log(1e-3))
    jerks = []
    for axis in (1, 2):
        profile = np.diff(run.mean(axis=axis), axis=1)
        length = profile.shape[1]
        spectra = np.asarray(fft.rfft(profile * np.hanning(length), n=4 * length, axis=1))
        cross = spectra[1:] * np.conj(spectra[:-1])
        match = np.asarray(fft.irfft(cross / np.sqrt(np.abs(cross) + 1e-6), axis=1))
        lag = match.argmax(axis=1)
        path = (lag + 2 * length) % (4 * length) - 2 * length
        jerks.append(np.diff(path.astype(np.float64)))
    return float(np.log(np.sqrt(np.mean(np.square(jerks))) / min(run.shape[1:]) + 1e-3))


def motion_concentration(evidence: Evidence) -> float:
    """One minus the participation ratio of the frames' changes: 0 for even motion, the share of repeats for stutter."""
    run = evidence.run_THW
    if len(run) < 4:
        return 0.0
    energy = np.sqrt(np.square(np.diff(run, axis=0)).mean(axis=(1, 2)))
    energy = np.minimum(energy, 2 * np.quantile(energy, 0.95))  # one cut may not outweigh all other frames
    return float(1 - energy.sum() ** 2 / (len(energy) * np.square(energy).sum() + 1e-9))


ESTIMATORS: Final[Mapping[Attribute, Callable[[Evidence], float]]] = {
    Attribute.SHARPNESS: band_ratio,
    Attribute.NOISE: wavelet_noise,
    Attribute.EXPOSURE: median_luma,
    Attribute.CONTRAST: band_limited_contrast,
    Attribute.COLOUR: mean_chroma,
    Attribute.COMPRESSION: grid_harmonics,
    Attribute.STABILITY: projection_shake,
    Attribute.SMOOTHNESS: motion_concentration,
}
