"""``python -m infra.readme_tree``: write the tree in README, one line per module, from the modules' own first lines."""

import ast
import sys
from pathlib import Path
from typing import Final

from infra.workspace import CHECKOUT

BEGIN: Final = "<!-- tree: made by python -m infra.readme_tree -->"
END: Final = "<!-- end of tree -->"

_FLOORS: Final = {
    "vital": "the face: the command `vital` and the Python API",
    "flows": "when: Prefect flows and the one bridge to DVC",
    "tasks": "what happens to the data: one module a stage",
    "models": "what can judge quality: networks and the mathematics of opinion",
    "infra": "where bytes and machines are",
}


def tree(root: Path) -> str:
    """The tree as Markdown: a list per floor, one line per module that says something of itself."""
    lines: list[str] = []
    for floor, purpose in _FLOORS.items():
        lines += [f"**`{floor}/`** {purpose}", ""]
        for path in sorted((root / floor).rglob("*.py")):
            told = ast.get_docstring(ast.parse(path.read_text()))
            if told:
                lines.append(f"- `{path.relative_to(root).as_posix()}` {_first_sentence(told)}")
        lines.append("")
    return "\n".join(lines)


def updated(readme: str, root: Path) -> str:
    """README's text with the tree of today between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"README.md lacks the lines {BEGIN!r} and {END!r}"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n\n{tree(root)}\n{END}{after}"


def _first_sentence(docstring: str) -> str:
    """The first paragraph in one line, without reST's double backticks."""
    return " ".join(docstring.partition("\n\n")[0].split()).replace("``", "`")


def main() -> int:
    """Rewrite README.md."""
    path = CHECKOUT / "README.md"
    path.write_text(updated(path.read_text(), CHECKOUT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
