"""The opinion store is a pure memo: it gives back what was added, per scorer version, and survives damage."""

from pathlib import Path

import pytest

from infra.dvc_store import use_store
from infra.object_store import open_store
from tasks.memo import OpinionMemo, open_memo


@pytest.fixture
def memo(tmp_path: Path) -> OpinionMemo:
    return OpinionMemo(open_store(str(tmp_path / "store")))


def test_what_was_added_comes_back_exactly(memo: OpinionMemo) -> None:
    memo.add("ranking", "1+abc", {"b": 0.123456, "a": 1 / 3})
    memo.add("ranking", "1+abc", {"c": 1.0})
    assert memo.lookup("ranking", "1+abc") == {"a": 1 / 3, "b": 0.123456, "c": 1.0}


def test_another_version_or_scorer_knows_nothing(memo: OpinionMemo) -> None:
    memo.add("ranking", "1+abc", {"a": 0.5})
    assert memo.lookup("ranking", "1+abd") == {}
    assert memo.lookup("rank", "1+abc") == {}


def test_versions_are_counted_by_scorer(memo: OpinionMemo) -> None:
    assert memo.versions("ranking") == 0
    for version, content in (("1", "a"), ("1", "b"), ("2", "a")):
        memo.add("ranking", version, {content: 0.5})
    memo.add("rank", "3", {"a": 0.5})
    assert (memo.versions("ranking"), memo.versions("rank")) == (2, 1)


def test_equal_work_is_one_object_and_nothing_is_no_object(memo: OpinionMemo, tmp_path: Path) -> None:
    for scores in ({"a": 0.5, "b": 0.25}, {"b": 0.25, "a": 0.5}, {}):
        memo.add("ranking", "odd/version ../ü", scores)
    assert len(list((tmp_path / "store").rglob("*.parquet"))) == 1
    assert memo.lookup("ranking", "odd/version ../ü") == {"a": 0.5, "b": 0.25}


def test_a_damaged_shard_counts_as_absent(memo: OpinionMemo, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memo.add("ranking", "1", {"a": 0.5})
    memo.add("ranking", "1", {"b": 0.5})
    shard = min((tmp_path / "store").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:40])
    assert len(memo.lookup("ranking", "1")) == 1
    assert "not readable" in caplog.text


def test_it_lies_where_the_store_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITAL_STORE", raising=False)
    open_memo(tmp_path).add("ranking", "1", {"a": 0.5})
    assert list((tmp_path / ".vital" / "store").rglob("*.parquet"))
    for clone in ("one", "other"):
        (tmp_path / clone / ".dvc").mkdir(parents=True)
        use_store(tmp_path / clone, str(tmp_path / "shared"))
        assert open_memo(tmp_path / clone).lookup("ranking", "1") == ({} if clone == "one" else {"a": 0.5})
        open_memo(tmp_path / clone).add("ranking", "1", {"a": 0.5})
    assert list((tmp_path / "shared" / "objects" / "opinions").rglob("*.parquet"))
    monkeypatch.setenv("VITAL_STORE", str(tmp_path / "named"))
    assert open_memo(tmp_path / "one").lookup("ranking", "1") == {}


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.1, 1.7])
def test_what_is_no_score_is_refused_and_counts_as_absent(
    wrong: float, memo: OpinionMemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"ranking 1 gave .*\{'b': "):
        memo.add("ranking", "1", {"a": 0.5, "b": wrong})
    assert memo.lookup("ranking", "1") == {}
    with monkeypatch.context() as patch:  # an older version of VITAL did not refuse
        patch.setattr("tasks.memo._is_score", lambda _: True)
        memo.add("ranking", "1", {"a": 0.5, "b": wrong})
    assert memo.lookup("ranking", "1") == {"a": 0.5}
