"""`mandate run --model`, and how `mandate show` and `mandate run` tell which model was asked and why."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.support.place import Place, new_place

AGENT = """
name: till
instructions: Do it.
models:
  - "scripted:till.script.yaml"
  - {model: "scripted:dear.script.yaml", when: run.step == 1}
models_allowed: ["scripted:other*"]
requester: anyone
"""

SCRIPT = """
turns:
  - call: [{no_such_tool: {}}]
  - say: "Hello."
strict: false
"""

BECAUSE = "a condition of the route holds: run.step == 1"


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    scripts = {f"agents/{name}.script.yaml": SCRIPT for name in ("till", "dear", "other")}
    async with new_place(tmp_path_factory.mktemp("model"), {"agents/till.yaml": AGENT, **scripts}) as found:
        yield found


@pytest.fixture(scope="module")
async def worker(place: Place) -> AsyncIterator[None]:
    async with place.serving("till"):
        yield


async def test_show_says_which_model_answered_each_step_and_why(place: Place, worker: object) -> None:
    ran = await place.run("run", "till", "hi", "--id", "routed")

    shown = await place.run("show", "routed")
    known = json.loads((await place.run("show", "routed", "-o", "json")).out)

    assert ran.code == 0
    assert f"step 2   asks scripted:dear.script.yaml: {BECAUSE}\n" in ran.out
    assert "it is the first of the route" not in ran.out
    assert "step 1  till.script.yaml: it is the first of the route\n" in shown.out
    assert f"step 2  dear.script.yaml: {BECAUSE}\n" in shown.out
    assert [(said["model"], said["why"]) for said in known["messages"] if said["role"] == "assistant"] == [
        ("till.script.yaml", "it is the first of the route"),
        ("dear.script.yaml", BECAUSE),
    ]


async def test_a_run_asks_the_model_that_was_named(place: Place, worker: object) -> None:
    ran = await place.run("run", "till", "hi", "--model", "scripted:other.script.yaml", "--id", "named")

    shown = await place.run("show", "named")

    assert ran.code == 0
    assert "step 1   asks scripted:other.script.yaml: the start request names it\n" in ran.out
    assert "step 1  other.script.yaml: the start request names it\n" in shown.out
    assert "step 2  other.script.yaml\n" in shown.out


NOT_ALLOWED = (
    "start request: model: '{}' is not a model that runs of 'till' may name; allowed are scripted:till.script.yaml, "
    "scripted:dear.script.yaml, scripted:other* (`models_allowed` in the agent file allows more)\n"
)


PATTERN = NOT_ALLOWED.replace(
    "is not a model that runs of 'till' may name", "is a pattern, and a run names one model without `*`"
)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("scripted:another.script.yaml", NOT_ALLOWED),
        ("nokey:gpt", NOT_ALLOWED),
        ("scripted:other*", PATTERN),
        ("scripted:o*r.script.yaml", PATTERN),
        ("nokey:*", PATTERN),
        ("other", "start request: model: '{}' is not 'provider:model'"),
        ("", "start request: model: '{}' is not 'provider:model'"),
    ],
)
async def test_a_model_that_is_not_allowed_is_refused(place: Place, worker: object, model: str, told: str) -> None:
    done = await place.run("run", "till", "hi", "--model", model)

    assert done.code == 2
    assert f"error: {told.format(model)}" in done.err
    assert done.err.count("nokey") <= 1
