"""`mandate demo`: an agent at work, from nothing."""

import time
from typing import Annotated

import typer
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.demo.play import play
from mandate.workers.demo.run import Wishes


@verb
async def demo(
    call: Invocation,
    model: Annotated[
        str, typer.Option(help="`openai:MODEL`, `anthropic:MODEL`, `vllm:MODEL`, or `scripted`, which needs no key.")
    ] = "scripted",
    kill: Annotated[bool, typer.Option("--kill", help="Kill the worker while it pays, and start another.")] = False,
    breaks: Annotated[
        bool, typer.Option("--break", help="Lose replies, answer wrongly, and see how the run finds out and goes on.")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Without pauses for reading.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Answer what the agent asks, nobody looking; for unattended use.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep server and Web UI up at the end, until Ctrl-C.")] = False,
) -> int:
    """Watch an agent settle a complaint in a small shop; server, worker and shop are made for it.

    Its refund needs somebody of finance, who is you: answer here, from another terminal, or with --yes.
    """
    began = time.monotonic()
    return await play(call, Wishes(model=model, kill=kill, breaks=breaks, fast=fast, keep=keep, yes=yes), began)
