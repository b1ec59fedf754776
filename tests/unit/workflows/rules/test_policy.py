"""Judging calls by rules."""

import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.policy import Asking, Reading, Rule, RunFacts, ToolTotals, Verdict
from mandate.workflows.contracts.tool import Effect, Tool
from mandate.workflows.rules import policy, totals
from mandate.workflows.rules.needs import list_needs
from mandate.workflows.rules.policy import judge

LOOKUP = Tool(name="lookup_order", source="python", effect=Effect.READ)
REFUND = Tool(name="issue_refund", source="python", effect=Effect.KEYED, tags=("money",), numeric=("amount",), risk=0.4)
REMOVE = Tool(name="rm", source="mcp", untrusted=True)
TOOLS = (LOOKUP, REFUND, REMOVE)
NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
RUN = RunFacts(id="run-1", agent="refunds", version="abc", now=NOW)


def rule(verdict: str, when: str | None = None, *, name: str | None = None, **keys: object) -> Rule:
    """A rule named after its verdict."""
    match = {key: keys.pop(key) for key in ("tools", "effects", "tags", "sources") if key in keys}
    return Rule.model_validate({"id": name or verdict, "match": match, "when": when, "verdict": verdict, **keys})


def judged(rules: tuple[Rule, ...], tool: Tool = REFUND, run: RunFacts = RUN, **arguments: object) -> Verdict:
    return judge(rules, tool, arguments, run, tools=TOOLS)


@pytest.mark.parametrize(
    ("tool", "match", "unfit"),
    [
        (REFUND, {}, None),
        (REFUND, {"tools": ["issue_refund"]}, None),
        (REFUND, {"tools": ["issue_*"]}, None),
        (REFUND, {"tools": ["*refund*"]}, None),
        (REFUND, {"tools": ["issue"]}, "tools"),
        (REFUND, {"tools": ["issue.refund"]}, "tools"),
        (REFUND, {"tools": ["*"]}, None),
        (REFUND, {"tools": ["other", "issue_refund"]}, None),
        (REFUND, {"effects": ["keyed"]}, None),
        (REFUND, {"effects": ["once", "read"]}, "effects"),
        (REFUND, {"tags": ["money"]}, None),
        (REFUND, {"tags": ["other"]}, "tags"),
        (REFUND, {"sources": ["python"]}, None),
        (REFUND, {"sources": ["mcp", "http"]}, "sources"),
        (REFUND, {"tools": ["issue_refund"], "tags": ["other"]}, "tags"),
        (LOOKUP, {"tags": ["money"]}, "tags"),
    ],
)
def test_rule_matches_when_every_key_fits(tool: Tool, match: dict[str, object], unfit: str | None) -> None:
    rules = (rule("deny", **match),)

    assert policy.matches(rules[0].match, tool) is (unfit is None)
    assert (judged(rules, tool).rule == "deny") is (unfit is None)
    why = "it has no condition, and the tool fits" if unfit is None else f"its {unfit!r} do not fit the tool"
    assert policy.read(rules, tool, {}, RUN) == (Reading(rule="deny", verdict="deny", matched=unfit is None, why=why),)


SMALL = rule("allow", "args.amount < 100.0", name="small", tools=["issue_refund"])
LARGE = rule("ask", "args.amount >= 100.0", name="large", tools=["issue_refund"], because="Large refunds need finance.")
RISKY = rule("ask", "tool.risk > 0.3 && args.amount >= 500.0", name="risky")
TWICE = rule("deny", "run.calls.issue_refund >= 2", name="twice", tags=["money"], because="Two refunds are enough")


