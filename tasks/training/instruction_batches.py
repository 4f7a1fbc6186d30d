"""Instructions become batches: which conversations a step holds is a function of the seed and the step's number alone.

Every conversation is used once before any is used again. Conversations that show the same medium may share a step, so
that the encoder, which runs once per medium and step, is paid for once; so may opinions on that medium, which are
learnt again as in pre-training lest the model forgets to score.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models import losses
from models.conversations import AnswerRows, Conversation, Turn, answer_rows
from models.quality_lmm import Medium, QualityLMM, VisualFeatures
from models.vision_encoder import VisualInput
from tasks.errors import MediaError, StageError
from tasks.instructions import Instruction
from tasks.training.batches import (
    ALONE,
    Batch,
    Draw,
    ForesightedSource,
    MediumSource,
    RankShare,
    any_pixels,
    cut,
    make_batch,
)
from tasks.training.config import TrainingConfig
from tasks.training.examples import Example
from tasks.training.objective import QualityObjective

log = logging.getLogger(__name__)

DIALOGUE = "dialogue"
"""Under this name the loss of conversations of several turns is told; those of one turn go under their kind."""


@dataclass(frozen=True)
class InstructionBatch:
    """Conversations with their media.

    Attributes:
        media: ids of the distinct media. inputs: the same, as pixels or as features of a frozen encoder.
        conversations: their turns, with the numbers of ``inputs`` that they show.
        kinds: under which name the loss of each is told.
        rehearsed: opinions on the same media, learnt again as in pre-training.
        conversation_ids: ids of the conversations.
    """

    media: list[str]
    inputs: list[Medium]
    conversations: list[Conversation]
    kinds: list[str]
    rehearsed: list[Example]
    conversation_ids: list[str]

    @property
    def example_ids(self) -> list[str]:
        """Everything that has a loss of its own."""
        return [*self.conversation_ids, *(example.example_id for example in self.rehearsed)]

    @property
    def encodes(self) -> bool:
        """Whether the encoder runs for it: where a medium comes as pixels."""
        return any_pixels(self.inputs)

    def opinions(self) -> Batch | None:
        """What is rehearsed, as a batch about the same media; None if there is nothing."""
        if not self.rehearsed:
            return None
        draws = [Draw(example, (0,)) for example in self.rehearsed]
        alike = dict.fromkeys((example.example_id for example in self.rehearsed), 1.0)
        return make_batch(draws, dict(zip(self.media, self.inputs, strict=True)), alike)


def plan_instructions(
    instructions: Sequence[Instruction], config: TrainingConfig, per_medium: int
) -> list[list[Instruction]]:
    """Decide which conversations every step holds.

    In an epoch media come in an order of their own, each with at most ``per_medium`` of its conversations at a time;
    what is left of a medium comes again behind the others. A conversation of several media belongs to the first.

    Raises:
        StageError: there is no instruction.
    """
    needed = config.steps * config.batch_examples
    dealt = deal(instructions, needed, config.seed, per_medium)
    return [dealt[start : start + config.batch_examples] for start in range(0, needed, config.batch_examples)]


def deal(instructions: Sequence[Instruction], needed: int, seed: int, per_medium: int) -> list[Instruction]:
    """The first ``needed`` conversations, or some more, in the order of :func:`plan_instructions`.

    Raises:
        StageError: there is no instruction.
    """
    if not instructions:
        raise StageError("there are no instructions to train on: see assistant.questions and assistant.sources")
    groups: dict[str, list[Instruction]] = {}
    for one in instructions:
        groups.setdefault(one.media[0] if one.media else one.instruction_id, []).append(one)
    dealt: list[Instruction] = []
    epochs = itertools.count()
    while len(dealt) < needed:
        dealt += _epoch(list(groups.values()), np.random.default_rng([seed, next(epochs)]), per_medium)
    return dealt


def _epoch(groups: Sequence[list[Instruction]], rng: np.random.Generator, per_medium: int) -> list[Instruction]:
    """Every conversation once."""
    rounds: list[list[list[Instruction]]] = []
    for index in rng.permutation(len(groups)):
        mine = [groups[index][i] for i in rng.permutation(len(groups[index]))]
        for number, start in enumerate(range(0, len(mine), per_medium)):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(mine[start : start + per_medium])
    return [one for turn in rounds for part in turn for one in part]


class InstructionMixture:
    """Batches of instructions.

    Args:
        rehearsed: opinions by medium that are learnt again in every step that shows it; empty for none.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        media: MediumSource,
        config: TrainingConfig,
        per_medium: int,
        rehearsed: Mapping[str, Example],
        share: RankShare = ALONE,
    ) -> None:
        self._media, self._parts, self._share, self._rehearsed = media, config.micro_batches, share, rehearsed
        self._plan = self._planned(instructions, config, per_medium)
        self._visits = _visits(self._plan)

    def _planned(
        self, instructions: Sequence[Instruction], config: TrainingConfig, per_medium: int
    ) -> list[list[Instruction]]:
        """The conversations of every step."""
        return plan_instructions(instructions, config, per_medium)

    def step(self, number: int) -> list[InstructionBatch]:
        """This process's micro-batches of a step; conversations of like length share one, so that little is padded.

        An opinion is rehearsed where its medium is first shown in the step, however the step is cut. A conversation
        that shows a medium which does not decode is left out, in whichever process; nothing takes its place.

        Raises:
            StageError: no conversation of the step is left, in any process.
        """
        parts, own = self._cut(number), self._own(number)
        self._foresee(number)
        media = {n: self._read(parts[n], number) for n in own}
        broken = [one.instruction_id for n in own for one in parts[n] if not media[n].keys() >= set(one.media)]
        lost = set(self._share.gather(broken))
        kept = [[one for one in part if one.instruction_id not in lost] for part in parts]
        if not any(kept):
            msg = f"step {number}: none of its conversations can be shown: {', '.join(sorted(lost))}"
            raise StageError(msg)
        firsts = self._firsts(kept)
        return [make_instruction_batch(kept[n], media[n], firsts[n]) for n in own if kept[n]]

    def _cut(self, number: int) -> list[Sequence[Instruction]]:
        """All micro-batches of a step."""
        return cut(sorted(self._plan[number], key=_characters), self._parts, self._share.ranks)

    def _own(self, number: int) -> range:
        """Which of them are this process's."""
        return range(self._share.rank, len(self._cut(number)), self._share.ranks)

    def _foresee(self, number: int) -> None:
        source = self._media
        if isinstance(source, ForesightedSource):
            steps = range(number, min(number + source.ahead + 1, len(self._plan)))
            parts = [(step, self._cut(step)[n]) for step in steps for n in self._own(step)]
            source.foresee([(medium, self._visits[step][medium]) for step, part in parts for medium in _shown(part)])

    def _read(self, part: Sequence[Instruction], number: int) -> dict[str, Medium]:
        """The media of a micro-batch that decode."""
        media: dict[str, Medium] = {}
        for medium in _shown(part):
            try:
                media[medium] = self._media.read(medium, self._visits[number][medium])
            except MediaError as error:
                log.info("medium %s is left out: %s", medium, error)
        return media

    def _firsts(self, parts: Sequence[Sequence[Instruction]]) -> list[dict[str, Example]]:
        """Per part, the opinions on media that no part before it shows."""
        left, found = dict(self._rehearsed), []
        for part in parts:
            shown = dict.fromkeys(medium for one in part for medium in one.media if medium in left)
            found.append({medium: left.pop(medium) for medium in shown})
        return found


