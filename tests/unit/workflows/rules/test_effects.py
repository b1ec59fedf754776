"""Effects of calls, as people are told of them."""

import pytest

from mandate.workflows.contracts.tool import RUN_PLAN, ChildAgent, Effect, Tool
from mandate.workflows.rules.effects import find_effect

TOOLS = {
    name: Tool(name=name, source="python", effect=effect)
    for name, effect in [("look", Effect.READ), ("publish", Effect.KEYED), ("mail", Effect.ONCE)]
}
CHILD = ChildAgent(agent=RUN_PLAN, is_plan=True, digest="d" * 43)
PLAN = Tool(name=RUN_PLAN, source="agent", effect=Effect.READ, child=CHILD)


@pytest.mark.parametrize(
    ("tool", "named", "effect"),
    [
        (PLAN, [], Effect.READ),
        (PLAN, ["look"], Effect.READ),
        (PLAN, ["look", "publish"], Effect.KEYED),
        (PLAN, ["mail", "publish", "gone", 3], Effect.ONCE),
        (PLAN, "mail", Effect.READ),
        (TOOLS["publish"], ["mail"], Effect.KEYED),
    ],
)
def test_effect_of_a_plan_is_the_strictest_of_its_tools(tool: Tool, named: object, effect: Effect) -> None:
    assert find_effect(tool, {"tools": named}, TOOLS.get) is effect
