"""What one step of a quality LMM costs, from shapes alone: FLOPs, and bytes that forward keeps for backward.

FLOPs are those of matrix products and convolutions, a multiplication with its addition counted as two, as torch's
``FlopCounterMode`` counts them: attention in full, not halved for causality, and its backward with the scores that a
fused kernel computes a second time. Bytes are those that autograd saves, each storage once, without parameters; fused
attention keeps its output and one logarithm per row, no matrix of weights. Tests hold both against what torch counts.

Shape legend: ``C`` width of the image encoder, ``M`` of its MLP, ``D`` of the decoder, ``I`` of its MLP, ``H`` heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from models.model_size import PARTS, ModelSize

_FLOAT32: Final = 4
_INDEX: Final = 8
_ATTENTION_BACKWARD: Final = 2.5
"""Five products against forward's two: scores again, and the gradients of query, key, value and weights."""


class Flow(StrEnum):
    """What a part does for a gradient."""

    IDLE = "idle"
    """It runs forward, and nothing behind or in it needs a gradient."""

    THROUGH = "through"
    """It is frozen, and the gradient passes through it to a part before it: no weight gradients."""

    TRAINED = "trained"
    """Its weights get gradients."""


@dataclass(frozen=True)
class Numerics:
    """Bytes of a number in one part.

    Attributes:
        weights: of weights.
        stream: of the residual stream and what normalisation makes of it.
        compute: of the operands of matrix products; those that are larger are cast for every product (autocast), and
            the copies are kept.
    """

    weights: int
    stream: int
    compute: int

    def copied(self, weights: int) -> float:
        """Bytes of the copies that products keep of their weights."""
        return float(weights * self.compute) if self.weights > self.compute else 0.0

    def inputs(self, products: int) -> int:
        """Copies of one input that so many products with trained weights keep."""
        return products if self.stream > self.compute else 1


FLOAT32: Final = Numerics(weights=4, stream=4, compute=4)
BFLOAT16: Final = Numerics(weights=2, stream=2, compute=2)
AUTOCAST: Final = Numerics(weights=4, stream=4, compute=2)
"""Weights in float32, products in bfloat16."""
HELD: Final = Numerics(weights=2, stream=4, compute=2)
"""As under autocast, but matrices are held in bfloat16: no product copies its weight."""


@dataclass(frozen=True)
class Sample:
    """One conversation about one medium.

    Attributes:
        tiles: tiles of the medium.
        frames: motion frames, each a token; 0 for images.
        text_tokens: tokens of system, user and assistant turns that enter the decoder.
        level_rows: rows turned into logits of which only the level words' are kept.
        text_rows: rows turned into logits whose whole distribution is kept.
        encoded: share of its medium for which the encoders run: 0 with cached features, below 1 if several samples of
            a step share a medium.
    """

    tiles: int
    frames: int
    text_tokens: int
    level_rows: int = 0
    text_rows: int = 0
    encoded: float = 1.0

    def tokens(self, size: ModelSize) -> int:
        """Length of its sequence in the decoder."""
        return self.tiles * size.config.image_seq_length + self.frames + self.text_tokens


@dataclass(frozen=True)
class Step:
    """How a batch is computed.

    Attributes:
        flows: part (of ``models.model_size.PARTS``) -> what it does for a gradient.
        numerics: part -> bytes of a number.
        checkpointed: of ``image_encoder`` and ``decoder`` those that keep only the inputs of layers and run them again.
    """

    flows: Mapping[str, Flow]
    numerics: Mapping[str, Numerics]
    checkpointed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Cost:
    """What a part costs in one step.

    Attributes:
        forward, backward: FLOPs.
        again: FLOPs of running forward again under checkpointing.
        kept: bytes that forward keeps for backward.
        working: bytes that come on top while the part's backward (or, without gradients, its forward) runs.
    """

    forward: float = 0.0
    backward: float = 0.0
    again: float = 0.0
    kept: float = 0.0
    working: float = 0.0

    @property
    def flops(self) -> float:
        """All FLOPs that are executed."""
        return self.model_flops + self.again

    @property
    def model_flops(self) -> float:
        """Those that the model asks for: what an MFU counts."""
        return self.forward + self.backward

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """This and ``times`` another; of working memory, which is freed between them, the larger."""
        return Cost(
            self.forward + times * other.forward,
            self.backward + times * other.backward,
            self.again + times * other.again,
            self.kept + times * other.kept,
            max(self.working, other.working),
        )


