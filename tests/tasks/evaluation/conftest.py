"""What tests of pages share: a browser that looks at them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tasks.evaluation.browser import CHROMIUM, Browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not looked at in a browser")
    running = Browser(tmp_path / "profile")
    yield running
    running.close()
