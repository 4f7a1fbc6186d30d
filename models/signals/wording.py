"""Sentences for claims: main clauses and consequences that combine into varied single assertions.

In the style of the paper ("Sharpness is low, resulting in a blurry image", "The lighting is sufficient"): no final
full stop, no verdict on the overall quality. ``{medium}`` becomes "image" or "video".
"""

import hashlib
from typing import Final

from models.signals.claims import CLAIMS, Attribute, Claim, Degree, Fault

LEADS: Final = ("On closer inspection, ", "At a normal viewing distance, ", "When viewed at full size, ")
"""Openings that fit any main clause and add no claim."""

_Clauses = tuple[tuple[str, ...], tuple[str, ...]]

_FINE: Final[dict[Attribute, _Clauses]] = {
    Attribute.SHARPNESS: (
        ("Sharpness is high", "The {medium} is sharp", "Edges are crisp", "The main contours are in focus"),
        (
            " and fine detail is fully resolved",
            ", so small structures can be told apart",
            ", with clearly drawn outlines",
        ),
    ),
    Attribute.NOISE: (
        ("No noise is visible", "The {medium} is free of grain", "Surfaces look clean", "Noise is hardly visible"),
        (
            " in the uniform areas of the {medium}",
            ", even in the darker parts of the {medium}",
            " and textures look undisturbed",
        ),
    ),
    Attribute.EXPOSURE: (
        ("The lighting is sufficient", "The {medium} is well exposed", "Exposure is balanced", "The scene is well lit"),
        (
            ", and both shadows and highlights keep their detail",
            ", so the subject can be seen clearly",
            " over the whole {medium}",
        ),
    ),
    Attribute.CONTRAST: (
        ("Contrast is high", "Contrast is good", "The tones are well separated", "Contrast is sufficient"),
        (
            ", which gives the {medium} depth",
            ", and shapes stand out from the background",
            " between shadows and highlights",
        ),
    ),
    Attribute.COLOUR: (
        ("The colors are natural", "The colors look balanced", "Saturation is adequate", "The colors look natural"),
        (" throughout the {medium}", ", with believable hues in all parts of the {medium}", " and suit the scene"),
    ),
    Attribute.COMPRESSION: (
        ("No compression artifacts are visible", "The {medium} shows no blocking", "Compression is hardly visible"),
        (" in smooth areas or around edges", ", and gradients remain continuous", ", even where tones change slowly"),
    ),
    Attribute.STABILITY: (
        ("The camera is steady", "The picture is stable", "The camera is held steadily"),
        (" throughout the clip", ", and the framing changes only on purpose", " from the first frame to the last"),
    ),
    Attribute.SMOOTHNESS: (
        ("Motion is smooth", "The movement is fluent", "Playback runs smoothly"),
        (" and every frame brings a new picture", " from one frame to the next", ", without any frozen frame"),
    ),
}
_STRONG: Final[dict[Fault, _Clauses]] = {
    Fault.BLUR: (
        ("Sharpness is low", "The {medium} is blurry", "Edges look soft and smeared", "The {medium} lacks sharpness"),
        (", resulting in a blurry {medium}", ", and fine detail is lost", ", so small structures cannot be told apart"),
    ),
    Fault.NOISE: (
        (
            "Noise is strong",
            "Heavy noise covers the {medium}",
            "The {medium} is very noisy",
            "Coarse grain is clearly visible",
        ),
        (
            ", and it hides fine texture",
            " and disturbs the uniform areas of the {medium}",
            ", which makes surfaces look rough",
        ),
    ),
    Fault.DARK: (
        (
            "The lighting is insufficient",
            "The {medium} is dark",
            "The {medium} is underexposed",
            "The scene is dimly lit",
        ),
        (
            ", and detail in the shadows disappears",
            ", so large parts are difficult to see",
            ", which hides the subject",
        ),
    ),
    Fault.BRIGHT: (
        (
            "The {medium} is overexposed",
            "The {medium} is too bright",
            "Exposure is too high",
            "The highlights are blown out",
        ),
        (
            ", and detail in the bright parts disappears",
            ", so light areas lose their structure",
            " over large parts of the {medium}",
        ),
    ),
    Fault.FLAT: (
        ("Contrast is low", "The {medium} looks flat", "The {medium} lacks contrast", "The tones lie close together"),
        (
            ", and shapes hardly stand out from the background",
            ", giving a hazy impression",
            ", so the scene has little depth",
        ),
    ),
    Fault.DULL: (
        ("Saturation is low", "The colors are dull", "The colors look faded", "The {medium} is nearly colorless"),
        (", and the scene appears almost grey", ", so hues can hardly be told apart", " in all parts of the {medium}"),
    ),
    Fault.VIVID: (
        (
            "The colors are oversaturated",
            "Saturation is excessive",
            "The colors are garish",
            "The {medium} is heavily oversaturated",
        ),
        (", and the hues look unnatural", ", so colored areas lose their texture", " in large parts of the {medium}"),
    ),
    Fault.COMPRESSION: (
        (
            "Compression artifacts are obvious",
            "Strong blocking is visible",
            "The {medium} is blocky",
            "Compression is heavy",
        ),
        (
            ", and block edges cut through smooth areas",
            ", so gradients break into steps",
            ", which destroys fine texture",
        ),
    ),
    Fault.SHAKE: (
        ("The camera shakes strongly", "The picture is unsteady", "The video is shaky", "Camera shake is strong"),
        (", and the framing jumps from frame to frame", ", so the scene is tiring to follow", " throughout the clip"),
    ),
    Fault.STUTTER: (
        ("Playback stutters", "The motion is jerky", "The movement halts again and again", "The video stutters badly"),
        (", and many frames stand still", ", so moving objects jump", " because frames are repeated"),
    ),
}
_SLIGHT: Final[dict[Fault, _Clauses]] = {
    Fault.BLUR: (
        ("Sharpness is slightly reduced", "The {medium} is slightly blurry", "Edges are a little soft"),
        (
            ", and the finest detail is weakened",
            ", while larger structures remain clear",
            " in the finer parts of the {medium}",
        ),
    ),
    Fault.NOISE: (
        ("Some noise is visible", "The {medium} is slightly noisy", "Faint grain can be seen"),
        (
            " in the uniform areas of the {medium}",
            ", while textures remain recognizable",
            " in the finer parts of the {medium}",
        ),
    ),
    Fault.DARK: (
        (
            "The {medium} is somewhat dark",
            "The lighting is slightly insufficient",
            "The {medium} is slightly underexposed",
        ),
        (", and the shadows lose some detail", ", while the subject remains visible", " in parts of the scene"),
    ),
    Fault.BRIGHT: (
        (
            "The {medium} is slightly overexposed",
            "The {medium} is somewhat too bright",
            "Exposure is slightly too high",
        ),
        (", and the highlights lose some detail", ", while the subject remains visible", " in parts of the scene"),
    ),
    Fault.FLAT: (
        ("Contrast is somewhat low", "The {medium} looks slightly flat", "Contrast is slightly reduced"),
        (
            ", and shapes stand out less than they could",
            ", while the main tones remain distinct",
            " in parts of the scene",
        ),
    ),
    Fault.DULL: (
        ("Saturation is somewhat low", "The colors are slightly faded", "The colors are a little pale"),
        (", while the hues remain recognizable", " in parts of the {medium}", ", and the scene has little warmth"),
    ),
    Fault.VIVID: (
        (
            "The colors are slightly oversaturated",
            "The colors are somewhat too vivid",
            "The colors are a little more vivid than natural",
        ),
        (" in parts of the {medium}", ", while textures remain recognizable", ", and strong hues stand out"),
    ),
    Fault.COMPRESSION: (
        ("Slight compression artifacts are visible", "Faint block edges can be seen", "Mild blocking is visible"),
        (
            " in smooth areas of the {medium}",
            ", while fine texture remains recognizable",
            " in the finer parts of the {medium}",
        ),
    ),
    Fault.SHAKE: (
        ("The camera shakes slightly", "The picture is a little unsteady", "The camera trembles slightly"),
        (", while the scene remains easy to follow", " in parts of the clip", ", and the framing moves by small steps"),
    ),
    Fault.STUTTER: (
        ("Playback stutters slightly", "The movement halts now and then", "The motion is a little jerky"),
        (", while the action remains easy to follow", " in parts of the clip", " because a few frames are repeated"),
    ),
}


