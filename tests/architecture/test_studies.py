"""The page of studies shows what the committed results say."""

from pathlib import Path

import pytest

from infra.study_files import read_study, study_names
from tasks.evaluation.study_table import PAGE, curve, make_table, picture_name, updated

STUDIES = study_names(Path(__file__).resolve().parents[2])


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_has_the_table_of_todays_results(name: str, checkout: Path):
    page = (checkout / PAGE).read_text()
    table = make_table(read_study(checkout, name), checkout)
    assert updated(page, table) == page, f"run vital study table {name} --write"
    drawn, picture = curve(table), checkout / Path(PAGE).parent / picture_name(name)
    assert picture.is_file() == (drawn is not None)
    if drawn is not None:
        assert picture.read_text() == f"{drawn}\n", f"run vital study table {name} --write"