@pytest.mark.parametrize(
    ("tool", "arguments", "verdict"),
    [
        (REFUND, {"amount": 50.0}, Verdict(kind="allow", rule="small", reason="rule 'small' allows 'issue_refund'")),
        (
            REFUND,
            {"amount": 100.0},
            Verdict(
                kind="ask",
                rule="large",
                reason="rule 'large' asks people about 'issue_refund': Large refunds need finance",
                asking=("large",),
            ),
        ),
        (
            REFUND,
            {"amount": 500.0},
            Verdict(
                kind="ask",
                rule="large",
                reason="rule 'large' asks people about 'issue_refund': Large refunds need finance; "
                "so does rule 'risky'",
                asking=("large", "risky"),
            ),
        ),
        (
            REFUND,
            {},
            Verdict(
                kind="ask",
                rule="large",
                reason="rule 'large' asks people about 'issue_refund': Large refunds need finance "
                "(its condition could not be evaluated: the key 'amount' is missing); so does rule 'risky' "
                "(its condition could not be evaluated: the key 'amount' is missing)",
                asking=("large", "risky"),
            ),
        ),
        (LOOKUP, {}, Verdict(kind="allow", reason="no rule matches this call of 'lookup_order', which only reads")),
        (
            REMOVE,
            {"amount": 1.0},
            Verdict(kind="ask", reason="no rule matches this call of 'rm', which changes the world"),
        ),
    ],
)
def test_verdicts_and_their_reasons(tool: Tool, arguments: dict[str, object], verdict: Verdict) -> None:
    assert judged((SMALL, LARGE, RISKY, TWICE), tool, **arguments) == verdict


def test_deny_wins_and_says_why() -> None:
    run = RUN.model_copy(update={"totals": {"issue_refund": ToolTotals(calls=2)}})

    verdict = judged((SMALL, LARGE, TWICE), run=run, amount=500.0)

    assert verdict == Verdict(
        kind="deny", rule="twice", reason="rule 'twice' denies 'issue_refund': Two refunds are enough"
    )


def test_rules_without_conditions() -> None:
    rules = (rule("allow", tools=["*"]), rule("deny", tags=["money"]))

    assert judged(rules) == judged(rules[::-1])
    assert judged(rules).reason == "rule 'deny' denies 'issue_refund'"
    assert judged(rules, REMOVE) == Verdict(kind="allow", rule="allow", reason="rule 'allow' allows 'rm'")


def test_unnamed_effect_is_asked_for() -> None:
    verdict = judged((rule("allow", tools=["search"]),), REMOVE)

    assert verdict == Verdict(kind="ask", reason="no rule names 'rm', which changes the world")


def test_unnamed_read_runs() -> None:
    verdict = judged((), LOOKUP)

    assert verdict == Verdict(kind="allow", reason="no rule names 'lookup_order', which only reads")


def test_refund_beside_a_rule_that_asks_for_larger_ones_is_asked_for() -> None:
    assert judged((LARGE,), amount=50.0) == Verdict(
        kind="ask", reason="no rule matches this call of 'issue_refund', which changes the world"
    )


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (
            "allow",
            Verdict(
                kind="ask",
                reason="no rule matches this call of 'issue_refund', which changes the world; "
                "the condition of rule 'allow' could not be evaluated: the key 'amount' is missing",
            ),
        ),
        (
            "ask",
            Verdict(
                kind="ask",
                rule="ask",
                reason="rule 'ask' asks people about 'issue_refund' "
                "(its condition could not be evaluated: the key 'amount' is missing)",
                asking=("ask",),
            ),
        ),
        (
            "deny",
            Verdict(
                kind="deny",
                rule="deny",
                reason="rule 'deny' denies 'issue_refund' "
                "(its condition could not be evaluated: the key 'amount' is missing)",
            ),
        ),
    ],
)
def test_condition_that_cannot_be_evaluated_never_allows(kind: str, verdict: Verdict) -> None:
    assert judged((rule(kind, "args.amount < 100.0"),)) == verdict


LONG = {"digest": digest_of(b"x"), "size": 5000, "preview": "Dear"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"amount": "5"},
        {"amount": None},
        {"amount": 2**63},
        {"amount": LONG},
        {"amount": 1.0, "to": "safe\0other"},
        {"amount": 1.0, "to": {**LONG, "size": 9}},
        {"amount": 1.0, "ids": list(range(100_000))},
    ],
)
def test_nothing_in_the_arguments_loosens_a_rule(arguments: dict[str, object]) -> None:
    condition = "args.amount < 100.0 && (!has(args.ids) || args.ids.all(i, i >= 0))"

    assert judged((rule("allow", condition),), **arguments).kind == "ask"
    assert judged((rule("allow"), rule("ask", condition)), **arguments).rule == "ask"
    assert judged((rule("allow"), rule("deny", condition)), **arguments).rule == "deny"


