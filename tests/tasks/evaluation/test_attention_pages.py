"""Pages of attention: everything the report says, nothing loaded, pictures bright where they are looked at."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_reader import Reader
from PIL import Image
from tiny_lmm import SPEC, make_model

from models.quality_lmm import QualityLMM
from models.sampling import Sampling
from models.vision_encoder import prepare_image
from tasks.evaluation.attention import attention_questions, measure
from tasks.evaluation.attention_pages import markdown, overlays, page, write_pages
from tasks.evaluation.pictures import Picture
from tasks.evaluation.recorded import Comparing
from tasks.evaluation.subjects.asking import ask_each
from tasks.evaluation.subjects.course import Course
from tasks.evaluation.subjects.line import LineSubject
from tests.tasks.evaluation.browser import Browser
from tests.tasks.evaluation.planted_minds import Said, looks_at_marks

NASTY = '<img src="x" onerror="alert(1)">|'
COURSE = Course("one_answer", "", "", "{description}", description_tokens=6)


def said(name: str, model: QualityLMM, paths: list[Path]) -> Said:
    subject = LineSubject(name, model)
    found = ask_each(subject, paths, attention_questions(subject, COURSE, Sampling(), 0), 2)
    records = [{"path": str(path), **record} for path, record in zip(paths, found, strict=True)]  # type: ignore[dict-item]
    records[0]["description"] = NASTY
    return Said(name, records, COURSE)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{number}.png" for number in range(2)]
    black = np.zeros((120, 160, 3), np.uint8)
    for number, path in enumerate(paths):
        pixels = black.copy()
        pixels[60:90, 80 : 120 + 30 * number] = 255
        Image.fromarray(pixels).save(path)
    told = [said(NASTY, looks_at_marks(prepare_image(black, SPEC)), paths), said("other", make_model(), paths)]
    return measure(told, Sampling(), Comparing(n_bootstrap=20, examples=2))


@pytest.fixture(scope="module")
def shown(report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("pages"), report)[2]


def test_the_page_is_whole_and_what_models_say_is_text(report: dict[str, Any], shown: Path):
    text = shown.read_text()
    found = Reader(text)
    assert (found.open, found.wrong) == ([], [])
    assert "onerror=&#34;" in text
    assert "<script" not in text
    assert page(report) == text
    assert "No question holds tokens of: prompt." in text
    cells = [cell for cell in found.all("td") if "even" in (cell.get("class") or "").split()]
    assert all(cell["title"] for cell in cells), "the colour is never alone"
    layers, heads = 2, 4
    assert len(cells) == 2 * (layers * (3 + 2) + 3 * layers * heads)
    ids = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="|url\()#([\w-]+)', text))
    assert references <= set(ids) | {"figures"}
    assert len(found.all("use")) == 2 * 2 * 2 * 2  # a dim and a masked picture, of two views, media and models each


def test_a_view_is_as_bright_as_the_attention_on_its_tokens():
    boxes = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]
    example = {"views": [
        {"name": "whole <picture>", "boxes": boxes, "weights": [0.1, 0.3]},
        {"name": "fragments 1", "boxes": boxes, "weights": [0.0, 0.4]},
    ]}  # fmt: skip
    first, second = overlays(example, Picture("data:image/jpeg;base64,AA", 40, 20), "1-1")
    assert (first["share"], second["share"]) == pytest.approx((0.5, 0.5))
    assert (first["most"], second["most"]) == pytest.approx((1.5, 2.0))
    assert re.findall(
        r'y="([\d.]+)" width="40.0" height="10.0" fill="#fff" fill-opacity="([\d.]+)"', first["drawing"]
    ) == [
        ("0.0", "0.250"),
        ("10.0", "0.750"),
    ]
    assert re.findall(r"<title>([\d.]+) times", first["drawing"]) == ["0.50", "1.50"]
    assert re.findall(r'fill-opacity="([\d.]+)"', second["drawing"]) == ["0.000", "1.000"]
    assert "whole &lt;picture&gt;" in first["drawing"]
    assert (first["drawing"].count("base64"), second["drawing"].count("base64")) == (1, 0)
    assert overlays({"views": None}, Picture("", 1, 1), "1") == []


def test_markdown_has_every_table(report: dict[str, Any]):
    text = markdown(report)
    assert "<img" not in text
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("| other |")]) == 1 + 4
    assert len([line for line in lines if "minus other" in line]) == 1 + 4
    assert len([line for line in lines if line.startswith("| 2 |")]) == 2


def test_a_browser_shows_it_without_errors_requests_or_sideways_scrolling(browser: Browser, shown: Path):
    browser.phone(400)
    browser.show(shown)
    assert browser.elsewhere(shown) == []
    assert browser.complaints() == []
    assert browser.value("document.documentElement.scrollWidth") <= 400
    assert all(browser.value("[...document.images].map(i => i.complete && i.naturalWidth > 0)"))
    boxes = browser.value("[...document.querySelectorAll('.views svg use')].map(u => u.getBoundingClientRect().width)")
    assert len(boxes) == 16
    assert min(boxes) > 100, "every view draws its picture"
