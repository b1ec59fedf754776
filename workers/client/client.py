"""Clients: connecting to Temporal, and starting and reading runs."""

import atexit
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel
from temporalio.client import Client, PayloadLimitsConfig, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError

from mandate.workers.client import answers, earlier_run, inbox, messages, sessions
from mandate.workers.client.earlier_run import UsedId
from mandate.workers.client.start_requests import (
    name_plan,
    new_workflow_id,
    read_plan_start,
    read_start,
    read_workflow_id,
    summarize,
    to_plain,
)
from mandate.workers.client.trace_context import CallerInterceptor
from mandate.workers.client.updates import Patience
from mandate.workers.converter import data_converter
from mandate.workers.settings import Settings
from mandate.workflows.contracts.plan import PlanRequest, PlanResult, PlanSpec
from mandate.workflows.contracts.request import Decision, Halt, OpenRequests, Receipt, Steering, Stop, Told
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW, TASK_TIMEOUT, RunResult, StartRequest
from mandate.workflows.contracts.session import Reply, Say
from mandate.workflows.rules import wording

if TYPE_CHECKING:
    from mandate.workers.client.streams import StreamEvent

# The SDK's threads may still hold Python objects when the interpreter goes down: without this pause before it does,
# one process in ten aborts at exit.
atexit.register(time.sleep, 0.05)

R = TypeVar("R", bound=BaseModel)

DEFAULT_ADDRESS = "localhost:7233"

PAYLOAD_LIMITS = PayloadLimitsConfig(payloads_warn_size=0)
"""The SDK's warnings of large payloads are off: what is too large is refused with a sentence before it is sent."""


async def connect(
    *,
    address: str | None = None,
    namespace: str | None = None,
    profile: str | None = None,
    identity: str | None = None,
) -> Client:
    """Connect as the Temporal CLI would: by profile file, then `mandate.yaml`, then environment, then the arguments.

    Raises:
        RuntimeError: the server cannot be reached.
        SettingsError: all faults of `mandate.yaml`.
    """
    told = {name: value for name, value in Settings.from_environment().environment.items() if value}
    config: dict[str, Any] = dict(ClientConfig.load_client_connect_config(profile, override_env_vars=told))
    config.setdefault("target_host", DEFAULT_ADDRESS)
    overrides = {"target_host": address, "namespace": namespace, "identity": identity}
    config |= {name: value for name, value in overrides.items() if value is not None}
    return await Client.connect(
        **config,
        data_converter=data_converter(),
        payload_limits=PAYLOAD_LIMITS,
        interceptors=[CallerInterceptor()],
    )


class RunFailed(WorkflowFailureError):
    """A run that has no result; the text says why."""

    def __init__(self, workflow_id: str, cause: BaseException) -> None:
        super().__init__(cause=cause)
        self._says = f"run {workflow_id!r} has no result: {getattr(cause, 'message', None) or cause}"

    def __str__(self) -> str:
        return self._says


