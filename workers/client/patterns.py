"""Patterns of many agents, as functions that return plans; a plan is data, and may be changed before it is run.

Costs are given in runs of agents, each of which is several calls of a model. `share` limits each run, `budget` the
plan.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject, check_storable
from mandate.workflows.contracts.budget import Budget, BudgetRequest
from mandate.workflows.contracts.plan import MOST_STEPS, PlanSpec, PlanStep

MOST_ROUNDS = 10
"""Rounds of `reflect` and `debate`, and attempts of `supervise`."""

MOST_DEBATERS = 50

EXPRESSION_CHARACTERS = 4000
ID_CHARACTERS = 40
"""Of an agent's name in the id of a step."""

_KEYWORDS = frozenset({"false", "in", "null", "true"})
"""Names that CEL takes for something else, also behind a dot."""

_TEXT: JsonObject = {"type": "string"}
_TEXTS: JsonObject = {"type": "array", "items": _TEXT}
_REVIEW: JsonObject = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}, "problems": _TEXTS},
    "required": ["good", "problems"],
    "additionalProperties": False,
}
_RESULT: JsonObject = {
    "type": "object",
    "properties": {"answer": _TEXT, "evidence": _TEXTS},
    "required": ["answer", "evidence"],
    "additionalProperties": False,
}
_VERDICT: JsonObject = {
    "type": "object",
    "properties": {"accepted": {"type": "boolean"}, "reason": _TEXT},
    "required": ["accepted", "reason"],
    "additionalProperties": False,
}
_VOTE: JsonObject = {
    "type": "object",
    "properties": {"answer": _TEXT, "reason": _TEXT},
    "required": ["answer", "reason"],
    "additionalProperties": False,
}
_CORRECT = "Look for mistakes in your own answer, and give it again without them."


def chain(
    *agents: str, name: str = "chain", share: BudgetRequest | None = None, budget: Budget | None = None
) -> PlanSpec:
    """Return a plan of agents one after another: each is asked what the one before has answered.

    It costs `len(agents)` runs, and takes as long as all of them together. The first agent is asked the plan's input.

    It breaks when an agent in the middle leaves out what a later one needs, since none sees more than the answer
    before its own; and an error of one is the input of the next. Give agents an `output_schema` against both.

    Raises:
        ValueError: there are no agents, or more than a plan has steps.
    """
    _demand_between("agents", len(agents), 1, MOST_STEPS)
    ids = _name_steps(agents)
    steps = [
        _step(step_id, agent, share, input=None if before is None else _output(before))
        for before, step_id, agent in zip([None, *ids], ids, agents, strict=False)
    ]
    return _plan(name, steps, budget)


def fan_out(
    agent: str,
    items: str | Sequence[JsonValue] = "input",
    *,
    join: str | None = None,
    needs: int | None = None,
    max_parallel: int | None = None,
    name: str = "fan_out",
    share: BudgetRequest | None = None,
    budget: Budget | None = None,
) -> PlanSpec:
    """Return a plan that asks one agent for each item of a list, side by side.

    It costs one run an item, and one more with `join`. It takes about `ceil(items / max_parallel)` times as long as
    one run.

    It breaks when items depend on each other, since no run sees another; and when `join` is asked more than its
    model reads at once: all answers are in its input.

    Args:
        agent: Asked once for each item; the item is its input.
        items: A list in CEL, `input` or `input.companies` for example; or the items themselves, a short list.
        join: An agent that is asked for one answer of all; without it the output is the list of answers.
        needs: Items that must end well; all if left out. `join` is not told of those that did not.
        max_parallel: Runs at once; as many as a plan allows if left out.
        name: Of the plan.
        share: Limits of each run.
        budget: Limits of the plan.

    Raises:
        ValueError: items that are no JSON or too long to be written into a plan.
    """
    listed = items if isinstance(items, str) else _write_items(items)
    steps = [_step("each", agent, share, for_each=listed, needs=needs, max_parallel=max_parallel)]
    if join is not None:
        steps.append(_step("join", join, share, input={"task": "input", "results": _list_results([_output("each")])}))
    return _plan(name, steps, budget)


