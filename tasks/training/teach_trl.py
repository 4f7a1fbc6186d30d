"""The teacher's other engine: trl's GRPOTrainer on an image-text checkpoint of transformers, with our rewards and data.

What is asked in a step, what an answer earns and what is rejected are those of the engine ``own``; trl draws answers,
computes the objective and keeps checkpoints, through DeepSpeed on several GPUs. It reads images alone.
"""

import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from models.grpo import GrpoRule
from models.rewards import KINDS, Kind, RewardRule, reward_of
from tasks.errors import ConfigError, MediaError, StageError
from tasks.instructions import Instruction, read_any_media
from tasks.media import ADMITTED, decode_image
from tasks.records import MEDIUM_MARK
from tasks.stage import Place
from tasks.training.rollouts import Drawing
from tasks.training.teaching_tasks import Gathered, TeachingTask
from tasks.training.trainer import TrainingConfig

_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_FIGURES: Final = {
    "reward": "reward",
    "rewards/layout/mean": "format",
    **{f"rewards/{kind}/mean": f"answer_{kind}" for kind in KINDS},
    "frac_reward_zero_std": "wasted",
    "completions/mean_length": "tokens",
    "completions/clipped_ratio": "unended",
    "kl": "kl",
    "clip_ratio/region_mean": "clipped",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
"""trl's name of a figure -> ours; rewards are weighted there."""


@dataclass(frozen=True)
class TrlConfig:
    """What the engine ``trl`` needs beside the loop.

    Attributes:
        model: a folder, relative to the workspace or absolute, or a name on the Hugging Face hub.
        attention: implementation by transformers' name.
        min_pixels, max_pixels: of an image, which is scaled to lie between them.
    """

    model: str
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    min_pixels: int
    max_pixels: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError("min_pixels must be positive and at most max_pixels")


@dataclass(frozen=True)
class Lesson:
    """What trl is to do.

    Attributes:
        plan: questions of every round. tasks: all of them, by id.
    """

    plan: Sequence[Sequence[Instruction]]
    tasks: Mapping[str, TeachingTask]
    drawing: Drawing
    rewards: RewardRule
    objective: GrpoRule
    training: TrainingConfig
    trl: TrlConfig


def lacking_trl() -> list[str]:
    """What this environment lacks for the engine, in words; nothing if it lacks nothing."""
    return [] if importlib.util.find_spec("trl") else ["the package trl for teach.engine: trl"]


def readable(gathered: Gathered, place: Place, threads: int, max_reject_share: float) -> list[TeachingTask]:
    """Questions about images that decode; the others are refused.

    Raises:
        StageError: more images do not decode than ``max_reject_share`` allows, or none is left.
    """
    for task in gathered.tasks:
        if task.is_video:
            gathered.refuse(task.task_id, "video", "the engine trl reads images alone")
    stills = [task for task in gathered.tasks if not task.is_video]
    wanted = {medium for task in stills for medium in task.media}
    rows: list[Any] = list(gathered.frame[[name in wanted for name in gathered.frame["id"]]].itertuples(index=False))
    with ThreadPoolExecutor(threads) as pool:
        errors = list(pool.map(partial(_error_of, place), rows))
    broken = {row.id: error for row, error in zip(rows, errors, strict=True) if error is not None}
    for name, error in sorted(broken.items()):
        gathered.refuse(str(name), error.reason, str(error))
    if len(broken) > max_reject_share * len(rows):
        msg = f"{len(broken)} of {len(rows)} images do not decode, more than the declared share {max_reject_share}"
        raise StageError(msg)
    for task in stills:
        if not broken.keys().isdisjoint(task.media):
            gathered.refuse(task.task_id, "medium_rejected", f"{task.source}: a medium of it does not decode")
    kept = [task for task in stills if broken.keys().isdisjoint(task.media)]
    if not kept:
        raise StageError("no question is left to ask: see the rejects of teach in the log")
    return kept


def _error_of(place: Place, row: Any) -> MediaError | None:
    try:
        decode_image(read_any_media(place, row), ADMITTED)
    except MediaError as error:
        return error
    return None


def teach_by_trl(lesson: Lesson, gathered: Gathered, place: Place) -> list[dict[str, Any]]:
    """Train, save the model to ``model/``, and return the rows of the history; a run that was killed goes on.

    Raises:
        ConfigError: trl is not installed.
    """
    if lacking_trl():
        raise ConfigError("teach.engine is trl, and trl is not installed: see requirements.lock, or take engine own")
    from transformers import AutoProcessor  # noqa: PLC0415 - seconds to import, as trl itself
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found]  # noqa: PLC0415

    source = str(place.root / lesson.trl.model) if (place.root / lesson.trl.model).is_dir() else lesson.trl.model
    processor: Any = AutoProcessor.from_pretrained(source, padding_side="left")
    limits = {"shortest_edge": lesson.trl.min_pixels, "longest_edge": lesson.trl.max_pixels}
    if "longest_edge" in dict(processor.image_processor.size):
        processor.image_processor.size = type(processor.image_processor.size)(**limits)
    rewards: list[Any] = list(reward_functions(lesson.tasks, lesson.rewards))
    trainer = GRPOTrainer(
        model=source,
        reward_funcs=rewards,
        args=GRPOConfig(**trl_arguments(lesson, place.work / "trl")),
        train_dataset=_dataset(lesson, gathered, place),
        processing_class=processor,
    )
    kept = any((place.work / "trl").glob("checkpoint-*/trainer_state.json"))
    trainer.train(resume_from_checkpoint=kept or None)
    trainer.save_model(str(place.out / "model"))
    return history_of(trainer.state.log_history)