class AgentClient:
    """Client that starts runs, reads results and sends messages; any Temporal client can do so with JSON objects."""

    def __init__(self, client: Client, task_queue: str | None = None) -> None:
        """Take a client; runs start on `task_queue`, else on that of the settings."""
        self.client = client
        self._task_queue = task_queue or Settings.from_environment().task_queue
        self._sessions = set[str]()
        """Ids of sessions that were looked at."""

    async def start(
        self,
        agent: str,
        input: str | Mapping[str, Any],  # noqa: A002 - the public name of the field
        *,
        workflow_id: str | None = None,
        requester: str | None = None,
        labels: Mapping[str, str] | None = None,
        steps: int | None = None,
        budget: Mapping[str, Any] | None = None,
        model: str | None = None,
        token: str | None = None,
        tainted: bool = False,
        again: bool = False,
        session: Mapping[str, Any] | None = None,
        continues: Mapping[str, Any] | None = None,
    ) -> WorkflowHandle[Any, RunResult]:
        """Start a run of `agent`.

        Args:
            agent: name of an agent file of the workers.
            input: what the agent is asked, a text or an object.
            workflow_id: of the run; `<agent>-<8 hex digits>` if left out. One that a run had before is refused for as
                long as the server knows that run.
            requester: who asks, and so decides on nothing that the run asks people: a name or address of the workers'
                file of people, unless the agent file says `requester: anyone`.
            labels: for finding the run.
            steps: a lower limit of model calls than the agent file's.
            budget: lower limits than the agent file's, for example `{"cost_usd": "0.50", "wall_time": "10m"}`.
            model: asked in place of the agent's route; one that the agent file allows.
            token: signed by the requester's identity provider, where decisions on the agent's runs are signed; its
                claims are those of `mandate.workflows.contracts.start.start_claims`, with the `workflow_id` given here.
            tainted: the input comes from strangers, as what an untrusted tool returns.
            again: start another run under the id of one that has ended; its calls have new idempotency keys.
            continues: begin with the conversation of another run, which is left as it is, for example
                `{"run": "refunds-1a2b3c4d", "step": 3}`; after its last step if `step` is left out. What that run did
                later is not done again, and what people approved there counts for nothing.
            session: the run waits for more messages after its answer, for example `{"idle": "30m"}`; see `say`.

        Raises:
            ValueError: a value does not fit `StartRequest` or is too large; the sentence names the field and what is
                allowed.
            UsedId: a run has this id, or had it and `again` is false; its `run` tells how that one stands or ended. It
                is a `WorkflowAlreadyStartedError`.
        """
        limits = to_plain(budget)
        if steps is not None and (limits is None or isinstance(limits, dict)):
            limits = {**(limits or {}), "steps": steps}
        given = {
            "agent": agent,
            "input": to_plain(input),
            "requester": requester,
            "labels": to_plain(labels) or {},
            "budget": limits or None,
            "model": model,
            "token": token,
            "tainted": tainted,
            "session": to_plain(session),
            "continues": to_plain(continues),
        }
        request = read_start(given)
        name = read_workflow_id(workflow_id) or new_workflow_id(agent)
        return await self._start(AGENT_WORKFLOW, request, RunResult, name, again=again)

    async def start_plan(
        self,
        plan: str | Mapping[str, Any] | PlanSpec,
        input: Any = None,  # noqa: A002 - the public name of the field
        *,
        workflow_id: str | None = None,
        requester: str | None = None,
        labels: Mapping[str, str] | None = None,
        budget: Mapping[str, Any] | None = None,
        token: str | None = None,
        tainted: bool = False,
        again: bool = False,
    ) -> WorkflowHandle[Any, PlanResult]:
        """Start a run of a plan.

        Args:
            plan: name of a plan file of the workers; or a plan as data, whose steps name agents and plans of theirs.
            input: what the plan is asked, any value of JSON.
            workflow_id: of the run; `plan-<name>-<8 hex digits>` if left out.
            requester: as of `start`.
            labels: as of `start`.
            budget: lower limits than the plan's.
            token: as of `start`.
            tainted: as of `start`.
            again: as of `start`.

        Raises:
            ValueError: a value does not fit `PlanRequest`; the sentence names the field and what is allowed.
            UsedId: as `start`.
        """
        request = read_plan_start(
            {
                "plan": to_plain(plan),
                "input": input,
                "requester": requester,
                "labels": to_plain(labels) or {},
                "budget": to_plain(budget) or None,
                "token": token,
                "tainted": tainted,
            }
        )
        name = read_workflow_id(workflow_id) or f"plan-{new_workflow_id(name_plan(request))}"
        return await self._start(PLAN_WORKFLOW, request, PlanResult, name, again=again)

    async def _start(
        self, kind: str, request: StartRequest | PlanRequest, result: type[R], workflow_id: str, *, again: bool
    ) -> WorkflowHandle[Any, R]:
        """Start a workflow with one request; raise `UsedId` as `start`."""
        try:
            return await self.client.start_workflow(
                kind,
                request.model_dump(mode="json", exclude_defaults=True),
                id=workflow_id,
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                result_type=result,
                id_reuse_policy=_choose_reuse(again=again),
                static_summary=summarize(request),
            )
        except WorkflowAlreadyStartedError as error:
            found = await earlier_run.find_earlier_run(self.client, error.workflow_id)
            raise UsedId(error, found) from None

    async def run_plan(
        self,
        plan: str | Mapping[str, Any] | PlanSpec,
        input: Any = None,  # noqa: A002 - the public name of the field
        **options: Any,
    ) -> PlanResult:
        """Run a plan to its end, and return its result; take the arguments of `start_plan`.

        Raises:
            ValueError, UsedId: as `start_plan`.
            RunFailed: the workers refuse the plan or its input, or somebody has cancelled or terminated the run; the
                text says why. It is a `WorkflowFailureError`, as what `result()` of a handle raises, whose `cause` has
                that text.
        """
        handle = await self.start_plan(plan, input, **options)
        try:
            return await handle.result()
        except WorkflowFailureError as error:
            raise RunFailed(handle.id, error.cause) from None

    async def say(
        self,
        workflow_id: str,
        agent: str,
        text: str,
        *,
        by: str,
        message_id: str | None = None,
        when: Literal["now", "next"] = "next",
        until: Literal["answer", "people"] = "people",
        idle: timedelta | str | None = None,
        tainted: bool = False,
        labels: Mapping[str, str] | None = None,
        budget: Mapping[str, Any] | None = None,
        model: str | None = None,
        token: str | None = None,
        patience_seconds: float = messages.PATIENCE_SECONDS,
    ) -> Reply:
        """Say something to a session, and return its reply; the first message starts it.

        A message that comes once the session has ended for lack of messages starts its next part, which knows all that
        was said and done before.

        Args:
            workflow_id: of the session.
            agent: name of an agent file of the workers; a session stays with its agent.
            text: the words, which the model is told as those of `by`.
            by: who speaks; the one who starts a part of the session is the requester of its run.
            message_id: an id of the sender's, 1 to 64 characters. A message that comes again with the same id is not
                told again, and has the same reply; left out, each call is another message.
            when: while the agent works, `now` tells it at its next step, `next` once it has answered what came before.
            until: `answer` waits for the answer, `people` returns a reply with the status `waiting` when the run waits
                for people; the same message sent again asks again.
            tainted: the words come from strangers, as what an untrusted tool returns.
            idle: how long the session waits for another message before its run ends; 30 minutes if left out. This and
                what stands below count when the message starts a part.
            labels: as of `start`.
            budget: as of `start`.
            model: as of `start`.
            token: as of `start`.
            patience_seconds: how long servers and workers that do not answer are waited for.

        Raises:
            ValueError: a value does not fit; the sentence names the field and what is allowed.
            MessageError: as `messages.decide`.
        """
        session = read_workflow_id(workflow_id)
        if session is None:
            raise ValueError("workflow_id: is missing; a session has an id, and the first message starts it")
        known = message_id if message_id is not None else secrets.token_hex(12)
        message = messages.read_words(Say, text=text, by=by, id=known, when=when, until=until, tainted=tainted)
        request = read_start(
            {
                "agent": agent,
                "input": text,
                "requester": by,
                "labels": to_plain(labels) or {},
                "budget": to_plain(budget) or None,
                "model": model,
                "token": token,
                "tainted": tainted,
                "session": {"message": known, **({"idle": idle} if idle is not None else {})},
            }
        )
        opening = sessions.Opening(session, self._task_queue, request)
        if session not in self._sessions:
            await sessions.check(self.client, session, agent)
            self._sessions.add(session)
        return await sessions.say(self.client, opening, message, Patience(patience_seconds))

    async def stream(
        self, workflow_id: str, *, after: int = 0, store: str | None = None
    ) -> "AsyncIterator[StreamEvent]":
        """Yield what the model of a run says as it comes, until the run has ended.

        Read along from before a run starts, or from the middle: answers that begin half a second later are told piece
        by piece. Nothing of it goes through Temporal: the texts are in the workers' store, for an hour at most.

        Args:
            workflow_id: of the run; it need not have begun.
            after: the offset of the last event that was read; what came later is told, as far as it is kept.
            store: address of the workers' store; that of the settings if left out.

        Raises:
            StoreUnusable: the store is not here.
            StoreUnavailable: the store does not answer.
        """
        # Of use to who reads along only, and half of what a command imports.
        from mandate.workers.client.streams import StreamReader  # noqa: PLC0415
        from mandate.workers.run_store import stored  # noqa: PLC0415

        async with stored(store or Settings.from_environment().store, None) as blobs:
            async for event in StreamReader(self.client, blobs, workflow_id, after).events():
                yield event

    def handle(self, workflow_id: str, run_id: str | None = None) -> WorkflowHandle[Any, RunResult]:
        """Return the handle of a run by its workflow id."""
        return self.client.get_workflow_handle(workflow_id, run_id=run_id, result_type=RunResult)

    async def inbox(
        self, *, group: str | None = None, agent: str | None = None, root: str | None = None
    ) -> inbox.Inbox:
        """Return all that runs want from people; see `inbox.read_inbox`."""
        return await inbox.read_inbox(self.client, group=group, agent=agent, root=root)

    async def open_requests(self, workflow_id: str) -> OpenRequests:
        """Return the requests of one run to people; raise as `answers.open_requests`."""
        return await answers.open_requests(self.client, workflow_id)

    async def decide(self, workflow_id: str, decision: Decision) -> Receipt:
        """Answer one request of a run; raises as `messages.decide`."""
        return await messages.decide(self.client, workflow_id, decision)

    async def decide_many(self, decisions: Sequence[tuple[str, Decision]]) -> list[messages.DecisionResult]:
        """Answer many requests of many runs, each with its own digest; see `messages.decide_many`."""
        return await messages.decide_many(self.client, decisions)

    async def steer(self, workflow_id: str, text: str, *, by: str) -> Told:
        """Tell the model something at its next step.

        Raises:
            ValueError: the text is empty or too long, or `by` is no name; the sentence says what is allowed.
            MessageError: as `messages.decide`. What stands after this method raises both too.
        """
        words = messages.read_words(Steering, text=text, by=by)
        try:
            return await messages.steer(self.client, workflow_id, words)
        except messages.RunIsOver as error:
            raise messages.RunIsOver(f"{error}; {wording.GO_ON}") from None

    async def pause(self, workflow_id: str, *, by: str, reason: str = "", tree: bool = False) -> Told:
        """Let a run begin nothing new until it is resumed; with `tree`, all runs below it too."""
        halt = messages.read_words(Halt, by=by, reason=reason, tree=tree)
        return await messages.pause(self.client, workflow_id, halt)

    async def resume(self, workflow_id: str, *, by: str, reason: str = "", tree: bool = False) -> Told:
        """Let a paused run go on, and what was paused with it; with `tree`, also what was paused by itself below it."""
        halt = messages.read_words(Halt, by=by, reason=reason, tree=tree)
        return await messages.resume(self.client, workflow_id, halt)

    async def stop(self, workflow_id: str, *, by: str, reason: str = "", keep: bool = False) -> Told:
        """Let a run finish the call in hand and end as `stopped`; what it did is taken back where it may, or kept.

        All runs below it are stopped too, and before it.
        """
        return await messages.stop(self.client, workflow_id, messages.read_words(Stop, by=by, reason=reason, keep=keep))


def _choose_reuse(*, again: bool) -> WorkflowIDReusePolicy:
    return WorkflowIDReusePolicy.ALLOW_DUPLICATE if again else WorkflowIDReusePolicy.REJECT_DUPLICATE
