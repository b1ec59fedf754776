"""The run of the demo's manager, from its start to its report."""

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
from mandate.workers.demo import lifecycle
from mandate.workers.demo.answers import Requests
from mandate.workers.demo.setup import FINANCE, REQUESTER, DemoFolder
from mandate.workers.demo.team.narration import TeamNarration
from mandate.workers.demo.team.report import EFFECTS, MONEY, TeamFacts, TeamRun
from mandate.workers.demo.team.setup import ASKED, MANAGER, SOURCE
from mandate.workers.demo.worker import DemoWorker
from mandate.workers.examples.shop_books import read_books
from mandate.workflows.contracts.request import Closed
from mandate.workflows.rules import wording


@dataclass(slots=True)
class TeamDemo:
    """One demo of the team, whose folder and server are ready; `began` is when the command started."""

    call: Invocation
    connection: Connection
    folder: DemoFolder
    person: str
    began: float
    keeps: bool

    async def run(self, *, is_unattended: bool) -> int:
        """Return the exit code."""
        connection, out, shop = self.connection, self.call.out, self.folder.shop
        workflow_id, program = new_workflow_id(MANAGER), shell_commands.own(self.call.program)
        queue = f"demo-{workflow_id}"
        environment = environment_of(self.call, connection) | self.folder.environment | {"MANDATE_TASK_QUEUE": queue}
        worker, before = DemoWorker(environment, self.folder.log), read_books(shop)
        requests = Requests(connection, Lines(out, is_loud=True), program, self.person, shop, is_unattended)
        narration = TeamNarration(connection, Lines(out), requests)
        worker.start({})
        try:
            client = AgentClient(connection.client, queue)
            handle = await client.start(MANAGER, ASKED, workflow_id=workflow_id, requester=REQUESTER)
            startup_seconds = time.monotonic() - self.began
            narration.introduce(self._participants(workflow_id, worker), ASKED)
            story = narration.tell(TeamRun(workflow_id, MANAGER, ""), handle.first_execution_run_id)
            try:
                result = await lifecycle.follow(handle, story, [worker.watch(), requests.answer()], out)
            finally:
                requests.close()
            seconds = time.monotonic() - self.began - startup_seconds
            closed = await self._find_closed(requests)
            runs, books = narration.list_runs(), read_books(shop)
            facts = TeamFacts(result, runs, requests.asked, closed, before, books, is_unattended)
            look = [
                f"{program} show {workflow_id} --tree{connection.options}",
                f"{program} show {workflow_id}/c1{connection.options}",
            ]
            if out.as_json:
                ids = {"workflow_id": workflow_id, "run_id": handle.first_execution_run_id, "look": look}
                known = {"address": connection.address, "url": connection.run_url(workflow_id), "files": str(SOURCE)}
                rest = {"startup_seconds": startup_seconds, "seconds": seconds}
                out.json({**ids, **known, **rest, **facts.to_json()})
            else:
                self._report(facts, Lines(out), look, program, seconds)
            if self.keeps:
                await lifecycle.keep_server(out)
            return DONE if result.status == "completed" else ENDED_OTHERWISE
        finally:
            await worker.stop()

    def _participants(self, workflow_id: str, worker: DemoWorker) -> dict[str, str]:
        return {
            "server": f"Temporal at {self.connection.address}",
            "watch": self.connection.run_url(workflow_id) or "in the server's Web UI",
            "worker": f"process {worker.process.pid}, its log: {shell_commands.typed(self.folder.log)}",
            "agents": f"{shell_commands.typed(SOURCE / 'agents')}; scripts play their models, and need no key",
        }

    async def _find_closed(self, requests: Requests) -> dict[tuple[str, str], Closed]:
        """Return how the requests ended, by run and request."""
        found = dict[tuple[str, str], Closed]()
        for run in dict.fromkeys(asked.run for asked in requests.asked):
            with contextlib.suppress(answers.NotAnswering, answers.Unknown):
                closed = (await answers.open_requests(self.connection.client, run)).closed
                found |= {(run, request.id): request for request in closed}
        return found

    def _report(self, facts: TeamFacts, lines: Lines, look: list[str], program: str, seconds: float) -> None:
        for heading, paragraphs in facts.sections().items():
            lines.print(f"\n{heading}", "bold")
            for text in paragraphs:
                if heading == MONEY:
                    lines.print(f"  {text}")
                    continue
                hang = 10 if heading == EFFECTS else 2 if text.lstrip().startswith("- ") else 0
                lines.paragraph(text, indent=2, hang=hang)
        lines.print("")
        usage = wording.describe_usage(facts.result.usage)
        lines.paragraph(f"The tree: {usage}; {seconds:.1f} s from question to answer.", indent=0)
        lifecycle.print_way_back(lines, self.connection, program, keeps=self.keeps)
        lines.print("\nLook at the tree, and at one run of it:")
        for command in look:
            lines.command(command)
        lines.print("\nThe same in a folder of your own, to read and to change:")
        lines.command(f"cp -r {shell_commands.typed(SOURCE)} my-team && cd my-team")
        lines.command(f"{shell_commands.python()} -m mandate.workers.examples.shop_data")
        program = shell_commands.own(self.call.program, is_elsewhere=True)
        lines.command(f"{program} run {MANAGER} 'What is new this morning?'")
        lines.print("It waits for finance there too. In another terminal, in the same folder:")
        lines.command(f"{program} inbox")
        lines.command(f"{program} approve 1 --by {FINANCE}")
