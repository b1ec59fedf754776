"""The demo from nothing: a state folder, a server, a shop, and then the run."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator

from mandate.activities.own_files import OwnFiles
from mandate.workers import providers
from mandate.workers.cli import identity
from mandate.workers.cli.connection import connected
from mandate.workers.cli.errors import INTERRUPTED, CliError, SilentExit
from mandate.workers.cli.options import Invocation
from mandate.workers.demo import setup
from mandate.workers.demo.run import Demo, Wishes
from mandate.workers.demo.setup import RulesServer
from mandate.workers.dev_server.server import private_folder
from mandate.workers.settings import Settings
from mandate.workflows.contracts.model import PROVIDERS


async def play(call: Invocation, wishes: Wishes, began: float) -> int:
    """Play the whole demo; return the exit code. `began` is when the command started, by `time.monotonic`.

    Raises:
        CliError, ServerError, MissingKey: something that it needs is not there.
    """
    with _ended_by_sigterm():
        return await _play(call, wishes, began)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Make of SIGTERM what Ctrl-C is: the body is cancelled and may clean up."""
    task, loop, told = asyncio.current_task(), asyncio.get_running_loop(), asyncio.Event()
    assert task is not None

    def end() -> None:
        told.set()
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield
    except asyncio.CancelledError:
        if told.is_set():
            raise SilentExit(INTERRUPTED) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _play(call: Invocation, wishes: Wishes, began: float) -> int:
    settings = Settings.from_environment()
    model = await _usable(wishes.model, settings, breaks=wishes.breaks)
    source = setup.shipped_agents()
    with setup.claimed(private_folder(settings.folder)) as claimed:
        looking = asyncio.create_task(setup.find_rules_server(may_download=claimed.is_new))
        try:
            async with connected(call, settings) as connection:
                rules = await _found_in_time(looking, began)
                person = identity.person(settings, None).name
                setup.prepare(claimed, source, model=model, rules=rules, paced=not wishes.fast, person=person)
                demo = Demo(call, wishes, connection, stage=claimed, rules=rules, person=person, began=began)
                return await demo.run(model)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def _usable(model: str, settings: Settings, *, breaks: bool) -> str:
    """Return `model`, which has all that it needs."""
    if model == "scripted":
        return "scripted:shop-broken.script.yaml" if breaks else "scripted:shop.script.yaml"
    provider, separator, name = model.partition(":")
    if provider not in PROVIDERS or not separator or not name or " " in model:
        forms = ", ".join(f"{known}:MODEL" for known in PROVIDERS if known != "scripted")
        raise CliError(f"--model {model!r}: must be 'scripted' or one of {forms}")
    try:
        await (await providers.makers(settings, OwnFiles())[provider]()).close()
    except providers.MissingKey as error:
        raise CliError(f"--model {model!r}: {error}; without --model a script plays the model") from None
    return model


async def _found_in_time(looking: "asyncio.Task[RulesServer]", began: float) -> RulesServer:
    left = setup.CHECK_SECONDS - (time.monotonic() - began)
    try:
        # Shielded: what npx still fetches while the demo goes on is there for the next one.
        return await asyncio.wait_for(asyncio.shield(looking), max(left, 0.01))
    except (TimeoutError, OSError):
        return setup.SHIPPED
