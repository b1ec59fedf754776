"""Trees of runs, as Temporal lists them: the place of a run in its tree, and all runs of one."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client.answers import Unknown
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a run in its tree, by workflow ids; both `None` for a run that no other has started."""

    parent: str | None = None
    root: str | None = None


@dataclass(slots=True)
class Branch:
    """One run of a tree, and those that it started."""

    workflow_id: str
    run: WorkflowExecution | None
    """Its newest part; `None` where the server does not know of it any more."""
    children: list["Branch"] = field(default_factory=list)
    """In the order in which they were started."""

    @property
    def is_agent(self) -> bool:
        """True for the run of an agent: a workflow of another kind may have started one."""
        return self.run is None or self.run.workflow_type in (AGENT_WORKFLOW, PLAN_WORKFLOW)

    def walk(self) -> Iterator["Branch"]:
        """Yield this one and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def read_place(info: WorkflowExecutionInfo) -> Place:
    """Return the place of a run that was listed or described."""
    parent = info.parent_execution.workflow_id
    return Place(parent, info.root_execution.workflow_id or parent) if parent else Place()


async def find_place(client: Client, workflow_id: str) -> Place:
    """Return the place of the newest run of a workflow id.

    Raises:
        Unknown: there is no such run.
    """
    return read_place((await _describe(client, workflow_id)).raw_info)


async def find_root(client: Client, workflow_id: str, run_id: str | None = None) -> tuple[str, str]:
    """Return the workflow id of the run at the root of a run's tree, and the first run id of its chain.

    Raises:
        Unknown: there is no such run.
    """
    described = await _describe(client, workflow_id, run_id)
    root = described.raw_info.root_execution
    if root.workflow_id and root.workflow_id != workflow_id:
        workflow_id, described = root.workflow_id, await _describe(client, root.workflow_id, root.run_id)
    return workflow_id, described.raw_description.workflow_execution_info.first_run_id or described.run_id


async def find_agent(client: Client, workflow_id: str) -> str | None:
    """Return the agent of a run; `None` where the server does not tell."""
    try:
        return read_attribute(await _describe(client, workflow_id), "AgentName")
    except (RPCError, Unknown):
        return None


def read_attribute(run: WorkflowExecution, name: str) -> str | None:
    """Return a search attribute of a run, a text or a number; `None` where it has none."""
    found = run.search_attributes.get(name)
    return str(found[0]) if found else None


def write_query(root: str) -> str:
    """Return the visibility query for the run `root` and all below it.

    Raises:
        ValueError: no query can hold the id.
    """
    # The server finds nothing by the others, whichever way they are written.
    is_safe = root.strip("'") == root and all(sign >= " " and sign not in '"\\\x7f' for sign in root)
    if not root or not is_safe:
        raise ValueError(
            f"the runs below {root!r} cannot be searched for: its id holds a double quote, a backslash or a control "
            "character, or begins or ends with a quote"
        )
    return f'RootWorkflowId="{root}"'


async def find_tree(client: Client, workflow_id: str, run_id: str | None = None) -> Branch:
    """Return all runs of the tree that a run belongs to, each once; what was started just now may be missing.

    Raises:
        Unknown: there is no such run.
        ValueError: its runs cannot be searched for.
    """
    asked = await _describe(client, workflow_id, run_id)
    root = asked.raw_info.root_execution
    root_id, root_run = root.workflow_id or asked.id, root.run_id or asked.run_id
    listed = [run async for run in client.list_workflows(write_query(root_id), page_size=1000)]
    chains = _Chains(client, root_id)
    own = await chains.find(root_run)
    # Runs of an earlier start of the same id are of another tree.
    members = [asked, *[run for run in listed if await chains.find(_root_run(run)) in {own, None}]]
    if root_id not in {run.id for run in members}:
        members += await _find_root(client, root_id, own)
    return _grow(root_id, members)


def _root_run(run: WorkflowExecution) -> str:
    return run.raw_info.root_execution.run_id or run.run_id


class _Chains:
    """First run ids of the parts of one workflow id, each looked up once."""

    def __init__(self, client: Client, workflow_id: str) -> None:
        self._client = client
        self._workflow_id = workflow_id
        self._known: dict[str, str | None] = {}

    async def find(self, run_id: str) -> str | None:
        """Return the first run id of the chain that a part belongs to; `None` where nobody knows the part any more."""
        if run_id not in self._known:
            try:
                info = (await _describe(self._client, self._workflow_id, run_id)).raw_info
                self._known[run_id] = info.first_run_id or run_id
            except Unknown:
                self._known[run_id] = None
        return self._known[run_id]


async def _find_root(client: Client, workflow_id: str, chain: str | None) -> list[WorkflowExecution]:
    """Return the newest part of a root that is not listed yet."""
    try:
        described = await _describe(client, workflow_id)
    except Unknown:
        return []
    info = described.raw_info
    return [described] if chain in {info.first_run_id or described.run_id, None} else []


async def _describe(client: Client, workflow_id: str, run_id: str | None = None) -> WorkflowExecutionDescription:
    try:
        return await client.get_workflow_handle(workflow_id, run_id=run_id).describe()
    except RPCError as error:
        if error.status not in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
            raise
        raise Unknown(workflow_id) from None


def _grow(root_id: str, members: Iterable[WorkflowExecution]) -> Branch:
    """Put the newest part of each run below its parent; one whose parent is gone stands below the root."""
    newest: dict[str, WorkflowExecution] = {}
    for run in members:
        known = newest.get(run.id)
        # Of the same part, what was described is newer than what is listed.
        if known is None or run.start_time > known.start_time:
            newest[run.id] = run
    branches = {name: Branch(name, run) for name, run in newest.items()}
    root = branches.setdefault(root_id, Branch(root_id, None))
    for name, run in newest.items():
        if name != root_id:
            parent = branches.get(run.raw_info.parent_execution.workflow_id, root)
            parent.children.append(branches[name])
    _prune(root)
    return root


def _prune(branch: Branch) -> None:
    """Leave out workflows that are no runs of agents and have none below them; bring the others in order."""
    for child in branch.children:
        _prune(child)
    left = [child for child in branch.children if child.children or child.is_agent]
    branch.children = sorted(left, key=_order)


_NUMBER = re.compile(r"/c(\d+)(?:-\d+)?$")


def _order(branch: Branch) -> tuple[int, str]:
    """Return the place of a child among its siblings: by its number, as they may begin in any order."""
    found = _NUMBER.search(branch.workflow_id)
    return (int(found[1]) if found is not None else 0, branch.workflow_id)
