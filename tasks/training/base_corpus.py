"""The sentences that the base decoders learn: the domain's language without any verdict on quality.

Law of the corpus (a test scans everything that can be said here): a medium is only ever told *measured properties*
of itself. No score, no verdict, no name of a distortion of the line. The level words high, good, fair, poor, low occur
only as adjectives of a measured property. Names of distortions, and the word quality, occur only in conversations
without a medium, which define words and tell no level.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.levels import LEVELS
from tasks.records import Modality
from tasks.training.base_phrases import DEFINITIONS, DESCRIPTIONS, DISTORTIONS

SEVERITIES: Final = ("slight", "mild", "relatively severe", "severe", "very severe")
"""Degrees of a measured fault, weakest first; the words of models.distortions (a test compares them)."""


@dataclass(frozen=True)
class Property:
    """A measured quantity and the ways to speak of it.

    Attributes:
        key: name in tasks.training.base_signals.
        nouns: names; "The NOUN of the image is high" means the medium is in the top fifth of the base's media.
        shades: one assertion per fifth, top fifth first.
        fault: noun of its excess, told with a degree in the upper fifths; empty if its excess is no fault.
        lack: noun of its absence, told with a degree in the lower fifths; empty likewise.
        follows: what the upper and the lower two fifths bring with them; empty strings for nothing.
        modalities: of which media it is told.
    """

    key: str
    nouns: tuple[str, ...]
    shades: tuple[str, str, str, str, str]
    fault: str = ""
    lack: str = ""
    follows: tuple[str, str] = ("", "")
    modalities: tuple[Modality, ...] = (Modality.IMAGE, Modality.VIDEO)


PROPERTIES: Final = (
    Property(
        "sharpness",
        ("sharpness", "crispness", "acuity", "clarity"),
        (
            "The edges are very crisp",
            "The edges are crisp",
            "The edges are slightly soft",
            "The edges are soft and lines look blurred",
            "The edges are very soft and the picture looks blurry",
        ),
        follows=(", so small structures can be told apart", ", resulting in a blurry {medium}"),
        lack="softness",
    ),
    Property(
        "detail",
        ("detail", "texture", "fine structure"),
        (
            "Textures are rich and full of detail",
            "Textures are clearly visible",
            "Some texture is visible",
            "Textures are weak and details are washed out",
            "Textures are missing and surfaces look flat",
        ),
        follows=(", and fine structures are visible", ", and fine detail is lost"),
        lack="loss of texture",
    ),
    Property(
        "noise",
        ("noise", "grain", "graininess"),
        (
            "Heavy grain covers the flat areas",
            "Grain is clearly visible in the flat areas",
            "Some grain is visible in the flat areas",
            "Flat areas are nearly free of grain",
            "Flat areas are clean and free of grain",
        ),
        follows=(", and it disturbs the uniform areas", ", so surfaces look clean"),
        fault="grain",
    ),
    Property(
        "contrast",
        ("contrast", "tonal range", "dynamic range"),
        (
            "Dark and bright areas are far apart",
            "Dark and bright areas are well separated",
            "Dark and bright areas are moderately separated",
            "Dark and bright areas lie close together",
            "The picture looks flat and hazy",
        ),
        follows=(", so shapes stand out from the background", ", giving a hazy impression"),
        lack="haze",
    ),
    Property(
        "brightness",
        ("brightness", "light", "lighting", "illumination"),
        (
            "The picture is very bright",
            "The picture is bright and the lighting is sufficient",
            "The picture is moderately bright",
            "The picture is dim and the lighting is insufficient",
            "The picture is very dark",
        ),
        follows=(", so the subject can be seen clearly", ", and the shadows hide detail"),
        lack="darkness",
    ),
    Property(
        "colourfulness",
        ("colourfulness", "color", "colour", "saturation"),
        (
            "The colors are very vivid",
            "The colors are vivid",
            "The colors are moderately vivid",
            "The colors are pale",
            "The colors are nearly grey",
        ),
        follows=(", so hues stand out", ", and the scene appears almost grey"),
        lack="paleness",
    ),
    Property(
        "blockiness",
        ("blockiness", "grid pattern"),
        (
            "Block edges are very visible",
            "Block edges are visible",
            "Block edges are faintly visible",
            "Block edges are hardly visible",
            "Block edges are not visible",
        ),
        follows=(", and gradients break into steps", ", and gradients remain continuous"),
        fault="block edges",
    ),
    Property(
        "smoothness",
        ("smoothness", "flatness"),
        (
            "Most surfaces are perfectly smooth",
            "Many surfaces are smooth",
            "Some surfaces are smooth",
            "Few surfaces are smooth",
            "Hardly any surface is smooth",
        ),
    ),
    Property(
        "clipping",
        ("clipping",),
        (
            "Large areas are pure black or pure white",
            "Some areas are pure black or pure white",
            "Small areas are pure black or pure white",
            "Hardly any area is pure black or pure white",
            "No area is pure black or pure white",
        ),
        fault="clipping",
    ),
    Property(
        "halo",
        ("edge emphasis", "outlines"),
        (
            "Outlines are strongly emphasised and show halos",
            "Outlines are emphasised",
            "Outlines are moderately emphasised",
            "Outlines are hardly emphasised",
            "Outlines are not emphasised",
        ),
        fault="halos",
    ),
    Property(
        "motion",
        ("motion", "movement"),
        (
            "The scene moves very fast",
            "The scene moves fast",
            "The scene moves at a moderate pace",
            "The scene moves slowly",
            "The scene hardly moves",
        ),
        follows=(", and objects pass quickly", ", and the scene is almost still"),
        modalities=(Modality.VIDEO,),
    ),
    Property(
        "steadiness",
        ("steadiness", "stability"),
        (
            "The camera is very steady",
            "The camera is steady",
            "The camera trembles slightly",
            "The camera trembles",
            "The camera trembles strongly",
        ),
        follows=(", and the framing stays where it is", ", and the framing jumps from frame to frame"),
        lack="trembling",
        modalities=(Modality.VIDEO,),
    ),
    Property(
        "flicker",
        ("flicker", "flickering"),
        (
            "The light flickers strongly",
            "The light flickers",
            "The light flickers slightly",
            "The light is nearly constant",
            "The light is constant",
        ),
        fault="flicker",
        modalities=(Modality.VIDEO,),
    ),
    Property(
        "fluency",
        ("fluency", "continuity"),
        (
            "The movement is very fluent",
            "The movement is fluent",
            "The movement halts now and then",
            "The movement halts often",
            "The movement halts very often and frames stand still",
        ),
        follows=(", and every frame brings a new picture", ", and many frames are repeated"),
        lack="halting",
        modalities=(Modality.VIDEO,),
    ),
)

_DESCRIBE: Final = {
    Modality.IMAGE: (
        "Describe the image.",
        "What can be seen in the pixels of this image?",
        "Tell me about the image.",
    ),
    Modality.VIDEO: (
        "Describe the video.",
        "What can be seen in the pixels of this video?",
        "Tell me about the video.",
    ),
}


@dataclass(frozen=True)
class Turn:
    """One question and its answer."""

    prompt: str
    answer: str


def statements(key: str, fifth: int, modality: Modality) -> list[str]:
    """Everything that may be said of a medium whose property ``key`` lies in ``fifth`` (0 top, 4 bottom)."""
    found = _BY_KEY[key]
    level = LEVELS[fifth]
    said = []
    for noun in found.nouns:
        said += [f"The {noun} of the {modality} is {level}"] * 3
        said += [f"The {noun} is {level}", f"{_capital(noun)} is {level}"]
        if fifth != 2 and found.follows[0]:
            follows = found.follows[fifth > 2].replace("{medium}", modality)
            said.append(f"{_capital(noun)} is {level}{follows}")
    said += [found.shades[fifth]] * 3
    degree = {0: 4, 1: 2, 2: 0}
    if found.fault and fifth in degree:
        said += _degrees(found.fault, degree[fifth])
    if found.lack and 4 - fifth in degree:
        said += _degrees(found.lack, degree[4 - fifth])
    return said


def _degrees(noun: str, degree: int) -> list[str]:
    """Severity phrases of one degree and, below the strongest, of the degree above it."""
    return [f"{severity} {noun}" for severity in SEVERITIES[degree : degree + 2]] * 2


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


_BY_KEY: Final = {item.key: item for item in PROPERTIES}


def keys_of(modality: Modality) -> list[str]:
    """Properties that are told of media of this modality."""
    return [item.key for item in PROPERTIES if modality in item.modalities]


def medium_turn(fifths: Mapping[str, int], modality: Modality, rng: np.random.Generator, listing_share: float) -> Turn:
    """Draw one conversation about a medium.

    A share tells the level of every property, in random order; of the rest half are one assertion without a question
    (prompt decoupling), a quarter several, a quarter answer a question.

    Args:
        fifths: property -> fifth of the base's media, 0 top.
        listing_share: of conversations that tell every level: only beside each other does a decoder soon learn that
            the noun decides what is to be read.
    """
    keys = keys_of(modality)
    if rng.random() < listing_share:
        return Turn("", ". ".join(_level_sentence(fifths, keys[i], modality, rng) for i in rng.permutation(len(keys))))
    kind = rng.random()
    if kind < 0.5:
        return Turn("", _draw(fifths, keys, modality, rng))
    chosen = [keys[i] for i in rng.permutation(len(keys))[: int(rng.integers(3, 7))]]
    text = ". ".join(_capital(_draw(fifths, [key], modality, rng)) for key in chosen)
    if kind < 0.75:
        return Turn("", text)
    if kind < 0.9:
        return Turn(str(rng.choice(_DESCRIBE[modality])), text)
    answer = _level_sentence(fifths, str(rng.choice(keys)), modality, rng)
    subject = answer.removeprefix("The ").rsplit(" is ", 1)[0]
    return Turn(f"How is the {subject}?", answer)


def _level_sentence(fifths: Mapping[str, int], key: str, modality: Modality, rng: np.random.Generator) -> str:
    """The sentence that ends in a level word, with one of the property's nouns."""
    noun = str(rng.choice(_BY_KEY[key].nouns))
    return f"The {noun} of the {modality} is {LEVELS[fifths[key]]}"


