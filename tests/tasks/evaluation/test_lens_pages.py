"""Pages of the lens: everything the report says, nothing loaded, readable by anybody, names that are text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_reader import Reader
from PIL import Image

from models.sampling import Sampling
from tasks.evaluation.lens import lens_questions, measure
from tasks.evaluation.lens_pages import markdown, page, visible, write_pages
from tasks.evaluation.recorded import Comparing
from tasks.evaluation.subjects.asking import ask_each
from tasks.evaluation.subjects.line import LineSubject
from tests.tasks.evaluation.browser import Browser
from tests.tasks.evaluation.planted_minds import COURSE, Said, changes_its_mind

NASTY = '<img src="x" onerror="alert(1)">|'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    said = []
    for name, at in ((NASTY, 19), ("steady", 8)):
        ask = lens_questions(LineSubject(name, changes_its_mind(20, at)), COURSE, Sampling(), 0)
        found = ask_each(LineSubject(name, changes_its_mind(20, at)), paths, ask, 3)
        records = [{"path": str(path), **record} for path, record in zip(paths, found, strict=True)]  # type: ignore[dict-item]
        records[0]["description"] = NASTY
        said.append(Said(name, records, rejected={"truncated": 1}))
    return measure(said, Sampling(), Comparing(n_bootstrap=20, examples=2))


@pytest.fixture(scope="module")
def shown(report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("pages"), report)[2]


def test_the_page_is_whole_and_what_models_say_is_text(report: dict[str, Any], shown: Path):
    text = shown.read_text()
    found = Reader(text)
    assert (found.open, found.wrong) == ([], [])
    assert [image["src"][:23] for image in found.all("img")] == ["data:image/jpeg;base64,"] * 4  # type: ignore[index]
    assert all(image["alt"] for image in found.all("img"))
    assert "onerror=&#34;" in text
    assert "<script" not in text
    assert page(report) == text
    cells = [cell for cell in found.all("td") if "even" in (cell.get("class") or "").split()]
    assert len(cells) == 6 * 20 * (2 + 4)  # five levels and the rest, by layer, of two means and four examples
    assert all(cell["title"] for cell in cells), "the colour is never alone"
    assert "layer 19, poor: 0.9" in text
    assert text.count("switches from good to poor") == 4


def test_media_that_are_gone_leave_a_page(report: dict[str, Any]):
    gone = {**report["models"][1], "examples": [{**report["models"][1]["examples"][0], "medium": "gone.png"}]}
    text = page({**report, "models": [gone]})
    assert "gone.png" in text
    assert "<img" not in text


def test_markdown_has_every_table(report: dict[str, Any]):
    text = markdown(report)
    assert "onerror" in text
    assert "<img" not in text
    assert "| steady | 3 | truncated 1 | 0.000 [0.000, 0.000] | 1.000 [1.000, 1.000] | 0.400 [0.400, 0.400] |" in text
    assert "minus steady | 3 | paired | 1.000 [1.000, 1.000] | 0.000 [0.000, 0.000] |" in text
    layers = [line for line in text.splitlines() if line.startswith(("| 18 |", "| 19 |"))]
    assert len(layers) == 2 * (2 + 4)  # of two means and four examples
    assert "␣good 1.00" in layers[0]
    assert "␣poor 1.00" in layers[1]
    assert 'the level word follows "The quality of the {medium} is"' in text


def test_blanks_and_control_characters_of_tokens_can_be_seen():
    assert visible(" good\n\x1b") == "␣good\\n\\x1b"


def test_a_browser_shows_it_without_errors_requests_or_sideways_scrolling(browser: Browser, shown: Path):
    browser.phone(400)
    browser.show(shown)
    assert browser.elsewhere(shown) == []
    assert browser.complaints() == []
    assert browser.value("document.documentElement.scrollWidth") <= 400
    assert all(browser.value("[...document.images].map(i => i.complete && i.naturalWidth > 0)"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cells_have_contrast_and_even_steps_of_colour(browser: Browser, shown: Path, scheme: str):
    browser.scheme(scheme)
    browser.show(shown)
    tones = []
    for kind in ("even", "even rest"):
        for share in np.linspace(0, 1, 5):
            browser.value(
                "(() => { const cell = document.querySelector('td.even'); cell.id = 'seen'; "
                f"cell.className = {kind!r}; cell.style.setProperty('--v', {share}); }})()"
            )
            style = "getComputedStyle(document.getElementById('seen'))"
            assert browser.contrast(f"{style}.color", f"{style}.backgroundColor") >= 4.5, (kind, share)
            tones.append(browser.luminance(f"{style}.backgroundColor"))
    lightness = np.cbrt(np.array(tones).reshape(2, 5))  # of CIE, up to a factor
    steps = np.abs(np.diff(lightness, axis=1))
    assert (steps.max(axis=1) / steps.min(axis=1) < 1.6).all(), "perceptually even"
    assert (steps > 0.02).all()