def reflect(
    writer: str,
    critic: str,
    rounds: int = 2,
    *,
    name: str = "reflect",
    share: BudgetRequest | None = None,
    budget: Budget | None = None,
) -> PlanSpec:
    """Return a plan in which a critic reviews what a writer has written, and the writer mends it.

    It costs at least 2 and at most `1 + 2 * rounds` runs, one after another: no round begins after a review that finds
    it good. The output is the last draft, also where the last review has found problems.

    It breaks when the critic has no more to go by than the writer: it then finds the same wrong thing good, or finds
    problems without end. Give it tools, sources or another model; where code can check the result, use `checks`.

    Raises:
        ValueError: rounds are not between 1 and `MOST_ROUNDS`.
    """
    _demand_between("rounds", rounds, 1, MOST_ROUNDS)
    steps, drafts = [_step("draft", writer, share)], ["draft"]
    for number in range(1, rounds + 1):
        review, revision = f"review_{number}", f"revision_{number}"
        latest, verdict = _find_latest(drafts), _output(review)
        reviewed = {"task": "input", "draft": latest}
        steps.append(
            _step(
                review,
                critic,
                share,
                input=reviewed,
                when=f"{_output(drafts[-1])} != null" if number > 1 else None,
                on_failure="continue",
                output_schema=_REVIEW,
            )
        )
        steps.append(
            _step(
                revision,
                writer,
                share,
                input={**reviewed, "problems": f"{verdict}.problems"},
                when=f"{verdict} != null && !{verdict}.good",
                on_failure="continue",
            )
        )
        drafts.append(revision)
    return _plan(name, steps, budget, output=_find_latest(drafts))


def plan_and_execute(
    planner: str,
    worker: str,
    joiner: str,
    *,
    most_tasks: int = 50,
    needs: int | None = None,
    max_parallel: int | None = None,
    name: str = "plan_and_execute",
    share: BudgetRequest | None = None,
    budget: Budget | None = None,
) -> PlanSpec:
    """Return a plan in which one agent divides the work into tasks, one does each of them, and one joins the results.

    It costs `2 + tasks` runs, at most `2 + most_tasks`; the tasks are done side by side.

    It breaks when tasks depend on each other, since all begin together; and when the planner forgets one, since
    nothing is planned again: the joiner has only the results of what was planned.

    Args:
        planner: Asked the plan's input; answers with a list of tasks.
        worker: Asked once for each task, and told the plan's input as `goal`.
        joiner: Asked for one answer, with the tasks and their results.
        most_tasks: Longest list that the planner may answer with.
        needs: Tasks that must end well; all if left out.
        max_parallel: Tasks at once; as many as a plan allows if left out.
        name: Of the plan.
        share: Limits of each run.
        budget: Limits of the plan.

    Raises:
        ValueError: `most_tasks` is not between 1 and the most items of a `for_each`.
    """
    _demand_between("most_tasks", most_tasks, 1, MOST_STEPS)
    tasks: JsonObject = {
        "type": "object",
        "properties": {"tasks": {**_TEXTS, "minItems": 1, "maxItems": most_tasks}},
        "required": ["tasks"],
        "additionalProperties": False,
    }
    listed = f"{_output('plan')}.tasks"
    return _plan(
        name,
        [
            _step("plan", planner, share, output_schema=tasks),
            _step(
                "work",
                worker,
                share,
                for_each=listed,
                input={"goal": "input", "task": "item"},
                needs=needs,
                max_parallel=max_parallel,
            ),
            _step("join", joiner, share, input={"goal": "input", "tasks": listed, "results": _output("work")}),
        ],
        budget,
    )


