"""A tool that moves money and goes wrong call by call as its argument says, and rules that limit what it moves."""

from typing import Any

from temporalio.client import WorkflowHandle

from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import ALLOW_ALL, Site, texts_told
from tests.support.toolkit import calls_of, keep

LIMIT: dict[str, Any] = {
    "id": "limit",
    "match": {"tools": ["transfer"]},
    "when": "run.totals.transfer.amount + args.amount > 100.0",
    "verdict": "deny",
}
ASK_90: dict[str, Any] = {
    "id": "asked",
    "match": {"tools": ["transfer"]},
    "when": "args.amount == 90.0",
    "verdict": "ask",
}
"""Other amounts are for nobody to decide."""

UNASKED = [LIMIT, *ALLOW_ALL]
ASKED = [ASK_90, *UNASKED]
OVER_LIMIT = "rule 'limit' denies 'transfer'"
REFUSED = "the account is closed"


@tool(effect="once", retries=0, timeout="20s")
async def transfer(amount: float, context: ToolContext, how: str = "done") -> str:
    """Move money: `how` is a list of `done`, `refused`, `arrived` and `lost`, one for each call that has it."""
    keep("transfer", context, amount=amount, how=how)
    match _step(context, how):
        case "refused":
            raise NotDone(REFUSED)
        case "arrived" | "lost":
            raise ConnectionError("the line broke")
    return f"moved {amount:g}"


@tool(effect="read", timeout="20s")
async def find_transfer(how: str, context: ToolContext) -> dict[str, object]:
    """Whether the money of the last transfer has come, although there was no reply."""
    return {"done": _step(context, how) == "arrived"}


def _step(context: ToolContext, how: str) -> str:
    """What the newest call does that has this `how`."""
    made = [call for call in calls_of(context.workflow_id, "transfer") if call.arguments["how"] == how]
    steps = how.split(", ")
    return steps[min(len(made), len(steps)) - 1]


def moved(workflow_id: str) -> list[object]:
    """The amounts of all calls of one run that reached the tool."""
    return [call.arguments["amount"] for call in calls_of(workflow_id, "transfer")]


def transfers(*amounts: float, how: str = "done") -> dict[str, Any]:
    """A turn with these calls."""
    return {"call": [{"transfer": {"amount": amount, "how": how}} for amount in amounts]}


def write_payer(site: Site, turns: list[dict[str, Any]], policy: list[dict[str, Any]], left: int, **keys: Any) -> None:
    """The agent `payer`, whose last two turns show that after `turns` exactly `left` can be moved."""
    tool = {"python": "tests.support.money:transfer", **keys.pop("tool", {})}
    others = ("tests.support.money:find_transfer", "tests.support.toolkit:big")
    ending = [transfers(left + 1), transfers(left), {"say": "done"}]
    tools = [tool, *({"python": other} for other in others)]
    # Turns in which nothing works would ask people how to go on.
    site.write("payer", [*turns, *ending], policy=policy, tools=tools, attempts=20, **keys)


async def told_before_the_end(site: Site, handle: WorkflowHandle[Any, Any], left: int) -> list[str]:
    """What the model was told of the calls of a payer's turns; the last two turns must go as `left` says."""
    result = await handle.result()
    assert (result.status, result.uncertain) == (RunStatus.COMPLETED, ())
    told = await texts_told(site, result.head)
    assert told[-2:] == [f"refused: {OVER_LIMIT}", f"moved {left}"]
    assert moved(handle.id)[-1] == left
    return told[:-2]
