import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import StageError
from tasks.exchange.json_text import Record, cut, joined, mended, read_records, rendered

LAYOUTS = {
    "compact": '[{"a":1},{"a":2}]',
    "windows": '[\r\n    {\r\n        "a": 1\r\n    },\r\n    {"a": 2}\r\n]',
    "odd indents": '[\n        {\n "a": 1},\n\n  {"a": 2}\n  ]\n',
    "marked": '\ufeff[{"a": 1}, {"a": 2}]',
    "lines": '{"a": 1}\n{"a": 2}\n',
    "lines without an end": '{"a": 1}\n\n{"a": 2}',
    "groups": '[ [ {"a": 1} , {"a": 2} ] ]\n',
}


def whole(records: list[Record]) -> str:
    return joined([(record.before, record.text, record.after) for record in records])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_is_the_sum_of_its_parts_in_every_layout(name: str, tmp_path: Path):
    path = tmp_path / "list.json"
    path.write_bytes(LAYOUTS[name].encode())
    records = read_records(path)
    assert [record.value for record in records] == [{"a": 1}, {"a": 2}]
    assert whole(records).encode() == path.read_bytes()


def test_groups_are_counted():
    records = cut('[[{"a": 1}, {"a": 2}], [{"a": 3}],\n {"a": 4}]', "x")
    assert [record.group for record in records] == [0, 0, 1, 2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4), min_size=1, max_size=4)


@given(OBJECTS, st.sampled_from([None, 0, 1, 4]), st.sampled_from(["ascii", "any"]))
def test_any_json_of_objects_is_cut_and_joined_without_loss(values: list[dict], indent: int | None, letters: str):
    text = json.dumps(values, indent=indent, ensure_ascii=letters == "ascii")
    records = cut(text, "x")
    assert [record.value for record in records] == values
    assert whole(records) == text


@given(OBJECTS, JSON, st.sampled_from([None, 2]))
def test_a_mended_value_is_the_only_one_that_changes(values: list[dict], new: object, indent: int | None):
    for value in values:
        text = json.dumps(value, indent=indent)
        assert mended(text, {(key,): inner for key, inner in value.items()}) == text
        for key in value:
            assert json.loads(mended(text, {(key,): new})) == {**value, key: new}


def test_values_are_mended_where_they_stand_and_numbers_keep_their_spelling():
    text = '{ "mos" : 62.400,"turns":[{"value":""},\n{"value": "good"} ] }'
    assert mended(text, {("mos",): 62.4, ("turns", 1, "value"): "poor"}) == text.replace("good", "poor")
    assert mended(text, {("mos",): 1.5}) == text.replace("62.400", "1.5")
    assert mended('{"a": "é"}', {("a",): "ü"}) == '{"a": "ü"}'
    assert mended('{"a": "e"}', {("a",): "ü"}) == '{"a": "\\u00fc"}'
    with pytest.raises(StageError, match=r"no value turns\.7"):
        mended(text, {("turns", 7): 1})
    with pytest.raises(StageError, match="no value sigma"):
        mended(text, {("sigma",): 1})


def test_objects_that_no_file_told_become_a_list_of_lines():
    values = [{"a": "é"}, {"b": 2}]
    text = joined(rendered(values))
    assert text == '[\n{"a": "é"},\n{"b": 2}\n]\n'
    assert json.loads(text) == values
    assert json.loads(joined(rendered(values[:1]))) == values[:1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[[]]",
        "3",
        '"a"',
        "[1, 2]",
        '[{"a": 1}',
        '[{"a": 1} {"b": 2}]',
        '[{"a": 1}] x',
        '[{"a": 1}]]',
        "{",
        "[{]",
    ],
)
def test_what_is_no_list_of_objects_is_told(text: str):
    with pytest.raises(StageError, match=r"x (is not a JSON list|holds no records)"):
        cut(text, "x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"a": 1}, {"b": {"a": 1, "mos": 2, "mos": 3}}]', r"at record 1: an object has the key 'mos' twice"),
        ('{"a": 1}\n{"a": 2}\n{"a": 2, "a": 2}', r"at record 2: an object has the key 'a' twice"),
        ('[{"a": 1}, ]', r"at record 1: a comma at character 9 that nothing follows"),
        ('[[{"a": 1},\n], [{"a": 2}]]', r"at record 1: a comma at character 10 that nothing"),
        ('[[{"a": 1}], ]', r"at record 1: a comma at character 11 that nothing"),
        ('[{"a": "\\ud83d"}]', r"at record 0: .*surrogates not allowed"),
    ],
)
def test_what_other_readers_would_read_otherwise_is_refused(text: str, told: str):
    with pytest.raises(StageError, match=rf"x is not a JSON list of objects, .*{told}"):
        cut(text, "x")


def test_a_pair_of_surrogates_is_one_letter():
    assert cut('[{"a": "\\ud83d\\ude00"}]', "x")[0].value == {"a": "\U0001f600"}


def test_files_that_cannot_be_read_are_told(tmp_path: Path):
    with pytest.raises(StageError, match="is missing"):
        read_records(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'[{"a": "\xe9"}]')
    with pytest.raises(StageError, match="not UTF-8"):
        read_records(tmp_path / "latin.json")
    (tmp_path / "deep.json").write_text("[" + '{"a":' * 100_000)
    with pytest.raises(StageError, match="not a JSON list"):
        read_records(tmp_path / "deep.json")
