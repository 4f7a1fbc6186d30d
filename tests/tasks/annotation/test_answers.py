import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from infra.object_store import FolderStore
from models.judges import Verdict, Vote
from tasks.annotation.answers import ANSWERS, AnswerBook, Question, main, recover, restore, snapshot_rows
from tasks.errors import StageError
from tasks.shards import write_table

CHECKOUT = Path(__file__).resolve().parents[3]
CONTENT = "ab" * 32
AGREE = Vote(Verdict.AGREE, None, "sharp")


def question(text: str, **changes: object) -> Question:
    fields = {"content": CONTENT, "judge": "j", "model": "m", "prompt_version": "1", "round": 1} | changes
    return Question(assertion=text, **fields)  # type: ignore[arg-type]


class Counting:
    def __init__(self) -> None:
        self.asked: list[Question] = []

    def __call__(self, asked: Question) -> Vote:
        self.asked.append(asked)
        return Vote(Verdict.REVISE, f"{asked.assertion} revised", "x") if "soft" in asked.assertion else AGREE


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_an_answer_is_asked_for_once_and_comes_back_from_the_store(store: FolderStore, tmp_path: Path):
    ask, questions = Counting(), [question("Edges are soft"), question("Noise is strong"), question("Edges are soft")]
    with AnswerBook(store, tmp_path / "j.jsonl", [CONTENT]) as book:
        first = book.votes(questions, ask)
        book.commit()
    assert len(ask.asked) == 2
    assert first[0] == first[2] == Vote(Verdict.REVISE, "Edges are soft revised", "x")
    assert not (tmp_path / "j.jsonl").exists()
    with AnswerBook(store, tmp_path / "k.jsonl", [CONTENT]) as again:
        assert again.votes(questions, ask) == first
    assert len(ask.asked) == 2


@pytest.mark.parametrize("change", [{"judge": "k"}, {"model": "n"}, {"prompt_version": "2"}, {"round": 2}])
def test_every_part_of_the_key_matters(change: dict[str, object], store: FolderStore, tmp_path: Path):
    ask = Counting()
    with AnswerBook(store, tmp_path / "j.jsonl", [CONTENT]) as book:
        book.votes([question("Noise is strong"), question("Noise is strong", **change)], ask)
    assert len(ask.asked) == 2
    assert len({one.key for one in ask.asked}) == 2