def supervise(
    manager: str,
    workers: Sequence[str],
    *,
    attempts: int = 2,
    name: str = "supervise",
    share: BudgetRequest | None = None,
    budget: Budget | None = None,
) -> PlanSpec:
    """Return a plan in which a manager gives each worker a task and reviews its result with the evidence for it.

    A result without evidence has failed and is not reviewed; one that is rejected is made again with the review, at
    most `attempts` times. The manager's last answer is given accepted results only.

    With W workers it costs at least `2 + 2 * W` and at most `2 + 2 * W * attempts` runs. Workers work side by side.

    It breaks when the manager cannot tell good evidence from bad: reviews of a model that sees no more than the
    worker's words accept what sounds well. Give it tools that look at the same things, or use `checks`.

    Raises:
        ValueError: there are no workers, too many for one plan, or attempts are not between 1 and `MOST_ROUNDS`.
    """
    _demand_between("attempts", attempts, 1, MOST_ROUNDS)
    _demand_between("workers", len(workers), 1, (MOST_STEPS - 2) // (2 * attempts))
    ids = _name_steps(workers)
    tasks: JsonObject = {
        "type": "object",
        "properties": dict.fromkeys(ids, _TEXT),
        "required": list(ids),
        "additionalProperties": False,
    }
    steps = [_step("assign", manager, share, output_schema=tasks)]
    results = {}
    for worker_id, agent in zip(ids, workers, strict=True):
        steps += _supervise_worker(manager, agent, worker_id, attempts, share)
        results[f"results_of_{worker_id}"] = _list_accepted(worker_id, attempts)
    steps.append(_step("conclude", manager, share, input={"goal": "input", **results}))
    return _plan(name, steps, budget, output=_output("conclude"))


def debate(
    agents: Sequence[str],
    judge: str,
    *,
    rounds: int = 2,
    name: str = "debate",
    share: BudgetRequest | None = None,
    budget: Budget | None = None,
) -> PlanSpec:
    """Return a plan in which agents answer, see each other's answers and answer again, and a judge decides.

    No agent sees others' votes in the first round, and none is told whose they are. Beside the debate the first agent
    answers alone and corrects itself as often as the debate has runs: the output is `answer` of the judge and
    `baseline` of that, to see whether the debate was worth its cost.

    With N agents it costs `2 * (N * rounds + 1)` runs, half of them for the baseline, which takes the longest: its
    runs are one after another.

    It breaks when the agents are alike: of equal models up to 85 % conform to each other, and they are no better than
    one that corrects itself, for 2 to 3 times the cost. Give them different models or evidence of their own, and let
    no debate alone decide on what changes the world.

    Raises:
        ValueError: agents are not between 2 and `MOST_DEBATERS`, two are the same, the judge is one of them, or rounds
            are not between 1 and `MOST_ROUNDS`.
    """
    _demand_between("rounds", rounds, 1, MOST_ROUNDS)
    _demand_between("agents", len(agents), 2, MOST_DEBATERS)
    for agent in (*agents, judge):
        if [*agents, judge].count(agent) > 1:
            raise ValueError(
                f"agent {agent!r} is given twice; a debate needs different agents, and a judge beside them"
            )
    steps, before = [], list[str]()
    for number in range(1, rounds + 1):
        votes = [f"vote_{place}_{number}" for place in range(1, len(agents) + 1)]
        for place, (vote, agent) in enumerate(zip(votes, agents, strict=True)):
            asked = {"task": "input"}
            if before:
                others = [other for other in before if other != before[place]]
                asked |= {"own": _output(before[place]), "others": _list_results(map(_output, others), is_list=True)}
            steps.append(_step(vote, agent, share, input=asked, on_failure="continue", output_schema=_VOTE))
        before = votes
    votes_cast = _list_results(map(_output, before), is_list=True)
    steps.append(_step("judge", judge, share, input={"task": "input", "votes": votes_cast}, output_schema=_VOTE))
    alone = [f"alone_{number}" for number in range(1, len(agents) * rounds + 2)]
    for earlier, step_id in zip([None, *alone], alone, strict=False):
        asked = {"task": "input"}
        if earlier is not None:
            asked |= {"own": _output(earlier), "request": _write(_CORRECT)}
        steps.append(_step(step_id, agents[0], share, input=asked, on_failure="continue", output_schema=_VOTE))
    output = f"{{'answer': {_output('judge')}, 'baseline': {_output(alone[-1])}}}"
    return _plan(name, steps, budget, output=output).model_copy(update={"pattern": "debate"})


def _supervise_worker(
    manager: str, agent: str, worker_id: str, attempts: int, share: BudgetRequest | None
) -> list[PlanStep]:
    """Return the attempts of one worker, each with its review."""
    steps = list[PlanStep]()
    task = _output("assign", worker_id)
    for number in range(1, attempts + 1):
        work, review = f"{worker_id}_work_{number}", f"{worker_id}_review_{number}"
        asked, when = {"goal": "input", "task": task}, None
        if number > 1:
            asked |= {
                "rejected": _output(f"{worker_id}_work_{number - 1}"),
                "review": _output(f"{worker_id}_review_{number - 1}"),
            }
            when = f"size({_list_accepted(worker_id, number - 1)}) == 0"
        steps.append(
            _step(
                work,
                agent,
                share,
                input=asked,
                when=when,
                success="size(output.evidence) > 0",
                on_failure="continue",
                output_schema=_RESULT,
            )
        )
        steps.append(
            _step(
                review,
                manager,
                share,
                input={"goal": "input", "task": task, "result": _output(work)},
                when=f"{_output(work)} != null",
                on_failure="continue",
                output_schema=_VERDICT,
            )
        )
    return steps


def _list_accepted(worker_id: str, attempts: int) -> str:
    """Write the results of a worker that were accepted in its first attempts: a list of one or none."""
    tried = ", ".join(
        f"[{_output(f'{worker_id}_work_{number}')}, {_output(f'{worker_id}_review_{number}')}]"
        for number in range(1, attempts + 1)
    )
    return f"[{tried}].filter(made, made[1] != null && made[1].accepted).map(made, made[0])"


def _find_latest(drafts: Sequence[str]) -> str:
    """Write the last draft that was made: a step that did not run has none."""
    if len(drafts) == 1:
        return _output(drafts[0])
    return f"{_list_results(map(_output, reversed(drafts)), is_list=True)}[0]"


def _list_results(written: Iterable[str], *, is_list: bool = False) -> str:
    """Write a list without what is null: outputs of steps, or one output that is a list."""
    listed = ", ".join(written)
    return f"{f'[{listed}]' if is_list else listed}.filter(one, one != null)"


def _name_steps(agents: Sequence[str]) -> list[str]:
    """Return an id for each agent that says whose step it is; the second of one name has a number."""
    ids: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for agent in agents:
        plain = agent.replace("-", "_")[:ID_CHARACTERS]
        step_id = plain
        while step_id in ids:
            numbers[plain] = numbers.get(plain, 1) + 1
            step_id = f"{plain}_{numbers[plain]}"
        ids[step_id] = None
    return list(ids)


def _output(step_id: str, *keys: str) -> str:
    """Write the output of a step, or a part of it."""
    parts = ("steps", step_id, "output", *keys)
    return "".join(f"[{part!r}]" if part in _KEYWORDS else f".{part}" for part in parts).removeprefix(".")


def _write_items(items: Sequence[JsonValue]) -> str:
    written = _write(list(items))
    if len(written) > EXPRESSION_CHARACTERS:
        raise ValueError(
            f"the items take {len(written):,} characters, and an expression has at most {EXPRESSION_CHARACTERS:,}; "
            "give them to the plan as its input, and write 'input' here"
        )
    return written


def _write(value: JsonValue) -> str:
    """Write a value of JSON in CEL, whose constants are those of JSON."""
    check_storable(value)
    return json.dumps(value, ensure_ascii=False)


def _demand_between(what: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise ValueError(f"{what}: {number:,} are not between {least:,} and {most:,}")


def _step(step_id: str, agent: str, share: BudgetRequest | None, **keys: Any) -> PlanStep:
    given: Mapping[str, Any] = {key: value for key, value in keys.items() if value is not None}
    limits = {} if share is None else {"budget": share}
    return PlanStep(id=step_id, agent=agent, **limits, **given)


def _plan(name: str, steps: Sequence[PlanStep], budget: Budget | None, output: str | None = None) -> PlanSpec:
    limits = {} if budget is None else {"budget": budget}
    return PlanSpec(name=name, steps=tuple(steps), output=output, **limits)
