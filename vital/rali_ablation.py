"""The work of ``vital rali ablate``: cases made and measured, told as JSON and as Markdown."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tasks.instructions import ImportedSource

USUAL: Final = "usual"
USUAL_UNSEEN: Final = ("lens_blur", "impulse_noise", "jpeg2000", "darken")
"""One type each of blur, noise, compression and exposure."""


@dataclass(frozen=True)
class Wish:
    """What a person asks for.

    Attributes:
        unseen: types of distortion that are left out of what is learnt. people: tables of rated media, each with the
            folder that its paths are relative to. content: pattern of what their paths show.
    """

    cases: tuple[str, ...]
    seeds: list[int]
    unseen: tuple[str, ...]
    people: tuple[tuple[Path, Path], ...]
    content: str | None


def wished(
    cases: tuple[str, ...],
    seeds: str,
    unseen: tuple[str, ...],
    *,
    people: tuple[Path, ...],
    roots: tuple[Path, ...],
    content: str | None,
) -> Wish:
    """Options that make sense together.

    Raises:
        click.UsageError: they do not.
    """
    from models.distortions import IMAGE_TYPES, VIDEO_TYPES
    from tasks.training.rali_cases import CASES
    from vital.seeds import parse_seeds

    _known("case", cases, tuple(CASES))
    types = tuple(dict.fromkeys(kind for one in unseen for kind in (USUAL_UNSEEN if one == USUAL else (one,))))
    _known("distortion", types, (*IMAGE_TYPES, *VIDEO_TYPES))
    if len(people) != len(roots):
        raise click.UsageError("every --human needs a --root, in the same order: the folder that its paths start from")
    if content and not people:
        raise click.UsageError("--content is for --human")
    _check_pattern(content)
    pairs = tuple((table.resolve(), root.resolve()) for table, root in zip(people, roots, strict=True))
    return Wish(cases or tuple(CASES), parse_seeds(seeds), types, pairs, content)


def _known(what: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    if unknown := [name for name in names if name not in known]:
        msg = f"unknown {what} {unknown[0]!r}; the {what}s are {', '.join(known)}"
        raise click.UsageError(msg)


def _check_pattern(content: str | None) -> None:
    try:
        groups = re.compile(content or "()").groups
    except re.error as error:
        msg = f"--content is no regular expression: {error}"
        raise click.UsageError(msg) from error
    if groups < 1:
        raise click.UsageError("--content needs a group: what it finds names what a path shows")


def ablation(root: Path, wish: Wish) -> tuple[dict[str, Any], str]:
    """Make and measure the cases in a workspace; JSON values and Markdown.

    Raises:
        StageError, ModelError: as the stage ``rali``; or a table of people cannot be used.
    """
    from tasks.evaluation import student_cases
    from tasks.evaluation.agreements import Sampling
    from tasks.instructions import ImportedSource
    from tasks.shards import digest
    from tasks.stage import Place, build_config, read_params, stage_config
    from tasks.training.rali_cases import run_cases
    from tasks.training.rali_exam import Exam, Teacher

    params = read_params(root)
    sampling = build_config(Sampling, "correlate.sampling", params["correlate"]["sampling"])
    work = root / ".work" / "rali_cases" / digest(_inputs(root))
    tables = tuple(ImportedSource(str(table), str(folder)) for table, folder in wish.people)
    teacher = Teacher(params["explain"]["teacher"]) if wish.unseen or tables else None
    exam = Exam(wish.unseen, tables, wish.content, teacher)
    given = wish.cases, wish.seeds
    found = run_cases(stage_config("rali", params), Place(root, work, work / "out"), *given, exam)
    rows = student_cases.case_rows(student_cases.line_of(found), *given, sampling)
    told, table = student_cases.as_json(rows, wish.seeds), student_cases.markdown(rows, wish.seeds)
    if wish.unseen:
        scopes = student_cases.unseen_scopes(found, wish.unseen, *given, sampling)
        told["unseen"] = {"types": list(wish.unseen), "scopes": [student_cases.scope_json(one) for one in scopes]}
        table += f"\nNo case has learnt from {', '.join(wish.unseen)}.\n"
        table += "".join(student_cases.scope_markdown(one, wish.seeds) for one in scopes)
    if tables:
        scopes = student_cases.people_scopes(found, _titles(tables), *given, sampling)
        told["people"] = [student_cases.scope_json(one) for one in scopes]
        table += "".join(student_cases.scope_markdown(one, wish.seeds) for one in scopes)
    return told, table


def _titles(tables: "tuple[ImportedSource, ...]") -> list[str]:
    return [Path(one.table).name for one in tables]


def write_ablation(folder: Path, told: dict[str, Any], table: str) -> None:
    """Write cases.json and cases.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(told, indent=2) + "\n")
    (folder / "cases.md").write_text(table)


def _inputs(root: Path) -> dict[str, str]:
    """What the cases are made of, so that other artifacts have another work folder."""
    from infra.dvc_tree import folder_listing, listing_hash

    names = ("collect", "distort", "score", "pretrain", "explain")
    return {name: listing_hash(folder_listing(root / "artifacts" / name)) for name in names}