def footprint(size: ModelSize, samples: Sequence[Sample], step: Step) -> dict[str, Cost]:
    """Part -> cost of one forward, and of its backward, over samples that form one batch.

    Sequences are padded to the longest of the batch, and what they are padded with is computed too.
    """
    tiles = sum(sample.tiles * sample.encoded for sample in samples)
    frames = sum(sample.frames * sample.encoded for sample in samples)
    longest = max(sample.tokens(size) for sample in samples)
    return {
        "image_encoder": _image_encoder(size, tiles, step),
        "motion_extractor": _motion_extractor(size, frames, step),
        "projectors": _projectors(size, samples, step),
        "decoder": _decoder(size, len(samples), longest, step),
        "head": _head(size, samples, step),
    }


def total_flops(costs: Mapping[str, Cost]) -> float:
    """FLOPs of all parts."""
    return sum(cost.flops for cost in costs.values())


def kept_bytes(costs: Mapping[str, Cost]) -> float:
    """Bytes that are kept when forward has ended."""
    return sum(cost.kept for cost in costs.values())


def peak_bytes(costs: Mapping[str, Cost]) -> float:
    """Most bytes of activations at one time: backward frees what the parts behind the present one have kept."""
    peak = kept = 0.0
    for part in (part for part in PARTS if part in costs):
        kept += costs[part].kept
        peak = max(peak, kept + costs[part].working)
    return peak


def _linear(rows: float, inputs: int, outputs: int) -> float:
    return 2.0 * rows * inputs * outputs


def _backward(flow: Flow, products: float) -> float:
    """FLOPs of backward through products with weights: one product for inputs, one more for weights."""
    return {Flow.IDLE: 0.0, Flow.THROUGH: 1.0, Flow.TRAINED: 2.0}[flow] * products


