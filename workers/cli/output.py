"""What a command says: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Color = Literal["auto", "always", "never"]

_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass(frozen=True, slots=True)
class Output:
    """The two streams of one command."""

    as_json: bool = False
    color: Color = "auto"
    _consoles: dict[str, "Console"] = field(default_factory=dict)

    @property
    def result(self) -> "Console":
        """For what was asked for: stdout."""
        return self._console(stderr=False)

    @property
    def notes(self) -> "Console":
        """For all that happens on the way: stderr."""
        return self._console(stderr=True)

    @property
    def live(self) -> bool:
        """Whether somebody watches: then there are spinners."""
        return self.screen is not None

    @property
    def screen(self) -> "Console | None":
        """Where spinners go: the one console that prints on the terminal while they turn; `None` without a terminal."""
        if self.result.is_terminal and not self.as_json:
            return self.result
        return self.notes if self.notes.is_terminal else None

    def print(self, *parts: "RenderableType") -> None:
        """Lines of the result; nothing with `-o json`. Texts are printed as they are, without markup."""
        if not self.as_json:
            self.result.print(*map(_harmless, parts), sep="\n", markup=False, highlight=False)

    def note(self, line: str) -> None:
        """One line on the way, for example of progress; never on stdout."""
        console = self.screen if self.screen is not None and self.notes.is_terminal else self.notes
        console.print(_harmless(line), markup=False, highlight=False, style="dim")

    def refusal(self, line: str) -> None:
        """One thing of several that was not done, and why; on stderr, nothing with `-o json`, whose result says it."""
        if not self.as_json:
            self.notes.print(_harmless(line), markup=False, highlight=False, style="bold red")

    async def confirm(self, question: str) -> bool:
        """Whether the person at the terminal says yes; asked on stderr, and Ctrl-C still ends the command."""
        import asyncio

        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        # A thread, because nothing interrupts a read in this one.
        answer = await asyncio.to_thread(sys.stdin.readline)
        return answer.strip().lower() in {"y", "yes"}

    def json(self, value: object) -> None:
        """The whole result of `-o json`: one JSON value on stdout."""
        text = json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
        sys.stdout.write(f"{text}\n")

    def _console(self, *, stderr: bool) -> "Console":
        from rich.console import Console

        class Pipe(Console):
            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        name = "stderr" if stderr else "stdout"
        if name not in self._consoles:
            forced = {"auto": None, "always": True, "never": False}[self.color]
            self._consoles[name] = Pipe(
                stderr=stderr, force_terminal=forced, no_color=self.color == "never", soft_wrap=True, emoji=False
            )
        return self._consoles[name]


def _harmless(part: "RenderableType") -> "RenderableType":
    """`part` without control characters: what models and tools say must not steer the terminal."""
    from rich.text import Text

    if isinstance(part, str):
        return part.translate(_CONTROLS)
    if isinstance(part, Text):
        part.plain = part.plain.translate(_CONTROLS)
    return part


def print_error(message: str, *, code: int, as_json: bool, details: Mapping[str, object] | None = None) -> None:
    """One sentence on stderr; with `-o json` an object with it and the exit code."""
    if as_json:
        sys.stderr.write(json.dumps({"error": message, "code": code, **(details or {})}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"error: {message}\n")