def _draw(fifths: Mapping[str, int], keys: Sequence[str], modality: Modality, rng: np.random.Generator) -> str:
    key = str(rng.choice(np.array(keys)))
    said = statements(key, fifths[key], modality)
    return said[int(rng.integers(len(said)))]


def medium_sentences() -> Iterator[str]:
    """Every statement that the corpus can make of a medium."""
    for item, modality, fifth in itertools.product(PROPERTIES, Modality, range(5)):
        if modality in item.modalities:
            yield from dict.fromkeys(statements(item.key, fifth, modality))


def medium_prompts() -> Iterator[str]:
    """Every question that the corpus can ask about a medium."""
    for modality in Modality:
        yield from _DESCRIBE[modality]
        for key in keys_of(modality):
            yield from (f"How is the {noun} of the {modality}?" for noun in _BY_KEY[key].nouns)


def text_turns() -> Iterator[Turn]:
    """Every conversation without a medium: definitions, ways to describe, distortions, their degrees and effects."""
    for text in DEFINITIONS:
        yield Turn("", text)
        yield Turn("Tell me about pictures.", text)
    for (mains, tails), modality in itertools.product(DESCRIPTIONS, Modality):
        for main, tail in itertools.product(mains, ("", *tails)):
            yield Turn("", (main + tail).replace("{medium}", modality))
    for name, effect in DISTORTIONS.items():
        yield Turn(f"What does {name} do?", f"{_capital(name)} {effect}")
        yield Turn("", f"{_capital(name)} {effect}")
        for severity in SEVERITIES:
            yield Turn("", f"{severity} {name}")
            yield Turn("Name a distortion.", f"{severity} {name}")
            yield Turn("", f"{_capital(severity)} {name} {effect}")


def vocabulary() -> list[str]:
    """Words that are one token each: all that the corpus says after a space."""
    texts = itertools.chain(
        medium_sentences(), medium_prompts(), *((turn.prompt, turn.answer) for turn in text_turns())
    )
    words = {word for text in texts for word in text.replace(".", " ").replace(",", " ").replace("?", " ").split()}
    return sorted(word for word in words if word.isalpha())
