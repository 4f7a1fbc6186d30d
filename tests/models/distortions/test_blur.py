import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.distortions.blur import disk_kernel, path_kernel


@given(st.floats(2, 8))  # smaller disks have no pixel that is surely whole
def test_a_disk_kernel_keeps_the_brightness_and_has_the_disks_area(radius: float):
    kernel = disk_kernel(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert 1 / kernel.max() == pytest.approx(math.pi * radius**2, rel=0.03)  # a full pixel weighs one over the area


@given(st.floats(1, 12), st.floats(0, math.pi))
def test_a_path_kernel_is_centred_and_as_long_as_asked(length: float, angle: float):
    kernel = path_kernel(length, angle)
    half = kernel.shape[0] // 2
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel * rows).sum() == pytest.approx(0, abs=1e-3)
    assert (kernel * columns).sum() == pytest.approx(0, abs=1e-3)
    along = rows * math.sin(angle) + columns * math.cos(angle)
    spread = (kernel * along**2).sum()
    # a uniform line has variance L^2 / 12; sharing between neighbouring pixels adds at most a quarter pixel squared
    assert length**2 / 12 - 0.01 <= spread <= length**2 / 12 + 0.27
