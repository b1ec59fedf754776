"""Wrapped text for reading on a terminal."""

import textwrap
from dataclasses import dataclass

from rich.text import Text

from mandate.workers.cli import shell_commands
from mandate.workers.cli.output import Output

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines up to `WIDTH` and no longer than the terminal; with `-o json` on stderr if `is_loud`, else nowhere."""

    out: Output
    is_loud: bool = False

    @property
    def columns(self) -> int:
        return min(WIDTH, self.out.result.width) if self.out.result.is_terminal else WIDTH

    def print(self, text: str, style: str = "") -> None:
        if self.out.as_json and self.is_loud:
            self.out.note(text)
        else:
            self.out.print(Text(text, style))

    def paragraph(self, text: str, style: str = "", *, indent: int = 5, hang: int = 0) -> None:
        """Print wrapped text, its later lines after `hang` more blanks; links and paths stay whole."""
        wrapper = textwrap.TextWrapper(self.columns, " " * indent, " " * (indent + hang), break_long_words=False)
        wrapper.break_on_hyphens = False
        self.print(wrapper.fill(text), style)

    def wrap(self, text: str, width: int) -> list[str]:
        """Return the lines of a text, the later ones as far in as the first; links and paths stay whole."""
        indent = " " * (len(text) - len(text.lstrip()))
        wrapper = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False)
        wrapper.break_on_hyphens = False
        return wrapper.wrap(text)

    def command(self, command: str) -> None:
        self.print(shell_commands.broken(command, self.columns))
