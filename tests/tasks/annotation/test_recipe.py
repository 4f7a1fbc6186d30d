import pytest

from models.distortions import CELLS, IMAGE_TYPES, VIDEO_TYPES, strength
from models.signals.claims import ATTRIBUTE_OF, Attribute, Degree, Fault, faulty, fine
from tasks.annotation.recipe import (
    IMPLIED,
    UNTOUCHED,
    causing_cells,
    implied_falsehoods,
    implied_fault,
    implied_truths,
    sparing_cells,
)


def test_only_strong_cells_of_known_types_imply_anything():
    for kind, severity in CELLS:
        if implied_fault(kind, severity) is not None:
            assert kind in IMPLIED
            assert strength(kind, severity) >= 3
    assert set(IMPLIED) <= {*IMAGE_TYPES, *VIDEO_TYPES}
    assert implied_fault("gaussian_blur", 2) is None
    assert implied_fault("jitter", 5) is None
    assert implied_fault("color_saturation_1", 5) is None


def test_a_strong_blur_makes_blur_true_and_sharpness_and_noise_false():
    assert implied_truths("gaussian_blur", 5) == [faulty(Fault.BLUR, Degree.STRONG)]
    assert implied_falsehoods("gaussian_blur", 5) == [
        fine(Attribute.SHARPNESS),
        faulty(Fault.NOISE, Degree.STRONG),
    ]
    assert implied_falsehoods("gaussian_blur", 3) == [fine(Attribute.SHARPNESS)]


def test_an_attribute_with_two_faults_makes_the_opposite_false():
    assert implied_falsehoods("darken", 5) == [fine(Attribute.EXPOSURE), faulty(Fault.BRIGHT, Degree.STRONG)]
    assert implied_falsehoods("white_noise", 1) == implied_truths("white_noise", 1) == []


@pytest.mark.parametrize("fault", Fault, ids=str)
def test_every_fault_has_causes_and_things_that_leave_it_alone(fault: Fault):
    causes, spares = causing_cells(fault), sparing_cells(fault)
    assert causes
    assert spares
    assert not {kind for kind, _ in causes} & {kind for kind, _ in spares}
    assert set(UNTOUCHED[fault]) <= {*IMAGE_TYPES, *VIDEO_TYPES}
    video = ATTRIBUTE_OF[fault] in (Attribute.STABILITY, Attribute.SMOOTHNESS)
    assert all((kind in VIDEO_TYPES) == video for kind, _ in causes)


def test_truths_and_falsehoods_never_meet():
    for cell in CELLS:
        assert not set(implied_truths(*cell)) & set(implied_falsehoods(*cell))
