"""Tables for people: as wide as their terminal, and never cut where nobody looks at a terminal."""

from rich.console import Console
from rich.table import Table

_WIDE = 1000


def print_table(table: Table) -> None:
    """Print a table on standard output; in a pipe or a file every cell stays on one line."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    console.print(table)
