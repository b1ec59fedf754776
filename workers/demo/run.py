"""The demo's one run, from its start to its report."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from mandate.workers.cli import shell_commands
from mandate.workers.cli.connection import Connection, environment_of
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError
from mandate.workers.cli.options import Invocation
from mandate.workers.cli.paragraphs import Lines
from mandate.workers.cli.signals import stop_signals
from mandate.workers.client import answers
from mandate.workers.client.client import AgentClient
from mandate.workers.client.start_requests import new_workflow_id
from mandate.workers.demo import faults
from mandate.workers.demo.answers import Requests
from mandate.workers.demo.narration import Narration
from mandate.workers.demo.report import EFFECTS, Facts
from mandate.workers.demo.setup import AGENT, REQUESTER, DemoFolder
from mandate.workers.demo.worker import DemoWorker
from mandate.workers.dev_server.server import UI_OFFSET, DevServer
from mandate.workers.examples.shop_books import read_books
from mandate.workers.examples.shop_data import DEMO_INPUT
from mandate.workers.history.stream import unfolding
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.rules import wording

GOODBYE_SECONDS = 2.0

Handle = WorkflowHandle[Any, RunResult]


@dataclass(slots=True)
class Demo:
    """One demo whose folder and server are ready; `began` is when the command started, by `time.monotonic`."""

    call: Invocation
    connection: Connection
    folder: DemoFolder
    rules: str
    model: str
    person: str
    began: float
    kills: bool
    breaks: bool
    keeps: bool

    async def run(self, *, is_unattended: bool) -> int:
        """Return the exit code."""
        connection, out, shop = self.connection, self.call.out, self.folder.shop
        workflow_id, program = new_workflow_id(AGENT), shell_commands.own(self.call.program)
        queue = f"demo-{workflow_id}"
        environment = environment_of(self.call, connection) | self.folder.environment | {"MANDATE_TASK_QUEUE": queue}
        worker = DemoWorker(environment | (faults.LOST_REPLIES if self.breaks else {}), self.folder.log)
        facts = Facts(workflow_id, read_books(shop), is_unattended, self.breaks)
        requests = Requests(connection, Lines(out, is_loud=True), facts, program, self.person, shop)
        narration = Narration(Lines(out), facts, connection.settings.store)
        worker.start(faults.SLOW_BANK if self.kills else {})
        try:
            client = AgentClient(connection.client, queue)
            handle = await client.start(AGENT, DEMO_INPUT, workflow_id=workflow_id, requester=REQUESTER)
            startup_seconds = time.monotonic() - self.began
            narration.introduce(self._participants(workflow_id, worker), DEMO_INPUT)
            facts.result = await self._watch(handle, worker, narration, requests)
            seconds = time.monotonic() - self.began - startup_seconds
            with contextlib.suppress(answers.NotAnswering, answers.Unknown):
                closed = (await answers.open_requests(connection.client, workflow_id)).closed
                facts.closed = {request.id: request for request in closed}
            facts.books = read_books(shop)
            if facts.kill is not None:
                facts.kill.find_payment(facts.calls, facts.books)
            temporal = shell_commands.temporal(connection.temporal_binary)
            look = [
                f"{program} show {workflow_id}{connection.options}",
                f"{temporal} workflow describe -w {workflow_id}{connection.temporal_options}",
            ]
            if out.as_json:
                ids = {"workflow_id": workflow_id, "run_id": handle.first_execution_run_id, "model": self.model}
                known = {"rules_server": self.rules, "address": connection.address, "look": look}
                rest = {"url": connection.run_url(workflow_id), "startup_seconds": startup_seconds, "seconds": seconds}
                out.json({**ids, **known, **rest, **facts.to_json()})
            else:
                self._report(facts, Lines(out), look, program, seconds)
            if self.keeps:
                with stop_signals(lambda: None) as stopped:
                    out.note("Server and Web UI stay until Ctrl-C.")
                    await stopped.wait()
            return DONE if facts.result.status == "completed" else ENDED_OTHERWISE
        finally:
            await worker.stop()

    def _participants(self, workflow_id: str, worker: DemoWorker) -> dict[str, str]:
        script = ", a script that needs no key; --model openai:... asks a real one"
        rows = {
            "server": f"Temporal at {self.connection.address}",
            "watch": self.connection.run_url(workflow_id) or "in the server's Web UI",
            "worker": f"process {worker.process.pid}, its log: {shell_commands.typed(self.folder.log)}",
            "model": f"{self.model}{script if self.model.startswith('scripted:') else ''}",
            "rules": f"read from an MCP server: {self.rules}",
        }
        return {**rows, "broken": faults.ANNOUNCED} if self.breaks else rows

    async def _watch(self, handle: Handle, worker: DemoWorker, narration: Narration, requests: Requests) -> RunResult:
        """Tell the run to its end, while requests are answered and the worker is watched, and killed if wished."""

        async def tell() -> None:
            async for history, happened in unfolding(self.connection.client, handle.id, handle.first_execution_run_id):
                for happening in happened:
                    await narration.hear(happening, history)
                    requests.hear(happening, history)

        async def assist() -> None:
            kills = [faults.kill_when_paid(worker, self.folder.shop, narration.tell_kill)] if self.kills else []
            await asyncio.gather(worker.watch(), requests.answer(), *kills)

        story, helpers = asyncio.create_task(tell()), asyncio.create_task(assist())
        try:
            # Helpers end with an error only, and then the demo does.
            await asyncio.wait({story, helpers}, return_when=asyncio.FIRST_COMPLETED)
            (helpers if helpers.done() else story).result()
            return await handle.result()
        except WorkflowFailureError as error:
            raise CliError(f"the run failed: {error.cause}", ENDED_OTHERWISE) from None
        except BaseException:
            await self._cancel(handle)
            raise
        finally:
            requests.wait_for()
            story.cancel()
            helpers.cancel()

    async def _cancel(self, handle: Handle) -> None:
        """Leave no run behind that nobody works on."""
        with contextlib.suppress(RPCError, WorkflowFailureError):
            await handle.cancel()
            try:
                await asyncio.wait_for(handle.result(), GOODBYE_SECONDS)
            except TimeoutError:
                await handle.terminate("the demo ended before its run")
        self.call.out.note(f"The run {handle.id} was cancelled.")

    def _report(self, facts: Facts, lines: Lines, look: list[str], program: str, seconds: float) -> None:
        for heading, paragraphs in facts.sections().items():
            lines.print(f"\n{heading}", "bold")
            for text in paragraphs:
                hang = 10 if heading == EFFECTS else 2 if text.lstrip().startswith("- ") else 0
                lines.paragraph(text, indent=2, hang=hang)
        lines.print("")
        lines.paragraph(
            f"{wording.describe_usage(facts.result.usage)}; {seconds:.1f} s from question to answer.", indent=0
        )
        if self.kills and facts.kill is None:
            lines.print("No worker was killed: the agent issued no refund.")
        if self.connection.server is not None and not self.keeps:
            is_own = self.connection.started_in is not None
            ends = "ends with this command." if is_own else "ends with the last command that uses it."
            lines.print(f"\nThe server {ends} To bring it and its runs back:")
            lines.command(f"{program} server{_same_ports(self.connection.server)}")
            lines.print("Then, while it runs, from another terminal in this folder:")
        # Without the run id, with which it does not fit into a line; the newest run of the id is this one.
        url = self.connection.run_url(facts.workflow_id)
        lines.print("\nLook at the run:" if url is None else f"\nLook at the run:\n  {url}")
        for command in look:
            lines.command(command)


def _same_ports(server: DevServer) -> str:
    """Return the options with which the server comes back where the links lead."""
    port, ui_port = int(server.address.rpartition(":")[2]), (server.ui_url or "").rpartition(":")[2]
    ui = f" --ui-port {ui_port}" if ui_port and int(ui_port) != port + UI_OFFSET else ""
    return f" --port {port}{ui}"
