"""Children: runs that an agent starts as calls of a tool, and what passes between them and their parents."""

from datetime import timedelta
from typing import Literal

from pydantic import AwareDatetime, ConfigDict

from mandate.workflows.contracts.base import Digest, Name, Record
from mandate.workflows.contracts.board import BoardPlace
from mandate.workflows.contracts.budget import BudgetRequest, Limit
from mandate.workflows.contracts.plan import PlanResult
from mandate.workflows.contracts.policy import RequesterIs, ToolTotals

MOST_CHILDREN = 1000
"""Children of one run where its budget does not say."""

MOST_DEPTH = 20
"""Levels of children below a run where its budget does not say."""

CHILD_DONE = "child_done"
"""Signal of a child to its parent: `[child's workflow id, its result]`; the result is missing where it has none."""

CHILD_WAITS = "child_waits"
"""Signal of a child to its parent: `[child's workflow id, one ChildWaits]`, where a session is above."""

TELL_CHILD = "tell_child"
"""Signal of a parent to a child: one `ParentMessage`."""


class ChildRequest(Record):
    """The one argument of a child's workflow, marked by its parent: a call of the parent's conversation.

    Its bytes are in the parent's history: what the conversation tells is not in it.
    """

    name: Name
    """Of the agent; which one it is exactly, the tool of the call says."""
    head: Digest
    """Of the parent's conversation, whose call number `index` is what the child is asked."""
    index: int = 0
    edited: Digest | None = None
    """Address of the arguments that a person put in place of the model's."""
    depth: int = 1
    requester: str | None = None
    """Who asked for the run at the root."""
    standing: RequesterIs = "anyone"
    """Knowledge of who asked, as the parent has it."""
    speaker: str | None = None
    """The author of the newest message of the parent's session, or of one above."""
    labels: dict[str, str] = {}
    budget: BudgetRequest | None = None
    """Limits of its share that are lower than those of its agent."""
    lent: tuple[Limit, ...] = ()
    """Limits that the parent has too: of these the child holds a part, which nobody raises."""
    store: str = ""
    """Id of the parent's store, whose keys the mark is made with."""
    tainted: bool = False
    in_plan: bool = False
    """It is a plan, or below one."""
    totals: dict[str, ToolTotals] | None = None
    """Totals of the run that has written it, from which it counts on; set for a plan of a model."""
    board: BoardPlace | None = None
    """The run that holds the board of the tree, where that is not the one at Temporal's root."""
    refused: dict[Digest, str] = {}
    """As of `RecoveryState`, for plans and what is below them: nobody is asked for these again."""
    tells_waits: bool = False
    """A session is above: whoever speaks there is told whom the runs below wait for."""


class ChildState(Record):
    """Place of a run below its parent, in the child's state."""

    model_config = ConfigDict(frozen=False)

    parent: str
    """Workflow id."""
    depth: int
    """1 for a child of a run that nobody's agent started."""
    speaker: str | None = None
    lent: tuple[Limit, ...] = ()
    """As of `ChildRequest`."""
    in_plan: bool = False
    """As of `ChildRequest`."""
    totals: dict[str, ToolTotals] | None = None
    """As of `ChildRequest`."""
    board: BoardPlace | None = None
    """As of `ChildRequest`."""
    tells_waits: bool = False
    """As of `ChildRequest`."""
    told_waits: tuple[str, ...] = ()
    """Whom it waits for, as the parent was told last."""
    reports: bool = False
    """The parent has continued as new: only a signal tells it that the child has ended."""
    heard: int = 0
    """Number of the last message of the parent: none before it counts any more."""


class ChildReport(PlanResult):
    """Result of a child as its parent takes it in; the steps are those of a plan that did not end well."""

    refused: dict[Digest, str] = {}
    """As of `RecoveryState`, for plans: what people rejected in it and below it."""
    totals: dict[str, ToolTotals] = {}
    """What its own calls add to the totals of the run that wrote it, for a plan of a model."""


class OpenChild(Record):
    """A child that has not reported, in its parent's state."""

    number: int
    """Which of the parent's children it is."""
    id: str
    """Workflow id."""
    run_id: str
    """First run id of its chain."""
    due_at: AwareDatetime | None = None
    """Time at which it has ended by itself, where its time is limited."""
    reports: bool = False
    """It was told to report by signal."""
    messages: int = 0
    """Messages it was told so far."""
    paused: bool = False
    resumes: int = 0
    """`ControlState.tree_resumes` of which it was told, or that came before it."""
    stopped: int = 0
    """1 once it was told to stop, 2 to take nothing back."""
    waits_for: tuple[str, ...] = ()
    """Groups and users that it waits for, as it has told."""
    waits_number: int = 0
    """Number of the newest `ChildWaits` of it."""
    has_ended: bool = False
    report: ChildReport | None = None
    """Its result, until that is taken in; `None` where it has ended without one."""


class ParentMessage(Record):
    """Message of a parent to a child; its number keeps a copy from counting again."""

    number: int = 0
    verb: Literal["report", "pause", "resume", "stop"]
    by: str = ""
    reason: str = ""
    keep: bool = False
    """With `stop`: take nothing back."""


class ChildWaits(Record):
    """Message of a child to its parent; its number keeps a copy, or one that is late, from counting."""

    number: int
    waits_for: tuple[str, ...]
    """Groups and users that it waits for, and the runs below it."""


class FindReport(Record):
    """Input of `find_report`: a child that has ended without a report, or whose report was lost."""

    child: str
    """Workflow id."""
    run: str
    """First run id of the parent's chain."""
    head: Digest
    index: int
    edited: Digest | None = None
    """The call that it is to be a child for; as of `ChildRequest`."""
    is_ending: bool = False
    """It has said that it ends: to be waited for a little."""
    known: tuple[str, ...] | None = None
    """The run's other children, if any other that was started for this call is looked for in place of `child`."""


class ReportFound(Record):
    """Output of `find_report`."""

    status: Literal["running", "ended", "sibling", "other", "gone"]
    """`sibling`: the run has started it for another call; `other`: it has not; `gone`: nobody knows of it any more."""
    child: str = ""
    """Workflow id of the one that was looked for; empty if that was named."""
    run_id: str = ""
    """First run id of its chain."""
    result: ChildReport | None = None
    """For one that has ended: its own, or what can be told in its place."""


HARD_STOP = timedelta(minutes=15)
"""Time beyond a child's limit after which the server ends it: effects under way at the limit are waited for."""

LOOK_AFTER = timedelta(hours=1)
"""Between looks of a parent for children whose ends are events of it: a reset may have cut one off."""

FIRST_LOOK, LOOK_AGAIN = timedelta(seconds=15), timedelta(minutes=10)
"""Until a parent that has continued as new looks for a child which may have ended without a word, then twice as long
each time, and at most."""
