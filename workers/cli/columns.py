"""Tables whose columns are as wide as what they hold: nothing is cut, and a terminal wraps what it has no room for."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.text import Text

from mandate.workers.cli.output import Output
from mandate.workflows.rules.plain_text import make_plain_lines

GAP = 2
"""Spaces between columns."""


def print_table(
    out: Output,
    rows: Sequence[Sequence[str | Text]],
    head: Sequence[str] | None = None,
    *,
    indent: int = 0,
    numbered: bool = False,
) -> None:
    """Print a line for each row, or several where a cell has some; `numbered` puts the first column to the right."""
    cells = [[_lines(cell) for cell in row] for row in rows]
    titles = [_lines(Text(title)) for title in head or ()]
    columns = zip(*([titles] if head else []), *cells, strict=True)
    widths = [max(line.cell_len for cell in column for line in cell) for column in columns]
    for line in _joined(titles, widths, numbered=numbered) if head else ():
        line.stylize("bold" if numbered else "dim")
        out.print(Text(" " * indent) + line)
    for row in cells:
        for line in _joined(row, widths, numbered=numbered):
            out.print(Text(" " * indent) + line)


def _lines(cell: str | Text) -> list[Text]:
    text = cell.copy() if isinstance(cell, Text) else Text(make_plain_lines(cell))
    return list(text.split("\n", allow_blank=True)) or [text]


def _joined(row: Sequence[Sequence[Text]], widths: Sequence[int], *, numbered: bool) -> Iterator[Text]:
    """Yield the lines of one row."""
    for parts in zip_longest(*row, fillvalue=Text()):
        line = Text()
        for number, (part, width) in enumerate(zip(parts, widths, strict=True)):
            room = " " * (width - part.cell_len)
            line.append_text(Text(room) + part if numbered and number == 0 else part + Text(room))
            line.append(" " * GAP)
        line.rstrip()
        yield line
