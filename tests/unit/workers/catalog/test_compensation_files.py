"""Compensations of agent files: made whole when they fit their tools, else every fault with its place."""

from pathlib import Path

import pytest

from mandate.workflows.contracts.compensation import CompensationSpec
from tests.unit.workers.catalog.test_checks import TOOLS, faults_of, folder, load

__all__ = ["folder"]

CANCEL = """\
  - activity: {name: cancel_refund, task_queue: other}
    input_schema: {type: object, properties: {order: {type: integer}, reason: {type: string}}, required: [order]}
"""


def tools(compensate: str, of: str = "issue_refund") -> str:
    return TOOLS.replace(f"{of}\n", f"{of}\n    compensate: {compensate}\n") + CANCEL


async def test_short_compensation_is_given_the_arguments_that_both_have(folder: Path) -> None:
    loaded = await load(folder, "", tools("cancel_refund"))

    spelt = CompensationSpec(tool="cancel_refund", arguments={"order": "args.order"})
    assert loaded.pinned.compensations == {"issue_refund": spelt}


@pytest.mark.parametrize(
    ("compensate", "fault"),
    [
        ("cancel_refnd", "'cancel_refnd' is no tool of this agent; did you mean 'cancel_refund'?"),
        ("find_refund", "'find_refund' only reads, which takes nothing back"),
        ("issue_refund", "takes its own calls back, which would be taken back in turn; name another tool"),
        (
            "{tool: cancel_refund, with: {order: result.order, reason: reslt.id}}",
            "column 6: there is no 'reslt'; did you mean 'result'? it sees args, key, result",
        ),
        ("{tool: cancel_refund}", "'cancel_refund' needs the argument 'order'"),
        ("[cancel_refund]", "a list is neither a name nor a mapping with 'tool'"),
        ("{toll: cancel_refund}", "toll: is not a key that is known here; did you mean 'tool'?"),
    ],
)
async def test_fault_of_a_compensation_is_told_with_its_place(folder: Path, compensate: str, fault: str) -> None:
    told = await faults_of(folder, "", tools(compensate))

    assert [line for line in told if fault in line and line.startswith("7:")], told


async def test_of_a_read_nothing_can_be_taken_back(folder: Path) -> None:
    assert await faults_of(folder, "", tools("cancel_refund", of="find_refund")) == [
        (
            "6:5: tools[0].compensate: belongs to tools that change the world; "
            "of a call that only reads nothing can be taken back"
        )
    ]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("args.note", "is made from the sensitive 'note'; name 'reason' under 'sensitive' of 'cancel_refund'"),
        (
            "result.text",
            (
                "is made from the result of a tool with sensitive arguments; name 'reason' under 'sensitive' "
                "of 'cancel_refund'"
            ),
        ),
    ],
)
async def test_what_is_shown_nowhere_is_handed_to_nothing_that_is(folder: Path, given: str, fault: str) -> None:
    spec = f"{{tool: cancel_refund, with: {{order: args.order, reason: {given}}}}}\n    sensitive: [note]"

    activity = "activity: {name: cancel_refund, task_queue: other}"
    by_http = tools(spec).replace(activity, "http: {method: POST, url: 'https://x.example/'}\n    name: cancel_refund")

    told = await faults_of(folder, "", by_http)
    hidden = by_http + "    sensitive: [reason]\n"

    assert [line for line in told if fault in line], told
    assert (await load(folder, "", hidden)).pinned.compensations
    assert any("'cancel_refund' is an activity" in line for line in await faults_of(folder, "", tools(spec)))
