"""Results as they come: what a spreadsheet reads, and a file that goes on where a kill has left it."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import MediaError
from vital.media_files import Named
from vital.result_files import FileState, ResultFile, Rows, Shape, cell, left_of, open_output, run_name, uncell

SHAPE = Shape(("score", "level"), lambda record: record)
RECORD = {"score": 0.25, "level": "poor"}
BROKEN = MediaError("truncated", 'the data is broken, "cut"\nafter a line')


def states(folder: Path, *names: str) -> list[FileState]:
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [FileState.of(folder / name) for name in names]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


@given(st.text())
def test_no_cell_is_a_formula_and_every_cell_can_be_undone(text: str):
    safe = str(cell(text))
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert uncell(safe) == text


def test_numbers_stay_numbers_whatever_their_sign():
    assert [cell(-0.5), cell(None), cell(3)] == [-0.5, None, 3]


@pytest.mark.parametrize(
    "name", ["=1+1.png", "-x.png", "a,b.png", 'say "hi".png', "two\nlines.png", "re\rturn.png", "'quoted.png"]
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_hostile_names_come_back_and_are_known_again(name: str, ending: str, tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)  # so that names stand at the beginning of their cells
    Path(name).write_bytes(b"x")
    state, out = FileState.of(Path(name)), tmp_path / f"out.{ending}"
    with ResultFile(out, SHAPE, "run") as file:
        file.result(state, RECORD)
    with ResultFile(out, SHAPE, "run") as file:
        assert file.known(state) is True
    if ending == "csv":
        (row,) = rows_of(out)
        assert uncell(row["path"]) == name
        assert not row["path"].startswith(("=", "-"))
        assert (row["score"], row["level"], row["error"]) == ("0.25", "poor", "")


def test_a_name_that_is_no_text_survives(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(b"x")
    state = FileState.of(tmp_path / name)
    for out in (tmp_path / "out.csv", tmp_path / "out.jsonl"):
        with ResultFile(out, SHAPE, "run") as file:
            file.result(state, RECORD)
        with ResultFile(out, SHAPE, "run") as file:
            assert file.known(state) is True


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_whatever_a_kill_leaves_the_file_ends_as_if_undisturbed(ending: str, tmp_path: Path):
    found = states(tmp_path, "a.png", "b,\r.png", "c\n.png")

    def write(out: Path) -> None:
        with ResultFile(out, SHAPE, "run") as file:
            for number, state in enumerate(found):
                if file.known(state) is None:
                    file.problem(state, BROKEN) if number == 1 else file.result(state, RECORD)

    whole = tmp_path / f"whole.{ending}"
    write(whole)
    content = whole.read_bytes()
    for end in range(len(content)):
        out = tmp_path / f"cut.{ending}"
        out.write_bytes(content[:end])
        write(out)
        assert out.read_bytes() == content, end


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_files_that_have_changed_and_results_of_another_run_are_done_again(ending: str, tmp_path: Path):
    (first, second), out = states(tmp_path, "a.png", "b.png"), tmp_path / f"out.{ending}"
    with ResultFile(out, SHAPE, "one") as file:
        file.result(first, RECORD)
        file.problem(second, BROKEN)
    with ResultFile(out, SHAPE, "one") as file:
        assert [file.known(state) for state in (first, second)] == [True, False]
        os.utime(first.path, ns=(1, 1))
        assert file.known(FileState.of(Path(first.path))) is None
        left, rejected = left_of([Named(Path(first.path)), Named(Path(second.path))], file)
        assert ([str(named.path) for named, _ in left], rejected) == ([first.path], True)
    with ResultFile(out, SHAPE, "other") as file:
        assert file.known(first) is None
    assert run_name("assess", "m", None) != run_name("assess", "m", "Is it blurry?")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("notes.txt", None, r"name a file that ends in \.csv or \.jsonl"),
        ("other.csv", "a,b\n1,2\n", "holds no results of this command"),
        ("other.jsonl", '{"a": 1}\n', "holds no results of this command"),
        ("other.jsonl", "no json\n", "holds no results of this command"),
        ("nowhere/out.csv", None, "No such file or directory"),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(name: str, content: str | None, told: str, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(click.ClickException, match=told):
        ResultFile(path, SHAPE, "run")
    assert content is None or path.read_text() == content


def test_rejects_are_rows_with_a_reason(tmp_path: Path):
    (state,), stream = states(tmp_path, "a.png"), io.BytesIO()
    rows = Rows(stream, SHAPE, "run")
    rows.problem(state, BROKEN)
    (row,) = csv.DictReader(io.StringIO(stream.getvalue().decode(), newline=""))
    assert list(row) == ["path", "score", "level", "reason", "error", "size", "mtime_ns", "run"]
    assert (row["reason"], row["error"], row["score"], row["size"]) == ("truncated", str(BROKEN), "", "5")


def test_one_output_at_a_time(tmp_path: Path):
    with (
        pytest.raises(click.UsageError, match="exclude each other"),
        open_output(tmp_path / "x.csv", SHAPE, "run", as_json=True, as_csv=False, retry_rejects=False),
    ):
        pass
    assert not (tmp_path / "x.csv").exists()


def test_rejects_are_tried_again_only_where_there_is_a_file_of_them():
    with (
        pytest.raises(click.UsageError, match="--retry-rejects goes with --out"),
        open_output(None, SHAPE, "run", as_json=True, as_csv=False, retry_rejects=True),
    ):
        pass


CLOSED = MediaError("unreadable", "=cannot be read: Permission denied")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_could_not_be_read_is_tried_again_and_what_is_broken_is_not(ending: str, tmp_path: Path):
    (closed, broken), out = states(tmp_path, "closed.png", "broken.png"), tmp_path / f"out.{ending}"
    absent = FileState.of(tmp_path / "absent.png")
    with ResultFile(out, SHAPE, "run") as file:
        file.problem(closed, CLOSED)
        file.problem(broken, BROKEN)
        file.problem(absent, MediaError("missing", "no such file"))
    before = out.read_bytes()
    with ResultFile(out, SHAPE, "run") as file:
        assert [file.known(state) for state in (closed, broken, absent)] == [None, False, None]
        file.problem(closed, CLOSED)  # it still is: no second row
        assert (file.told, file.kept) == ({True: 0, False: 0}, 2)
    assert out.read_bytes() == before
    with ResultFile(out, SHAPE, "run") as file:
        assert file.known(closed) is None
        file.result(closed, RECORD)  # its size and time are what they were
    with ResultFile(out, SHAPE, "run") as file:
        assert file.known(closed) is True


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_all_rejects_are_tried_again_when_that_is_asked_for(ending: str, tmp_path: Path):
    (good, broken), out = states(tmp_path, "good.png", "broken.png"), tmp_path / f"out.{ending}"
    with ResultFile(out, SHAPE, "run") as file:
        file.result(good, RECORD)
        file.problem(broken, BROKEN)
    with ResultFile(out, SHAPE, "run", retry=True) as file:
        left, rejected = left_of([Named(Path(good.path)), Named(Path(broken.path))], file)
        assert ([str(named.path) for named, _ in left], rejected) == ([broken.path], False)
        file.problem(broken, MediaError("too_large", "another reason"))
        assert file.told == {True: 0, False: 1}
    with ResultFile(out, SHAPE, "run") as file:
        assert file.known(broken) is False
        assert file.known(good) is True


def test_the_end_of_a_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (state,), out = states(tmp_path, "a.png"), tmp_path / "out.jsonl"
    with open_output(out, SHAPE, "run", as_json=False, as_csv=False, retry_rejects=False) as output:
        output.result(state, RECORD)
    assert "1 results and 0 rejects written to" in capsys.readouterr().err
    assert json.loads(out.read_text()) == {
        "path": state.path, **RECORD, "size": state.size, "mtime_ns": state.mtime_ns, "run": "run",
    }  # fmt: skip