def _clauses(claim: Claim) -> _Clauses:
    if claim.fault is None:
        return _FINE[claim.attribute]
    return (_STRONG if claim.degree is Degree.STRONG else _SLIGHT)[claim.fault]


def sentences(claim: Claim, medium: str) -> list[str]:
    """All ways to say ``claim`` of a ``medium`` ("image" or "video")."""
    mains, tails = _clauses(claim)
    return [_sentence(lead, main, tail, medium) for lead in ("", *LEADS) for main in mains for tail in ("", *tails)]


def phrase(claim: Claim, medium: str, seed: str) -> str:
    """One way to say ``claim``; the same seed gives the same words."""
    mains, tails = _clauses(claim)
    number = int.from_bytes(hashlib.sha256(f"{seed}\0{claim}".encode()).digest()[:8], "big")
    number, main = divmod(number, len(mains))
    # The plain clause is drawn as often as each consequence, so lengths vary as in the paper's examples.
    number, tail = divmod(number, len(tails) + 1)
    lead = number % (2 * len(LEADS))  # half of the sentences open with a lead
    return _sentence((*LEADS, *[""] * len(LEADS))[lead], mains[main], ("", *tails)[tail], medium)


def _sentence(lead: str, main: str, tail: str, medium: str) -> str:
    opening = lead + main[0].lower() + main[1:] if lead else main
    return (opening + tail).replace("{medium}", medium)


def every_sentence() -> set[str]:
    """Every sentence for every claim and medium: what a tokenizer of this domain should know."""
    return {text for claim in CLAIMS for medium in ("image", "video") for text in sentences(claim, medium)}
