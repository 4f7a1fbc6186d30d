"""Share of padding in the decoder's sequences, as dealt and grouped by length, on the examples of this checkout.

    python benchmarks/sequence_padding.py [--steps N] [--root FOLDER]

Needs ``artifacts/assemble`` and ``artifacts/base``. Draws the steps of pre-training with the project's own params, in
both orders, cuts each into micro-batches, and counts

    padding   positions of the padded batches that hold no token, of all positions
    media     runs of the image encoder per step: a medium that two micro-batches show is encoded in both

Lengths are those of whole sequences: system and user turn, visual tokens, answer.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml
from arguments import folder_with, positive

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_END, IMAGE_START, TURN_END, TURN_START
from models.vision_encoder import VisualInput
from tasks.records import Split
from tasks.stage import Place, stage_config
from tasks.training.batches import BatchConfig, Draw, Material, Mixture, shown_by
from tasks.training.lengths import SequenceLengths
from tasks.training.pretrain import Config
from tasks.training.session import SplitData, load_split

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PARTS: Final = (1, 2, 4, 8, 20)


class NoMedia:
    """A source of media that nobody reads here."""

    broken: frozenset[str] = frozenset()

    def read(self, medium_id: str, visit: int) -> VisualInput:
        """Nothing is decoded in this benchmark."""
        raise NotImplementedError(medium_id, visit)


def frame_tokens(model: QualityLMM) -> int:
    """Tokens around medium and answer."""
    before = f"{TURN_START}system\n{model.system}{TURN_END}\n{TURN_START}user\n{IMAGE_START}"
    after = f"{IMAGE_END}\n{TURN_END}\n{TURN_START}assistant\n"
    return sum(len(model.tokenizer.encode(text, add_special_tokens=False)) for text in (before, after))


def sequences(part: Sequence[Draw], lengths: SequenceLengths, model: QualityLMM) -> list[int]:
    """Tokens of every sequence of a micro-batch."""
    answers = [answer for draw in part for answer in draw.example.answers]
    media = [medium for draw in part for medium in draw.example.ids]
    tokens = model.answer_ids(answers)[1].sum(dim=1).tolist()
    frame = frame_tokens(model)
    return [frame + lengths.visual(medium) + count for medium, count in zip(media, tokens, strict=True)]


def measure(mixture: Mixture, lengths: SequenceLengths, model: QualityLMM, steps: int) -> tuple[float, float]:
    """Share of padding, and media encoded per step."""
    tokens = positions = media = 0
    for step in range(steps):
        for part in mixture.parts(step):
            found = sequences(part, lengths, model)
            tokens, positions = tokens + sum(found), positions + len(found) * max(found)
            media += len(shown_by(part))
    return 1 - tokens / positions, media / steps


def table(config: Config, data: SplitData, model: QualityLMM, steps: int) -> None:
    """Print a row for each order and number of micro-batches."""
    lengths = SequenceLengths(model, data.examples.medium)
    print(f"{'order':12}{'parts':>6}{'padding: dealt':>16}{'by length':>11}{'media: dealt':>14}{'by length':>11}")
    for order in ("companions", "shuffled"):
        for parts in PARTS:
            training = type(config.training)(**{**vars(config.training), "micro_batches": parts})
            found = []
            for grouping in ("dealt", "length"):
                batches = BatchConfig(order, grouping, "examples")
                mixture = Mixture(Material(data.examples, NoMedia(), config.shares, batches, lengths), training)
                found.append(measure(mixture, lengths, model, steps))
            (dealt, shown), (grouped, shown_grouped) = found
            print(f"{order:12}{parts:6}{dealt:15.1%}{grouped:11.1%}{shown:14.1f}{shown_grouped:11.1f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=positive, default=60)
    lies = folder_with("artifacts/base", "artifacts/assemble")
    parser.add_argument("--root", type=lies, default=str(CHECKOUT), help="checkout or workspace with artifacts")
    given = parser.parse_args()
    config = stage_config("pretrain", yaml.safe_load((CHECKOUT / "params.yaml").read_text()))
    place = Place(given.root, given.root, given.root)
    model = QualityLMM.from_pretrained(place.artifacts("base") / config.decoder)
    data = load_split(place, Split.TRAIN, config.shares)
    print(f"{len(data.examples):,} examples, {given.steps} steps of {config.training.batch_examples}\n")
    table(config, data, model, given.steps)


if __name__ == "__main__":
    main()
