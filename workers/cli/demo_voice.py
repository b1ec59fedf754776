"""The demo's lines while the run goes on."""

from workers.cli.demo_kill import TOOL, Killing
from workers.cli.demo_report import indented
from workers.cli.demo_story import Call, Step
from workers.cli.output import Output

RESULT_CHARACTERS = 96
NAME_COLUMNS = 8


class Voice:
    """Says in text what happens; nothing with `-o json`."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def introduce(self, *, server: str, url: str | None, worker: str, model: str, rules: str, asked: str) -> None:
        """Who takes part, and where one can watch."""
        scripted = model.startswith("scripted:")
        rows = {
            "server": f"Temporal at {server}",
            "watch": url or "in the server's Web UI",
            "worker": worker,
            "model": f"{model}, a script that needs no key; --model openai:... asks a real one" if scripted else model,
            "rules": f"read from an MCP server: {rules}",
        }
        self._say("A small coffee shop has a complaint, and an agent settles it.\n")
        for name, value in rows.items():
            self._say(f"  {name:<{NAME_COLUMNS}}{value}")
        self._say("")
        self._say(indented(f"Asked: {asked}", 2))
        self._say("")

    def step(self, step: Step) -> None:
        self._say(indented(f"{step.number}. {step.says}", 0), "bold")

    def call(self, call: Call) -> None:
        again = f" (attempt {call.attempts})" if call.attempts > 1 else ""
        self._say(f"     {call.call}{again}", "cyan")
        mark, style = ("✗", "yellow") if call.error else ("→", "dim")
        self._say(f"       {mark} {call.result[:RESULT_CHARACTERS]}", style)

    def killed(self, killing: Killing) -> None:
        self._say(
            f"     Worker {killing.killed_pid} was killed (SIGKILL): {TOOL} had paid, and nobody had been told.\n"
            f"     Worker {killing.new_pid} is started; it gets the call when no heartbeat has come for 10 s.",
            "red",
        )

    def _say(self, text: str, style: str | None = None) -> None:
        if not self._out.as_json:
            self._out.result.print(text, style=style, markup=False, highlight=False)
