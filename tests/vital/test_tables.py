"""Tables that nobody looks at in a terminal are not cut."""

import pytest
from rich.table import Table

from vital.tables import print_table


def test_a_long_cell_stays_on_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]):
    table = Table("model", "made")
    name = "vital-warm-up-mini@v0.0.1 " * 8
    table.add_row(name, "today")
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert any(name.strip() in line and "today" in line for line in lines)
