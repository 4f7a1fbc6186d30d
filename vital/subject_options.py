"""What the commands that ask models themselves share: which models, how they are asked, and about which media."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from vital.recorded_options import refuse_given

if TYPE_CHECKING:
    from models.sampling import Sampling
    from tasks.devices import AskedDevice, PrecisionName
    from tasks.evaluation.subjects.course import Course, Way
    from tasks.evaluation.subjects.endpoint import Where
    from tasks.evaluation.subjects.opening import Opened

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class SubjectOptions:
    """Which models are asked, and how; None leaves a thing as it is for each model.

    Attributes:
        models: entries of the registry, folders or addresses of endpoints.
        way, describe, judge, judge_text, opening, levels, max_tokens: of the course of questions.
        temperature, top_p: of drawn answers; temperature 0 is greedy.
        batch: media that are asked about together; changes no result.
        frames: of a clip, for checkpoints and endpoints.
        endpoint_models: name of the model at each endpoint, in their order. key_variable: holds the key of all.
        concurrency: requests at a time.
    """

    models: tuple[str, ...] = ()
    way: "Way | None" = None
    describe: str | None = None
    judge: str | None = None
    judge_text: str | None = None
    opening: str | None = None
    levels: str | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    batch: int = 8
    device: "AskedDevice" = "auto"
    precision: "PrecisionName | None" = None
    frames: int = 8
    endpoint_models: tuple[str, ...] = ()
    key_variable: str | None = None
    concurrency: int = 8

    @property
    def words(self) -> tuple[str, ...] | None:
        """Level words, best first, if any were named."""
        return tuple(word.strip() for word in self.levels.split(",")) if self.levels else None

    @property
    def sampling(self) -> "Sampling":
        """How answers are drawn.

        Raises:
            ModelError: a number is out of its range.
        """
        from models.sampling import Sampling

        return Sampling(self.temperature, self.top_p)

    def open(self, number: int) -> "Opened":
        """Open one of the models, with the course that these options make of its own.

        Raises:
            VitalError, ModelError, InfraError: there is no such model, or it cannot be read.
        """
        from tasks.devices import computing
        from tasks.evaluation.subjects.opening import open_endpoint, open_subject

        where = self._where(number)
        if where is None:
            opened = open_subject(self.models[number], computing(self.device, self.precision), self.frames)
        else:
            opened = open_endpoint(where)
        return replace(opened, course=self.course(opened.course))

    def _where(self, number: int) -> "Where | None":
        """The endpoint that a model is asked at, if it is one's.

        Raises:
            StageError: it has no name there.
        """
        from tasks.errors import StageError
        from tasks.evaluation.subjects.endpoint import Where
        from tasks.evaluation.subjects.opening import is_address

        if not is_address(self.models[number]):
            return None
        before = sum(map(is_address, self.models[:number]))
        if before >= len(self.endpoint_models):
            msg = f"{self.models[number]} is an endpoint: name the model there with --endpoint-model, once for each"
            raise StageError(msg)
        name = self.endpoint_models[before]
        return Where(self.models[number], name, self.key_variable, self.concurrency, self.frames)

    def course(self, usual: "Course") -> "Course":
        """The usual course with what these options change.

        Raises:
            ModelError: the changes do not fit.
        """
        changes: dict[str, Any] = {
            "way": self.way,
            "describe": self.describe,
            "judge": self.judge,
            "judge_text": self.judge_text,
            "opening": self.opening,
            "words": self.words,
            "description_tokens": self.max_tokens,
        }
        course = replace(usual, **{name: value for name, value in changes.items() if value is not None})
        if not course.opening:  # a free verdict is as long as any answer
            course = replace(course, verdict_tokens=course.description_tokens)
        return course


_OPTIONS = (
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME|FOLDER|URL",
        help="Ask this model: an entry of the registry, a folder of this project or of transformers, or an endpoint "
        "such as https://HOST/v1; repeat to compare with the first.",
    ),
    click.option(
        "--way",
        type=click.Choice(["judge", "one_answer", "two_stage"]),
        help="Ask for the verdict alone, for description and verdict in one answer, or for a verdict from its own "
        "description alone. Default: as the model is usually asked.",
    ),
    click.option("--describe", metavar="TEXT", help="Question for a description; {medium} is image or video."),
    click.option("--judge", metavar="TEXT", help="Question for a verdict about what is shown."),
    click.option("--judge-text", metavar="TEXT", help="Question for a verdict from {description} alone."),
    click.option("--opening", metavar="TEXT", help="Forced before the level word; '' leaves answers free."),
    click.option("--levels", metavar="WORD,...", help="Level words, best first. Default: high,good,fair,poor,low."),
    click.option(
        "--max-tokens", type=click.IntRange(min=1), help="Most tokens of a description, and of an answer left free."
    ),
    click.option(
        "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Of answers; 0 is greedy."
    ),
    click.option(
        "--top-p",
        type=click.FloatRange(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="Draw among the fewest likeliest tokens that have this probability together.",
    ),
    click.option(
        "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Media that are asked about together."
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where a local model computes.",
    ),
    click.option(
        "--precision", type=click.Choice(["float32", "bfloat16"]), help="Of a local model; as `vital assess` has it."
    ),
    click.option(
        "--frames",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Of a clip, for models of transformers and endpoints.",
    ),
    click.option(
        "--endpoint-model",
        "endpoint_models",
        multiple=True,
        metavar="NAME",
        help="What an endpoint calls the model; once for each endpoint, in their order.",
    ),
    click.option("--key-variable", metavar="NAME", help="Environment variable that holds the key of the endpoints."),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Requests to an endpoint at a time.",
    ),
)


def subject_options(command: F) -> F:
    """Give a command the options that name models and say how they are asked, as one argument ``asked``."""

    @wraps(command)
    def collected(*args: Any, **options: Any) -> Any:
        mine = {field.name: options.pop(field.name) for field in fields(SubjectOptions)}
        return command(*args, asked=SubjectOptions(**mine), **options)

    wrapped = collected
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return cast("F", wrapped)


def need_models(asked: SubjectOptions, paths: Sequence[str]) -> None:
    """Check that there is something to ask, and something to ask about.

    Raises:
        click.UsageError: there is not.
    """
    if not asked.models:
        raise click.UsageError("name a model to ask: --model NAME, FOLDER or URL")
    if not paths:
        raise click.UsageError("name photos, clips or folders to ask about")


def refuse_subject_options(but: Sequence[str] = (), *more: str) -> None:
    """Refuse options about models in a command that asks none.

    Args:
        but: fields of ``SubjectOptions`` that mean something without a model. more: further parameters of the command.

    Raises:
        click.UsageError: one was given.
    """
    names = [field.name for field in fields(SubjectOptions) if field.name not in but]
    refuse_given([*names, *more], "is for a model that is asked: name one with --model")
