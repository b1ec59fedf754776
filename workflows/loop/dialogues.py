"""Dialogues of MCP servers with people in the middle of a call: asked, waited for, and carried on."""

from collections.abc import Callable

from temporalio import workflow

from mandate.workflows.contracts.question import OpenQuestions, ServerQuestions
from mandate.workflows.loop import questions
from mandate.workflows.loop.people import PeopleGate
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import JudgedCall

OPEN_BYTES = 256 * 1024
"""Most that the open questions of servers take in the state, which is carried over continue-as-new."""


class Dialogues:
    """The open questions of servers in the calls of one turn; they stand in the state."""

    def __init__(self, run: Run, gate: PeopleGate) -> None:
        self._run = run
        self._gate = gate

    def has_room(self, asked: ServerQuestions) -> bool:
        """Return whether the run can carry these questions beside those that are open."""
        texts = [request.question or "" for request in self._gate.state.open if request.server is not None]
        texts += [question.text for question in asked.questions]
        return sum(len(text.encode()) for text in texts) <= OPEN_BYTES

    def ask(self, placed: JudgedCall, asked: ServerQuestions) -> None:
        """Ask people all that a server wants to know, each question in a request of its own."""
        requests = []
        for question in asked.questions:
            request = questions.build_request(
                self._run, self._gate.next_id(), index=placed.index, line=placed.line, asked=asked, question=question
            )
            self._gate.ask(request)
            self._run.record_step(f"asks {', '.join(request.waits_for)}: {request.title} ({request.id})")
            requests.append(request)
        # The requests have the texts.
        bare = tuple(question.model_copy(update={"text": ""}) for question in asked.questions)
        kept = asked.model_copy(update={"questions": bare})
        self._keep(placed.index, OpenQuestions(asked=kept, requests=tuple(request.id for request in requests)))
        self._run.publish_status()
        self._gate.notifications.tell(requests, "asked")

    def is_open(self, index: int) -> bool:
        """Return whether a call waits for answers, or has them and was not carried on yet."""
        opened = self._run.state.asked.get(index)
        return opened is not None and not opened.is_sent

    def is_answered(self, index: int) -> bool:
        return self._run.state.asked[index].is_answered

    async def wait(self, index: int, *, until: Callable[[], bool]) -> None:
        """Wait until people have answered all, or `until` says that the run has to halt."""
        if not self.is_answered(index):
            names = self._run.request_facts.waits_for(self._gate.state.open)
            self._run.set_doing(f"waiting for {', '.join(names)}")
            await workflow.wait_condition(lambda: self.is_answered(index) or until())

    def note_sent(self, index: int) -> None:
        self._keep(index, self._run.state.asked[index].model_copy(update={"is_sent": True}))

    def _keep(self, index: int, opened: OpenQuestions) -> None:
        self._run.state.asked = {**self._run.state.asked, index: opened}
