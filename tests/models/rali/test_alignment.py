"""InfoNCE against closed forms, its invariances, and retrieval."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.rali.alignment import false_negative_share, false_negatives, info_nce, recall_at_1


def test_two_orthogonal_pairs_have_the_closed_form():
    rows = torch.eye(2)
    losses = info_nce(rows, rows, 3.0)
    wanted = math.log(1 + math.exp(-3.0))  # own cosine 1, other 0, both ways
    assert losses.tolist() == pytest.approx([wanted, wanted], abs=1e-6)


def test_three_pairs_have_the_closed_form():
    images = np.array([[2.0, 0.0], [0.0, 0.5], [3.0, 3.0]])
    texts = np.array([[1.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    unit = images / np.linalg.norm(images, axis=1, keepdims=True), texts / np.linalg.norm(texts, axis=1, keepdims=True)
    table = 5.0 * unit[0] @ unit[1].T
    wanted = [
        0.5 * (np.log(np.exp(table[n]).sum()) - table[n, n]) + 0.5 * (np.log(np.exp(table[:, n]).sum()) - table[n, n])
        for n in range(3)
    ]
    found = info_nce(torch.from_numpy(images), torch.from_numpy(texts), 5.0)
    assert found.numpy() == pytest.approx(wanted, abs=1e-6)


@given(st.integers(2, 12), st.integers(0, 2**31))
def test_an_order_of_the_batch_changes_no_pair(count: int, seed: int):
    torch.manual_seed(seed)
    images, texts, order = torch.randn(count, 7), torch.randn(count, 7), torch.randperm(count)
    straight = info_nce(images, texts, 2.0)
    assert torch.allclose(straight[order], info_nce(images[order], texts[order], 2.0), atol=1e-6)


def test_random_directions_start_at_the_logarithm_of_the_batch():
    torch.manual_seed(1)
    found = info_nce(torch.randn(64, 256), torch.randn(64, 256), 1.0).mean().item()
    assert found == pytest.approx(math.log(64), abs=0.1)


def test_masked_pairs_leave_the_sums_and_the_own_pair_never_does():
    torch.manual_seed(2)
    images, texts = torch.randn(4, 5), torch.randn(4, 5)
    everything = torch.ones(4, 4, dtype=torch.bool)
    assert info_nce(images, texts, 4.0, everything).abs().max().item() == pytest.approx(0.0, abs=1e-6)
    others = torch.zeros(4, 4, dtype=torch.bool)
    others[:2, 2:] = others[2:, :2] = True  # two batches of two in one
    apart = torch.cat([info_nce(images[:2], texts[:2], 4.0), info_nce(images[2:], texts[2:], 4.0)])
    assert torch.allclose(info_nce(images, texts, 4.0, others), apart, atol=1e-6)


def test_the_same_words_and_the_same_medium_are_no_negatives():
    found = false_negatives(["a", "b", "a", "c"], ["Dark.", "dark.", "Noisy.", "soft"])
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    for one, other in ((0, 1), (0, 2)):
        wanted[one, other] = wanted[other, one] = True
    assert torch.equal(found, wanted)


def test_recall_counts_a_text_that_says_the_same():
    images = torch.eye(3)
    texts = torch.eye(3)[[1, 0, 2]]
    assert recall_at_1(images, texts, ["x", "y", "z"]) == pytest.approx(1 / 3)
    assert recall_at_1(images, texts, ["x", "X ", "z"]) == 1.0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["Soft.", "soft. ", "Clean"])), min_size=2, max_size=9)
)
def test_the_share_of_false_negatives_is_that_of_their_matrix(pairs: list[tuple[str, str]]):
    media, texts = [medium for medium, _ in pairs], [text for _, text in pairs]
    wanted = false_negatives(media, texts).sum().item() / (len(pairs) * (len(pairs) - 1))
    assert false_negative_share(media, texts) == pytest.approx(wanted)
