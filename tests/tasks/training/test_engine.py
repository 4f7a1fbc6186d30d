"""What engines share: which layers run again in the backward pass, and that this changes no number."""

import dataclasses
from typing import get_args

import pytest
import torch
import uneven
from torch import Tensor, nn

from tasks.errors import ConfigError
from tasks.training.config import Recompute
from tasks.training.engine import SingleEngine, recomputed, repeated_layers


def _runs_and_gradients(recompute: Recompute) -> tuple[dict[str, int], list[Tensor]]:
    """How often the layers of each part run in a forward and a backward pass, and the gradients that this gives."""
    objective = uneven.Squares()
    runs = {"encoder": 0, "decoder": 0}

    def seen(part: str) -> None:
        runs[part] += 1

    for part in runs:
        for layer in repeated_layers(objective.model, [part]):
            layer.wide.register_forward_hook(lambda *_, part=part: seen(part))
    engine = SingleEngine(objective, uneven.CONFIG)
    (batch,) = uneven.Steps(dataclasses.replace(uneven.CONFIG, micro_batches=1)).step(1)
    with recomputed(objective.model, recompute):
        engine.forward(batch)
        engine.backward(1.0)
    return runs, [parameter.grad for parameter in engine.trained.values() if parameter.grad is not None]


@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_the_layers_of_the_named_part_run_again_and_no_others(recompute: Recompute):
    encoder, decoder = len(uneven.Uneven().image_encoder), len(uneven.Uneven().language_model)
    runs, gradients = _runs_and_gradients(recompute)
    assert runs["encoder"] == encoder * (2 if recompute in {"encoder", "both"} else 1)
    assert runs["decoder"] == decoder * (2 if recompute in {"decoder", "both"} else 1)
    for ours, plain in zip(gradients, _runs_and_gradients("none")[1], strict=True):
        assert torch.equal(ours, plain)


def test_afterwards_the_layers_are_as_they_were():
    model = uneven.Uneven()
    model.image_encoder[0].eval()
    with recomputed(model, "encoder"):
        assert all(layer.gradient_checkpointing and layer.training for layer in model.image_encoder)
        assert not any(layer.gradient_checkpointing for layer in model.language_model)
    assert [layer.training for layer in model.image_encoder] == [False, True, True]
    assert not any(layer.gradient_checkpointing for layer in model.image_encoder)


def test_a_model_without_such_layers_is_told_of():
    with (
        pytest.raises(ConfigError, match=r"training\.recompute is decoder, and the model has no layers there"),
        recomputed(nn.Linear(2, 2), "decoder"),
    ):
        pass
