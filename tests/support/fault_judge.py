"""Whether runs were right about the world, judged by the tool server's log beside what each run says of itself."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mandate.workflows.contracts.run import EffectEntry, RunResult, RunStatus
from tests.support.fault_log import Executed, Hit
from tests.support.fault_model import Told
from tests.support.fault_plan import Call, Point, Task

BYSTANDER_SECONDS = 5.0
"""A worker that is killed takes calls of other runs with it: those that it made so shortly before or after."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run as it ended; without a result it never did, or failed."""

    task: Task
    result: RunResult | None
    asked: Sequence[Call] = ()
    """What the model asked for, in order; what was said not to be done it may have asked for again."""
    told: Sequence[Told] = ()


@dataclass
class Judgement:
    """Each fault in one line that names run and call."""

    lost: list[str] = field(default_factory=list)
    """Said to be done, or left out by a run that completed, and not in the log."""
    doubled: list[str] = field(default_factory=list)
    """`keyed` and `once` calls that were carried out more often than they were intended."""
    out_of_order: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """Lost or doubled, and not among what the run reports as uncertain."""
    unfinished: list[str] = field(default_factory=list)
    """Runs that hang or failed."""
    declined: list[str] = field(default_factory=list)
    """Runs that did not complete although nothing kept them from it."""
    repeated: int = 0
    """`idempotent` calls that were carried out again, which does no harm."""

    @property
    def is_good(self) -> bool:
        wrong = (self.lost, self.doubled, self.out_of_order, self.silent, self.unfinished, self.declined)
        return not any(wrong)


def judge(
    runs: Sequence[Ran], log: Sequence[Executed], hits: Sequence[Hit] = (), *, naive_mcp: bool = False
) -> Judgement:
    """What was wrong; with `naive_mcp`, MCP tools say that they failed when they do not know."""
    found = Judgement()
    for ran in runs:
        executed = [entry for entry in log if entry.run == ran.task.name]
        _judge_run(found, ran, executed)
        if ran.result is not None and not _may_end_so(ran, ran.result, executed, hits, naive_mcp=naive_mcp):
            found.declined.append(f"{ran.task.name}: {ran.result.status}, {ran.result.reason}")
    return found


def _may_end_so(
    ran: Ran, result: RunResult, executed: Sequence[Executed], hits: Sequence[Hit], *, naive_mcp: bool
) -> bool:
    """Whether a run has done all that it could: completed, or stands before what only a person can settle.

    That is a `once` call that was hurt and is reported as uncertain, or an `idempotent` call of which its MCP server
    says that it failed, after an attempt of which nothing is known. All others can be made again until they have an
    answer, and so can calls of the model: nobody is asked about them.
    """
    if result.status is RunStatus.COMPLETED:
        return True
    if result.status is not RunStatus.DECLINED or not result.uncertain:
        return False
    refused = [call for call in ran.task.calls if _says_no(call, ran.task.points.get(call.item, ()), naive_mcp)]
    return all(
        _was_hurt(ran, entry, executed, hits)
        if Call(entry.tool, "").effect == "once"
        else any(_is_of(entry, call) for call in refused)
        for entry in result.uncertain
    )


def _says_no(call: Call, points: Sequence[Point], naive_mcp: bool) -> bool:
    """Whether an MCP server says at one of these points that a call failed, and is believed."""
    failing = {Point.REFUSE}
    if naive_mcp:
        failing |= {Point.LOSE_REPLY, Point.DIE_BEFORE, Point.DIE_COMMITTED}
    return call.tool.endswith("_mcp") and call.effect == "idempotent" and not failing.isdisjoint(points)


def _was_hurt(ran: Ran, entry: EffectEntry, executed: Sequence[Executed], hits: Sequence[Hit]) -> bool:
    """Whether a call was hurt, by itself or as one of those that died for the sake of other runs.

    Where the model of a run is hurt, no call of that run is on its way.
    """
    if any(hit.run == ran.task.name and f"item={hit.item}" in entry.call.split() for hit in hits):
        return True
    deaths = [hit.at for hit in hits if hit.point.kills and hit.run != ran.task.name]
    made = [one.at for one in executed if one.key == entry.key]
    return any(abs(at - death) <= BYSTANDER_SECONDS for at in made for death in deaths) if made else bool(deaths)


def _judge_run(found: Judgement, ran: Ran, executed: list[Executed]) -> None:
    name, result = ran.task.name, ran.result
    if result is None:
        found.unfinished.append(name)
    carried_out = Counter(Call(entry.tool, entry.item) for entry in executed)
    intended = Counter(ran.task.calls)
    for call in {**intended, **carried_out}:
        line = f"{name}: {call.tool} {call.item}"
        times, wanted = carried_out[call], intended[call]
        needed = max(_said_done(ran, call), wanted if result and result.status is RunStatus.COMPLETED else 0)
        reported = result is not None and any(_is_of(entry, call) for entry in result.uncertain)
        is_lost = times < needed
        is_doubled = call.effect in {"keyed", "once"} and times > wanted
        if is_lost:
            found.lost.append(f"{line}: {times} in the log, {needed} said or meant to be done")
        if is_doubled:
            found.doubled.append(f"{line}: {times} in the log, {wanted} intended")
        if (is_lost or is_doubled) and not reported:
            found.silent.append(line)
        if call.effect == "idempotent":
            found.repeated += max(times - wanted, 0)
    if not _in_order(ran.asked, executed):
        order = ", ".join(f"{entry.tool} {entry.item}" for entry in executed)
        found.out_of_order.append(f"{name}: {order}")


def _said_done(ran: Ran, call: Call) -> int:
    """How many calls like this one the model was told are done, or the result says are."""
    told = sum(told.call == call and told.done for told in ran.told)
    claimed = sum(_is_of(entry, call) for entry in ran.result.effects.last) if ran.result is not None else 0
    return max(told, claimed)


def _is_of(entry: EffectEntry, call: Call) -> bool:
    return entry.tool == call.tool and f"item={call.item}" in entry.call.split()


def _in_order(asked: Sequence[Call], executed: Sequence[Executed]) -> bool:
    """Whether effects came in the order in which the model asked for them; a repetition stands where the first did."""
    places: dict[tuple[Call, str], int] = {}
    reached = -1
    for entry in executed:
        call = Call(entry.tool, entry.item)
        if not call.changes_world:
            continue
        following = [place for place, its in enumerate(asked) if its == call and place >= reached]
        if entry.key is not None:
            # Each key is an intention of its own.
            taken = {place: key for (other, key), place in places.items() if other == call}
            following = [place for place in following if taken.get(place, entry.key) == entry.key]
            following = [place for place in following if places.get((call, entry.key), place) == place]
        if not following:
            return False
        reached = following[0]
        if entry.key is not None:
            places[call, entry.key] = reached
    return True
