"""The logit lens: what a decoder would say if each of its layers were the last.

The hidden state of every layer at one position goes through the decoder's own final norm and vocabulary head
(nostalgebraist 2020). "Building Reasonable Inference for Vision-Language Models in Blind Image Quality Assessment"
shows the top four candidates per layer, and finds answers that change in the last layers. transformers' last
``hidden_state`` is already normed; here the layers' own outputs are read, so that nothing is normed twice, and the last
layer's reading is held against the logits that the model gives.

Shape legend: ``B`` sequences, ``T`` tokens, ``L`` layers (from 1 in words, from 0 in arrays), ``D`` width, ``V``
vocabulary, ``C`` candidate words (levels), ``K`` top candidates.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TOP: Final = 4
"""Candidates per layer, as in the paper's figure."""
LATE_SHARE: Final = 0.1
"""A change of mind within this last share of the layers is a late one."""
_TOLERANCE: Final = 1e-4


@dataclass(frozen=True)
class Reading:
    """What one sequence says at one position, layer by layer.

    Attributes:
        level_LC: probabilities of the candidate words among each other, rows sum to 1.
        other_L: probability of all other tokens.
        top_ids_LK, top_probs_LK: most probable tokens of the whole vocabulary, best first.
    """

    level_LC: Floats
    other_L: Floats
    top_ids_LK: Integers
    top_probs_LK: Floats

    @property
    def commit_layer(self) -> int:
        """First layer, from 1, from which on the most probable candidate stays what it is at the end."""
        best_L = self.level_LC.argmax(axis=1)
        unlike = np.flatnonzero(best_L != best_L[-1])
        return 1 if len(unlike) == 0 else int(unlike[-1]) + 2

    @property
    def switches(self) -> int:
        """How often the most probable candidate changes from one layer to the next."""
        best_L = self.level_LC.argmax(axis=1)
        return int((best_L[1:] != best_L[:-1]).sum())

    @property
    def switches_late(self) -> bool:
        """Whether it changes within the last tenth of the layers, rounded up."""
        late = max(1, int(np.ceil(LATE_SHARE * len(self.level_LC) - 1e-9)))
        return self.commit_layer > len(self.level_LC) - late

    @property
    def margin(self) -> float:
        """Probability of the last layer's best candidate less that of its second."""
        second, first = np.sort(self.level_LC[-1])[-2:]
        return float(first - second)

    @property
    def distinct_top(self) -> int:
        """Different tokens that are the most probable one at some layer."""
        return len(set(self.top_ids_LK[:, 0].tolist()))


def read_layers(logits_LV: Tensor, candidates: Sequence[int], top: int = TOP) -> Reading:
    """Read the logits of every layer.

    Args:
        candidates: token ids of the candidate words, two at least.

    Raises:
        ModelError: there are fewer than two candidates, or one twice.
    """
    if len(candidates) < 2 or len(set(candidates)) < len(candidates):
        msg = f"the lens needs two different candidate words at least, not the tokens {list(candidates)}"
        raise ModelError(msg)
    probs_LV = logits_LV.double().softmax(-1)
    chosen_LC = probs_LV[:, list(candidates)]
    level_LC = logits_LV[:, list(candidates)].double().softmax(-1)
    top_probs, top_ids = probs_LV.topk(min(top, probs_LV.shape[-1]), dim=-1)
    other_L = (1.0 - chosen_LC.sum(-1)).clamp(min=0.0)
    return Reading(level_LC.cpu().numpy(), other_L.cpu().numpy(), top_ids.cpu().numpy(), top_probs.cpu().numpy())


def effective_candidates(readings: Sequence[Reading], layer: int) -> float:
    """Exponential of the entropy of the tokens that are the most probable ones at a layer, over samples.

    Args:
        layer: from 1.
    """
    counts = np.array(list(Counter(int(one.top_ids_LK[layer - 1, 0]) for one in readings).values()), np.float64)
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


# --------------------------------------------------------------- any decoder


@dataclass(frozen=True)
class Decoder:
    """The parts of a decoder that the lens reads through.

    Attributes:
        layers: repeated layers, in their order.
        after: what follows the last of them, in its order: the final norm, and nothing else in most families.
        head: vocabulary head.
        cap: soft cap of the logits; None in most families.
    """

    layers: Sequence[nn.Module]
    after: Sequence[nn.Module]
    head: nn.Module
    cap: float | None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of a layer's output."""
        for module in self.after:
            hidden = module(hidden)
        logits = self.head(hidden)
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def find_decoder(model: nn.Module, run: Callable[[], Any]) -> Decoder:
    """Find a model's repeated layers, final norm and vocabulary head by watching a forward pass.

    Args:
        model: any transformers model with an output embedding.
        run: runs the model once; any text will do.

    Raises:
        ModelError: the model has no vocabulary head, or no repeated layers before it.
    """
    find_head = getattr(model, "get_output_embeddings", lambda: None)
    head = find_head()
    if head is None:
        msg = f"{type(model).__name__} has no vocabulary head: the lens needs a model that predicts tokens"
        raise ModelError(msg)
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    inside = {id(part) for stack in stacks for layer in stack for part in layer.modules()}
    order: list[nn.Module] = []
    watched = [module for module in model.modules() if id(module) not in inside and not list(module.children())]
    members = {id(layer): stack for stack in stacks for layer in stack}
    hooks = [
        module.register_forward_hook(lambda part, *_: order.append(part))
        for module in [*watched, *(layer for stack in stacks for layer in stack)]
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    at_head = max((place for place, module in enumerate(order) if module is head), default=-1)
    last = max((place for place, module in enumerate(order[:at_head]) if id(module) in members), default=-1)
    if last < 0:
        msg = f"{type(model).__name__} ran no repeated layers before its vocabulary head: the lens cannot read it"
        raise ModelError(msg)
    cap = getattr(getattr(model, "config", None), "final_logit_softcapping", None)
    return Decoder(list(members[id(order[last])]), order[last + 1 : at_head], head, cap)


@contextmanager
def watched_layers(decoder: Decoder) -> Iterator[list[Tensor]]:
    """Collect the layers' outputs ``[B, T, D]`` of the forward pass inside the block, the last pass counting."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if len(outputs) == len(decoder.layers):
            outputs.clear()
        outputs.append((output[0] if isinstance(output, tuple) else output).detach())

    hooks = [layer.register_forward_hook(keep) for layer in decoder.layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def layer_logits(decoder: Decoder, outputs: Sequence[Tensor], positions: Sequence[int], given_BV: Tensor) -> Tensor:
    """Logits ``[B, L, V]`` of every layer at one position of each sequence.

    Args:
        outputs: of :func:`watched_layers`. positions: of the token that predicts the answer, one for each sequence.
        given_BV: what the model itself gave there.

    Raises:
        ModelError: the last layer's reading is not what the model gave, so that nothing here could be trusted.
    """
    rows = torch.arange(len(positions), device=given_BV.device)
    where = torch.tensor(list(positions), device=given_BV.device)
    hidden_BLD = torch.stack([output[rows, where] for output in outputs], dim=1)
    logits_BLV = decoder.logits(hidden_BLD)
    off = float((logits_BLV[:, -1].float() - given_BV.float()).abs().max())
    scale = max(1.0, float(given_BV.float().abs().max()))
    if off > _TOLERANCE * scale * (1 if given_BV.dtype is torch.float32 else 100):
        msg = (
            f"the last layer's reading is {off:.3g} off the model's logits: this family does something between its "
            "layers and its head that the lens does not know"
        )
        raise ModelError(msg)
    return logits_BLV
