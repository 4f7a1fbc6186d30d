"""How far images and the texts that reason about them agree: the symmetric contrastive loss, and retrieval.

Shape legend: ``N`` pairs of a batch, ``D`` joint space.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(image_ND: Tensor, text_ND: Tensor, scale: Tensor | float, masked_NN: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of each pair ``[N]``; its mean is RALI's alignment loss (step a), CLIP's as well.

    ``S = scale * cos(image, text)``; half the cross entropy of each image among all texts, and half that of each text
    among all images.

    Args:
        image_ND, text_ND: of any length; row ``n`` of both belongs together.
        scale: one over the temperature.
        masked_NN: pairs that are left out of the sums, as :func:`false_negatives` tells; the diagonal never is.
    """
    images, texts = functional.normalize(image_ND, dim=1), functional.normalize(text_ND, dim=1)
    logits_NN = scale * images @ texts.T
    if masked_NN is not None:
        own_NN = torch.eye(len(logits_NN), dtype=torch.bool, device=logits_NN.device)
        logits_NN = logits_NN.masked_fill(masked_NN.to(logits_NN.device) & ~own_NN, -torch.inf)
    own_N = torch.arange(len(logits_NN), device=logits_NN.device)
    by_image_N = functional.cross_entropy(logits_NN, own_N, reduction="none")
    by_text_N = functional.cross_entropy(logits_NN.T, own_N, reduction="none")
    return 0.5 * (by_image_N + by_text_N)


def false_negatives(media: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Pairs ``[N, N]`` off the diagonal that are no negatives: the same medium, or a text that says the same."""
    return (_alike(media) | _alike(_said(texts))) & ~torch.eye(len(texts), dtype=torch.bool)


def false_negative_share(media: Sequence[str], texts: Sequence[str]) -> float:
    """Share of the pairs of :func:`false_negatives` among all pairs off the diagonal, without their matrix."""
    said = _said(texts)
    alike = _pairs(media) + _pairs(said) - _pairs(list(zip(media, said, strict=True)))
    return alike / max(1, len(said) * (len(said) - 1))


def _pairs(names: Sequence[Hashable]) -> int:
    """Ordered pairs of equal names."""
    return sum(count * (count - 1) for count in Counter(names).values())


def recall_at_1(image_ND: Tensor, text_ND: Tensor, texts: Sequence[str]) -> float:
    """Share of images whose nearest text, by cosine, is their own or one that says the same."""
    images, texts_ND = functional.normalize(image_ND, dim=1), functional.normalize(text_ND, dim=1)
    nearest = (images @ texts_ND.T).argmax(dim=1).tolist()
    said = _said(texts)
    return sum(said[found] == said[own] for own, found in enumerate(nearest)) / len(said)


def _said(texts: Sequence[str]) -> list[str]:
    """Texts without what two ways to write the same may differ in."""
    return [" ".join(text.lower().split()) for text in texts]


def _alike(names: Sequence[str]) -> Tensor:
    last = {name: number for number, name in enumerate(names)}
    numbers_N = torch.tensor([last[name] for name in names])
    return numbers_N[:, None] == numbers_N
