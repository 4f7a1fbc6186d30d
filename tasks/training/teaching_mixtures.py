"""What teaching computes, for a plan: questions with answers that are drawn, held against a reference, and learnt.

An answer is drawn behind its question with a cache of what came before, so drawing costs one forward pass over
question and answer; attention is counted in full, as everywhere in a plan, though a cache looks back alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from models.footprint import Sample
from models.vision_encoder import VisualSpec
from tasks.training.planning import MediumKind, Mixture, Workload, medium_shape
from tasks.training.ract import Config as RactConfig
from tasks.training.teaching_course import Teaching

_MEDIA_OF: Final = {"score": 1, "degradation": 1, "pair": 2}
"""Kind of question -> media that it shows; all but the first are asked of images alone."""
_ENCODERS: Final = frozenset({"image_encoder", "motion_extractor"})


@dataclass(frozen=True)
class Passage:
    """A part of teaching that computes the same for every answer.

    Attributes:
        name: behind the stage's. learns: whether there is a backward pass. drawn: whether answers are drawn in it.
        answers: how many, in all. batch: of a step.
        compared: whether a copy of what learns, as it was at the start, is held beside the model.
    """

    name: str
    learns: bool
    drawn: bool
    mixture: Mixture
    answers: int
    batch: int
    compared: bool = False


def teaching_passages(teaching: Teaching, workload: Workload, spec: VisualSpec) -> Iterator[Passage]:
    """Examples, drawing, references and learning of one teacher, in the order of a run, where there are any.

    Where a part of the encoder learns, a medium is encoded once for a group in drawing, and once in learning and for
    each reference; else its features are at hand.
    """
    cold, drawing, steps = teaching.cold_start, teaching.drawing, teaching.training.steps
    learns = float(bool(_ENCODERS & set(teaching.trained)))
    batch = teaching.training.batch_examples
    grouped = answers_mixture(teaching.shares, workload, spec, learns / drawing.group)
    drawn = -(-steps // drawing.num_iterations) * batch
    if cold.steps:
        alone = answers_mixture(teaching.shares, workload, spec, learns)
        yield Passage("examples", True, False, alone, cold.steps * cold.batch_examples, cold.batch_examples)
    yield Passage("drawing", False, True, grouped, drawn, batch)
    references = int(teaching.objective.beta > 0) + int(drawing.num_iterations > 1)
    if references:
        yield Passage("references", False, False, grouped, references * drawn, batch)
    yield Passage("", True, False, grouped, steps * batch, batch, compared=teaching.objective.beta > 0)


def label_passage(ract: RactConfig, workload: Workload, spec: VisualSpec) -> Passage | None:
    """What the teachers of ``ract`` write about their sets; None where only the pool knows how much that is."""
    if ract.labels.max_media is None:
        return None
    texts = ract.labels.per_medium * ract.labels.max_media * len(ract.data_sets)
    mixture = answers_mixture({"score": 1.0}, workload, spec, 1.0 / ract.labels.per_medium)
    return Passage("labels", False, True, mixture, texts, ract.labels.batch)


def answers_mixture(shares: Mapping[str, float], workload: Workload, spec: VisualSpec, encoded: float) -> Mixture:
    """Questions with one answer each.

    Args:
        shares: kind of question -> share of the questions; they need not sum to 1.
        encoded: share of the answers for which the encoders run.
    """
    kinds = {kind: share for kind, share in shares.items() if share > 0}
    parts, longest = [], []
    for kind, share in kinds.items():
        shown = [one for one in workload.media.values() if kind == "score" or one.seconds == 0]
        whole = sum(kinds.values()) * sum(one.share for one in shown)
        parts += [(kind, share * one.share / whole, _example(kind, one, workload, spec, encoded)) for one in shown]
        largest = [one for one in workload.longest.values() if kind == "score" or one.seconds == 0]
        longest += [_example(kind, one, workload, spec, float(encoded > 0)) for one in largest]
    return Mixture(tuple(parts), tuple(longest))


def _example(kind: str, medium: MediumKind, workload: Workload, spec: VisualSpec, encoded: float) -> tuple[Sample, ...]:
    """A question's media stand in one sequence."""
    tiles, frames = medium_shape(medium, spec)
    media, told = _MEDIA_OF[kind], workload.teaching
    text = workload.prompt_tokens + told.question + told.answer
    return (Sample(media * tiles, media * frames, text, text_rows=told.answer, encoded=encoded),)
