"""What the user turn asks for each task: nothing (prompt decoupling), or a question of the task and the modality.

The empty question is the paper's (VITAL section 3): the encoder then learns the same whatever is asked of a medium. The
other style is the ablation of it. A model remembers in its folder with which style it was trained, and is read out
with the same one everywhere.
"""

from typing import Final, Literal

from models.errors import ModelError

QuestionStyle = Literal["empty", "asked"]

STYLES: Final[tuple[QuestionStyle, ...]] = ("empty", "asked")

_RATING: Final = "How would you rate the quality of this {medium}?"

_QUESTIONS: Final = {
    "single": _RATING,
    "pair": _RATING,
    "distortion": "Which distortion does this {medium} show, and how severe is it?",
    "description": "What would you say about the quality of this {medium}, in one sentence?",
    "perception": "Describe this {medium}: sharpness, noise, light, contrast, colors, compression and motion.",
    "inference": "How would you rate the quality of the {medium} that is described here?",
    "assessment": "Describe this {medium}, then rate its quality.",
}
"""Task -> question, in our words. The members of a pair answer with the sentence of ``single``, each about itself.
``perception`` and ``inference`` are the stages of two-stage tuning, ``assessment`` is both in one answer."""


def question_of(task: str, style: QuestionStyle, *, is_video: bool) -> str:
    """User text of a task about one medium; empty under the style ``empty``.

    Raises:
        ModelError: the task has no question.
    """
    if task not in _QUESTIONS:
        msg = f"no question is known for the task {task!r}; there are {', '.join(_QUESTIONS)}"
        raise ModelError(msg)
    return _QUESTIONS[task].format(medium="video" if is_video else "image") if style == "asked" else ""