def _image_encoder(size: ModelSize, tiles: float, step: Step) -> Cost:
    vision: Any = size.config.vision_config
    width, mlp, layers = vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers
    flow, numerics = step.flows["image_encoder"], step.numerics["image_encoder"]
    pixels = 3 * vision.image_size[0] * vision.image_size[1]
    patches = (vision.image_size[0] // vision.patch_size[0]) * (vision.image_size[1] // vision.patch_size[1])
    tokens = patches + 1
    embedding = tiles * _linear(patches, pixels // patches, width)
    products = tiles * layers * (4 * _linear(tokens, width, width) + 2 * _linear(tokens, width, mlp))
    attention = tiles * layers * 4.0 * tokens**2 * width
    cost = Cost(forward=embedding + products + attention)
    if flow is Flow.IDLE:
        return replace(cost, working=tiles * tokens * (width * numerics.stream + 2 * mlp * numerics.compute))
    per_token = (
        2 * (width + 2) * numerics.stream  # inputs of both norms, their means and deviations
        + (numerics.inputs(3) + 1) * width * numerics.compute  # of query, key, value; of the MLP
        + 4 * width * numerics.compute  # query, key, value, output of attention
        + vision.num_attention_heads * _FLOAT32
        + 2 * width * numerics.compute  # inputs of both layer scales
        + 2 * mlp * numerics.compute  # before and after GELU
    )
    backward = embedding + _backward(flow, products) + _ATTENTION_BACKWARD * attention
    cost = replace(cost, backward=backward, working=tiles * tokens * 2 * mlp * numerics.compute)
    outside = tiles * pixels * numerics.compute + numerics.copied(pixels // patches * width)
    layer = _Layer(
        kept=tiles * tokens * per_token + numerics.copied(4 * width * width + 2 * width * mlp),
        inputs=tiles * tokens * width * numerics.stream,
        again=(products + attention) / layers,
    )
    return _layered(cost, outside, layer, layers, checkpointed="image_encoder" in step.checkpointed)


@dataclass(frozen=True)
class _Layer:
    """One of many equal layers: bytes it keeps, bytes of its input, and FLOPs of running it again in backward."""

    kept: float
    inputs: float
    again: float


def _layered(cost: Cost, outside: float, layer: _Layer, layers: int, *, checkpointed: bool) -> Cost:
    """Add what layers keep: all of it, or their inputs and, while one runs again, one layer's."""
    if not checkpointed:
        return replace(cost, kept=outside + layers * layer.kept)
    return replace(
        cost, kept=outside + layers * layer.inputs, working=cost.working + layer.kept, again=layers * layer.again
    )


def _motion_extractor(size: ModelSize, frames: float, step: Step) -> Cost:
    frame, numerics = size.frame, step.numerics["motion_extractor"]
    flow = step.flows["motion_extractor"]
    if frames == 0:
        return Cost()
    forward = frames * frame.forward
    if flow is Flow.IDLE:
        return Cost(forward=forward, working=frames * frame.kept * numerics.compute / 4)
    backward = _backward(flow, forward) - frames * frame.first  # pixels need no gradient
    kept = frames * (frame.kept * numerics.compute + frame.picked * _INDEX)
    kept += numerics.copied(size.parameters["motion_extractor"])
    return Cost(forward=forward, backward=backward, kept=kept)


def _projectors(size: ModelSize, samples: Sequence[Sample], step: Step) -> Cost:
    width = size.config.get_text_config().hidden_size
    vision: Any = size.config.vision_config
    shuffled = vision.hidden_size * round(1 / size.config.downsample_ratio) ** 2
    tiles = sum(sample.tiles * size.config.image_seq_length for sample in samples)
    frames = sum(sample.frames for sample in samples)
    return _projector(tiles, shuffled, width, step).plus(_projector(frames, size.channels, width, step))


def _projector(tokens: int, inputs: int, width: int, step: Step) -> Cost:
    """LayerNorm, linear, GELU, linear."""
    flow, numerics = step.flows["projectors"], step.numerics["projectors"]
    products = _linear(tokens, inputs, width) + _linear(tokens, width, width)
    if flow is Flow.IDLE or tokens == 0:
        return Cost(forward=products)
    per_token = (inputs + 2) * numerics.stream + width * numerics.compute
    if flow is Flow.TRAINED:
        per_token += (inputs + width) * numerics.compute
    kept = tokens * per_token + numerics.copied((inputs + width) * width)
    return Cost(forward=products, backward=_backward(flow, products), kept=kept)


def _decoder(size: ModelSize, samples: int, longest: int, step: Step) -> Cost:
    text: Any = size.config.get_text_config()
    width, mlp, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    head_width = width // text.num_attention_heads
    keys = text.num_key_value_heads * head_width
    flow, numerics, tokens = step.flows["decoder"], step.numerics["decoder"], samples * longest
    products = layers * (
        2 * _linear(tokens, width, width) + 2 * _linear(tokens, width, keys) + 3 * _linear(tokens, width, mlp)
    )
    attention = layers * 4.0 * tokens * longest * width
    cost = Cost(forward=products + attention)
    if flow is Flow.IDLE:
        return replace(cost, working=tokens * (2 * width * numerics.stream + 2 * mlp * numerics.compute))
    norm = width * _FLOAT32 + _FLOAT32  # transformers' RMSNorm computes in float32 and keeps that
    if flow is Flow.TRAINED:
        norm += width * numerics.stream
    per_token = (
        2 * norm
        + (2 * width + 2 * keys) * numerics.compute  # query and output, key and value
        + text.num_attention_heads * _FLOAT32
        + 3 * mlp * numerics.compute  # gate before and after SiLU, and what it gates
    )
    if flow is Flow.TRAINED:
        inputs = numerics.inputs(3) + numerics.inputs(2)  # of query, key, value; of gate and up
        per_token += (inputs * width + mlp) * numerics.compute
    rotary = 2 * longest * head_width * numerics.stream
    outside = tokens * (norm + width * numerics.stream) + rotary  # the output is kept to pick the answers' rows from
    layer = _Layer(
        kept=tokens * per_token + numerics.copied(2 * width * width + 2 * width * keys + 3 * width * mlp),
        inputs=tokens * width * numerics.stream,
        again=(products + attention) / layers - _linear(tokens, mlp, width),  # the last product keeps nothing new
    )
    backward = _backward(flow, products) + _ATTENTION_BACKWARD * attention
    cost = replace(cost, backward=backward, working=tokens * (3 * mlp * numerics.compute + 2 * width * _FLOAT32))
    return _layered(cost, outside, layer, layers, checkpointed="decoder" in step.checkpointed)


def _head(size: ModelSize, samples: Sequence[Sample], step: Step) -> Cost:
    """Logits of the rows that a loss supervises; what is kept is an upper bound where a blocked loss head is used."""
    text: Any = size.config.get_text_config()
    flow, numerics = step.flows["head"], step.numerics["head"]
    level_rows = sum(sample.level_rows for sample in samples)
    text_rows = sum(sample.text_rows for sample in samples)
    rows = level_rows + text_rows
    products = _linear(rows, text.hidden_size, text.vocab_size)
    working = rows * text.vocab_size * (_FLOAT32 + numerics.compute)
    if flow is Flow.IDLE:
        return Cost(forward=products, working=working)
    kept = float(text_rows * text.vocab_size * _FLOAT32)
    if flow is Flow.TRAINED:
        kept += rows * text.hidden_size * numerics.compute
    reads = (level_rows > 0) + (text_rows > 0)  # autocast keeps one copy of trained weights, and of frozen one a read
    reads = min(reads, 1) if flow is Flow.TRAINED else reads
    kept += numerics.copied(reads * text.hidden_size * text.vocab_size)
    return Cost(forward=products, backward=_backward(flow, products), kept=kept, working=working)
