"""Recent failures of a run, and when they are for a person to settle."""

from collections.abc import Mapping

from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.state import RecoveryState, Trouble
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import quantities, wording
from mandate.workflows.rules.plain_text import REASON_CHARACTERS

FINAL = "*final"
TURNS = "*turns"
SAME = "*same"
BUDGET = "*budget"
MODEL = "*model"
"""Sources of failure beside tools, under names that no tool can have."""

KEPT = 64
LINES = 10


def digest_call(tool: str, arguments: JsonObject) -> Digest:
    """Return a digest that is equal for two equal calls."""
    return digest_of(canonical_json([tool, arguments]))


def count_failure(
    state: RecoveryState,
    name: str,
    line: str,
    *,
    of: str = "",
    call: Digest | None = None,
    index: int | None = None,
    spoiled: bool = False,
    doubted: bool = False,
    has_result: bool = False,
) -> RecoveryState:
    """Return `state` with one more failure of `name`; with `call`, that call is not made again as it is.

    Until the world has changed; never again if it is `spoiled`: done, and done wrongly. It may be made once more if it
    is `doubted`. `line` is why it failed, and `of` the call in one line; `has_result` says that there is something that
    a person may accept as it is.
    """
    before = state.troubles.get(name, Trouble())
    made, reason = f"{of}: " if of else "", wording.shorten(line, REASON_CHARACTERS)
    after = Trouble(
        failures=before.failures + 1,
        lines=(*before.lines, made + reason)[-LINES:],
        index=index,
        has_result=before.has_result or has_result,
    )
    changes: dict[str, object] = {"troubles": {**state.troubles, name: after}}
    if call is not None:
        kept = "spoiled" if spoiled else "doubted" if doubted else "failed"
        told = wording.shorten(f"{made}{reason}", REASON_CHARACTERS)
        changes[kept] = _keep_newest({**getattr(state, kept), call: told})
    return state.model_copy(update=changes)


def count_success(state: RecoveryState, name: str, *, changed_world: bool) -> RecoveryState:
    """Return `state` after `name` has worked; what failed before a change of the world may work after it."""
    if name not in state.troubles and not (changed_world and (state.failed or state.doubted)):
        return state
    changes: dict[str, object] = {"failed": {}, "doubted": {}} if changed_world else {}
    troubles = {other: trouble for other, trouble in state.troubles.items() if other != name}
    return state.model_copy(update={**changes, "troubles": troubles})


def count_result(state: RecoveryState, call: Digest, answer: ToolResult) -> tuple[RecoveryState, int]:
    """Return `state` with one more call of this result, and how often it came so far, this time included."""
    key = digest_of(canonical_json([call, answer.digest or answer.text, answer.error]))
    count = state.same.get(key, 0) + 1
    rest = {other: number for other, number in state.same.items() if other != key}
    return state.model_copy(update={"same": _keep_newest({**rest, key: count})}), count


def find_failure(state: RecoveryState, call: Digest) -> str | None:
    """Return why a call is not to be made again as it is."""
    return state.spoiled.get(call) or state.failed.get(call)


def is_doubted(state: RecoveryState, tool: str, arguments: JsonObject) -> bool:
    """Return whether a call has failed before in a way that may be gone by now."""
    return bool(state.doubted) and digest_call(tool, arguments) in state.doubted


def keep_spoiled(state: RecoveryState, call: Digest, reason: str) -> RecoveryState:
    """Return `state` with a call that has changed the world and did not pass its checks."""
    kept = _keep_newest({**state.spoiled, call: wording.shorten(reason, 300)})
    return state.model_copy(update={"spoiled": kept})


def keep_refusal(state: RecoveryState, call: Digest, reason: str) -> RecoveryState:
    """Return `state` with a call that a person has rejected."""
    kept = _keep_newest({**state.refused, call: wording.shorten(reason, 300)})
    return state.model_copy(update={"refused": kept})


def keep_refused(state: RecoveryState, refused: Mapping[Digest, str]) -> RecoveryState:
    """Return `state` with what people rejected elsewhere, in the words of there."""
    return state.model_copy(update={"refused": _keep_newest({**state.refused, **refused})}) if refused else state


def reset(state: RecoveryState) -> RecoveryState:
    """Return `state` counted anew after a person has helped; what was done wrongly stays done."""
    return RecoveryState(spoiled=state.spoiled)


def find_exhausted(state: RecoveryState, attempts: int) -> str | None:
    """Return the name of what has failed `attempts` times: a tool, or one of the names above."""
    return next((name for name, trouble in state.troubles.items() if trouble.failures >= attempts), None)


def can_be_accepted(about: str, trouble: Trouble, answer: str | None) -> bool:
    """Return whether there is something that a person may accept as it is; `answer` is the final one, if it came."""
    match about:
        case "*model":
            return False
        case "*final":
            return bool(answer and answer.strip())
        case "*same":
            return True
        case _:
            return trouble.has_result


def list_others(state: RecoveryState, about: str) -> list[str]:
    """Return what else has failed since it worked last, in one line each."""
    others = [(name, trouble) for name, trouble in state.troubles.items() if name != about]
    return [f"{_describe_other(name, trouble)}: {line}" for name, trouble in others for line in trouble.lines]


def _describe_other(name: str, trouble: Trouble) -> str:
    is_one_turn = name == TURNS and trouble.failures == 1
    return "a turn had no call that worked" if is_one_turn else describe(name, trouble.failures)


def describe(name: str, failures: int) -> str:
    """Return the reason why a person is asked, in one sentence."""
    times = quantities.count_times(failures)
    match name:
        case "*final":
            return f"the final answer could not be taken {times}"
        case "*turns":
            return f"{quantities.count_noun(failures, 'turn')} in a row had no call that worked"
        case "*same":
            return "the agent makes the same call again and again, with the same result"
        case "*model":
            return "no model of the route gives an answer"
        case _:
            return f"{name!r} failed {times}"


def _keep_newest(entries: dict[str, object]) -> dict[str, object]:
    """Return the newest `KEPT` of `entries`."""
    names = list(entries)[-KEPT:]
    return {name: entries[name] for name in names}
