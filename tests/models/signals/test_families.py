import ast
import inspect
import itertools
from types import ModuleType

import numpy as np
import pytest
from skimage import data

from models.distortions import distort_image
from models.distortions.clips import shaken, stuttered
from models.signals.claims import FAULTS, Attribute, Fault
from models.signals.evidence import Evidence, Medium, draw_evidence
from models.signals.families import spatial, spectral, statistical, structural
from models.signals.scale import DESCRIBER_FAMILY, FAMILIES, JUDGE_FAMILIES, load_thresholds, measure, read

MODULES: tuple[ModuleType, ...] = (spatial, spectral, structural, statistical)
PHOTOS = {
    "astronaut": data.astronaut()[:256, 100:400],
    "coffee": data.coffee()[80:336, 100:400],
    "chelsea": data.chelsea()[:256, :300],
    "rocket": data.rocket()[100:356, 200:500],
}
CASES = {
    Fault.BLUR: ("gaussian_blur", (3, 4, 5)),
    Fault.NOISE: ("white_noise", (1, 3, 5)),
    Fault.DARK: ("darken", (2, 4, 5)),
    Fault.BRIGHT: ("brighten", (2, 3, 4)),
    Fault.FLAT: ("contrast_change", (1, 4, 5)),
    Fault.DULL: ("color_saturation_1", (1, 2, 4)),
    Fault.VIVID: ("color_saturation_2", (1, 2, 4)),
    Fault.COMPRESSION: ("jpeg", (0, 1, 3)),
}
"""Fault -> a type that causes it, and levels of rising strength (0: untouched)."""


def look(pixels: np.ndarray, name: str) -> Evidence:
    return draw_evidence(Medium(np.ascontiguousarray(pixels)), load_thresholds().evidence, name, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fault", CASES, ids=str)
@pytest.mark.parametrize("name", PHOTOS)
def test_a_measure_moves_one_way_as_its_distortion_grows(name: str, fault: Fault, family: str):
    kind, levels = CASES[fault]
    attribute = next(key for key, faults in FAULTS.items() if fault in faults)
    estimator = FAMILIES[family][attribute]
    slope = load_thresholds().curves[family][fault].slope
    media = [distort_image(PHOTOS[name], kind, level, seed=3) if level else PHOTOS[name] for level in levels]
    values = [estimator(look(pixels, name)) for pixels in media]
    assert all(np.sign(slope) * (after - before) > 0 for before, after in itertools.pairwise(values)), values


def moving(kind: str, amount: float) -> np.ndarray:
    source = np.ascontiguousarray(data.coffee()[60:340, 60:560])
    frames = [source[step // 4 : step // 4 + 200, step * 2 : step * 2 + 300] for step in range(48)]
    apply = {"shake": shaken, "stutter": stuttered}[kind]
    return np.stack(list(apply(iter(frames), amount, np.random.default_rng(4))))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("kind", "attribute", "amounts"),
    [("shake", Attribute.STABILITY, (0.0, 0.012, 0.03)), ("stutter", Attribute.SMOOTHNESS, (0.0, 0.4, 0.8))],
)
def test_clip_measures_grow_with_their_distortion(
    kind: str, attribute: Attribute, amounts: tuple[float, ...], family: str
):
    values = [FAMILIES[family][attribute](look(moving(kind, amount), kind)) for amount in amounts]
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_fitted_curves_separate_photographs_that_the_fit_has_never_seen(family: str):
    thresholds = load_thresholds()
    right, told = 0, 0
    for (name, pixels), (fault, (kind, levels)) in itertools.product(PHOTOS.items(), CASES.items()):
        if fault is Fault.FLAT:
            continue  # KADIS' contrast change leaves strong scenes strong
        distorted = distort_image(pixels, kind, levels[-1], seed=3)
        before, after = (
            read(measure(family, look(image, name)), family, thresholds)[fault] for image in (pixels, distorted)
        )
        right += (after >= 0.5) + (before < 0.5)
        told += 2
    assert right / told >= 0.85


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_pictures_and_still_clips_have_finite_measures(family: str, value: int):
    for shape in ((64, 64, 3), (12, 64, 64, 3)):
        found = measure(family, look(np.full(shape, value, np.uint8), "flat"))
        assert all(np.isfinite(number) for number in found.values())


def test_every_family_covers_every_attribute_and_describer_and_judges_share_none():
    assert all(tuple(family) == tuple(Attribute) for family in FAMILIES.values())
    assert DESCRIBER_FAMILY not in JUDGE_FAMILIES
    assert {DESCRIBER_FAMILY, *JUDGE_FAMILIES} == set(FAMILIES)


def test_no_estimator_is_in_two_families_and_none_is_built_on_code_of_another():
    functions = [
        {value for _, value in inspect.getmembers(module, inspect.isfunction) if value.__module__ == module.__name__}
        for module in MODULES
    ]
    for one, two in itertools.combinations(functions, 2):
        assert not one & two
        assert not {f.__code__.co_code + repr(f.__code__.co_consts).encode() for f in one} & {
            f.__code__.co_code + repr(f.__code__.co_consts).encode() for f in two
        }
    for module in MODULES:
        imported = {
            node.module
            for node in ast.walk(ast.parse(inspect.getsource(module)))
            if isinstance(node, ast.ImportFrom) and node.module
        }
        ours = {name for name in imported if name.startswith(("models", "tasks"))}
        assert ours == {"models.signals.claims", "models.signals.evidence"}
        for name, value in inspect.getmembers(module, inspect.isfunction):
            assert value.__module__ == module.__name__, name
