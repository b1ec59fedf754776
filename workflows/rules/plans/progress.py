"""Progress of a plan: what has ended, what begins now, and how the plan ends. A function of the plan and its calls.

It runs where the outputs are, in the activity that advances a plan: a run of a plan has only their addresses.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import Literal

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject, digest_of
from mandate.workflows.contracts.plan import MOST_ASKED, MOST_ITEMS, PlanSpec, PlanStep, StepStatus
from mandate.workflows.rules import quantities, wording
from mandate.workflows.rules.cel.evaluation import Facts, Unevaluable
from mandate.workflows.rules.plans import order

NAME_CHARACTERS = 64

NAME_CHARACTERS = 64

ATTEMPTS_TOLD = 10

BATCH = 100
"""Calls that begin at once at most: the next ones come with the next advance."""

REASON_CHARACTERS = 400

_LABEL = re.compile(r"(?P<step>[A-Za-z][\w-]*)(?:\[(?P<index>\d+)\])?(?:#(?P<attempt>\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """Name of a call: its step, the item it is for, and the number of the attempt."""

    step: str
    index: int = -1
    """-1 for a step without `for_each`."""
    attempt: int = 1

    def __str__(self) -> str:
        item = f"[{self.index}]" if self.index >= 0 else ""
        return f"{self.step}{item}{f'#{self.attempt}' if self.attempt > 1 else ''}"

    @classmethod
    def parse(cls, text: str) -> "Label":
        """Return the label that a text is.

        Raises:
            ValueError: it is none.
        """
        found = _LABEL.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no label of a call")
        return cls(found["step"], int(found["index"] or -1), int(found["attempt"] or 1))


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that has its answer."""

    value: JsonValue
    """The output; the reason of a failure is in `failure`."""
    failure: str | None = None
    cost_usd: Decimal = Decimal(0)
    has_value: bool = True
    """False where it came to nothing: a failure whose output no check has rejected."""
    is_stopped: bool = False
    """People have refused or stopped it: it is not made again."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Choice of a person on a call that was the last attempt of its step."""

    choice: Literal["retry", "accept", "supply", "expired"]
    text: str = ""
    """Guidance, or why nobody chose."""
    value: JsonValue = None
    """With `supply`: its output."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A failed call of which people are asked."""

    label: Label
    reason: str
    tried: tuple[str, ...]
    """Why each of the last attempts failed."""
    has_output: bool
    """The last attempt came to something."""


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to begin."""

    label: Label
    step: PlanStep
    value: JsonValue
    """What it is asked."""
    failure: str | None = None
    """Why the attempt before it failed."""
    guidance: str = ""
    """What a person says to whoever makes it again."""


ItemStatus = Literal["waiting", "running", "asking", "completed", "failed"]


@dataclass(slots=True)
class Item:
    """One call of a step, over its attempts."""

    status: ItemStatus = "waiting"
    value: JsonValue = None
    reason: str | None = None
    attempts: int = 0
    cost_usd: Decimal = Decimal(0)
    tried: tuple[str, ...] = ()
    """Why each of the last attempts failed."""
    guidance: str = ""
    """As of `NewCall`, for the next attempt."""
    has_output: bool = True
    """As of `Ask`, of the last attempt."""


@dataclass(slots=True)
class Standing:
    """Standing of a step."""

    status: StepStatus = "waiting"
    output: JsonValue = None
    reason: str | None = None
    items: list[Item] = field(default_factory=list)
    values: list[JsonValue] | None = None
    """Of a `for_each` that is ready: the items that it is for."""
    is_let_pass: bool = False
    """Those that need it go on all the same."""

    @property
    def has_ended(self) -> bool:
        return self.status in {"completed", "failed", "skipped", "stopped"}

    @property
    def cost_usd(self) -> Decimal:
        return sum((item.cost_usd for item in self.items), Decimal(0))

    @property
    def completed(self) -> int:
        return sum(item.status == "completed" for item in self.items)

    @property
    def failed(self) -> int:
        return sum(item.status == "failed" for item in self.items)


@dataclass(frozen=True, slots=True)
class Move:
    """Next move of a plan."""

    begin: tuple[NewCall, ...]
    standings: Mapping[str, Standing]
    running: int
    """Calls that have no answer, those that begin now included."""
    stopped_by: str | None = None
    """The failure that ends the plan, in one sentence."""
    changed: tuple[str, ...] = ()
    """Steps that may stand otherwise than after the move before."""
    asks: tuple[Ask, ...] = ()
    """Calls of which people are to be asked, or are."""

    @property
    def is_over(self) -> bool:
        return not self.running and not self.asks

    def close(self, reason: str) -> None:
        """Mark what has not ended as stopped, for this `reason`."""
        for standing in self.standings.values():
            if not standing.has_ended:
                standing.status, standing.reason = "stopped", reason

    @property
    def doing(self) -> str:
        """Progress of the plan, in words."""
        standings = self.standings.values()
        done = sum(standing.has_ended for standing in standings)
        text = f"{done} of {quantities.count_noun(len(self.standings), 'step')} ended"
        if self.running:
            text += f", {quantities.count_noun(self.running, 'call')} under way"
        return f"{text}, people are asked about {len(self.asks)}" if self.asks else text


class Progress:
    """The progress of a plan: its input, and its calls so far, each with its end if it has one.

    It can be told of more calls and ends, and then looks again only at what these change.
    """

    def __init__(
        self,
        plan: PlanSpec,
        needs: Mapping[str, frozenset[str]],
        given: JsonValue,
        calls: Mapping[Label, Ended | None],
        *,
        is_stopping: bool = False,
        settled: Mapping[Label, Settled] = MappingProxyType({}),
    ) -> None:
        """Take the steps that each step needs, those that its expressions name included.

        `settled` is what people said of calls that were the last attempts of their steps.
        """
        self._plan = plan
        self._needs = needs
        self._given = given
        self._is_stopping = is_stopping
        self._calls: dict[str, dict[int, dict[int, Ended | None]]] = {}
        self._open = 0
        self._items: dict[str, dict[int, Item]] = {}
        """Items of each step, as they stand until their calls change."""
        self._standings: dict[str, Standing] = {step.id: Standing() for step in plan.steps}
        self._changed = set(self._standings)
        """Steps to look at again."""
        self._untold: dict[tuple[str, int], str] = {}
        """Calls whose input cannot be told, and why."""
        self._seen: dict[str, Facts] = {}
        """What the expressions of a step see, its item aside: converted once for all its items."""
        self._inputs: dict[frozenset[str] | None, Facts] = {}
        self._is_told_more = False
        self._settled: dict[Label, Settled] = {}
        self.take(calls, settled)

    def take(
        self, calls: Mapping[Label, Ended | None], settled: Mapping[Label, Settled] = MappingProxyType({})
    ) -> None:
        """Take in calls that have begun, the ends of such, and what people said of failed ones."""
        for label, said in settled.items():
            self._settled[label] = said
            self._items.get(label.step, {}).pop(label.index, None)
            self._changed.add(label.step)
        for label, ended in calls.items():
            attempts = self._calls.setdefault(label.step, {}).setdefault(label.index, {})
            was_open = attempts.get(label.attempt, ended) is None and label.attempt in attempts
            attempts[label.attempt] = ended
            self._open += (ended is None) - was_open
            self._items.get(label.step, {}).pop(label.index, None)
            self._changed.add(label.step)

    def stop(self) -> None:
        """Begin nothing any more."""
        self._is_stopping = True

    def advance(self) -> Move:
        """Return what begins now, and how each step stands."""
        changed = set[str]()
        while True:
            for step in self._ordered:
                if step.id in self._changed:
                    self._standings[step.id] = standing = self._stand(step)
                    # Nothing is seen of a step before it has ended.
                    self._changed.update(self._needed_by[step.id] if standing.has_ended else ())
            changed |= self._changed
            self._changed.clear()
            self._is_told_more = False
            begin = self._begin()
            if not self._is_told_more:
                break
            # A call whose input cannot be told has failed, and others may need it.
        stopped_by = next(
            (
                f"step {step.id!r} failed: {standing.reason}"
                for step in self._plan.steps
                if (standing := self._standings[step.id]).status == "failed" and step.on_failure == "stop"
            ),
            None,
        )
        halts = self._is_stopping or stopped_by is not None
        if halts:
            begin = ()
            self._halt(stopped_by or "the plan is being stopped")
            changed |= self._changed
        asks = () if halts else tuple(islice(self._list_asks(), MOST_ASKED))
        return Move(begin, self._standings, self._open + len(begin), stopped_by, tuple(changed), asks)

    def _list_asks(self) -> Iterator[Ask]:
        """Yield the failed calls of which people are asked."""
        for step in self._plan.steps:
            standing = self._standings[step.id]
            if step.on_failure != "ask" or standing.has_ended:
                continue
            for index, item in enumerate(standing.items):
                if item.status == "asking":
                    label = Label(step.id, index if step.for_each is not None else -1, item.attempts)
                    yield Ask(label, item.reason or "it failed", item.tried, item.has_output)

    @cached_property
    def _needed_by(self) -> dict[str, list[str]]:
        """The steps that need each step."""
        needed_by: dict[str, list[str]] = {step.id: [] for step in self._plan.steps}
        for name, needs in self._needs.items():
            for needed in needs:
                needed_by[needed].append(name)
        return needed_by

    @cached_property
    def _ordered(self) -> list[PlanStep]:
        """The steps, each after those that it needs."""
        known = {step.id: step for step in self._plan.steps}
        done: dict[str, PlanStep] = {}
        for step in self._plan.steps:
            waiting = [step.id]
            while waiting:
                missing = [name for name in sorted(self._needs[waiting[-1]]) if name not in done and name in known]
                if missing:
                    waiting.append(missing[0])
                    continue
                name = waiting.pop()
                done.setdefault(name, known[name])
        return list(done.values())

    def _stand(self, step: PlanStep) -> Standing:
        blocked = self._find_block(step)
        if blocked is not None:
            return blocked
        standing = Standing()
        if step.id not in self._calls and (refused := self._find_refusal(step)) is not None:
            return refused
        values: list[JsonValue] = [None]
        if step.for_each is not None:
            # What it reads has ended, and so stays as it is.
            known = self._standings[step.id].values
            listed = known if known is not None else self._list_items(step)
            if isinstance(listed, str):
                return self._fail(step, Standing(), listed)
            values = listed
            standing.values = listed
        seen = self._items.setdefault(step.id, {})
        for index, value in enumerate(values):
            place = index if step.for_each is not None else -1
            if place not in seen:
                seen[place] = self._look_at(step, index, value)
            standing.items.append(seen[place])
        return self._sum_up(step, standing)

    def _find_block(self, step: PlanStep) -> Standing | None:
        """Return how a step stands that needs others which have not ended, or ended badly."""
        for name in sorted(self._needs[step.id]):
            other = self._standings.get(name)
            if other is None or not other.has_ended:
                return Standing()
            if other.status != "completed" and not other.is_let_pass:
                reason = other.reason or other.status
                return Standing("skipped", reason=wording.shorten(f"step {name!r} {other.status}: {reason}", 300))
        return None

    def _find_refusal(self, step: PlanStep) -> Standing | None:
        """Return how a step stands whose condition does not hold, or cannot be told."""
        if step.when is None:
            return None
        holds = self._facts(step).evaluate(step.when)
        if type(holds) is Unevaluable:
            return self._fail(step, Standing(), f"when: {holds.reason}")
        if holds is True:
            return None
        return Standing("skipped", reason="its condition does not hold", is_let_pass=True)

    def _list_items(self, step: PlanStep) -> list[JsonValue] | str:
        """Return the items of a `for_each`, or why there are none."""
        each = step.for_each or ""
        value = Facts({"steps": self._view(self._needs[step.id])}, self._find_input(each)).value(each)
        if type(value) is Unevaluable:
            return f"for_each: {value.reason}"
        if not isinstance(value, list):
            return "for_each: it comes to something that is no list"
        if len(value) > MOST_ITEMS:
            return f"for_each: it comes to {len(value):,} items, and at most {MOST_ITEMS:,} are made"
        return value

    def _look_at(self, step: PlanStep, index: int, value: JsonValue) -> Item:
        """Return how one call of a step stands over its attempts."""
        attempts = self._calls.get(step.id, {}).get(index if step.for_each is not None else -1, {})
        item = Item(attempts=len(attempts))
        if (untold := self._untold.get((step.id, index))) is not None:
            item.status, item.reason = "failed", untold
            return item
        allowed, begun = step.attempts, 0
        for number, ended in sorted(attempts.items()):
            if ended is None:
                item.status = "running"
                return item
            item.cost_usd += ended.cost_usd
            failure = ended.failure or self._find_misfit(step, ended.value, index, value)
            if failure is None:
                item.status, item.value, item.reason = "completed", ended.value, None
                return item
            item.reason, item.has_output = wording.shorten(failure, REASON_CHARACTERS), ended.has_value
            item.tried = (*item.tried, f"attempt {number}: {item.reason}")[-ATTEMPTS_TOLD:]
            said = self._settled.get(Label(step.id, index if step.for_each is not None else -1, number))
            if said is not None and said.choice in {"accept", "supply"}:
                item.status, item.reason = "completed", None
                item.value = said.value if said.choice == "supply" else ended.value
                return item
            if said is not None and said.choice == "retry":
                allowed, begun, item.guidance = number + step.attempts, number, said.text
            may_ask = step.on_failure == "ask" and not ended.is_stopped and said is None
            is_last = number >= allowed or (ended.is_stopped and number > begun)
            item.status = "waiting" if not is_last else "asking" if may_ask else "failed"
        return item

    def _find_misfit(self, step: PlanStep, output: JsonValue, index: int, item: JsonValue) -> str | None:
        """Return why an output is no success."""
        if step.success is None:
            return None
        holds = Facts({"output": output, "item": item, "index": index}, self._find_input(step.success)).evaluate(
            step.success
        )
        if type(holds) is Unevaluable:
            return f"success: {holds.reason}"
        return None if holds is True else f"its output is no success: {step.success}"

    def _sum_up(self, step: PlanStep, standing: Standing) -> Standing:
        """Return how a step stands by its items."""
        open_ones = sum(item.status in {"waiting", "running", "asking"} for item in standing.items)
        if step.for_each is None:
            (item,) = standing.items
            if item.status == "completed":
                standing.status, standing.output = "completed", item.value
            elif item.status == "failed":
                return self._fail(step, standing, item.reason or "it failed")
            else:
                standing.status = "running" if item.attempts else "waiting"
            return standing
        needed = len(standing.items) if step.needs is None else step.needs
        if standing.completed + open_ones < needed:
            reasons = [item.reason for item in standing.items if item.reason]
            told = f"{standing.failed} of {len(standing.items)} failed, and {needed} must end well"
            failed = self._fail(step, standing, f"{told}; {reasons[0]}" if reasons else told)
            if any(item.status in {"running", "asking"} for item in standing.items):
                # What is under way is waited for, and nothing else begins.
                failed.status = "running"
            return failed
        if open_ones:
            standing.status = "running" if any(item.attempts for item in standing.items) else "waiting"
            return standing
        standing.status = "completed"
        standing.output = [item.value if item.status == "completed" else None for item in standing.items]
        return standing

    def _fail(self, step: PlanStep, standing: Standing, reason: str) -> Standing:
        standing.status = "failed"
        standing.reason = wording.shorten(reason, REASON_CHARACTERS)
        standing.is_let_pass = step.on_failure == "continue"
        return standing

    def _begin(self) -> tuple[NewCall, ...]:
        """Return the calls that begin now, within what may be under way at once."""
        begin = list[NewCall]()
        for step in self._ordered:
            standing = self._standings[step.id]
            if standing.has_ended or not standing.items or standing.reason is not None:
                continue
            running = sum(item.status == "running" for item in standing.items)
            for index, item in enumerate(standing.items):
                room = min(self._plan.max_parallel - self._open - len(begin), BATCH - len(begin))
                if room <= 0 or (step.max_parallel is not None and running >= step.max_parallel):
                    break
                if item.status != "waiting":
                    continue
                made = self._make(step, standing, index, item)
                if isinstance(made, str):
                    self._untold[step.id, index] = made
                    self._items[step.id].pop(index if step.for_each is not None else -1)
                    self._changed.add(step.id)
                    self._is_told_more = True
                    continue
                running += 1
                begin.append(made)
        return tuple(begin)

    def _make(self, step: PlanStep, standing: Standing, index: int, item: Item) -> NewCall | str:
        """Return a call with what it is asked, or why that cannot be told."""
        label = Label(step.id, index if step.for_each is not None else -1, item.attempts + 1)
        more: dict[str, JsonValue] = {}
        if standing.values is not None:
            more = {"item": standing.values[index], "index": index}
        if step.input is None:
            value = standing.values[index] if standing.values is not None else self._given
            return NewCall(label, step, value, item.reason, item.guidance)
        facts = self._facts(step, **more)
        if isinstance(step.input, str):
            computed = facts.value(step.input)
            if type(computed) is Unevaluable:
                return f"input: {computed.reason}"
            return NewCall(label, step, computed, item.reason, item.guidance)
        arguments: JsonObject = {}
        for name, text in step.input.items():
            computed = facts.value(text)
            if type(computed) is Unevaluable:
                return f"input.{name}: {computed.reason}"
            arguments[name] = computed
        return NewCall(label, step, arguments, item.reason, item.guidance)

    def _facts(self, step: PlanStep, **more: JsonValue) -> Facts:
        """Return what the expressions of a step see, once all that it needs has ended."""
        if step.id not in self._seen:
            read = [step.when, *(step.input.values() if isinstance(step.input, dict) else [step.input])]
            self._seen[step.id] = Facts({"steps": self._view(self._needs[step.id])}, self._find_input(*read))
        return Facts(more, self._seen[step.id]) if more else self._seen[step.id]

    def _find_input(self, *expressions: str | None) -> Facts:
        """Return the plan's input, as much of it as these expressions read.

        The library takes in a variable anew, the whole of it, with each expression that reads it.
        """
        found = [order.find_input_keys(text) for text in expressions if text is not None]
        keys = None if None in found else frozenset[str]().union(*(names for names in found if names is not None))
        if keys not in self._inputs:
            given = self._given
            if keys is not None and isinstance(given, dict):
                given = {key: given[key] for key in sorted(keys) if key in given}
            self._inputs[keys] = Facts({"input": given})
        return self._inputs[keys]

    def _view(self, names: frozenset[str]) -> JsonObject:
        """Return steps as expressions see them."""
        return {
            name: {
                "output": standing.output,
                "status": standing.status,
                "items": [{"output": item.value, "status": item.status} for item in standing.items],
            }
            for name in names
            if (standing := self._standings.get(name)) is not None
        }

    def compute_output(self, move: Move) -> JsonValue | Unevaluable:
        """Return the output of a plan that is over."""
        standings = move.standings
        if self._plan.output is not None:
            steps = self._view(frozenset(standings))
            return Facts({"input": self._given, "steps": steps}).value(self._plan.output)
        last = list_last(self._plan, self._needs)
        if len(last) == 1:
            return standings[last[0]].output
        return {name: standings[name].output for name in last}

    def _halt(self, reason: str) -> None:
        """Mark what is not begun any more."""
        for name, standing in self._standings.items():
            if not standing.has_ended and not any(item.status == "running" for item in standing.items):
                standing.status, standing.reason = "stopped", wording.shorten(reason, 300)
                self._changed.add(name)


def list_last(plan: PlanSpec, needs: Mapping[str, frozenset[str]]) -> list[str]:
    """Return the steps that no other needs."""
    needed = {name for names in needs.values() for name in names}
    return [step.id for step in plan.steps if step.id not in needed]


def find_end_fault(plan: PlanSpec, needs: Mapping[str, frozenset[str]], move: Move) -> str | None:
    """Return why a plan that is over has not ended well; `None` for one whose last steps have."""
    if move.stopped_by is not None:
        return move.stopped_by
    for name in list_last(plan, needs):
        standing = move.standings[name]
        if standing.status == "completed" or standing.is_let_pass:
            continue
        return f"step {name!r} {standing.status}{f': {standing.reason}' if standing.reason else ''}"
    return None


def is_stuck(move: Move) -> bool:
    """Return whether nothing is under way, nothing begins, and some step has not ended: a fault of ours."""
    return move.is_over and any(not standing.has_ended for standing in move.standings.values())


def list_unended(standings: Mapping[str, Standing]) -> Sequence[str]:
    """Return the steps that have not ended."""
    return [name for name, standing in standings.items() if not standing.has_ended]


def name_tool(plan: PlanSpec, step: PlanStep) -> str:
    """Return the name of the tool that a step calls: its target's, but for steps with limits or checks of their own."""
    if step.checks:
        return _name_variant(step)
    if step.tool is not None:
        return step.tool
    first = next(
        other for other in plan.steps if (other.agent, other.plan) == (step.agent, step.plan) and not other.checks
    )
    same = all(getattr(first, key) == getattr(step, key) for key in ("budget", "timeout", "output_schema"))
    return step.target if same else _name_variant(step)


def _name_variant(step: PlanStep) -> str:
    # Another agent or tool may be called by both names together.
    digest = digest_of(f"{step.target} {step.id}".encode())
    return f"{step.target[: NAME_CHARACTERS - 18]}--{digest[:16]}"
