"""``vital study``, as its users call it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Vital = Callable[..., Any]


def test_the_studies_are_listed_with_their_purpose_and_state(vital: Vital):
    done = vital("study", "list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ablations", "pretrain_size", "two_stage", "warm_up_size", "zoo"]
    assert all("trials done" in line for line in lines)
    named = vital("study", "list", "zoo")
    assert [line.split()[0] for line in named.stdout.splitlines()[1:5]] == [
        "micro-seed0", "micro_zoo-seed0", "nano-seed0", "mini-seed0",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [("run", "--dry-run"), ("table",), ("list",)])
def test_an_unknown_study_is_one_line_with_those_that_there_are(vital: Vital, command: tuple[str, ...]):
    done = vital("study", command[0], "huge", *command[1:])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "vital: unknown study 'huge'; the studies are ablations, pretrain_size, two_stage, warm_up_size, zoo"
    )


def test_without_a_finished_line_a_run_says_what_to_do_first(vital: Vital, checkout: Path):
    if all(any((checkout / "artifacts" / name).glob("*")) for name in ("collect", "score", "assemble", "validate")):
        pytest.skip("a line has run in this checkout")
    done = vital("study", "run", "ablations", "--dry-run")
    assert done.returncode == 1
    assert "run `vital run` first" in done.stderr


def test_a_table_is_printed_as_markdown_and_the_page_is_left_alone(vital: Vital, checkout: Path):
    before = (checkout / "docs" / "studies.md").read_bytes()
    done = vital("study", "table", "ablations")
    assert done.returncode == 0, done.stderr
    assert "vital study run ablations" in done.stdout or "| variant |" in done.stdout
    assert (checkout / "docs" / "studies.md").read_bytes() == before


@pytest.mark.parametrize("arguments", [("--seeds", "a"), ("--limit", "0"), ("--only", "none")])
def test_arguments_that_mean_nothing_are_refused(vital: Vital, arguments: tuple[str, str]):
    done = vital("study", "run", "ablations", "--dry-run", *arguments)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith(("vital: ", "Usage"))
    assert "Traceback" not in done.stderr
