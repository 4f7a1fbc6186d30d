"""The words in which quality is told: what becomes training text is made of these alone.

A sentence of an LMM is untrusted. One cue of quality in it says nothing about the rest of it, so every word must belong
here: the words of our own sentences, and ordinary words about how pictures look. There is no word for a person, a thing
that is depicted, a place, a name, or a judge's work; what would need one is not about quality alone. The list is ours
(the paper publishes none) and is meant to grow; its hash is part of the versions of judges whose answers it sifts.
"""

import hashlib
import re
from functools import cache, lru_cache
from typing import Final

from models.signals.wording import every_sentence

_GRAMMAR: Final = """
    an this that these those its itself them there here what whereas although though since as if thus but nor either
    neither not none nothing never barely just also quite rather bit most least much several each other another same
    such own once twice enough for inside off onto outside under up down within across along among about above below
    behind before after during near toward despite due per like unlike was were been being have had does do did may
    might would will can't become became stay seem appear get give given make made show shown lead cause result always
    often sometimes already better best worse worst however therefore hence especially generally overall particularly
    possibly perhaps probably further notably primarily including certain potential possible applied yet why away used
    taken virtually predominantly beyond until
"""
_PICTURE: Final = """
    photo photograph footage shot film recording medium view object element foreground backdrop surrounding center
    centre middle left right top bottom side corner border edge margin area region part portion zone patch spot place
    point line contour outline boundary shape form pattern surface material feature gradient transition entire rest
    primary important central distant upper inner second pixel grid mosaic band stripe ring dot speck layer plane
    resolution scale appearance dimension sense space composition perspective content quality section half aspect angle
    field combination distribution digital focal visual source setting factor
"""
_LIGHT: Final = """
    illumination brighten darken dim shadow shade highlight midtone tone tonal luminance expose overexposure overexpose
    underexposure underexpose crushed glare flare backlight backlit daylight night flicker murky gloomy contrasty haze
    fog foggy mist misty veil range dynamic black white wash deep punch punchy silhouette sunlight reflection reflective
    vignette spotlight ambient illuminated direct diffuse shiny specular overblown
"""
_COLOUR: Final = """
    color colour coloration colouration colorful colourful colourless hue saturate oversaturation undersaturated
    desaturated desaturation vibrant vibrancy rich lively drab fade muted subdued neon gaudy gray greyish grayish
    monochrome monochromatic sepia tint cast balance warm cool cold temperature neutral artificial realistic unrealistic
    faithful accurate inaccurate accuracy red reddish green greenish blue bluish yellow yellowish orange purple pink
    magenta cyan brown brownish palette bleed chroma chromatic fringe shift mix unbalanced
"""
_DETAIL: Final = """
    sharpen oversharpened clarity unclear blurriness defocus unfocused soften smear fuzzy fuzziness indistinct
    distinguish distinguishable recognise recognize definition defined undefined resolve unresolved legible readable
    recognisable identifiable discern discernible tell separate separation merge preserve preservation retain kept hide
    hidden obscure mask halo ghost double aliasing jagged stair stepped moire enhance granular imprecise precise
    pristine blurred blurring
"""
_DAMAGE: Final = """
    noiseless noisiness grainy graininess speckle mottle dirt scratch gaussian compress uncompressed overcompressed
    artifact artefact blockiness pixelation pixelated pixellated posterization posterized quantization quantized jpeg
    mpeg codec encoding encoded bitrate dropout corruption corrupt glitch tearing distortion distort warp degradation
    degrade damage defect flaw fault problem issue disturbance disturb interference processing processed post
    overprocessed filter upscaled upscaling enlarged interpolation watermark vintage dust drawback downscaled resized
    interlaced interlacing combing overshoot macroblock denoise aberration bloom streak smudge burn burnt patchy blotchy
    muddy hot oversharpening
"""
_MOTION: Final = """
    lens sensor shutter aperture iso gain zoom pan tilt tripod handheld move static steadiness stability stabilized
    stabilised unstable unsteadiness shakiness tremble jitter jittery wobble wobbly jumpy sway drift stutter judder lag
    laggy freeze halt stall skip jerk jerkiness choppy choppiness fluid fluidity interrupted interruption duplicate
    repeat rate speed slow fast rapid sudden abrupt time moment beginning start end
"""
_DEGREE: Final = """
    big tiny great weak weaken moderate minor major severe extreme excess intense intensity subtle subtly marked
    noticeable noticeably notable visibly visibility invisible apparent evident pronounced prominent considerable
    considerably significant substantial partial complete total perfect local localized global uniformity uneven
    consistent consistency inconsistent regular irregular random occasional frequent constant persistent common rare
    limit inadequate appropriate proper improper acceptable fair poor bad decent ideal optimal reasonable reasonably
    relatively comparatively touch level degree amount extent lack absence absent presence present additional extra
    narrow wide broad thick thin long short dense sparse hard harsh gentle gently tight loose simple complex real
    original typical expected intended exceptional minimal intentional deliberate effective condition sign positive
    negative shallow average
"""
_EFFECT: Final = """
    affect effect reduce reduction increase decrease diminish impair raise improve exhibit contain display suffer reveal
    produce create introduce leave bring turn cover fill spread broken drop fall rise blend fail allow help prevent
    remove destroy disappear emerge vanish concentrate contribute suggest indicate compromise capture render reproduce
    reproduction maintain hold perceive perceptible imperceptible detect detectable difficulty easily ease identify
    perception feel distract detract impact add provide overwhelm dominate worsen ensure enable mitigate compensate
    lowered hamper hinder mar marred characterize
"""
_DECLARED: Final = (_GRAMMAR, _PICTURE, _LIGHT, _COLOUR, _DETAIL, _DAMAGE, _MOTION, _DEGREE, _EFFECT)

