"""Calls that change the world: their names, the account that a run keeps of them, and what people are told of them."""

from collections.abc import Callable, Mapping

from mandate.workflows.contracts.base import Digest, canonical_json, digest_of
from mandate.workflows.contracts.run import EffectEntry, EffectLog
from mandate.workflows.contracts.tool import RUN_PLAN, Effect, Tool

KEPT = 50


def compute_key(first_execution_run_id: str, call: Digest, repeat: int | str) -> str:
    """Return the key of one intended action: 43 characters of base64url.

    It survives retries, crashes, continue-as-new and a reset after which the model asks for the same again; two
    intended identical calls differ in `repeat`: how many came before, or for arguments that a person gave, the request
    under which they did. A new run of the same workflow id is a new intention.
    """
    return digest_of(canonical_json([first_execution_run_id, call, repeat]))


def add_effect(log: EffectLog, entry: EffectEntry) -> EffectLog:
    """Return `log` with one more effect; it is bounded whatever the length of the run."""
    # The usual entry keeps the digest that it had before attempts were counted, and children had effects.
    left_out = {name for name in ("attempts", "run", "count", "digest") if name not in _list_changed(entry)}
    content = canonical_json([log.digest, entry.model_dump(mode="json", exclude=left_out)])
    return EffectLog(count=log.count + entry.count, digest=digest_of(content), last=(*log.last, entry)[-KEPT:])


def find_effect(tool: Tool, arguments: Mapping[str, object], find_tool: Callable[[str], Tool | None]) -> Effect:
    """Return the effect of a call as people are asked about it: of a plan, the strictest of the tools of its steps.

    The call itself only starts the plan. What its agents may do is judged in their own runs.
    """
    named = arguments.get("tools")
    if tool.name != RUN_PLAN or tool.child is None or not isinstance(named, list):
        return tool.effect
    found = [step.effect for name in named if isinstance(name, str) and (step := find_tool(name)) is not None]
    return max((tool.effect, *found), key=tuple(Effect).index)


def _list_changed(entry: EffectEntry) -> set[str]:
    """Return the names of the fields that do not have their defaults."""
    return set(entry.model_dump(exclude_defaults=True))
