"""JSON as text that is cut and mended, never written anew: what nobody changed is the same bytes afterwards.

Other people's files differ in indents, line ends, escapes and the spelling of numbers. A record keeps the text that it
was read from and the text around it; a changed value replaces its own span and nothing else.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.errors import StageError

Key = tuple[str | int, ...]
"""Way to a value inside a record, for example ``("conversations", 1, "value")``."""

_BLANKS: Final = " \t\r\n"
_MARK: Final = "\ufeff"
_HALF_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Record:
    """One object of a file.

    Attributes:
        value: as parsed. text: the text of it. before: the text between the record before (or the start of the file)
            and this one. after: the rest of the file behind the last record, else empty.
        group: number of the list that holds it, in a file of lists; 0 in a plain list.
    """

    value: dict[str, Any]
    text: str
    before: str
    after: str = ""
    group: int = 0


def read_records(path: Path) -> list[Record]:
    """Cut a file into records: a JSON list of objects, a list of lists of objects, or an object per line.

    Raises:
        StageError: the file is missing, not UTF-8, not such JSON, or holds no object.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        msg = f"{path} is missing: name a file that exists"
        raise StageError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        raise StageError(msg) from error
    return cut(text, str(path))


def cut(text: str, name: str) -> list[Record]:
    """Cut a text; see :func:`read_records`.

    Raises:
        StageError: it is not such JSON (a comma that nothing follows is none), an object has a key twice, or a text is
            no Unicode.
    """
    found: list[tuple[int, int, int, dict[str, Any]]] = []
    try:
        found.extend(_spans(text))
    except (ValueError, RecursionError) as error:  # the parser's errors are values
        msg = f"{name} is not a JSON list of objects, nor an object per line: at record {len(found)}: {error}"
        raise StageError(msg) from error
    if not found:
        msg = f"{name} holds no records"
        raise StageError(msg)
    ends = [0, *(end for _, _, end, _ in found)]
    records = []
    for index, (group, start, end, value) in enumerate(found):
        after = text[end:] if index == len(found) - 1 else ""
        records.append(Record(value, text[start:end], text[ends[index] : start], after, group))
    return records


def joined(records: Sequence[tuple[str, str, str]]) -> str:
    """The file of records (before, text, after) in order."""
    return "".join(f"{before}{text}{after}" for before, text, after in records)


def rendered(values: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Records (before, text, after) for objects that no file told: a list with an object per line."""
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    last = len(texts) - 1
    return [("[\n" if n == 0 else ",\n", text, "\n]\n" if n == last else "") for n, text in enumerate(texts)]


def mended(text: str, changes: Mapping[Key, Any]) -> str:
    """Replace values inside the text of one object; the rest of the text stays.

    A number whose value does not change keeps its spelling.

    Raises:
        StageError: there is no such value.
    """
    spans = []
    for key, value in changes.items():
        start, end = _find(text, key)
        if json.loads(text[start:end]) != value:
            spans.append((start, end, json.dumps(value, ensure_ascii=text.isascii())))
    for start, end, new in sorted(spans, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _spans(text: str) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
    """Group, start, end and value of every object."""
    position = _skip(text, 1 if text.startswith(_MARK) else 0)
    if text[position : position + 1] != "[":
        yield from _lines(text, position)
        return
    group, depth = 0, 0
    position = _skip(text, position + 1)
    while not (depth == 0 and text[position : position + 1] == "]"):
        if depth == 0 and text[position : position + 1] == "[":
            depth, position = 1, _skip(text, position + 1)
        value, end = _object(text, position)
        yield group, position, end, value
        position = _next(text, _skip(text, end))
        if depth == 1 and text[position : position + 1] == "]":
            depth, group = 0, group + 1
            position = _next(text, _skip(text, position + 1))
    if rest := text[position + 1 :].strip():
        msg = f"there is more after the list: {rest[:30]!r}"
        raise ValueError(msg)


def _lines(text: str, position: int) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
    while position < len(text):
        value, end = _object(text, position)
        yield 0, position, end, value
        position = _skip(text, end)


def _object(text: str, position: int) -> tuple[dict[str, Any], int]:
    if text[position : position + 1] != "{":
        msg = f"no object at character {position}: {text[position : position + 30]!r}"
        raise ValueError(msg)
    value, end = _STRICT.raw_decode(text, position)
    if _HALF_PAIR.search(text, position, end):
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair has no UTF-8: a ValueError
    return value, end


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a file: which of two values under one key counts is not for us to choose."""
    value = dict(pairs)
    if len(value) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        msg = f"an object has the key {key!r} twice: keep one"
        raise ValueError(msg)
    return value


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_without_repeats)


def _next(text: str, position: int) -> int:
    """Behind a comma, or at the closing bracket."""
    sign = text[position : position + 1]
    if sign == ",":
        after = _skip(text, position + 1)
        if text[after : after + 1] == "]":
            msg = f"a comma at character {position} that nothing follows"
            raise ValueError(msg)
        return after
    if sign != "]":
        msg = f"neither a comma nor the end of the list at character {position}"
        raise ValueError(msg)
    return position


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANKS:
        position += 1
    return position


def _find(text: str, key: Key) -> tuple[int, int]:
    """Span of one value inside an object's text."""
    start, end = 0, len(text)
    for part in key:
        members: Callable[[str, int], Iterator[tuple[str | int, int, int]]]
        members = _members if isinstance(part, str) else _elements
        span = next(((first, last) for name, first, last in members(text, start) if name == part), None)
        if span is None:
            msg = f"a record has no value {'.'.join(map(str, key))}: {text[:80]}"
            raise StageError(msg)
        start, end = span
    return start, end


def _members(text: str, start: int) -> Iterator[tuple[str | int, int, int]]:
    """Name and span of the values of the object that begins at ``start``."""
    position = _skip(text, start + 1)
    while text[position] != "}":
        name, position = json.JSONDecoder().raw_decode(text, position)
        first = _skip(text, _skip(text, position) + 1)
        _, last = json.JSONDecoder().raw_decode(text, first)
        yield name, first, last
        position = _skip(text, last)
        position = _skip(text, position + 1) if text[position] == "," else position


def _elements(text: str, start: int) -> Iterator[tuple[str | int, int, int]]:
    position, index = _skip(text, start + 1), 0
    while text[position] != "]":
        _, last = json.JSONDecoder().raw_decode(text, position)
        yield index, position, last
        index, position = index + 1, _skip(text, last)
        position = _skip(text, position + 1) if text[position] == "," else position