def _visits(plan: Sequence[Sequence[Instruction]]) -> list[dict[str, int]]:
    """Per step, how often each of its media was shown in earlier steps: the views of a medium take turns."""
    shown: dict[str, int] = {}
    found = []
    for drawn in plan:
        here = {medium: shown.get(medium, 0) for one in drawn for medium in one.media}
        found.append(here)
        shown.update({medium: count + 1 for medium, count in here.items()})
    return found


def _characters(one: Instruction) -> tuple[int, str]:
    return sum(map(len, (*one.questions, *one.answers))), one.instruction_id


def _shown(instructions: Sequence[Instruction]) -> list[str]:
    """The distinct media of some conversations, in the order in which they are shown."""
    return list(dict.fromkeys(medium for one in instructions for medium in one.media))


def make_instruction_batch(
    instructions: Sequence[Instruction], media: Mapping[str, Medium], rehearsed: Mapping[str, Example]
) -> InstructionBatch:
    """Build a batch; a medium that several conversations show is there, and later encoded, once."""
    numbers = {medium: number for number, medium in enumerate(_shown(instructions))}
    return InstructionBatch(
        media=list(numbers),
        inputs=[media[medium] for medium in numbers],
        conversations=[one.conversation(numbers) for one in instructions],
        kinds=[str(one.kind) if len(one.questions) == 1 else DIALOGUE for one in instructions],
        rehearsed=[rehearsed[medium] for medium in numbers if medium in rehearsed],
        conversation_ids=[one.instruction_id for one in instructions],
    )


