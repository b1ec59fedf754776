"""Circuit breakers: a model whose provider is down is not asked for a while.

Each worker process has one for each model. It opens after `FAULTS` faults of the provider in a row, whatever runs they
are of, for `FIRST_PAUSE`; then one call is a probe, and what comes beside it is refused. A probe that fails opens it
again for twice as long, up to `LONGEST_PAUSE`. A rate limit opens it for exactly the time that the provider says.

A call that has another model to go to is refused at once, unless the pause is short. One that has none is only delayed:
its first attempts come back after the pause, and the later ones are made whatever the breaker says.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from mandate.activities.failures import ModelError, ModelFault, make_model_failure
from mandate.activities.providers.base import Completion, Prompt, Provider
from mandate.workflows.rules.plain_text import shorten

log = structlog.stdlib.get_logger(__name__)

FAULTS = 5
"""One run alone makes six attempts, so this many in a row are an outage of half a minute, or one of many runs."""

FIRST_PAUSE = 10.0
LONGEST_PAUSE = 60.0

PROBE_PAUSE = 5.0
"""Seconds after which a call comes back that met a probe: about what an answer takes."""

SHORT_PAUSE = 2.0
"""Seconds that are waited for even where there is another model, on which the run would stay."""

LONGEST_DELAY = 120.0
"""Seconds after which a delayed attempt comes back at the latest; what waits longer is not retried."""

DELAYED_ATTEMPTS = 2
"""Attempts that are delayed where no other model is left; a check by a model has three, a model call six."""

KEPT = 1000
"""Breakers that are kept; beyond them, those that hold nothing are forgotten."""

REASON_CHARACTERS = 200

State = Literal["closed", "open", "half_open"]

PROVIDER_FAULTS: frozenset[ModelFault] = frozenset(("overloaded", "server", "timeout", "connection"))


@dataclass(frozen=True, slots=True)
class Answered:
    """The provider has answered, be it with a refusal of this request."""


@dataclass(frozen=True, slots=True)
class Faulty:
    """The provider was down, or said that it is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Limited:
    """The provider takes no requests of ours for so many seconds."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Untold:
    """The call says nothing of the provider: it was cancelled, or never sent."""


Outcome = Answered | Faulty | Limited | Untold


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to make one call."""

    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Refusal of one call."""

    seconds: float
    """Time until another may be made."""
    why: str
    """The rest of a sentence about the model."""


@dataclass(frozen=True, slots=True)
class BreakerState:
    """State of one breaker at one moment."""

    provider: str
    model: str
    state: State
    faults: int
    """In a row, up to the last call."""
    seconds: float
    """Left until it lets a call through."""
    reason: str
    """The last fault; empty when there was none."""


class Breaker:
    """Breaker of one model, by a clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._faults = 0
        self._pause = 0.0
        """Length of the last pause after faults."""
        self._open_until: float | None = None
        self._is_limited = False
        """True if it is open only because the provider limits the rate."""
        self._is_probed = False
        self._reason = ""

    @property
    def state(self) -> State:
        if self._open_until is None or (self._is_limited and self.seconds_left == 0):
            return "closed"
        return "open" if self.seconds_left > 0 else "half_open"

    @property
    def seconds_left(self) -> float:
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    @property
    def faults(self) -> int:
        return self._faults

    @property
    def reason(self) -> str:
        return self._reason

    def ask(self) -> Permit | Pause:
        """Return the permission to make a call, whose outcome `settle` is to be told, or how long to wait."""
        match self.state:
            case "closed":
                return Permit()
            case "open":
                return Pause(
                    self.seconds_left, f"its breaker is open for {math.ceil(self.seconds_left)} s, {self._why}"
                )
            case "half_open" if self._is_probed:
                return Pause(PROBE_PAUSE, f"its breaker lets one call through, which is under way, {self._why}")
            case "half_open":
                self._is_probed = True
                return Permit(is_probe=True)

    def settle(self, permit: Permit, outcome: Outcome) -> None:
        """Take in the outcome of a call."""
        state = self.state
        if permit.is_probe:
            self._is_probed = False
        match outcome:
            case Answered():
                self._close()
            case Limited(seconds, reason):
                self._limit(seconds, reason, state, is_probe=permit.is_probe)
            case Faulty(reason) if state == "closed":
                self._forget_limit()
                self._faults += 1
                self._reason = shorten(reason, REASON_CHARACTERS)
                if self._faults >= FAULTS:
                    self._open(FIRST_PAUSE)
            case Faulty(reason) if permit.is_probe:
                self._faults += 1
                self._reason = shorten(reason, REASON_CHARACTERS)
                self._open(min(2 * self._pause, LONGEST_PAUSE))
            case Faulty() | Untold():
                # Calls that began before it opened say nothing of the provider as it is now.
                pass

    @property
    def _why(self) -> str:
        if self._is_limited:
            return f"as the provider limits the rate: {self._reason}"
        return f"after {self._faults} faults of the provider in a row, the last: {self._reason}"

    def _open(self, seconds: float) -> None:
        self._pause, self._is_limited = seconds, False
        self._open_until = self._clock() + seconds

    def _limit(self, seconds: float, reason: str, state: State, *, is_probe: bool) -> None:
        """Open for exactly `seconds`, or for longer if it is open for longer."""
        until = self._clock() + seconds
        if state == "half_open" and not is_probe:
            return
        if state != "open":
            self._is_limited, self._reason = True, shorten(reason, REASON_CHARACTERS)
            self._open_until = until
        elif self._open_until is not None:
            self._open_until = max(self._open_until, until)

    def _forget_limit(self) -> None:
        self._open_until, self._is_limited = None, False

    def _close(self) -> None:
        self._faults, self._pause, self._reason = 0, 0.0, ""
        self._open_until, self._is_limited = None, False


