"""Model cards: what a registered model is, how it was measured, and what it is not for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infra.model_record import Check, ModelFile

_PURPOSE: Final = {
    "pretrained": "A quality LMM whose image encoder and motion extractor were pre-trained on machine opinion; its\n"
    "decoder and projectors are those of the base model, bit for bit.",
    "encoder": "The pre-trained image encoder and motion extractor alone, to be plugged into other decoders. Its\n"
    "measures are those of vital-base, which it is a part of.",
    "zero": "The pre-trained encoder plugged into a decoder that it was not trained with; nothing was trained after.",
    "warm_up": "The pre-trained encoder plugged into a decoder that it was not trained with; the decoder was then\n"
    "warmed up on a small sample while the encoder stayed frozen.",
    "assistant": "The pre-trained model after supervised fine-tuning of all its parameters on questions and answers\n"
    "about quality, with the focal loss. accuracy is its share of right answers to held-out questions with options,\n"
    "by the first character of the greedy answer; accuracy_gain compares with the pre-trained model,\n"
    "accuracy_over_blind with the most frequent training answer of each wording.",
    "probe": "Two linear layers on pooled features of the pre-trained encoder, which is as it was, bit for bit: the\n"
    "linear probe of the paper, trained on machine opinion. It tells score and levels and has no words. It lies here\n"
    "with its encoder; gain_over_control compares with the same layers on the encoder before pre-training.",
    "student": "A small image tower aligned to reasoning text, and basis vectors with scores (RALI): it scores\n"
    "without a language model, and onnxruntime alone runs it. It has no words and no levels, and looks at single\n"
    "frames of a video. gain_over_pretrained compares with its teacher.",
}
_REFERENCES: Final = {
    "mos": "mean opinion scores of people",
    "machine_opinion": "the machine opinion's mean, that is, six scorers and no human",
}
_CARD: Final = """\
# {name}

{purpose}

- Made from: {parents}
- Files: {count}, {size:.1f} MB
- Load: `{load}`

## Measures

On {samples} held-out samples of {contents} contents that training never saw, against
{reference}.
Scores are in [0, 1], higher is better; intervals are bootstrapped over contents.

| measure | value | interval |
|---|---|---|
{rows}

## Gate

{checks}

## Limits

The model has learnt what its scorers believe, on the pool it was trained on. Measure it on your own
media before you rely on it; it is no judge of content, truth or taste, and not meant to rank people's work.
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside its numbers.

    Attributes:
        name: the model. kind: of candidate. parents: models it was made from.
        reference: what it was compared with. samples, contents: how much was held out for that.
    """

    name: str
    kind: str
    parents: Sequence[str]
    reference: str
    samples: int
    contents: int


def model_card(
    facts: CardFacts, files: Sequence[ModelFile], measures: Mapping[str, float | None], gate: Sequence[Check]
) -> str:
    """Write a card in Markdown; equal facts give equal text."""
    shown = [name for name in measures if not name.endswith(("_low", "_high"))]
    rows = [f"| {name} | {_number(measures[name])} | {_interval(name, measures)} |" for name in shown]
    checks = [f"- {'holds' if check.holds else 'DOES NOT HOLD'}: {check}" for check in gate]
    get, load = f"vital registry get {facts.name} --out FOLDER", f'vital.load("{facts.name}#prod")'
    return _CARD.format(
        name=facts.name,
        purpose=_PURPOSE[facts.kind],
        parents=", ".join(facts.parents),
        count=len(files),
        size=sum(file.size for file in files) / 1e6,
        load={"encoder": get, "student": "vital score --scorer rali PHOTO"}.get(facts.kind, load),
        samples=facts.samples,
        contents=facts.contents,
        reference=_REFERENCES.get(facts.reference, facts.reference),
        rows="\n".join(rows),
        checks="\n".join(checks),
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _interval(name: str, measures: Mapping[str, float | None]) -> str:
    low, high = measures.get(f"{name}_low"), measures.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