@pytest.mark.parametrize(
    "condition",
    [
        "tool.name == 'issue_refund' && tool.effect == 'keyed' && tool.source == 'python' && 'money' in tool.tags",
        "tool.risk == 0.4 && !tool.untrusted",
        "args.amount == 5.0",
        "agent.name == 'refunds' && agent.version == 'abc'",
        "run.id == 'run-1' && run.requester == 'ann@example.com' && run.labels.team == 'support'",
        "run.depth == 1 && run.step == 7 && run.cost_usd == 0.25 && run.tainted",
        "run.now == timestamp('2026-11-02T09:30:00Z') && run.now.getHours() == 9",
        "run.calls.issue_refund == 2 && run.totals.issue_refund.amount == 99.5",
        "run.calls.rm == 0 && run.calls[tool.name] == 2 && run.totals[tool.name].amount > 0.0",
    ],
)
def test_what_conditions_see(condition: str) -> None:
    run = RunFacts(
        id="run-1",
        agent="refunds",
        version="abc",
        requester="ann@example.com",
        labels={"team": "support"},
        depth=1,
        step=7,
        cost_usd=Decimal("0.25"),
        now=NOW,
        tainted=True,
        totals={"issue_refund": ToolTotals(calls=2, sums={"amount": Decimal("99.5")})},
    )

    (reading,) = policy.read((rule("deny", condition),), REFUND, {"amount": 5.0}, run, tools=TOOLS)

    assert reading == Reading(rule="deny", verdict="deny", matched=True, why="its condition is true")


@pytest.mark.parametrize(
    "condition",
    [
        "run.calls.issue_refund == 0 && run.totals.issue_refund.amount == 0.0",
        "run.totals.issue_refund.amount + args.amount == 5.0",
        "run.requester == '' && run.labels == {} && run.cost_usd == 0.0 && !run.tainted",
    ],
)
def test_a_run_begins_with_nothing(condition: str) -> None:
    assert judged((rule("deny", condition),), amount=5.0).reason == "rule 'deny' denies 'issue_refund'"
    assert judge((rule("deny", condition),), REFUND, {"amount": 5.0}, RUN).reason == "rule 'deny' denies 'issue_refund'"


def test_totals_of_the_other_tools_are_there_before_their_first_call() -> None:
    condition = "run.calls.issue_refund == 0 && run.totals.issue_refund.amount < 1.0"

    assert judged((rule("deny", condition),), REMOVE).reason == "rule 'deny' denies 'rm'"


def test_each_rule_is_read_and_says_why() -> None:
    rules = (
        SMALL,
        LARGE,
        rule("deny", "args.account == 'payroll'"),
        rule("allow", "args.x == 1"),
        rule("ask", sources=["mcp"], name="mcp"),
    )

    readings = policy.read(rules, REFUND, {"amount": 120.0}, RUN, tools=TOOLS)

    assert [(reading.rule, reading.matched, reading.why) for reading in readings] == [
        ("small", False, "its condition is false"),
        ("large", True, "its condition is true"),
        ("deny", True, "its condition could not be evaluated, so it matches: the key 'account' is missing"),
        ("allow", False, "its condition could not be evaluated, so it does not allow: the key 'x' is missing"),
        ("mcp", False, "its 'sources' do not fit the tool"),
    ]


def test_reason_stays_short() -> None:
    rules = tuple(rule("ask", name=f"rule-{number}", because="x" * 290) for number in range(100))

    verdict = judged(rules)

    assert len(verdict.reason) == 600
    assert len(verdict.asking) == 100


# What holds whatever the rules are.

STRICTNESS = {"allow": 0, "ask": 1, "deny": 2}
CONDITIONS = st.sampled_from(
    [None, "true", "false", "args.amount > 50.0", "args.missing == 1", "run.calls.rm > 3", "args.amount", "nonsense("]
)
RULE = st.builds(
    lambda verdict, when, tools: rule(verdict, when, tools=tools) if tools else rule(verdict, when),
    st.sampled_from(["allow", "ask", "deny"]),
    CONDITIONS,
    st.one_of(st.none(), st.lists(st.sampled_from(["rm", "r*", "x", "issue_*", "*"]), min_size=1)),
)
RULES = st.lists(RULE, max_size=6).map(
    lambda rules: tuple(one.model_copy(update={"id": f"r{number}"}) for number, one in enumerate(rules))
)
CALL = st.tuples(
    st.sampled_from(TOOLS),
    st.sampled_from([{}, {"amount": 10.0}, {"amount": 99.0}, {"amount": "x"}, {"amount": 2**70}]),
)


