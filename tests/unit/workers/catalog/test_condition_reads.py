"""Conditions that would read a sensitive argument in the workflow, which has only a digest of it, are refused."""

from pathlib import Path

import pytest

from mandate.workers.catalog.condition_reads import sensitive_reads
from tests.unit.workers.catalog.test_checks import TOOLS, faults_of, folder, load

__all__ = ["folder"]

HIDING = TOOLS.replace("issue_refund\n", "issue_refund\n    sensitive: [note]\n")
FINDING = HIDING.replace("find_refund\n", "find_refund\n    sensitive: [key]\n")


@pytest.mark.parametrize(
    "text",
    [
        "args.card == 'x'",
        "has(args.card)",
        'args["card"] == "x"',
        "args [ 'card' ]",
        "args.`card` == ''",
        "args.Card == ''",
        "args.ca_rd == ''",
        "args.pay.card == ''",
        "args.items.exists(i, i.card == '')",
        "args.items[0].card == ''",
        "args == {'a': 1}",
        "args.map(k, args[k])",
        "args.exists(k, k == 'card')",
        "'card' in args",
        "args[tool.name] == 1",
        "args['c' + 'ard'] == 1",
        "args['\\x63ard'] == 1",
        "size(args) > 1",
        "[args][0].amount > 1",
        "dyn(args).amount > 1",
        "(args).amount > 1",
        ".args.card == ''",
        "1 > 0 ? args : args",
        "args.amount > 1 && args.card.size() > 1",
        "args.?card.orValue('') == ''",
    ],
)
def test_what_reads_a_sensitive_argument_is_seen(text: str) -> None:
    assert sensitive_reads(text, ("card",))


@pytest.mark.parametrize(
    "text",
    [
        "args.amount < 100.0",
        "args['amount'] < 100.0",
        "has(args.amount) && args.discard",
        "args.items.exists(i, i.price > 1.0)",
        "args.items[0].price > 1.0",
        "args.items[size(args.items) - 1].price > 1.0",
        "run.labels.card == 'x' && tool.name == 'args'",
        "run.calls.card > 0",
        "args.note == 'args.card'  // args.card",
        'args.note == """args.card"""',
        "true",
    ],
)
def test_what_does_not_is_left_alone(text: str) -> None:
    assert sensitive_reads(text, ("card",)) == ()
    assert sensitive_reads("args.card == args", ()) == ()


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ("args.note == 'x'", "column 6: reads 'note', which is sensitive: the workflow, which evaluates it, has only"),
        ("has(args.note)", "column 10: reads 'note', which is sensitive"),
        ("args == args", "column 1: reads 'args' as a whole, and 'note' is sensitive"),
        ("run.totals.issue_refund.note > 0.0", "run.totals.issue_refund has no 'note'"),
    ],
)
async def test_rule_is_refused_with_its_place(folder: Path, when: str, fault: str) -> None:
    rule = f'policy:\n  - {{id: big, match: {{tools: [issue_refund]}}, verdict: deny, when: "{when}"}}\n'

    told = await faults_of(folder, rule, HIDING)

    assert [line for line in told if "policy[0].when: rule 'big', " in line and fault in line], told
    assert any(line.startswith("12:") for line in told)


async def test_shared_policy_is_refused_for_the_agent_that_names_it(folder: Path) -> None:
    policies = folder.parent / "policies"
    policies.mkdir()
    rule = "rules:\n  - {id: big, match: {tools: ['*']}, verdict: deny, when: \"args.note == 'x'\"}\n"
    (policies / "strict.yaml").write_text(f"name: strict\n{rule}")

    told = await faults_of(folder, "policies: [strict]\n", HIDING)

    assert any("strict.yaml" in line and "agent 'shop'" in line and "'issue_refund'" in line for line in told), told


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("expect: 'true', when: \"args.note == 'x'\"", "reads 'note', which is sensitive"),
        (
            "tool: find_refund, with: {order: args.order, key: args.note}, expect: 'true'",
            "is made from the sensitive 'note'; name 'key' under 'sensitive' of 'find_refund'",
        ),
    ],
)
async def test_check_that_reads_one_in_the_workflow_is_refused(folder: Path, check: str, fault: str) -> None:
    told = await faults_of(folder, f"checks:\n  - {{after: issue_refund, {check}}}\n", HIDING)

    assert any(fault in line for line in told), told


async def test_reference_is_handed_on_as_it_is_and_not_computed_with(folder: Path) -> None:
    asked = "tool: find_refund, with: {{order: args.order, key: {}}}, expect: 'true'"
    check = f"checks:\n  - {{{{after: issue_refund, {asked}}}}}\n"

    (fault,) = await faults_of(folder, check.format("args.note + 'x'"), FINDING)

    assert fault.endswith(
        "computes with the sensitive 'note', of which the workflow has only a digest; "
        "hand it on as it is, as in args.note"
    )
    assert (await load(folder, check.format("args.note"), FINDING)).pinned.checks


async def test_conditions_over_results_may_read_it_since_the_activity_has_the_value(folder: Path) -> None:
    checks = 'checks:\n  - {after: issue_refund, expect: "result.note == args.note"}\n'

    assert (await load(folder, checks, HIDING)).pinned.checks


async def test_sensitive_numbers_are_not_summed(folder: Path) -> None:
    hiding = TOOLS.replace("issue_refund\n", "issue_refund\n    sensitive: [amount]\n")

    loaded = await load(folder, "", hiding)

    assert [made.tool.numeric for made in loaded.pinned.tools if made.tool.name == "issue_refund"] == [("order",)]
