"""Route of a run: the model of the next step, kept in the run's state and told to people."""

from datetime import timedelta

from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.model import ModelReply
from mandate.workflows.contracts.route import RouteFacts, RoutePin
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import routing, wording
from mandate.workflows.rules.cel import evaluation

WHY_CHARACTERS = 300


class ModelRoute:
    """The models of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tried: tuple[str, ...] = ()
        """Models that gave no answer in this step."""

    def choose(self) -> str:
        """Return the model of the next step."""
        self._tried = ()
        facts: evaluation.Facts | None = None

        def holds(pin: RoutePin) -> bool:
            nonlocal facts
            facts = facts or evaluation.Facts(self._variables())
            outcome = facts.evaluate(pin.when or "false")
            if type(outcome) is evaluation.Unevaluable:
                self._tell_unevaluable(pin, outcome.reason)
            return outcome is True

        before = self._run.state.why_model and self.model
        choice = routing.choose(self._standing, holds)
        if before and choice.model != before:
            self._run.record_step(f"going on with {choice.model}: {choice.why}")
        self._take(choice)
        return choice.model

    def replace(self, reason: str) -> str | None:
        """Return the model that is asked in place of the present one, which gave no answer; `None` at the end."""
        model = self.model
        self._tried = (*self._tried, model)
        following = routing.follow_silence(self._standing, reason, self._tried)
        if following is None:
            return None
        self._run.record_step(f"{model} gave no answer ({reason}); going on with {following.model}")
        self._run.state.silent_models = tuple(dict.fromkeys((*self._run.state.silent_models, model)))
        self._take(following)
        return following.model

    def leave_failed(self) -> None:
        """Go on with the next model after an attempt that failed, if there is one."""
        following = routing.follow_failure(self._standing)
        if following is not None:
            if self._run.has(Change.FOLLOWS_ROUTE):
                self._run.record_step(f"going on with {following.model}: {following.why}")
            self._take(following)

    def begin_again(self) -> None:
        """Begin with the first model once more: a person said so."""
        state = self._run.state
        state.model, state.told_model, state.why_model, state.silent_models = None, None, "", ()

    def take_why(self) -> str:
        """Return why the present model is asked, if no request has told of it yet."""
        state, model = self._run.state, self.model
        if state.told_model == model or not self.is_choice:
            return ""
        state.told_model = model
        return state.why_model

    def keep_latency(self, reply: ModelReply) -> None:
        """Keep how long the answer took, where the agent prefers models by it."""
        state = self._run.state
        if reply.latency and state.agent.prefer == "latency":
            average = routing.average_latency(state.latencies.get(self.model), reply.latency)
            state.latencies = {**state.latencies, self.model: average}

    @property
    def model(self) -> str:
        """The present model."""
        return self._run.state.model or self._pins[0].model

    @property
    def requested(self) -> str | None:
        """The present model as a request names it: not if it is the agent's first."""
        return None if self.model == self._run.state.agent.models[0] else self.model

    @property
    def timeout(self) -> timedelta | None:
        """Longest time of one call of the present model, if the agent file says one."""
        pin = routing.find_pin(self._pins, self.model)
        return None if pin is None else pin.timeout

    @property
    def has_others(self) -> bool:
        """Return whether another model is asked if the present one gives no answer."""
        tried = (*self._tried, self.model)
        return self._run.has(Change.FOLLOWS_ROUTE) and (routing.follow_silence(self._standing, "", tried) is not None)

    @property
    def is_choice(self) -> bool:
        """True if there is something to tell: several models, or one that the start request names."""
        return len(self._pins) > 1 or bool(self._run.state.route)

    @property
    def _pins(self) -> tuple[RoutePin, ...]:
        state = self._run.state
        if self._run.has(Change.FOLLOWS_ROUTE) and (state.route or state.agent.route):
            return state.route or state.agent.route
        return tuple(RoutePin(model=model, group=position) for position, model in enumerate(state.agent.models))

    @property
    def _standing(self) -> routing.Standing:
        state = self._run.state
        return routing.Standing(
            self._pins,
            model=self.model if state.why_model or state.model else None,
            why=state.why_model,
            prefer=state.agent.prefer,
            context_tokens=state.context_tokens,
            latencies=state.latencies,
            silent=state.silent_models,
        )

    def _take(self, choice: routing.Choice) -> None:
        state, pins = self._run.state, self._pins
        before, after = routing.find_pin(pins, self.model), routing.find_pin(pins, choice.model)
        if before is not None and after is not None and before.group != after.group:
            state.silent_models = ()
        state.model = None if choice.model == pins[0].model else choice.model
        why = routing.NAMED if state.route else choice.why
        state.why_model = wording.shorten(why, WHY_CHARACTERS)

    def _variables(self) -> dict[str, object]:
        state = self._run.state
        tools = [tool for call in state.calls if (tool := state.agent.tool(call.tool)) is not None]
        facts = RouteFacts(
            failures=state.failures,
            context_tokens=state.context_tokens,
            last_tools=tuple(call.tool for call in state.calls),
            risk=max((float(tool.risk) for tool in tools), default=0.0),
        )
        return routing.collect_variables(self._run.facts, facts, state.agent.tools)

    def _tell_unevaluable(self, pin: RoutePin, reason: str) -> None:
        state = self._run.state
        if pin.model not in state.unevaluable:
            state.unevaluable = (*state.unevaluable, pin.model)
            self._run.record_step(f"the condition of {pin.model} could not be evaluated, so it does not hold: {reason}")
