"""Plans of the proof by plans, made from a seed; and a model of its own of what becomes of each.

The model knows what the documents say of plans and nothing of how they are worked on. Whatever cannot be known before,
since it depends on what was under way when a plan was ended by a step, is a set of possible ends.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from tests.support.plan_tools import make_output

Kind = Literal["look", "pay", "send", "worker", "inner", "thinking"]
KINDS: Mapping[Kind, int] = {"look": 3, "pay": 4, "send": 2, "worker": 2, "inner": 1, "thinking": 1}

CALL_COST = Decimal("0.002")
"""Of one call of the model."""

OnFailure = Literal["skip", "stop", "continue"]


@dataclass(frozen=True, slots=True)
class Job:
    """One step as it is generated."""

    id: str
    kind: Kind
    reads: tuple[str, ...] = ()
    """Steps whose outputs it is given."""
    after: tuple[str, ...] = ()
    """Other steps that it depends on."""
    fails: tuple[int, ...] = (0,)
    """By item: how many attempts do not end well."""
    is_each: bool = False
    source: str | None = None
    """The step over whose output a `for_each` goes; else over a list of its own."""
    most: int | None = None
    """`max_parallel`."""
    wanted: int | None = None
    """`needs`."""
    attempts: int = 1
    on_failure: OnFailure = "skip"
    when: bool | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.reads, *self.after, *((self.source,) if self.source else ()))))

    def write(self) -> dict[str, Any]:
        """Return the step of a plan file."""
        target = {"worker": "agent", "inner": "plan", "thinking": "plan"}.get(self.kind, "tool")
        own = f"input.place + '/{self.id}'"
        fails = ", ".join(f"'{fail}'" for fail in self.fails)
        step: dict[str, Any] = {
            "id": self.id,
            target: self.kind,
            "input": {
                "place": f"{own} + '/' + string(index)" if self.is_each else own,
                "given": f"[{', '.join([*(['item'] if self.is_each else []), *map(_read, self.reads)])}]",
                "fail": f"[{fails}][index]" if self.is_each else fails,
            },
            "attempts": self.attempts,
            "on_failure": self.on_failure,
        }
        if self.kind == "worker":
            step["success"] = "output.startsWith('good ')"
        if self.after:
            step["depends_on"] = list(self.after)
        if self.when is not None:
            step["when"] = f"input.flag == '{'yes' if self.when else 'no'}'"
        if self.is_each:
            items = ", ".join(f"'i{number}'" for number in range(len(self.fails)))
            step["for_each"] = _read(self.source) if self.source else f"[{items}]"
            step |= {"max_parallel": self.most} if self.most is not None else {}
            step |= {"needs": self.wanted} if self.wanted is not None else {}
        return step


def _read(step: str) -> str:
    return f"steps.{step}.output"


@dataclass(frozen=True, slots=True)
class Case:
    """One plan."""

    name: str
    jobs: tuple[Job, ...]
    most: int
    """`max_parallel`."""

    def job(self, name: str) -> Job:
        return next(job for job in self.jobs if job.id == name)


def make_case(name: str, steps: int) -> Case:
    """Return the plan of so many steps that a name stands for."""
    # Sure to repeat, and no secret.
    dice = random.Random(name)
    jobs: list[Job] = []
    for number in range(steps):
        jobs.append(_make_job(f"s{number}", jobs, dice))
    order = list(jobs)
    dice.shuffle(order)
    return Case(name, tuple(order), dice.randint(2, 8))


def _make_job(name: str, before: list[Job], dice: random.Random) -> Job:
    (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
    # Those that were made last are more often needed: chains come about, and diamonds where two are.
    known = [job.id for job in before]
    chosen = dice.choices(known, range(1, len(known) + 1), k=dice.choice((0, 1, 1, 2, 2))) if known else []
    needed = tuple(dict.fromkeys(chosen))
    split = dice.randint(0, len(needed)) if dice.random() < 0.3 else len(needed)
    job = Job(name, kind, reads=needed[:split], after=needed[split:], attempts=dice.choice((1, 1, 2, 3)))
    if dice.random() < 0.35:
        lists = [one for one in before if one.is_each]
        source = dice.choice(lists) if lists and dice.random() < 0.4 else None
        count = len(source.fails) if source is not None else dice.randint(1, 6)
        job = replace(
            job,
            is_each=True,
            source=source.id if source is not None else None,
            fails=tuple(_fail(dice) for _ in range(count)),
            most=dice.choice((None, 1, 2, 3)),
            wanted=dice.choice((None, dice.randint(0, count))),
        )
    else:
        job = replace(job, fails=(_fail(dice),))
    # A plan that ends at once proves little.
    on_failure: OnFailure = dice.choice(("skip", "continue", "continue", "continue"))
    if len(before) > 5 and dice.random() < 0.08:
        on_failure = "stop"
    return replace(job, on_failure=on_failure, when=dice.choice((None, None, None, None, True, False)))


def _fail(dice: random.Random) -> int:
    return dice.choice((0, 0, 0, 0, 0, 1, 1, 9))


@dataclass(frozen=True, slots=True)
class End:
    """How a step ends when nothing ends the plan before."""

    status: Literal["completed", "failed", "skipped"]
    output: Any = None
    passes: bool = False
    """Those that need it go on."""
    made: tuple[int, ...] = ()
    """Attempts by item, of those that are made for certain."""
    is_sure: bool = True
    """How many of its items are made follows from the plan."""


@dataclass
class Expected:
    """What becomes of one plan."""

    status: Literal["completed", "declined"]
    output: Any
    ends: dict[str, End]
    stopping: tuple[str, ...]
    """Steps that end the plan if it comes to them."""
    effects: dict[str, frozenset[int]] = field(default_factory=dict)
    """By place, how many effects there may be."""
    model_calls: int = 0
    is_sure: bool = True

    def allows(self, name: str, status: str) -> bool:
        return status == self.ends[name].status or (bool(self.stopping) and status == "stopped")


def expect(case: Case) -> Expected:
    """Return what becomes of a plan."""
    ends: dict[str, End] = {}
    while len(ends) < len(case.jobs):
        for job in case.jobs:
            if job.id not in ends and all(name in ends for name in job.needs):
                ends[job.id] = _end(case, job, ends)
    stopping = tuple(job.id for job in case.jobs if job.on_failure == "stop" and ends[job.id].status == "failed")
    needed = {name for job in case.jobs for name in job.needs}
    last = [job.id for job in case.jobs if job.id not in needed]
    good = not stopping and all(ends[name].status == "completed" or ends[name].passes for name in last)
    output = ends[last[0]].output if len(last) == 1 else {name: ends[name].output for name in last}
    expected = Expected("completed" if good else "declined", output, ends, stopping)
    for job in case.jobs:
        _count(case, job, expected)
    return expected


def _end(case: Case, job: Job, ends: Mapping[str, End]) -> End:
    before = [ends[name] for name in job.needs]
    if any(end.status != "completed" and not end.passes for end in before):
        return End("skipped")
    if job.when is False:
        return End("skipped", passes=True)
    failed = End("failed", passes=job.on_failure == "continue")
    items = [ends[job.source].output] if job.source else [[f"i{number}" for number in range(len(job.fails))]]
    if job.is_each and not isinstance(items[0], list):
        return failed
    given = [ends[name].output for name in job.reads]
    outputs = [
        _output(case, job, index, [*([items[0][index]] if job.is_each else []), *given])
        for index in range(len(job.fails))
    ]
    made = tuple(min(fail + 1, job.attempts) for fail in job.fails)
    well = [fail < job.attempts for fail in job.fails]
    if job.is_each:
        wanted = len(well) if job.wanted is None else job.wanted
        if sum(well) < wanted:
            # No item begins any more once it is certain.
            return replace(failed, made=made, is_sure=False)
        return End("completed", [out if good else None for out, good in zip(outputs, well, strict=True)], made=made)
    return End("completed", outputs[0], made=made) if well[0] else replace(failed, made=made)


def place_of(case: Case, job: Job, index: int) -> str:
    return f"{case.name}/{job.id}/{index}" if job.is_each else f"{case.name}/{job.id}"


def _output(case: Case, job: Job, index: int, given: list[Any]) -> Any:
    place = place_of(case, job, index)
    match job.kind:
        case "look" | "pay":
            return make_output(job.kind, place, given)
        case "send":
            return {"state": "booked", "sent": make_output("send", place, None)}
        case "worker":
            return f"good {make_output('worker', place, given)}"
        case "inner":
            return make_output("pay", f"{place}/b", [make_output("look", f"{place}/a", given)])
        case "thinking":
            return make_output("pay", f"{place}/b", [f"good {make_output('worker', f'{place}/a', given)}"])


def pays(place: str) -> bool:
    """Return whether an agent that is asked for a place pays once before it answers."""
    return random.Random(place).random() < 0.5


def _count(case: Case, job: Job, expected: Expected) -> None:
    """Count the effects of a step, and the calls of the model."""
    end = expected.ends[job.id]
    is_sure = end.is_sure and not expected.stopping
    if end.made and not is_sure:
        expected.is_sure = False
    for index, (made, fail) in enumerate(zip(end.made, job.fails, strict=False)):
        for place, least, most, calls in _list_effects(case, job, index, made, is_well=fail < job.attempts):
            expected.effects[place] = frozenset(range(least if is_sure else 0, most + 1))
            expected.model_calls += calls


def _list_effects(case: Case, job: Job, index: int, made: int, *, is_well: bool) -> Iterator[tuple[str, int, int, int]]:
    """Yield places with the least and the most effects there, and the calls of the model for each."""
    place = place_of(case, job, index)
    match job.kind:
        case "look":
            return
        case "pay" | "send":
            yield place, int(is_well), int(is_well), 0
        case "inner":
            yield f"{place}/b", int(is_well), int(is_well), 0
        case "worker":
            paid = made if pays(place) else 0
            yield f"{place}/paid", paid, paid, made + paid
        case "thinking":
            # Its payment is refused as often as it fails; its agent is asked anew each time.
            paid = made if pays(f"{place}/a") else 0
            yield f"{place}/a/paid", paid, paid, made + paid
            yield f"{place}/b", int(is_well), int(is_well), 0
