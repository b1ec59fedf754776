"""The demo's one run, from its start to its report."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

from mandate.activities.stores.locate import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError
from mandate.workers.cli.options import Invocation
from mandate.workers.cli.signals import stop_signals
from mandate.workers.client.client import AgentClient, new_workflow_id
from mandate.workers.demo import commands, environment, faults, report
from mandate.workers.demo.books import Books, read_books
from mandate.workers.demo.desk import Desk
from mandate.workers.demo.kill import Crew, Killing
from mandate.workers.demo.mending import Checked, Looked, unfolding
from mandate.workers.demo.narration import Voice, width
from mandate.workers.demo.report import Facts
from mandate.workers.demo.setup import AGENT, REQUESTER, RulesServer, Stage
from mandate.workers.examples.shop_data import DEMO_INPUT
from mandate.workers.worker_process import start_worker
from mandate.workflows.contracts.run import RunResult, RunStatus
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

GOODBYE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the demo is to be played."""

    model: str
    kill: bool
    breaks: bool
    """Replies get lost."""
    fast: bool
    keep: bool
    yes: bool


class Demo:
    """One demo whose stage and server are ready.

    `person` is who decides at this terminal; `began` is when the command started, by `time.monotonic`.
    """

    def __init__(
        self,
        call: Invocation,
        wishes: Wishes,
        connection: Connection,
        *,
        stage: Stage,
        rules: RulesServer,
        person: str,
        began: float,
    ) -> None:
        self._call = call
        self._out = call.out
        self._wishes = wishes
        self._connection = connection
        self._stage = stage
        self._rules = rules
        self._began = began
        self._killing: Killing | None = None
        self._workflow_id = new_workflow_id(AGENT)
        self._queue = f"demo-{self._workflow_id}"
        self._program = commands.own(call.program)
        self._blobs = _opened(connection.settings.store)
        self._voice = Voice(call.out, TranscriptLog(self._blobs))
        self._desk = Desk(
            connection,
            call.out,
            self._voice,
            workflow_id=self._workflow_id,
            program=self._program,
            by=person,
            answers_itself=wishes.yes,
            shop=stage.shop,
        )

    async def run(self, model: str) -> int:
        """The exit code."""
        before = read_books(self._stage.shop)
        told = environment.of_worker(
            self._call, self._connection, self._stage, task_queue=self._queue, breaks=self._wishes.breaks
        )
        crew = Crew(lambda extra: start_worker(told | extra, self._stage.log), doomed=self._wishes.kill)
        try:
            handle = await AgentClient(self._connection.client, self._queue).start(
                AGENT, DEMO_INPUT, workflow_id=self._workflow_id, requester=REQUESTER
            )
            startup_seconds = time.monotonic() - self._began
            self._voice.introduce(
                server=self._connection.address,
                url=self._connection.run_url(self._workflow_id),
                worker=f"process {crew.worker.pid}, its log: {commands.typed(self._stage.log)}",
                model=model,
                rules=self._rules.name,
                asked=DEMO_INPUT,
                broken=faults.ANNOUNCED if self._wishes.breaks else None,
            )
            result = await self._watched(crew, handle)
            facts = await self._facts(handle, model, result, before, startup_seconds)
            self._report(facts)
            if self._wishes.keep:
                await self._stay()
            return DONE if result.status is RunStatus.COMPLETED else ENDED_OTHERWISE
        finally:
            await crew.worker.stop()
            await self._blobs.close()

    async def _watched(self, crew: Crew, handle: WorkflowHandle[Any, RunResult]) -> RunResult:
        """The result of the run, while its story is told and the worker is watched, and killed if that is wished."""
        following = asyncio.create_task(self._listen(handle))
        ending = asyncio.create_task(crew.ended())
        tasks: set[asyncio.Task[Any]] = {following, ending, asyncio.create_task(self._desk.attend())}
        if self._wishes.kill:
            tasks.add(asyncio.create_task(self._kill(crew)))
        running = set(tasks)
        try:
            while not following.done():
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                if ending in done:
                    raise CliError(
                        f"the demo's worker ended with code {ending.result()}: {crew.worker.last_words()}",
                        ENDED_OTHERWISE,
                    )
                running -= done
                for task in done:
                    task.result()
            return await handle.result()
        except WorkflowFailureError as error:
            raise CliError(f"the run failed: {error.cause}", ENDED_OTHERWISE) from None
        except BaseException:
            self._desk.close()
            await self._give_up(handle)
            raise
        finally:
            self._desk.close()
            for task in tasks:
                task.cancel()

    async def _listen(self, handle: WorkflowHandle[Any, RunResult]) -> None:
        async for chronicle, happened in unfolding(self._connection.client, handle.id, handle.first_execution_run_id):
            for happening in happened:
                await self._voice.hear(happening, chronicle)
                if not isinstance(happening, Looked | Checked):
                    self._desk.hear(happening, chronicle)

    async def _kill(self, crew: Crew) -> None:
        self._killing = await crew.kill_when_paid(self._stage.shop)
        self._voice.killed(self._killing)

    async def _give_up(self, handle: WorkflowHandle[Any, RunResult]) -> None:
        """Leave no run behind that nobody works on."""
        with contextlib.suppress(RPCError, WorkflowFailureError, TimeoutError):
            await handle.cancel()
            try:
                await asyncio.wait_for(handle.result(), GOODBYE_SECONDS)
            except TimeoutError:
                await handle.terminate("the demo ended before its run")
        self._out.note(f"The run {handle.id} was cancelled.")

    async def _facts(
        self,
        handle: WorkflowHandle[Any, RunResult],
        model: str,
        result: RunResult,
        before: Books,
        startup_seconds: float,
    ) -> Facts:
        closed = await handle.describe()
        assert closed.close_time is not None
        return Facts(
            workflow_id=handle.id,
            run_id=closed.run_id,
            asked=DEMO_INPUT,
            model=model,
            rules_server=self._rules.name,
            address=self._connection.address,
            run_url=self._connection.run_url(handle.id, closed.run_id),
            look=self._commands(handle.id),
            steps=tuple(self._voice.steps),
            requests=await self._desk.settled(),
            result=result,
            before=before,
            books=read_books(self._stage.shop),
            killing=self._killing,
            mended=tuple(self._voice.mended),
            breaks=self._wishes.breaks,
            startup_seconds=startup_seconds,
            seconds=(closed.close_time - closed.start_time).total_seconds(),
        )

    def _commands(self, workflow_id: str) -> tuple[str, ...]:
        connection = self._connection
        temporal = commands.temporal(connection.server.binary if connection.server is not None else None)
        return (
            f"{self._program} show {workflow_id}{connection.options}",
            f"{temporal} workflow describe -w {workflow_id}{connection.temporal_options}",
        )

    def _report(self, facts: Facts) -> None:
        if self._out.as_json:
            self._out.json(facts.as_json())
            return
        report.tell(facts, self._out)
        if self._wishes.kill and self._killing is None:
            self._out.print("No worker was killed: the agent issued no refund.")
        self._out.print("")
        columns = width(self._out)
        if self._connection.server is not None and not self._wishes.keep:
            self._out.print("The server ends with this command. To bring it and its runs back:")
            self._out.print(commands.broken(f"{self._program} server", columns), "")
        # Without the run id, with which it does not fit into a line; the newest run of the id is this one.
        if (url := self._connection.run_url(facts.workflow_id)) is not None:
            self._out.print("Look at the run:", f"  {url}")
        for command in facts.look:
            self._out.print(commands.broken(command, columns))

    async def _stay(self) -> None:
        with stop_signals(lambda: None) as stopped:
            self._out.note("Server and Web UI stay until Ctrl-C.")
            await stopped.wait()


def _opened(store: str) -> Blobs:
    try:
        return Blobs(open_store(store))
    except ValueError as error:
        raise CliError(f"MANDATE_STORE: {error}") from None
