"""Faults of plans: all that is wrong with one before it begins, and what will probably not go well."""

from collections.abc import Iterator, Mapping

from mandate.workflows.contracts.faults import Located, Place, did_you_mean
from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.rules.cel.shapes import list_names
from mandate.workflows.rules.plans import graphs, shares
from mandate.workflows.rules.plans.expressions import PlanReader, Reading, find_constant, list_expressions
from mandate.workflows.rules.plans.order import find_references, map_needs
from mandate.workflows.rules.plans.targets import Misfit, Target, Targets, find_kind, find_misfits, find_place


def find_faults(
    plan: PlanSpec,
    *,
    agents: Mapping[str, Target] | None,
    tools: Mapping[str, Target] | None,
    plans: Mapping[str, Target] | None,
) -> list[Located]:
    """Return all that is wrong with a plan, each fault once with its place.

    `agents`, `tools` and `plans` are all that its steps may name; what is `None` is not known, and not checked.
    """
    targets = Targets(agents, tools, plans)
    reader, needs = PlanReader(plan, targets), map_needs(plan)
    found: list[Located] = []
    for index, step in enumerate(plan.steps):
        readings = reader.read_step(step)
        found += _place(index, _list_faults(step, targets, reader, readings, frozenset(needs)))
    found += _describe_cycles(plan, needs)
    if plan.output is not None:
        found += ((("output",), fault) for fault in reader.read_output(plan.output).faults)
    found += shares.find_faults(plan, targets)
    return list(dict.fromkeys(found))


def find_warnings(
    plan: PlanSpec,
    *,
    agents: Mapping[str, Target] | None,
    tools: Mapping[str, Target] | None,
    plans: Mapping[str, Target] | None,
) -> list[Located]:
    """Return what will probably not go well in a plan that has no faults; the arguments are those of `find_faults`."""
    targets = Targets(agents, tools, plans)
    reader, needs = PlanReader(plan, targets), map_needs(plan)
    idle = {step.id for step in plan.steps if step.when is not None and find_constant(step.when) is False}
    found: list[Located] = []
    for index, step in enumerate(plan.steps):
        misfits = _list_misfits(step, targets, reader, reader.read_step(step))
        found += _place(index, ((find_place(step, one.key), one.message) for one in misfits if one.is_prose))
        for needed in graphs.sort_names(needs[step.id] & idle):
            message = f"needs step {needed!r}, which never runs, since its 'when' is false; its output is null"
            found.append((("steps", index, *_find_need(step, needed)), message))
        target = targets.find(step)
        if target is not None and target.changes_world and (debate := _find_debate(plan, step, targets, needs)):
            found.append((("steps", index), _warn_of_debate(debate)))
    return list(dict.fromkeys(found))


def _find_debate(plan: PlanSpec, step: PlanStep, targets: Targets, needs: Mapping[str, frozenset[str]]) -> str | None:
    """Return the debate whose answer a step is made with: this plan, or the step that runs one."""
    if plan.pattern == "debate":
        return plan.name
    steps, waiting, seen = {one.id: one for one in plan.steps}, [*needs[step.id]], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in steps:
            continue
        seen.add(name)
        target = targets.find(steps[name])
        if target is not None and target.is_debate:
            return name
        waiting += needs[name]
    return None


def _warn_of_debate(debate: str) -> str:
    return (
        f"it changes the world by the answer of the debate {debate!r}; agents of equal models conform to each other in "
        "up to 85 % and are no better than one that corrects itself: let a rule ask people, or a check look at it"
    )


def _place(index: int, found: Iterator[Located]) -> Iterator[Located]:
    """Yield faults within a step with their places in the plan."""
    yield from ((("steps", index, *place), message) for place, message in found)


def _list_faults(
    step: PlanStep, targets: Targets, reader: PlanReader, readings: Mapping[Place, Reading], ids: frozenset[str]
) -> Iterator[Located]:
    if (unknown := targets.describe_unknown(step)) is not None:
        yield (find_kind(step),), unknown
    for position, name in enumerate(step.depends_on):
        if name not in ids:
            message = f"there is no step {name!r}{did_you_mean(name, ids)} there are {list_names(ids)}"
            yield ("depends_on", position), message
    for place, reading in readings.items():
        yield from ((place, fault) for fault in reading.faults)
    for misfit in _list_misfits(step, targets, reader, readings):
        if not misfit.is_prose:
            yield find_place(step, misfit.key), misfit.message


def _list_misfits(
    step: PlanStep, targets: Targets, reader: PlanReader, readings: Mapping[Place, Reading]
) -> Iterator[Misfit]:
    target = targets.find(step)
    if target is not None:
        yield from find_misfits(step, target, reader.find_given(step, readings))


def _describe_cycles(plan: PlanSpec, needs: graphs.Needs) -> Iterator[Located]:
    index = {step.id: position for position, step in enumerate(plan.steps)}
    for cycle in graphs.find_cycles(needs):
        first, second = cycle[0], cycle[1 % len(cycle)]
        place = _find_need(plan.steps[index[first]], second)
        if len(cycle) == 1:
            message = f"the step {first!r} waits for itself"
        else:
            message = f"steps wait for each other: {' -> '.join((*cycle, first))}"
        yield ("steps", index[first], *place), message


def _find_need(step: PlanStep, needed: str) -> Place:
    """Return where a step says, within itself, that it needs another."""
    if needed in step.depends_on:
        return ("depends_on", step.depends_on.index(needed))
    reads = (found.place for found in list_expressions(step) if needed in find_references(found.text))
    return next(reads, ())
