"""Scores with the image against scores from the words."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from models.errors import ModelError
from models.instruments.contradiction import against_people, gap


def test_gaps_and_flips_are_those_of_fifths_of_the_scale():
    image, text = [0.05, 0.2, 0.59, 0.6, 1.0, 0.0], [0.19, 0.1, 0.61, 0.79, 0.79, 1.0]
    found = gap(image, text)
    assert found.difference_N == pytest.approx([0.14, 0.1, 0.02, 0.19, 0.21, 1.0])
    assert found.flip_N.tolist() == [0, 1, 1, 0, 1, 1]
    assert found.far_flip_N.tolist() == [0, 0, 0, 0, 0, 1]


def test_a_decimal_edge_opens_the_upper_level():
    ratings = np.array([1.8, 2.6, 3.4, 4.2])  # on the 1 to 5 scale, in which levels are .8 wide
    assert gap((ratings - 1) / 4, [0.3, 0.5, 0.7, 0.9]).flip_N.tolist() == [0, 0, 0, 0]


def test_both_scores_are_correlated_with_people():
    generator = np.random.default_rng(0)
    human = generator.random(60)
    image, text = (np.clip(human + generator.normal(0, noise, 60), 0, 1) for noise in (0.1, 0.4))
    found = against_people(image, text, human)
    assert found.image.srcc == pytest.approx(spearmanr(image, human).statistic)
    assert found.text.plcc == pytest.approx(np.corrcoef(text, human)[0, 1])


def test_what_is_no_pair_of_qualities_is_refused():
    with pytest.raises(ModelError, match="cannot be paired"):
        gap([0.1], [0.1, 0.2])
    with pytest.raises(ModelError, match=r"must lie in \[0, 1\]"):
        gap([3.2], [0.1])
