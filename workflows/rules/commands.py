"""Commands that answer a request, in the one wording that channels, details and CLI share."""

import json
import shlex
from dataclasses import dataclass

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.request import REJECT, Request
from mandate.workflows.rules.plain_text import make_plain

YOUR_NAME = "<your name>"
YOUR_ANSWER = "<your answer>"
YOUR_TOKEN = "<signed token>"  # noqa: S105 - stands for one
YOUR_TOKEN_COMMAND = "<command that prints a token>"  # noqa: S105 - stands for one

PLACEHOLDERS = (YOUR_NAME, YOUR_ANSWER, YOUR_TOKEN, YOUR_TOKEN_COMMAND)
"""Words that people replace by their own; no decision that holds one of them is meant."""

DEFAULT_NAMESPACE = "default"

_OWN_VERBS = ("approve", REJECT)
"""Choices with a verb of their own; the others go through `decide --choice`."""

_WITH_ANSWER = ("answer", "supply")
"""Choices that need a value, in the person's words."""


@dataclass(frozen=True, slots=True)
class Way:
    """One choice and the commands that make it; each is one line for a shell."""

    choice: str
    mandate: str
    temporal: str
    """Temporal's own CLI; whoever types it puts their name in place of `YOUR_NAME`."""


def list_ways(
    workflow_id: str, request: Request, *, program: str = "mandate", namespace: str = DEFAULT_NAMESPACE
) -> tuple[Way, ...]:
    """Return one way to answer for each choice of `request`, in its order."""
    return tuple(
        Way(
            choice,
            _build_mandate_command(workflow_id, request, choice, program=program, namespace=namespace),
            _build_temporal_command(workflow_id, request, choice, namespace=namespace),
        )
        for choice in request.choices
    )


def list_commands(
    workflow_id: str, request: Request, program: str = "mandate", *, namespace: str = DEFAULT_NAMESPACE
) -> tuple[tuple[str, str], ...]:
    """Label and command, those of `program` before those of Temporal's CLI."""
    ways = list_ways(workflow_id, request, program=program, namespace=namespace)
    ours = tuple((way.choice, way.mandate) for way in ways)
    return (*ours, *((f"{way.choice}, with Temporal's CLI", way.temporal) for way in ways))


def format_decision(request: Request, choice: str) -> str:
    """Return the argument of `decide` for `choice`, one field a line, with `YOUR_NAME` where a name goes.

    Temporal's Web UI lays data out like this once its field is left. What it lays out anew moves the button from under
    the pointer, and the click is lost.
    """
    return json.dumps(_build_decision(request, choice), indent=2)


def quote(text: str) -> str:
    """Quote `text` as one word of a shell; unseen characters and ends of a code block become escapes."""
    if _is_seen(text):
        return shlex.quote(text)
    return "$'" + "".join(_escape(character) for character in text) + "'"


def _build_mandate_command(workflow_id: str, request: Request, choice: str, *, program: str, namespace: str) -> str:
    target = f"{workflow_id}:{request.id}"
    options: list[str] = []
    if choice not in _OWN_VERBS:
        options += ["--choice", choice]
    if (value := _find_value(request, choice)) is not None:
        options += ["--value", value]
    if _is_signed(request):
        options += ["--token-command", YOUR_TOKEN_COMMAND]
    if namespace != DEFAULT_NAMESPACE:
        options += ["--namespace", namespace]
    verb = choice if choice in _OWN_VERBS else "decide"
    # After '--' a workflow id that begins with a dash is no option.
    words = [*options, "--", target] if target.startswith("-") else [target, *options]
    return " ".join((program, verb, *map(quote, words)))


def _build_temporal_command(workflow_id: str, request: Request, choice: str, *, namespace: str) -> str:
    decision = _build_decision(request, choice)
    words = ["--workflow-id", workflow_id, "--name", "decide", "--input", json.dumps(decision)]
    if namespace != DEFAULT_NAMESPACE:
        words += ["--namespace", namespace]
    return " ".join(("temporal workflow update execute", *map(quote, words)))


def _find_value(request: Request, choice: str) -> str | None:
    """Return what is shown as the value of a choice: a place for words, or limits as JSON that may be changed."""
    if choice in _WITH_ANSWER and request.kind != "budget":
        return YOUR_ANSWER
    return request.options[0] if choice == "raise" and request.options else None


def _build_decision(request: Request, choice: str) -> JsonObject:
    decision: JsonObject = {"request": request.id, "digest": request.digest, "choice": choice, "by": YOUR_NAME}
    if (value := _find_value(request, choice)) is not None:
        decision["value"] = value if value == YOUR_ANSWER else json.loads(value)
    if _is_signed(request):
        decision["token"] = YOUR_TOKEN
    return decision


def _is_signed(request: Request) -> bool:
    return any(need.signature for need in request.needs)


def _escape(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if _is_seen(character):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_seen(text: str) -> bool:
    return text.isprintable() and "`" not in text and make_plain(text) == text
