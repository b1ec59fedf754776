"""The demo's one run, from its start to its report."""

import contextlib
import time
from dataclasses import dataclass

from mandate.workers.cli import shell_commands
from mandate.workers.cli.connection import Connection, environment_of
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE
from mandate.workers.cli.options import Invocation
from mandate.workers.cli.paragraphs import Lines
from mandate.workers.client import answers
from mandate.workers.client.client import AgentClient
from mandate.workers.client.start_requests import new_workflow_id
from mandate.workers.demo import faults, lifecycle
from mandate.workers.demo.answers import Requests
from mandate.workers.demo.narration import Narration
from mandate.workers.demo.report import EFFECTS, Facts
from mandate.workers.demo.setup import AGENT, REQUESTER, DemoFolder
from mandate.workers.demo.worker import DemoWorker
from mandate.workers.examples.shop_books import read_books
from mandate.workers.examples.shop_data import DEMO_INPUT
from mandate.workers.history.stream import unfolding
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.rules import wording


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
        requests = Requests(connection, Lines(out, is_loud=True), program, self.person, shop, is_unattended)
        narration = Narration(Lines(out), facts, connection.settings.store)
        worker.start(faults.SLOW_BANK if self.kills else {})
        try:
            client = AgentClient(connection.client, queue)
            handle = await client.start(AGENT, DEMO_INPUT, workflow_id=workflow_id, requester=REQUESTER)
            startup_seconds = time.monotonic() - self.began
            narration.introduce(self._participants(workflow_id, worker), DEMO_INPUT)
            facts.result = await self._watch(handle, worker, narration, requests)
            seconds = time.monotonic() - self.began - startup_seconds
            facts.requests = [asked.request for asked in requests.asked]
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
                await lifecycle.keep_server(out)
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

    async def _watch(
        self, handle: lifecycle.Handle, worker: DemoWorker, narration: Narration, requests: Requests
    ) -> RunResult:
        """Tell the run to its end, while requests are answered and the worker is watched, and killed if wished."""

        async def tell() -> None:
            async for history, happened in unfolding(self.connection.client, handle.id, handle.first_execution_run_id):
                for happening in happened:
                    await narration.hear(happening, history)
                    requests.hear(happening, history, handle.id)

        kills = [faults.kill_when_paid(worker, self.folder.shop, narration.tell_kill)] if self.kills else []
        try:
            return await lifecycle.follow(handle, tell(), [worker.watch(), requests.answer(), *kills], self.call.out)
        finally:
            requests.close()

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
        lifecycle.print_way_back(lines, self.connection, program, keeps=self.keeps)
        # Without the run id, with which it does not fit into a line; the newest run of the id is this one.
        url = self.connection.run_url(facts.workflow_id)
        lines.print("\nLook at the run:" if url is None else f"\nLook at the run:\n  {url}")
        for command in look:
            lines.command(command)
