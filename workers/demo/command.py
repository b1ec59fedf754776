"""`mandate demo`: an agent at work, from nothing."""

import asyncio
import time
from typing import Annotated

import typer

from mandate.workers import providers
from mandate.workers.catalog.endpoints import read_endpoints
from mandate.workers.cli import identity
from mandate.workers.cli.connection import connected
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.demo import setup
from mandate.workers.demo.run import Demo
from mandate.workers.demo.team import setup as team_setup
from mandate.workers.demo.team.run import TeamDemo
from mandate.workers.dev_server.server import private_folder
from mandate.workers.settings import Settings
from mandate.workflows.contracts.route import PROVIDERS

RULES_SECONDS = 5.0
"""How long after its start the demo waits for the filesystem MCP server."""


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
    team: Annotated[
        bool, typer.Option("--team", help="A manager and three agents below it: one asks people, one fails.")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Without pauses for reading.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Answer what the agent asks, nobody looking; for unattended use.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep server and Web UI up at the end, until Ctrl-C.")] = False,
) -> int:
    """Watch an agent settle a complaint in a small shop; server, worker and shop are made for it.

    Its refund needs somebody of finance, who is you: answer here, from another terminal, or with --yes; without a
    terminal it waits for the other one. With --team a manager shares the work with three agents below it, side by side.
    """
    began = time.monotonic()
    settings = Settings.from_environment()
    if team:
        if model != "scripted" or kill or breaks:
            raise CliError("--team goes without --model, --kill and --break: it has scripts and a failure of its own")
        return await _show_team(call, settings, began, is_paced=not fast, is_unattended=yes, keeps=keep)
    model = _check_model(model, settings, breaks=breaks)
    with setup.claim_folder(private_folder(settings.folder)) as folder:
        search = asyncio.create_task(setup.find_rules_server(may_download=folder.is_new))
        try:
            async with connected(call, settings) as connection:
                # What npx still fetches while the demo goes on is there for the next one.
                await asyncio.wait({search}, timeout=max(RULES_SECONDS - (time.monotonic() - began), 0.01))
                rules = search.result() if search.done() and search.exception() is None else setup.SHIPPED
                person = identity.person(settings, settings.user or setup.FINANCE).name
                setup.prepare(folder, model=model, rules=rules, is_paced=not fast, person=person)
                run = Demo(call, connection, folder, rules, model, person, began, kill, breaks, keep)
                return await run.run(is_unattended=yes)
        finally:
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)


async def _show_team(
    call: Invocation, settings: Settings, began: float, *, is_paced: bool, is_unattended: bool, keeps: bool
) -> int:
    """Return the exit code of the demo with the team."""
    with setup.claim_folder(private_folder(settings.folder)) as folder:
        async with connected(call, settings) as connection:
            person = identity.person(settings, settings.user or setup.FINANCE).name
            team_setup.prepare(folder, is_paced=is_paced, person=person)
            return await TeamDemo(call, connection, folder, person, began, keeps).run(is_unattended=is_unattended)


def _check_model(model: str, settings: Settings, *, breaks: bool) -> str:
    """Return `model` as agent files name it; raise `CliError` where there is none, or its key is missing."""
    if model == "scripted":
        return "scripted:shop-broken.script.yaml" if breaks else "scripted:shop.script.yaml"
    provider, _, name = model.partition(":")
    endpoints = read_endpoints(settings)
    if not endpoints.is_known(provider) or not name or " " in model:
        known = (*PROVIDERS, *endpoints.by_name)
        forms = ", ".join(f"{provider}:MODEL" for provider in known if provider != "scripted")
        raise CliError(f"--model {model!r}: must be 'scripted' or one of {forms}")
    if (lack := providers.lacking(settings, provider, endpoints.by_name)) is not None:
        raise CliError(f"--model {model!r}: {lack}; without --model a script plays the model")
    return model
