"""Answers of the demo's terminal to requests: by keys, or with `--yes` by itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from mandate.workers.demo.books import Evidence
from mandate.workflows.contracts.request import REJECT, Request, RequestKind

YES_COMMENT = "mandate demo --yes: no person has looked at it"
YES_LOOKED = "mandate demo --yes: by what the shop's books say"
YES_ANSWER = "Nobody is here to answer. Do what the rules say, and leave what they do not say."

_KEYS: Mapping[RequestKind, Mapping[str, str]] = {
    "approval": {"y": "approve", "yes": "approve", "n": REJECT, "no": REJECT},
    "outcome": {"y": "happened", "yes": "happened", "n": "not_happened", "no": "not_happened"},
}
_WITH_VALUE = ("answer", "supply")
"""Choices that need more than to be made."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A choice, and what goes with it."""

    choice: str
    value: str | None = None
    comment: str = ""


def keys(request: Request) -> str:
    """Return the keys that can be typed here: `y or n`."""
    match request.kind:
        case "question":
            return "any text"
        case "approval":
            return "y or n"
        case "outcome":
            return "y (it happened), n (it did not) or stop"
    return " or ".join(choice for choice in request.choices if choice not in _WITH_VALUE)


def typed(request: Request, said: str) -> Answer | None:
    """Return the choice that a typed line means; `None` when it is none of `keys`."""
    if request.kind == "question":
        return Answer("answer", said)
    choice = _KEYS.get(request.kind, {}).get(said.lower(), said.lower())
    return Answer(choice) if choice in request.choices and choice not in _WITH_VALUE else None


def unattended(request: Request, evidence: Evidence | None) -> Answer:
    """Return the answer that is given without anybody looking; of what happened, the truth or no guess."""
    match request.kind:
        case "question":
            return Answer(request.choices[0], YES_ANSWER, YES_COMMENT)
        case "approval":
            return Answer(request.choices[0], comment=YES_COMMENT)
        case "outcome" if evidence is not None and evidence.is_done:
            return Answer("happened", evidence.returned, YES_LOOKED)
        case "outcome" if evidence is not None:
            return Answer("not_happened", comment=YES_LOOKED)
    return Answer(request.choices[-1], comment=YES_COMMENT)
