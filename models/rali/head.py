"""RALI's definition of a score (Eq. 3): a softmax over cosines to basis vectors weighs their scores.

Shape legend: ``N`` media, ``D`` joint space, ``d`` compressed space, ``K`` basis vectors.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.rali.codebook import Codebook, Projection


class BasisHead(nn.Module):
    """Embedding -> score: ``w = softmax(cos(U^T e, mu) / tau)``, score ``sum_i w_i f_i``, within ``[min f, max f]``.

    The paper has no temperature, which is ``tau`` 1: cosines in [-1, 1] then make two weights differ by e^2 at most, so
    an untuned score hardly leaves the mean of all ``f``.

    Attributes:
        vectors: ``mu`` ``[K, d]``. scores: ``f`` ``[K]``; both learn.
        mean, components: of the projection ``U``, which stays.

    Args:
        tau: temperature of the softmax.
    """

    def __init__(self, width: int, dims: int, bases: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.zeros(dims, width))
        self.vectors = nn.Parameter(torch.zeros(bases, dims))
        self.scores = nn.Parameter(torch.zeros(bases))

    @classmethod
    def of(cls, projection: Projection, codebook: Codebook, tau: float) -> "BasisHead":
        """The head of a codebook, before anything is tuned."""
        dims, width = projection.components_dD.shape
        head = cls(width, dims, len(codebook.scores_K), tau)
        state = {"mean": projection.mean_D, "components": projection.components_dD}
        state |= {"vectors": codebook.vectors_Kd, "scores": codebook.scores_K}
        head.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
        return head

    def weights(self, embedding_ND: Tensor) -> Tensor:
        """Weights ``[N, K]`` of the basis vectors."""
        unit_ND = functional.normalize(embedding_ND, dim=1)
        compressed_Nd = (unit_ND - self.get_buffer("mean")) @ self.get_buffer("components").T
        cosines_NK = functional.normalize(compressed_Nd, dim=1) @ functional.normalize(self.vectors, dim=1).T
        return torch.softmax(cosines_NK / self.tau, dim=1)

    def forward(self, embedding_ND: Tensor) -> Tensor:
        """Scores ``[N]``."""
        return self.weights(embedding_ND) @ self.scores