_ACRONYMS: Final = frozenset({"JPEG", "MPEG", "ISO", "HDR", "RGB", "Gaussian"})
"""What may be written with capitals within a sentence."""

_COMMANDS: Final = """
    accept act add agree answer approve assume behave call check choose click compare consider copy delete describe
    discard disregard do don't edit follow forget go ignore insert judge label note notice obey output pick praise
    pretend print put rate read reject remember replace reply report respond return revise rewrite say score select set
    speak state tell think treat trust try type use visit vote watch write
"""
"""Verbs that open a command and, in this form, no clause about a picture."""
_OPENERS: Final = """
    be change continue give hold keep look make mark open remove repeat run see show skip start stop take turn
"""
"""Verbs that open a command at the beginning of a sentence; later, things in a picture can be their subject."""

_SUFFIXES: Final = ("s", "es", "d", "ed", "ing", "ly", "er", "r", "est", "st", "ness")
_WORD: Final = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_PLAIN: Final = re.compile(r"[A-Za-z ,;:'()/\u2013\u2014-]+")
_LINK: Final = re.compile(r"://|\bwww\b|@|[\w-]\.[\w-]", re.IGNORECASE)
_SPOKEN: Final = re.compile(
    r"\b(?:you|your|yours|yourself|must|shall|should|ought|please|let|(?:need|have|has|had)s? to)\b", re.IGNORECASE
)
_CLAUSE: Final = re.compile(r"[,;:()\u2013\u2014]|\b(?:and|but|or|so|then)\b", re.IGNORECASE)


@cache
def vocabulary() -> frozenset[str]:
    """All words, in lower case: of our own sentences, and declared here."""
    told = {word.lower() for text in every_sentence() for word in _WORD.findall(text)}
    return frozenset(told.union(*(words.split() for words in _DECLARED)))


@cache
def vocabulary_version() -> str:
    """Changes with every word and rule here."""
    patterns = (pattern.pattern for pattern in (_WORD, _PLAIN, _LINK, _SPOKEN, _CLAUSE))
    rules = (_COMMANDS, _OPENERS, *sorted(_ACRONYMS), *_SUFFIXES, *patterns, *sorted(vocabulary()))
    return hashlib.sha256("/".join(rules).encode()).hexdigest()[:8]


def foreign_in(text: str) -> str | None:
    """What in a sentence is about something else than quality, or speaks to somebody.

    Returns:
        The rule that is broken, in words that quote nothing of the text; None if every word is one of quality.
    """
    plain = text.replace("\u2019", "'")
    words = _WORD.findall(plain)
    checks = (
        ("a link", _LINK.search(plain) is not None),
        ("numeric", any(character.isdigit() for character in plain)),
        ("an instruction", _SPOKEN.search(plain) is not None or _commands(plain)),
        ("naming names", any(word[0].isupper() and word not in _ACRONYMS for word in words[1:])),
        ("not plain words", _PLAIN.fullmatch(plain) is None),
        ("not about quality alone", not all(_is_known(word.lower()) for word in words)),
    )
    return next((problem for problem, broken in checks if broken), None)


def _commands(text: str) -> bool:
    openings = [words[0] for clause in _CLAUSE.split(text) if (words := clause.lower().split())]
    return any(word in _verbs(_COMMANDS) for word in openings) or bool(_verbs(_OPENERS).intersection(openings[:1]))


@cache
def _verbs(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


@lru_cache(4096)
def _is_known(word: str) -> bool:
    """Whether a word is in the vocabulary, as it is or in an inflected form."""
    words, base = vocabulary(), word.removesuffix("'s").removesuffix("n't")
    if word in words or base in words:
        return True
    return any(_is_stem(base[: -len(end)], words) for end in _SUFFIXES if base.endswith(end))


def _is_stem(stem: str, words: frozenset[str]) -> bool:
    doubled = len(stem) > 3 and stem[-1] == stem[-2]
    return len(stem) > 2 and (stem in words or f"{stem}e" in words or (doubled and stem[:-1] in words))