def trl_arguments(lesson: Lesson, output: Path) -> dict[str, Any]:
    """Arguments of trl's GRPOConfig; an update is computed in ``micro_batches`` parts, over all processes."""
    training, rule, drawing = lesson.training, lesson.objective, lesson.drawing
    precision = training.precision == "bfloat16"
    zero = {} if training.engine == "single" else {"deepspeed": deepspeed_section(training)}
    return zero | {
        "output_dir": str(output),
        "seed": training.seed,
        "data_seed": training.seed,
        "max_steps": training.steps,
        "per_device_train_batch_size": training.batch_examples // training.micro_batches,
        "gradient_accumulation_steps": training.micro_batches // training.processes,
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "warmup_steps": round(training.warm_up_share * training.steps),
        "lr_scheduler_type": "cosine",
        "max_grad_norm": training.clip_norm,
        "bf16": precision,
        "use_cpu": training.device == "cpu",
        "gradient_checkpointing": training.recompute != "none",
        "save_steps": training.checkpoint_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "report_to": "tensorboard",
        "num_generations": drawing.group,
        "max_completion_length": drawing.most_tokens,
        "temperature": drawing.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "num_iterations": drawing.num_iterations,
        "shuffle_dataset": False,  # the plan is the order
        "beta": rule.beta,
        "epsilon": rule.clip,
        "scale_rewards": "group" if rule.scale == "std" else "none",
        "loss_type": "grpo" if rule.average == "sequence" else "dapo",
        "disable_dropout": True,
        "model_init_kwargs": {
            "attn_implementation": lesson.trl.attention,
            "dtype": "bfloat16" if precision else "float32",
        },
    }


def deepspeed_section(training: TrainingConfig) -> dict[str, Any]:
    """The section of ``infra/deepspeed``, with transformers filling in what params say."""
    section: dict[str, Any] = json.loads((_CHECKOUT / "infra" / "deepspeed" / f"{training.engine}.json").read_text())
    if training.engine == "zero3":
        section["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    return section | {
        "bf16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


def reward_functions(tasks: Mapping[str, TeachingTask], rule: RewardRule) -> list[Callable[..., list[float | None]]]:
    """One for what is said to each kind of question, None to others; and one for how answers are laid out; weighted."""

    def said(kind: Kind) -> Callable[..., list[float | None]]:
        def function(completions: Any, task_id: Sequence[str], **_: Any) -> list[float | None]:
            weight = rule.weights(kind).answer
            pairs = zip(_texts(completions), (tasks[name].truth for name in task_id), strict=True)
            return [
                weight * reward_of(text, truth, rule).answer if truth.kind == kind else None for text, truth in pairs
            ]

        function.__name__ = kind  # trl tells rewards by it
        return function

    def layout(completions: Any, task_id: Sequence[str], **_: Any) -> list[float | None]:
        pairs = zip(_texts(completions), (tasks[name].truth for name in task_id), strict=True)
        return [rule.weights(truth.kind).format * reward_of(text, truth, rule).format for text, truth in pairs]

    return [*map(said, KINDS), layout]


def _texts(completions: Sequence[Any]) -> list[str]:
    """What the assistant says, of completions as trl hands them over."""
    return [one if isinstance(one, str) else _plain(one[-1]["content"]) for one in completions]


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def messages_of(one: Instruction) -> list[dict[str, Any]]:
    """A question as transformers' chat templates take it: media before the question, as in ``own``."""
    first, *rest = one.questions[0].split(MEDIUM_MARK)
    parts: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
    for text in rest:
        parts += [{"type": "image"}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def _dataset(lesson: Lesson, gathered: Gathered, place: Place) -> Any:
    """The questions of the plan in its order; an image is read and decoded when its question is drawn."""
    from datasets import Dataset  # noqa: PLC0415 - seconds to import
    from PIL import Image  # noqa: PLC0415

    asked = [one for part in lesson.plan for one in part]
    media: list[Any] = list(gathered.frame.itertuples(index=False))
    rows = {row.id: row for row in media}

    def shown(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        drawn = [asked[number] for number in batch["number"]]
        return {
            "prompt": [messages_of(one) for one in drawn],
            "images": [
                [Image.fromarray(decode_image(read_any_media(place, rows[key]), ADMITTED)) for key in one.media]
                for one in drawn
            ],
            "task_id": [one.instruction_id for one in drawn],
        }

    return Dataset.from_dict({"number": list(range(len(asked)))}).with_transform(shown)


def history_of(logged: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``history.json`` from what trl has logged, one a step; a kind that a step did not ask has no figure."""
    rows = []
    for entry in logged:
        if "reward" in entry:
            found = {ours: entry[theirs] for theirs, ours in _FIGURES.items() if entry.get(theirs) is not None}
            numbers = {name: float(value) for name, value in found.items() if math.isfinite(float(value))}
            rows.append({"step": int(entry["step"]) - 1, **numbers})
    return rows