@given(RULES, CALL, st.randoms())
def test_strictest_wins_whatever_the_order(rules: tuple[Rule, ...], call: tuple, random: random.Random) -> None:
    shuffled = random.sample(rules, len(rules))

    verdict, other = judge(rules, *call, RUN, tools=TOOLS), judge(shuffled, *call, RUN, tools=TOOLS)

    assert (verdict.kind, set(verdict.asking)) == (other.kind, set(other.asking))
    matched = [reading for reading in policy.read(rules, *call, RUN, tools=TOOLS) if reading.matched]
    if matched:
        assert STRICTNESS[verdict.kind] == max(STRICTNESS[reading.verdict] for reading in matched)
        assert verdict.rule in {reading.rule for reading in matched if reading.verdict == verdict.kind}


@given(RULES, RULE, CALL)
def test_another_rule_never_loosens_unless_it_allows(rules: tuple[Rule, ...], more: Rule, call: tuple) -> None:
    """Whoever had to approve must still approve; only an allow rule may end the asking for a call that none matched."""
    before = judge(rules, *call, RUN, tools=TOOLS)

    after = judge((*rules, more.model_copy(update={"id": "more"})), *call, RUN, tools=TOOLS)

    if before.rule is not None or more.verdict != "allow":
        assert STRICTNESS[after.kind] >= STRICTNESS[before.kind]
    if after.kind == "ask" and before.asking:
        assert after.asking[: len(before.asking)] == before.asking
        needs = [list_needs(verdict, rules, Asking(), NOW) for verdict in (before, after)]
        assert set(needs[0]) <= set(needs[1])


@given(RULES, CALL)
def test_an_effect_runs_only_by_a_rule_that_allows_it(rules: tuple[Rule, ...], call: tuple) -> None:
    verdict = judge(rules, *call, RUN, tools=TOOLS)

    if verdict.allowed and call[0].effect.changes_world:
        assert any(one.id == verdict.rule and one.verdict == "allow" for one in rules)


PAY = Tool(name="pay", source="python", numeric=("amount",))
LIMITED = (rule("allow"), rule("deny", "run.totals.pay.amount + args.amount > 100.0"))
AMOUNTS = st.floats(0, 120, allow_nan=False).map(lambda value: round(value, 2)) | st.sampled_from([60.0, 99.0, 0.1])


@given(st.lists(st.tuples(AMOUNTS, st.sampled_from(["done", "failed", "unknown"]), st.booleans()), max_size=40))
def test_what_is_done_never_exceeds_a_limit(calls: list[tuple[float, str, bool]]) -> None:
    """Calls are judged one after another, some while earlier ones still run; those that failed give back."""
    held: dict[str, ToolTotals] = {}
    running: list[tuple[float, str]] = []
    spent = Decimal(0)

    def settle() -> Decimal:
        nonlocal held
        amount, outcome = running.pop(0)
        if outcome == "failed":
            held = totals.give_back(held, PAY, {"amount": amount})
        return Decimal(repr(amount)) if outcome != "failed" else Decimal(0)

    for amount, outcome, ends in calls:
        run = RUN.model_copy(update={"totals": held})
        if judge(LIMITED, PAY, {"amount": amount}, run, tools=(PAY,)).allowed:
            held = totals.reserve(held, PAY, {"amount": amount})
            running.append((amount, outcome))
        if ends and running:
            spent += settle()
    while running:
        spent += settle()

    assert spent <= 100
    assert held.get("pay", ToolTotals()).sums.get("amount", Decimal(0)) == spent


@pytest.mark.parametrize(
    ("amounts", "allowed"),
    [
        ([99.0] * 10, 1),
        ([60.0, 60.0], 1),
        ([50.0, 50.0, 0.01], 2),
        ([33.33, 33.33, 33.34, 0.0], 4),
        ([0.1] * 1001, 1000),
    ],
)
def test_small_calls_do_not_add_up_beyond_a_limit(amounts: list[float], allowed: int) -> None:
    held: dict[str, ToolTotals] = {}

    for amount in amounts:
        run = RUN.model_copy(update={"totals": held})
        if judge(LIMITED, PAY, {"amount": amount}, run, tools=(PAY,)).allowed:
            held = totals.reserve(held, PAY, {"amount": amount})

    assert held["pay"].calls == allowed
