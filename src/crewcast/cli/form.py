"""Answers as a person reads them on a terminal."""

from collections.abc import Sequence
from typing import Any

SHOWN = 2000  # characters of a text that are looked at for one line


def table(rows: Sequence[Sequence[Any]], widths: Sequence[int] = ()) -> None:
    """Columns as wide as their widest cell, and at least as `widths` says: for tables that come in pages."""
    texts = [[str(cell) for cell in row] for row in rows]
    for row in texts:
        cells = [
            cell.ljust(max(len(other[n]) for other in texts) if n >= len(widths) else widths[n])
            for n, cell in enumerate(row)
        ]
        print("  ".join(cells).rstrip())


def one_line(text: str) -> str:
    """Without line breaks, and without what a terminal would take for a command."""
    printable = "".join(c if c.isprintable() else " " for c in text[:SHOWN])
    return " ".join(printable.split())