def test_intent_is_on_disk_before_the_call_and_the_answer_before_its_use(store: FolderStore, tmp_path: Path):
    path = tmp_path / "j.jsonl"
    seen: list[list[dict[str, object]]] = []

    def ask(_: Question) -> Vote:
        seen.append([json.loads(line) for line in path.read_text().splitlines()])
        return AGREE

    with AnswerBook(store, path, [CONTENT]) as book:
        book.votes([question("One is here"), question("Two is here")], ask)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [sorted(entry) for entry in seen[0]] == [["intent"], ["intent"]]
    assert [next(iter(entry)) for entry in seen[1]] == ["intent", "intent", "answer"]
    assert [next(iter(entry)) for entry in lines] == ["intent", "intent", "answer", "answer"]


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from infra.object_store import FolderStore
    from models.judges import Verdict, Vote
    from tasks.annotation.answers import AnswerBook, Question
    root, answered = Path(sys.argv[1]), 0
    def ask(question):
        global answered
        if answered == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        answered += 1
        return Vote(Verdict.AGREE, None, "sharp")
    with AnswerBook(FolderStore(root / "store"), root / "journal" / "part.jsonl", ["ab" * 32]) as book:
        book.votes([Question("ab" * 32, f"Claim number {n}", "j", "m", "1", 1) for n in range(6)], ask)
    """
)


def test_a_killed_process_loses_no_answer_and_its_calls_in_flight_are_listed(store: FolderStore, tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=CHECKOUT)
    assert done.returncode == -signal.SIGKILL
    journal = tmp_path / "journal" / "part.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"answer": {"content": "torn')
    in_flight = recover(store, tmp_path / "journal")
    assert [one.assertion for one in in_flight] == [f"Claim number {n}" for n in (3, 4, 5)]
    assert not journal.exists()
    ask = Counting()
    with AnswerBook(store, journal, [CONTENT]) as book:
        book.votes([question(f"Claim number {n}") for n in range(6)], ask)
    assert [one.assertion for one in ask.asked] == [f"Claim number {n}" for n in (3, 4, 5)]


def test_a_live_journal_is_left_to_its_owner(store: FolderStore, tmp_path: Path):
    path = tmp_path / "journal" / "j.jsonl"
    with AnswerBook(store, path, [CONTENT]) as book:
        book.votes([question("Noise is strong")], Counting())
        assert recover(store, path.parent) == []
        assert path.exists()
        with pytest.raises(StageError, match="another review"):
            AnswerBook(store, path, [CONTENT])


def test_a_journal_found_at_the_start_is_committed_and_not_overwritten(store: FolderStore, tmp_path: Path):
    path = tmp_path / "journal" / "part.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=CHECKOUT)
    assert done.returncode == -signal.SIGKILL
    ask = Counting()
    with AnswerBook(store, path, [CONTENT]) as book:  # nobody has called recover since the kill
        book.votes([question(f"Claim number {n}") for n in range(6)], ask)
        book.commit()
    assert [one.assertion for one in ask.asked] == [f"Claim number {n}" for n in (3, 4, 5)]
    with AnswerBook(store, path, [CONTENT]) as again:
        again.votes([question(f"Claim number {n}") for n in range(6)], ask)
    assert len(ask.asked) == 3


def test_the_answer_that_was_committed_first_holds(store: FolderStore, tmp_path: Path):
    for number in range(20):
        asked = question(f"Claim number {number}")
        books = [AnswerBook(store, tmp_path / f"{name}.jsonl", [CONTENT]) for name in "ab"]
        for book, reason in zip(books, ("first", "second"), strict=True):
            book.votes([asked], lambda _, reason=reason: Vote(Verdict.AGREE, None, reason))
        for book in books:
            book.commit()
            time.sleep(0.003)
        with AnswerBook(store, tmp_path / "c.jsonl", [CONTENT]) as reader:
            known = reader.known(asked)
            assert known is not None
            assert known.reason == "first"
            reader.commit()


def test_a_commit_that_is_repeated_after_a_kill_writes_nothing_twice(store: FolderStore, tmp_path: Path):
    path = tmp_path / "journal" / "j.jsonl"
    with AnswerBook(store, path, [CONTENT]) as book:
        book.votes([question("Noise is strong")], Counting())
        before = path.read_bytes()
        book.commit()
    shards = store.list("answers/")
    path.write_bytes(before + json.dumps({"commit": int(shards[0].split("-")[2])}).encode() + b"\n")
    recover(store, path.parent)
    assert store.list("answers/") == shards


def test_a_snapshot_restores_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    asked = [question("Edges are soft"), question("Noise is strong")]
    votes = [Vote(Verdict.REVISE, "Edges are slightly soft", "x"), AGREE]
    write_table(tmp_path / "answers.parquet", ANSWERS, snapshot_rows(asked, votes))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "fresh"))
    fresh = FolderStore(tmp_path / "fresh")
    assert restore(fresh, snapshot_rows(asked[:1], votes[:1])) == 1
    caplog.set_level("INFO")
    for added in (1, 0):
        assert main(["answers.parquet"]) == 0
        assert f"{added} of 2 answers were new to the store" in caplog.messages[-1]
    assert main(["nowhere.parquet"]) == 1
    assert "nowhere.parquet is missing" in caplog.messages[-1]
    ask = Counting()
    with AnswerBook(fresh, tmp_path / "j.jsonl", [CONTENT]) as book:
        assert book.votes(asked, ask) == votes
    assert ask.asked == []


def test_only_the_contents_that_were_named_are_loaded(store: FolderStore, tmp_path: Path):
    ask = Counting()
    with AnswerBook(store, tmp_path / "j.jsonl", [CONTENT]) as book:
        book.votes([question("Noise is strong")], ask)
        book.commit()
    with AnswerBook(store, tmp_path / "j.jsonl", ["ac" * 32]) as other:
        other.votes([question("Noise is strong")], ask)
    assert len(ask.asked) == 2


def test_a_foreign_object_in_the_store_is_a_clear_error(store: FolderStore, tmp_path: Path):
    store.put_if_absent("answers/a/foreign.parquet", b"not parquet")
    with pytest.raises(StageError, match="not a shard of answers"):
        AnswerBook(store, tmp_path / "j.jsonl", [CONTENT])
