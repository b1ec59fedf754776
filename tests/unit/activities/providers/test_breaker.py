"""Circuit breakers: opened by faults of the provider, let go by one probe, and never the end of a run."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from mandate.activities.failures import ModelError, ModelFault, make_model_failure
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.breaker import (
    DELAYED_ATTEMPTS,
    FAULTS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PROBE_PAUSE,
    Answered,
    Breaker,
    Breakers,
    BreakerState,
    Faulty,
    Limited,
    Outcome,
    Pause,
    Permit,
    Untold,
    judge,
)
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import Finish, Usage
from mandate.workflows.contracts.transcript import AssistantMessage, TextPart

DOWN = Faulty("'openai:a' answered 503: down")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Model:
    """A provider whose next answers are those of `errors`; `None` is an answer."""

    errors: list[ModelError | None] = field(default_factory=list)
    asked: int = 0

    async def complete(self, prompt: Prompt) -> Completion:
        self.asked += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        text = TextPart(kind="text", text="yes")
        message = AssistantMessage(role="assistant", model="a", protocol="openai.chat", parts=(text,))
        return Completion(message, Finish.COMPLETE, Usage(model_calls=1))

    async def close(self) -> None:
        return None


def prompt(attempt: int = 1, *, has_others: bool = False) -> Prompt:
    return Prompt(
        model="a",
        instructions="",
        tools=(),
        agent="A" * 43,
        conversation=Conversation(()),
        max_output_tokens=1,
        timeout=timedelta(seconds=1),
        attempt=attempt,
        has_others=has_others,
    )


def down(status: int | None = 503) -> ModelError:
    return make_model_failure("server", "'openai:a' answered 503: down", status=status)


def call(breaker: Breaker, outcome: Outcome) -> None:
    permit = breaker.ask()
    assert isinstance(permit, Permit)
    breaker.settle(permit, outcome)


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAULTS):
        call(breaker, DOWN)
    return breaker


def test_it_opens_after_faults_in_a_row_and_says_for_how_long() -> None:
    clock = Clock()
    breaker = opened(clock)

    clock.now += 3.0

    assert breaker.ask() == Pause(
        7.0,
        "its breaker is open for 7 s, after 5 faults of the provider in a row, the last: 'openai:a' answered 503: down",
    )


def test_an_answer_between_faults_starts_the_count_anew() -> None:
    breaker = Breaker(Clock())
    for outcome in (*[DOWN] * (FAULTS - 1), Answered(), *[DOWN] * (FAULTS - 1)):
        call(breaker, outcome)

    assert (breaker.state, breaker.faults) == ("closed", FAULTS - 1)


def test_one_probe_after_the_pause_and_nothing_beside_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_PAUSE

    probe, beside = breaker.ask(), breaker.ask()

    assert probe == Permit(is_probe=True)
    assert isinstance(beside, Pause)
    assert beside.seconds == PROBE_PAUSE
    assert breaker.state == "half_open"


def test_a_probe_that_is_answered_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_PAUSE

    call(breaker, Answered())

    assert (breaker.state, breaker.faults, breaker.ask()) == ("closed", 0, Permit())


def test_each_probe_that_fails_doubles_the_pause_up_to_a_minute() -> None:
    clock = Clock()
    breaker = opened(clock)
    pauses = []
    for _ in range(5):
        pauses.append(breaker.seconds_left)
        clock.now += breaker.seconds_left
        call(breaker, DOWN)

    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_probe_that_was_cancelled_leaves_its_place_to_another() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_PAUSE

    call(breaker, Untold())

    assert breaker.ask() == Permit(is_probe=True)


def test_calls_that_began_before_it_opened_change_nothing() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    late = breaker.ask()
    for _ in range(FAULTS):
        call(breaker, DOWN)
    assert isinstance(late, Permit)
    clock.now += 4.0

    breaker.settle(late, DOWN)

    assert breaker.seconds_left == 6.0


@pytest.mark.parametrize("seconds", [0.25, 1.0, 30.0, 3600.0])
def test_a_rate_limit_opens_it_for_exactly_the_time_that_was_said(seconds: float) -> None:
    clock = Clock()
    breaker = Breaker(clock)

    call(breaker, Limited(seconds, "slow down"))

    assert (breaker.state, breaker.seconds_left) == ("open", seconds)
    clock.now += seconds
    assert (breaker.state, breaker.ask(), breaker.ask()) == ("closed", Permit(), Permit())


@pytest.mark.parametrize(
    ("fault", "status", "retry_after", "outcome"),
    [
        ("server", 500, None, Faulty),
        ("server", 503, 2.0, Faulty),
        ("overloaded", 529, None, Faulty),
        ("overloaded", 200, None, Faulty),
        ("connection", None, None, Faulty),
        ("timeout", None, None, Faulty),
        ("server", 408, None, Untold),
        ("server", 409, None, Untold),
        ("server", 400, None, Untold),
        ("rate_limit", 429, 3.0, Limited),
        ("rate_limit", 429, 300.0, Limited),
        ("rate_limit", 429, None, Untold),
        ("quota", 429, None, Answered),
        ("bad_request", 400, None, Answered),
        ("configuration", 401, None, Answered),
        ("configuration", None, None, Untold),
        ("context_length", 400, None, Answered),
        ("content_filter", 400, None, Answered),
        ("malformed", 200, None, Untold),
        ("not_asked", None, None, Untold),
        ("script", None, None, Untold),
    ],
)
def test_only_faults_of_the_provider_count(
    fault: ModelFault, status: int | None, retry_after: float | None, outcome: type[Outcome]
) -> None:
    error = make_model_failure(fault, "why", status=status, retry_after=retry_after)

    assert type(judge(error)) is outcome


OUTCOMES = st.sampled_from([Answered(), DOWN, Limited(5.0, "slow down"), Untold()])
EVENTS = st.one_of(
    st.just("ask"),
    st.tuples(st.integers(0, 5), OUTCOMES),
    st.floats(0.0, 90.0, allow_nan=False),
)


@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_it_lets_calls_through_again(events: list[Any]) -> None:
    """At most one probe is under way, a pause is never longer than the longest, and an answer always closes it."""
    clock = Clock()
    breaker = Breaker(clock)
    under_way: list[Permit] = []
    for event in events:
        if event == "ask":
            permit = breaker.ask()
            if isinstance(permit, Permit):
                assert not (permit.is_probe and any(other.is_probe for other in under_way))
                assert breaker.state != "open"
                under_way.append(permit)
            else:
                assert 0.0 < permit.seconds <= LONGEST_PAUSE
        elif isinstance(event, float):
            clock.now += event
        elif event[0] < len(under_way):
            permit = under_way.pop(event[0])
            before = breaker.faults
            breaker.settle(permit, event[1])
            assert breaker.faults <= before or isinstance(event[1], Faulty)
            if isinstance(event[1], Answered):
                assert (breaker.state, breaker.faults) == ("closed", 0)
    for permit in under_way:
        breaker.settle(permit, Untold())
    clock.now += LONGEST_PAUSE
    assert isinstance(breaker.ask(), Permit)


@given(st.lists(st.sampled_from([Answered(), Untold(), Limited(1.0, "slow")]), max_size=50))
def test_without_faults_of_the_provider_it_never_opens_but_for_a_rate_limit(outcomes: list[Outcome]) -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for outcome in outcomes:
        call(breaker, outcome)
        assert breaker.seconds_left == (1.0 if isinstance(outcome, Limited) else 0.0)
        clock.now += 1.0

    assert breaker.state == "closed"


async def failure_of(breakers: Breakers, model: Model, asked: Prompt) -> ApplicationError:
    with pytest.raises(ApplicationError) as raised:
        await breakers.guard("openai", model).complete(asked)
    return raised.value


async def open_breakers(clock: Clock) -> Breakers:
    breakers = Breakers(clock)
    for _ in range(FAULTS):
        await failure_of(breakers, Model([down()]), prompt())
    return breakers


async def test_a_call_with_another_model_to_go_to_is_refused_at_once() -> None:
    model, breakers = Model(), await open_breakers(Clock())

    error = await failure_of(breakers, model, prompt(has_others=True))

    assert (error.type, error.non_retryable, error.next_retry_delay) == (FailureType.MODEL_UNAVAILABLE, True, None)
    assert error.message.startswith("its breaker is open for 10 s, after 5 faults of the provider in a row")
    assert model.asked == 0


async def test_a_call_with_no_other_model_is_delayed_by_the_time_that_is_left() -> None:
    clock = Clock()
    model, breakers = Model(), await open_breakers(clock)
    clock.now += 4.0

    error = await failure_of(breakers, model, prompt())

    assert (error.non_retryable, error.next_retry_delay) == (False, timedelta(seconds=6))
    assert model.asked == 0


@pytest.mark.parametrize("attempt", range(1, 7))
async def test_later_attempts_with_no_other_model_are_made(attempt: int) -> None:
    model, breakers = Model([down()]), await open_breakers(Clock())

    await failure_of(breakers, model, prompt(attempt))

    assert model.asked == (attempt > DELAYED_ATTEMPTS)


@given(st.lists(st.sampled_from([None, "down"]), min_size=6, max_size=6), st.integers(0, 60))
async def test_a_run_with_one_model_fails_only_if_the_model_did(plan: list[str | None], waited: int) -> None:
    """Whatever the breaker does, the last of the six attempts is made, and an answer to any attempt is the run's."""
    clock = Clock()
    breakers = await open_breakers(clock)
    clock.now += waited
    model = Model([down() if said else None for said in plan])
    provider, answered = breakers.guard("openai", model), False
    failures: list[ApplicationError] = []
    while not answered and len(failures) < 6:
        try:
            await provider.complete(prompt(len(failures) + 1))
            answered = True
        except ApplicationError as error:
            failures.append(error)
            clock.now += (error.next_retry_delay or timedelta(0)).total_seconds()

    assert not any(error.non_retryable for error in failures)
    assert answered or model.asked >= 6 - DELAYED_ATTEMPTS
    assert answered is (None in plan[: model.asked])


