"""README shows the plant as it is."""

from pathlib import Path

import pytest

from infra.readme_tree import BEGIN, END, tree, updated


def test_the_tree_is_that_of_today(checkout: Path):
    readme = (checkout / "README.md").read_text()
    assert updated(readme, checkout) == readme, "run python -m infra.readme_tree"


def test_a_module_is_told_by_its_first_paragraph(tmp_path: Path):
    for floor in ("vital", "flows", "tasks", "models", "infra"):
        (tmp_path / floor).mkdir()
    (tmp_path / "tasks/one.py").write_text('"""Do ``one`` thing,\nand well.\n\nMore."""\n')
    (tmp_path / "tasks/__init__.py").write_text("")
    text = tree(tmp_path)
    assert "- `tasks/one.py` Do `one` thing, and well.\n" in text
    assert "__init__" not in text


def test_text_around_the_tree_stays():
    with pytest.raises(ValueError, match="lacks the lines"):
        updated("no marks", Path("nowhere"))
    kept = updated(f"before {BEGIN} old {END} after", Path(__file__).resolve().parents[2])
    assert kept.startswith("before ")
    assert kept.endswith(" after")
    assert " old " not in kept
