import numpy as np
import pytest
import torch
from torch import nn

from models.errors import ModelError
from models.probe_head import ProbeHead
from models.standardisation import Standardisation


def features(rows: int = 50, width: int = 7) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(rng.uniform(-40, 40, width), rng.uniform(0.5, 3, width), (rows, width))


def test_mean_and_deviation_are_those_of_all_rows_however_they_come():
    found_NF = features()
    for cuts in ([], [1, 2, 30], [0, 0, 50]):
        scale = Standardisation.over(np.split(found_NF, cuts))
        assert np.allclose(scale.mean_F, found_NF.mean(axis=0), rtol=1e-12)
        assert np.allclose(scale.deviation_F, found_NF.std(axis=0), rtol=1e-12)


def test_a_large_common_mean_does_not_eat_the_deviation():
    found_NF = features() + 1e7
    scale = Standardisation.over(np.split(found_NF, 5))
    assert np.allclose(scale.deviation_F, found_NF.std(axis=0), rtol=1e-6)


def test_what_hardly_varies_is_floored_and_what_never_varies_is_not_divided_by_nothing():
    found_NF = features()
    found_NF[:, 0], found_NF[:, 1] = 5.0, 5.0 + 1e-9 * found_NF[:, 2]
    scale = Standardisation.over([found_NF])
    floor = 0.01 * np.sqrt(np.mean(found_NF.std(axis=0) ** 2))
    assert scale.deviation_F[:2] == pytest.approx([floor, floor])
    assert np.array_equal(Standardisation.over([np.full((3, 2), 4.0)]).deviation_F, [1.0, 1.0])


def test_applied_features_have_mean_0_and_deviation_1():
    found_NF = features()
    standard_NF = Standardisation.over([found_NF]).applied(torch.from_numpy(found_NF))
    assert standard_NF.dtype == torch.float32
    assert torch.allclose(standard_NF.mean(dim=0), torch.zeros(7), atol=1e-6)
    assert torch.allclose(standard_NF.std(dim=0, unbiased=False), torch.ones(7), atol=1e-5)


def test_a_folded_layer_says_of_raw_features_what_it_said_of_standard_ones():
    raw_NF = torch.from_numpy(features(width=12)).float()
    scale, head = Standardisation.over([raw_NF.numpy()]), ProbeHead(12, 4)
    head.start_anew(torch.Generator().manual_seed(0))
    nn.init.normal_(head.inner.bias)
    with torch.no_grad():
        before_N5 = head(scale.applied(raw_NF))
        scale.fold_into(head.inner)
        after_N5 = head(raw_NF)
    assert torch.allclose(after_N5, before_N5, atol=1e-5)
    assert head.inner.weight.shape == (4, 12)


@pytest.mark.parametrize("parts", [[], [np.zeros((0, 3))], [np.array([[1.0, np.nan]])]])
def test_nothing_and_what_is_not_finite_have_no_scale(parts: list[np.ndarray]):
    with pytest.raises(ModelError, match="finite features"):
        Standardisation.over(parts)