async def test_a_short_rate_limit_moves_no_run_to_another_model() -> None:
    breakers = Breakers(Clock())
    await failure_of(breakers, Model([make_model_failure("rate_limit", "slow", status=429, retry_after=1)]), prompt())

    first = await failure_of(breakers, Model(), prompt(1, has_others=True))
    third = await failure_of(breakers, Model(), prompt(3, has_others=True))

    assert (first.non_retryable, first.next_retry_delay) == (False, timedelta(seconds=1))
    assert third.non_retryable
    assert first.message == "its breaker is open for 1 s, as the provider limits the rate: slow"


async def test_states_tell_of_each_model_by_itself() -> None:
    clock = Clock()
    breakers = await open_breakers(clock)
    await breakers.guard("anthropic", Model()).complete(prompt())
    clock.now += 2.5

    assert breakers.states() == (
        BreakerState("anthropic", "a", "closed", 0, 0.0, ""),
        BreakerState("openai", "a", "open", 5, 7.5, "'openai:a' answered 503: down"),
    )


async def test_an_error_of_ours_counts_for_nothing() -> None:
    class Broken(Model):
        async def complete(self, prompt: Prompt) -> Completion:
            raise KeyError("x")

    breakers = Breakers(Clock())
    for _ in range(2 * FAULTS):
        with pytest.raises(KeyError):
            await breakers.guard("openai", Broken()).complete(prompt())

    assert breakers.states() == (BreakerState("openai", "a", "closed", 0, 0.0, ""),)


async def test_a_call_that_opens_it_is_not_tried_again_where_there_is_another_model() -> None:
    """Its next attempt would be refused."""
    breakers = Breakers(Clock())
    for _ in range(FAULTS - 1):
        await failure_of(breakers, Model([down()]), prompt())

    alone = await failure_of(await open_breakers(Clock()), Model([down()]), prompt(3))
    with_others = await failure_of(breakers, Model([down()]), prompt(1, has_others=True))

    assert (alone.non_retryable, alone.next_retry_delay) == (False, timedelta(seconds=1))
    assert (with_others.non_retryable, with_others.message) == (True, "'openai:a' answered 503: down")