class Breakers:
    """Breakers of one worker process, one for each model that was asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], Breaker] = {}

    def guard(self, name: str, provider: Provider) -> Provider:
        """Return `provider` behind its breakers; `name` is what stands before the colon of its models."""
        return GuardedProvider(name, provider, self)

    def find(self, provider: str, model: str) -> Breaker:
        breaker = self._known.get((provider, model))
        if breaker is None:
            if len(self._known) >= KEPT:
                self._known = {key: kept for key, kept in self._known.items() if kept.faults or kept.reason}
            breaker = self._known[provider, model] = Breaker(self._clock)
        return breaker

    def states(self) -> tuple[BreakerState, ...]:
        """Return the states of all breakers, by provider and model."""
        return tuple(
            BreakerState(provider, model, kept.state, kept.faults, round(kept.seconds_left, 1), kept.reason)
            for (provider, model), kept in sorted(self._known.items())
        )


class GuardedProvider:
    """Provider that makes no call while the breaker of its model is open."""

    def __init__(self, name: str, provider: Provider, breakers: Breakers) -> None:
        self._name = name
        self._provider = provider
        self._breakers = breakers

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask a model; raise as a provider does, and `ModelUnavailable` where the breaker is open."""
        breaker = self._breakers.find(self._name, prompt.model)
        permit = _admit(breaker, prompt)
        try:
            return await self._call(breaker, permit, prompt)
        except ModelError as error:
            if prompt.has_others and _is_vain(error, breaker):
                raise _end(error, prompt) from None
            raise

    async def _call(self, breaker: Breaker, permit: Permit, prompt: Prompt) -> Completion:
        outcome: Outcome = Untold()
        try:
            completion = await self._provider.complete(prompt)
            outcome = Answered()
        except ModelError as error:
            outcome = judge(error)
            raise
        else:
            return completion
        finally:
            self._settle(breaker, permit, outcome, prompt.model)

    async def close(self) -> None:
        await self._provider.close()

    def _settle(self, breaker: Breaker, permit: Permit, outcome: Outcome, model: str) -> None:
        before = breaker.state
        breaker.settle(permit, outcome)
        after, name = breaker.state, f"{self._name}:{model}"
        if after == "open" and before != "open":
            seconds, faults = round(breaker.seconds_left, 1), breaker.faults
            log.warning("breaker_opened", model=name, seconds=seconds, faults=faults, reason=breaker.reason)
        elif after == "closed" and before != "closed":
            log.info("breaker_closed", model=name)


def _admit(breaker: Breaker, prompt: Prompt) -> Permit:
    """Return the permission for a call.

    Raises:
        ModelError: it is not to be made, or not now.
    """
    asked = breaker.ask()
    if isinstance(asked, Permit):
        return asked
    is_delayed = prompt.attempt <= DELAYED_ATTEMPTS
    if not prompt.has_others and not is_delayed:
        return Permit()
    goes_on = prompt.has_others and not (is_delayed and asked.seconds <= SHORT_PAUSE)
    raise make_model_failure(
        "not_asked",
        asked.why,
        attempt=prompt.attempt,
        retry_after=min(asked.seconds, LONGEST_DELAY),
        retryable=not goes_on,
    )


def _is_vain(error: ModelError, breaker: Breaker) -> bool:
    """Return whether another attempt would come while the breaker is still open."""
    delay = error.next_retry_delay
    return delay is not None and breaker.state == "open" and delay.total_seconds() < breaker.seconds_left


def _end(error: ModelError, prompt: Prompt) -> ModelError:
    return make_model_failure(error.fault, error.message, attempt=prompt.attempt, status=error.status, retryable=False)


def judge(error: ModelError) -> Outcome:
    """Return what a failed call says of the provider."""
    if error.fault == "rate_limit":
        return Limited(error.retry_after, error.message) if error.retry_after else Untold()
    if error.fault in PROVIDER_FAULTS:
        is_of_request = error.status is not None and 400 <= error.status < 500
        return Untold() if is_of_request else Faulty(error.message)
    # A proxy may have answered in the provider's place, and what has no status was not sent.
    is_untold = error.status is None or error.fault in {"malformed", "not_asked"}
    return Untold() if is_untold else Answered()
