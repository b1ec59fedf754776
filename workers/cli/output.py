"""Output of a command: results on stdout, everything else on stderr."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mandate.workers.cli.root_options import Color
from mandate.workflows.rules.plain_text import escape_json, make_plain, make_plain_lines

DRAWN_WIDTH = 10_000
"""Of a drawing that nobody watches."""


@dataclass(frozen=True, slots=True)
class Output:
    """The two streams of one command."""

    as_json: bool = False
    color: Color = "auto"
    _consoles: dict[str, Console] = field(default_factory=dict)

    @property
    def result(self) -> Console:
        """For what was asked for: stdout."""
        return self._console(stderr=False)

    @property
    def notes(self) -> Console:
        """For all that happens on the way: stderr."""
        return self._console(stderr=True)

    @property
    def live(self) -> bool:
        """True if somebody watches: then there are spinners."""
        return self.screen is not None

    @property
    def has_terminal(self) -> bool:
        """True if what is said is read on a terminal, also on one that is to get no colours and so no spinners."""
        return sys.stdout.isatty() or sys.stderr.isatty()

    @property
    def screen(self) -> Console | None:
        """The one console of spinners, which prints on the terminal while they turn; `None` without a terminal."""
        if self.result.is_terminal and not self.as_json:
            return self.result
        return self.notes if self.notes.is_terminal else None

    def print(self, *parts: RenderableType) -> None:
        """Print lines of the result; nothing with `-o json`. Texts are printed as they are, without markup."""
        if not self.as_json:
            self.result.print(*map(_plain, parts), sep="\n", markup=False, highlight=False)

    def draw(self, part: RenderableType) -> None:
        """Print a drawing of the result: as wide as the terminal, with whole lines where there is none."""
        if self.as_json:
            return
        if not self.result.is_terminal:
            self.result.width = DRAWN_WIDTH
        self.result.print(part, markup=False, highlight=False, soft_wrap=False)

    def note(self, line: str) -> None:
        """Print one line on the way, for example of progress; never on stdout."""
        console = self.screen if self.screen is not None and self.notes.is_terminal else self.notes
        console.print(make_plain_lines(line), markup=False, highlight=False, style="dim")

    @contextmanager
    def counting(self, first: str, counted: str) -> Iterator[Callable[[int, int], None] | None]:
        """Show a spinner with `first`, then with how many of how many in `counted`, where somebody watches."""
        if (screen := self.screen) is None:
            yield None
            return
        with screen.status(first) as status:
            yield lambda done, of: status.update(counted.format(done, of))

    def refusal(self, line: str) -> None:
        """Print on stderr one thing of several that was not done, and why; nothing with `-o json`, which has it."""
        if not self.as_json:
            self.notes.print(make_plain_lines(line), markup=False, highlight=False, style="bold red")

    async def confirm(self, question: str) -> bool:
        """Ask on stderr and return whether the person at the terminal says yes; Ctrl-C still ends the command."""
        sys.stderr.write(f"{make_plain_lines(question)} [y/N] ")
        sys.stderr.flush()
        # A thread, because nothing interrupts a read in this one.
        answer = await asyncio.to_thread(sys.stdin.readline)
        return answer.strip().lower() in {"y", "yes"}

    def json(self, value: object) -> None:
        """Print the whole result of `-o json`: one JSON value on stdout."""
        text = json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
        sys.stdout.write(f"{escape_json(text)}\n")

    def _console(self, *, stderr: bool) -> Console:
        class Plain(Console):
            """Nothing that a model or a tool says steers the terminal, whatever table or line it stands in."""

            def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
                for segment in super().render(renderable, options):
                    yield segment if segment.control else segment._replace(text=make_plain_lines(segment.text))

            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        name = "stderr" if stderr else "stdout"
        if name not in self._consoles:
            forced = {"auto": None, "always": True, "never": False}[self.color]
            self._consoles[name] = Plain(
                stderr=stderr,
                force_terminal=forced,
                no_color=self.color == "never",
                soft_wrap=True,
                emoji=False,
                markup=False,
            )
        return self._consoles[name]


def _plain(part: RenderableType) -> RenderableType:
    """Make text plain before its width is measured; anything else is made plain as it is printed."""
    return make_plain_lines(part) if isinstance(part, str) else part


def write_error(text: str) -> None:
    """Write lines to stderr, where somebody else's words may be part of them."""
    sys.stderr.write(f"{make_plain_lines(text)}\n")


def print_error(message: str, *, code: int, as_json: bool, details: Mapping[str, object] | None = None) -> None:
    """Print one sentence on stderr; with `-o json` an object with it and the exit code."""
    if as_json:
        told = json.dumps({"error": message, "code": code, **(details or {})}, ensure_ascii=False)
        sys.stderr.write(f"{escape_json(told)}\n")
    else:
        write_error(f"error: {message}")


def plain_logs() -> None:
    """Let what libraries log in a process without logs of its own be one plain line on stderr, without a traceback."""

    class Sentence(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return make_plain(f"{record.levelname.lower()}: {record.getMessage()}")

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Sentence())


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
