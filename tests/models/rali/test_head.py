"""Equation 3 against a loop, its bounds, and how far an untuned score leaves the mean."""

import math

import numpy as np
import pytest
import torch

from models.rali.codebook import Projection, Recipe, build_codebook
from models.rali.head import BasisHead


def _head(tau: float, count: int = 400, seed: int = 0) -> tuple[BasisHead, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.1, 0.9, size=count)
    vectors = rng.normal(size=(count, 10)) + 4 * (scores[:, None] - 0.5) * np.eye(10)[0] + 3 * np.eye(10)[1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    projection = Projection.principal(unit, 6, centred=True)
    book = build_codebook(projection.applied(unit), scores, Recipe(60, 40, "buckets", 0))
    return BasisHead.of(projection, book, tau), vectors, scores


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_scores_are_those_of_a_loop(tau: float):
    head, vectors, _ = _head(tau)
    found = head(torch.from_numpy(vectors[:5]).float())
    state = {name: value.double().numpy() for name, value in head.state_dict().items()}
    for number in range(5):
        unit = vectors[number] / math.sqrt(sum(value**2 for value in vectors[number]))
        small = [sum(row[i] * (unit[i] - state["mean"][i]) for i in range(10)) for row in state["components"]]
        weights = []
        for basis in state["vectors"]:
            dot = sum(a * b for a, b in zip(small, basis, strict=True))
            norms = math.sqrt(sum(a * a for a in small)) * math.sqrt(sum(b * b for b in basis))
            weights.append(math.exp(dot / norms / tau))
        wanted = sum(w * f for w, f in zip(weights, state["scores"], strict=True)) / sum(weights)
        assert found[number].item() == pytest.approx(wanted, abs=1e-6)


def test_scores_stay_within_the_basis_scores():
    head, _, _ = _head(0.01)
    wild = 100 * torch.randn(500, 10)
    assert head.scores.min() - 1e-6 <= head(wild).min()
    assert head(wild).max() <= head.scores.max() + 1e-6


def test_the_length_of_an_embedding_does_not_matter():
    head, vectors, _ = _head(1.0)
    rows = torch.from_numpy(vectors).float()
    assert torch.allclose(head(rows), head(7 * rows), atol=1e-5)


def test_without_a_temperature_untuned_scores_hardly_leave_the_mean():
    spreads = {}
    for tau in (1.0, 0.1):
        head, vectors, scores = _head(tau)
        found = head(torch.from_numpy(vectors).float()).detach().numpy()
        spreads[tau] = found.std() / scores.std()
        assert np.corrcoef(found, scores)[0, 1] > 0.6
    assert spreads[1.0] < 0.3 < spreads[0.1]
