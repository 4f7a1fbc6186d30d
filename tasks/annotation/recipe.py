"""What a distortion's recipe implies, and what it leaves alone: the ground truth of planted assertions and of the fit.

Only types whose effect has one unambiguous attribute are listed; a strength is that of ``models.distortions.strength``
(1 slight to 5 very severe, whatever the level's number).
"""

from typing import Final

from models.distortions import LEVELS, strength
from models.signals.claims import FAULTS, Claim, Degree, Fault, faulty, fine

IMPLIED: Final[dict[str, tuple[Fault, frozenset[int]]]] = {
    "gaussian_blur": (Fault.BLUR, frozenset({3, 4, 5})),
    "lens_blur": (Fault.BLUR, frozenset({3, 4, 5})),
    "motion_blur": (Fault.BLUR, frozenset({3, 4, 5})),
    "white_noise": (Fault.NOISE, frozenset({3, 4, 5})),
    "white_noise_color": (Fault.NOISE, frozenset({3, 4, 5})),
    "multiplicative_noise": (Fault.NOISE, frozenset({3, 4, 5})),
    "impulse_noise": (Fault.NOISE, frozenset({3, 4, 5})),
    "darken": (Fault.DARK, frozenset({5})),  # mid grey falls to .1 of the range; at 4 a bright scene stays readable
    "brighten": (Fault.BRIGHT, frozenset({4, 5})),  # mid grey rises to .85 and beyond white
    "color_saturation_1": (Fault.DULL, frozenset({3, 4})),  # level 5 turns hues round instead of removing them
    "color_saturation_2": (Fault.VIVID, frozenset({3, 4, 5})),
    "jpeg": (Fault.COMPRESSION, frozenset({3, 4, 5})),
    "camera_shake": (Fault.SHAKE, frozenset({3, 4, 5})),
    "frame_stutter": (Fault.STUTTER, frozenset({3, 4, 5})),
}
"""Type -> the fault that it causes for certain, and the levels at which it does."""

_LIKELY: Final[dict[str, tuple[Fault, frozenset[int]]]] = {"contrast_change": (Fault.FLAT, frozenset({5}))}
"""Causes that the fit needs and planting must not use: a strong scene stays strong after KADIS' contrast change."""

_BLURS: Final = ("gaussian_blur", "lens_blur", "motion_blur")
_NOISES: Final = ("white_noise", "white_noise_color", "multiplicative_noise", "impulse_noise")
_TONES: Final = ("brighten", "darken", "mean_shift", "contrast_change")
_MOTION: Final = ("camera_shake", "frame_stutter")

UNTOUCHED: Final[dict[Fault, tuple[str, ...]]] = {
    Fault.BLUR: (*_NOISES, *_TONES, "color_saturation_1", "color_saturation_2", "color_block", *_MOTION),
    Fault.NOISE: (*_BLURS, "darken", "mean_shift", "color_saturation_1", "color_block", *_MOTION),
    Fault.DARK: (*_BLURS, "white_noise", "color_shift", "jitter", "jpeg", *_MOTION),
    Fault.BRIGHT: (*_BLURS, "white_noise", "color_shift", "jitter", "jpeg", *_MOTION),
    Fault.FLAT: ("white_noise", "color_shift", "jitter", "color_saturation_1", *_MOTION),
    Fault.DULL: (*_BLURS, "jitter", "jpeg2000", "mean_shift", *_MOTION),
    Fault.VIVID: (*_BLURS, "jitter", "jpeg2000", "mean_shift", *_MOTION),
    Fault.COMPRESSION: (*_BLURS, *_NOISES, "darken", "mean_shift", "color_saturation_1", *_MOTION),
    Fault.SHAKE: ("gaussian_blur", "darken", "mean_shift", "color_saturation_1", "h264_compression"),
    Fault.STUTTER: ("gaussian_blur", "darken", "mean_shift", "color_saturation_1", "camera_shake"),
}
"""Fault -> types that neither cause nor cure it: with the originals, the fit's examples of its absence."""

_REMOVES_NOISE: Final = {("gaussian_blur", 4), ("gaussian_blur", 5), ("lens_blur", 4), ("lens_blur", 5)}


def implied_fault(kind: str, severity: int) -> Fault | None:
    """The fault that a child of this type and level certainly has."""
    if kind not in IMPLIED or severity not in IMPLIED[kind][1]:
        return None
    return IMPLIED[kind][0]


def implied_truths(kind: str, severity: int) -> list[Claim]:
    """Claims that the recipe makes true."""
    fault = implied_fault(kind, severity)
    return [faulty(fault, Degree.STRONG)] if fault else []


def implied_falsehoods(kind: str, severity: int) -> list[Claim]:
    """Claims that the recipe makes false: the attribute is fine, its opposite fault, noise after a strong blur."""
    fault = implied_fault(kind, severity)
    if fault is None:
        return []
    attribute = next(name for name, faults in FAULTS.items() if fault in faults)
    false = [fine(attribute), *(faulty(other, Degree.STRONG) for other in FAULTS[attribute] if other is not fault)]
    if (kind, severity) in _REMOVES_NOISE:
        false.append(faulty(Fault.NOISE, Degree.STRONG))
    return false


def causing_cells(fault: Fault) -> list[tuple[str, int]]:
    """All (type, level) that cause ``fault``: for certain, or as well as KADIS' types can."""
    causes = {**IMPLIED, **_LIKELY}
    return [(kind, level) for kind, (caused, levels) in causes.items() if caused is fault for level in sorted(levels)]


def sparing_cells(fault: Fault) -> list[tuple[str, int]]:
    """All (type, level) that leave ``fault`` absent."""
    return [(kind, level) for kind in UNTOUCHED[fault] for level in LEVELS if strength(kind, level) > 0]
