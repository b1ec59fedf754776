"""Bars in the terminal: what the tokens of each step's request were for."""

from collections.abc import Sequence

from rich.text import Text

from mandate.workers.cli.output import Output
from mandate.workers.history.token_use import PARTS, StepTokens
from mandate.workflows.rules import quantities

WIDTH = 60
"""Characters of the longest bar."""

_STYLES = dict(zip(PARTS, ("blue", "magenta", "yellow", "cyan", "green"), strict=True))


def print_bars(out: Output, steps: Sequence[StepTokens]) -> None:
    """Print a bar a step; each letter in it is the first of what it stands for."""
    if not steps:
        out.print("no model was asked yet")
        return
    most = max(step.tokens for step in steps)
    legend = Text("a bar a step; ")
    for place, part in enumerate(PARTS):
        legend.append(f"{', ' if place else ''}{part[0].upper()}", style=_STYLES[part])
        legend.append(f" {part}")
    digits, width = len(str(steps[-1].step)), len(f"{most:,}")
    out.print(legend, "")
    for step in steps:
        line = Text(f"{step.step:>{digits}}  {step.tokens:>{width},}{' ' if step.is_reported else '~'} ")
        line.append(write_bar(step, most))
        if step.is_cut:
            line.append("  cut", style="bold")
        out.print(line)
    counted = quantities.count_noun(len(steps), "step")
    out.print("", f"{sum(step.tokens for step in steps):,} input tokens in {counted}; {_count_cuts(steps)}")


def write_bar(step: StepTokens, most: int) -> Text:
    """Return the bar of one step; the longest, of `most` tokens, has `WIDTH` characters."""
    bar, drawn, so_far = Text(), 0, 0
    for part, tokens in step.parts.items():
        so_far += tokens
        end = round(so_far * WIDTH / max(most, 1))
        bar.append(part[0].upper() * (end - drawn), style=_STYLES[part])
        drawn = end
    return bar


def _count_cuts(steps: Sequence[StepTokens]) -> str:
    cuts = sum(step.is_cut for step in steps)
    return "never cut" if not cuts else f"cut {quantities.count_times(cuts)}"
