"""VITAL: a foundry for visual-quality models.

``vital.score(path)`` is the machine opinion of six built-in scorers, ``vital.assess(path)`` the judgement of a trained
model of the registry, ``vital.load("NAME#STAGE")`` that model itself. Everything is imported at its first use, so that
``import vital`` costs nothing.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tasks.annotation.opinions import ScoreResult
    from tasks.devices import AskedDevice, PrecisionName
    from tasks.evaluation.assess import Assessment, Judge, Rejected

__version__: Final = "0.1.0"

if importlib.util.find_spec("tasks") is None or importlib.util.find_spec("models") is None:
    msg = (
        "vital runs from a checkout of its repository (pip install -e . in a clone): this installation has the "
        "package `vital` alone, without tasks/, models/, flows/ and infra/"
    )
    raise ImportError(msg)

_PLUG_IN_POINTS: Final = {
    "Scorer": "models.scorers",
    "Sampling": "models.scorers",
    "register_scorer": "models.scorers",
    "Judge": "models.judges",
    "VitalError": "tasks.errors",
    "ModelError": "models.errors",
    "InfraError": "infra.errors",
}
"""What plug-ins build on, by the name under which ``vital`` offers it."""


def score(path: str | Path, scorers: "Sequence[str] | None" = None) -> "ScoreResult":
    """Machine opinion of one photo or clip.

    Args:
        path: an image or video file.
        scorers: names of the scorers to ask, third-party ones (see :func:`register_scorer`) among them; ``rali`` is the
            registry's newest ``vital-rali``, ``rali:FOLDER`` a student's folder. None means the built-in six.

    Returns:
        Their scores (six), their mean mu and population deviation sigma, all in [0, 1], higher is better; PMOD (five
        probabilities, high to low); and the level that mu lies in.

    Raises:
        MediaError: the file is missing, broken, or of a format that is not accepted; it names the file.
        ModelError: a scorer is unknown, or its weights are missing.
        RegistryError: ``rali`` is asked for, and the registry has none.
    """
    from tasks.annotation.opinions import score_path
    from tasks.errors import MediaError
    from vital.named_scorers import named_scorers

    try:
        return score_path(Path(path), named_scorers(scorers))
    except MediaError as error:
        raise MediaError(error.reason, f"{path}: {error}") from error


def assess(
    path: str | Path,
    model: str | None = None,
    question: str | None = None,
    *,
    device: "AskedDevice" = "auto",
    precision: "PrecisionName | None" = None,
) -> "Assessment":
    """Judgement of one photo or clip by a trained model.

    Args:
        path: an image or video file.
        model: ``NAME``, ``NAME@VERSION`` or ``NAME#STAGE`` of the registry; None means the promoted ``vital-base``.
        question: asked about it; ``vital-assistant`` has learnt to answer.
        device, precision: as in :func:`load`, but the GPU is taken if there is one.

    Returns:
        Quality in [0, 1], five level probabilities (high to low), level, distortion, description and answer; a probe
        has no texts.

    Raises:
        MediaError: the file is missing or broken.
        ModelError: a probe was asked.
        RegistryError: there is no such model; the message lists what there is.
        ConfigError: this machine shows no such device.
    """
    from tasks.evaluation.assess import assess_path
    from vital.quiet import quiet_libraries

    judge = load(model, device=device, precision=precision)
    with quiet_libraries():
        return assess_path(Path(path), judge, question)


def assess_many(  # noqa: PLR0913 - one argument per setting
    paths: "Iterable[str | Path]",
    model: str | None = None,
    question: str | None = None,
    *,
    text: bool = True,
    batch: int = 8,
    device: "AskedDevice" = "auto",
    precision: "PrecisionName | None" = None,
) -> "Iterator[Assessment | Rejected]":
    """Judgements of many files, in their order, as they come; a broken file is a ``Rejected`` and stops nothing.

    Args:
        paths, model, question, device, precision: as in :func:`assess`.
        text: False leaves out distortion and description, which is much faster.
        batch: files that the model sees together; at most two batches are in memory.

    Raises:
        ModelError: a probe was asked.
        RegistryError: there is no such model; the message lists what there is.
        ConfigError: this machine shows no such device.
    """
    from tasks.evaluation.assess import Wanted, assess_many

    judge = load(model, device=device, precision=precision)
    return assess_many(map(Path, paths), judge, Wanted(question, text, batch))


def load(
    model: str | None = None, *, device: "AskedDevice" = "cpu", precision: "PrecisionName | None" = None
) -> "Judge":
    """Load a model of the registry; its files are fetched once and kept.

    Args:
        model: ``NAME``, ``NAME@VERSION`` or ``NAME#STAGE``; None means the promoted ``vital-base``.
        device: ``cpu``, ``cuda`` (the first GPU), or ``auto``, the GPU if there is one.
        precision: ``float32`` or ``bfloat16``; None is float32 on the CPU and bfloat16 on a GPU.

    Raises:
        RegistryError: there is no such model, it is an encoder alone, or its bytes cannot be had.
        ConfigError: this machine shows no such device.
    """
    from infra.registry import resolve_judge
    from tasks.devices import computing
    from tasks.evaluation.assess import load_judge
    from vital.quiet import quiet_libraries

    folder, where = resolve_judge(model), computing(device, precision)
    with quiet_libraries():
        return load_judge(folder, where)


def __getattr__(name: str) -> Any:
    """Plug-in points, imported at their first use."""
    if name in _PLUG_IN_POINTS:
        return getattr(importlib.import_module(_PLUG_IN_POINTS[name]), name)
    msg = f"module 'vital' has no attribute {name!r}"
    raise AttributeError(msg)