@dataclass(frozen=True)
class FocalConfig:
    """The dynamic focal loss (VITAL section 3): alpha (1 - p)^beta (-log p); beta 0 is cross entropy."""

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.alpha <= 0.0 or self.beta < 0.0:
            raise ValueError("alpha must be positive and beta not negative")


class InstructionObjective:
    """Focal loss of what the assistant says, ``(1 / L) sum_l`` over all its tokens ``L`` in a conversation.

    Args:
        opinions: losses of the opinions that are rehearsed; its loss head is the conversations' too.
    """

    def __init__(self, model: QualityLMM, config: FocalConfig, opinions: QualityObjective) -> None:
        self.model = model
        self._config, self._opinions = config, opinions

    def losses(self, batch: InstructionBatch) -> dict[str, Tensor]:
        """Losses ``[conversations of the kind]`` per kind, and of the rehearsed opinions; media are encoded once.

        Conversations and opinions pass the decoder together: processes that share a step then run the same layers,
        whichever of them has opinions to rehearse.
        """
        shown, opinions = self._encoded(batch.inputs), batch.opinions()
        told = [] if opinions is None else self._told(batch, opinions)
        visual = self.model.visual_tokens(shown) if shown else []
        rows = answer_rows(self.model, visual, [*batch.conversations, *told])
        found = self._conversation_losses(batch, rows.first(len(batch.conversations)))
        if opinions is not None:
            hidden_BLD = rows.padded(len(batch.conversations))
            found |= {str(task): loss for task, loss in self._opinions.losses_of(opinions, hidden_BLD).items()}
        return found

    def _told(self, batch: InstructionBatch, opinions: Batch) -> list[Conversation]:
        """Opinions as conversations of one turn, each about its medium."""
        number = {medium: n for n, medium in enumerate(batch.media)}
        shown = [number[medium] for example in batch.rehearsed for medium in example.ids]
        asked = zip(shown, self._opinions.questions(opinions), opinions.answers, strict=True)
        return [(Turn((medium, f"\n{question}"), answer),) for medium, question, answer in asked]

    def _conversation_losses(self, batch: InstructionBatch, rows: AnswerRows) -> dict[str, Tensor]:
        log_probs_N = self._opinions.head.tokens(rows.hidden_ND, rows.ids_N)
        loss_N = losses.focal_of(log_probs_N, alpha=self._config.alpha, beta=self._config.beta)
        loss_C = losses.answer_means(loss_N, rows.conversation_N, rows.lengths_C)
        return {
            kind: loss_C[torch.tensor([other == kind for other in batch.kinds])] for kind in sorted(set(batch.kinds))
        }

    def _encoded(self, inputs: Sequence[Medium]) -> list[Medium]:
        pixels = [medium for medium in inputs if isinstance(medium, VisualInput)]
        encoded = iter(self.model.visual_features(pixels) if pixels else [])
        return [medium if isinstance(medium, VisualFeatures) else next(encoded) for medium in inputs]
