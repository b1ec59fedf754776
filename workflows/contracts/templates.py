"""Texts of agent files that name something else: secrets in headers, values of a run, arguments in an address."""

import re
from collections.abc import Callable

from mandate.workflows.contracts.faults import did_you_mean

SECRET_START = "${secret:"  # noqa: S105 - the mark of a reference, no secret

SECRET = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_.-]*)\}")
"""`${secret:NAME}`; its first group is the name, which is a variable of the environment or a file."""

KEY = "key"
REQUESTER = "run.requester"
WORKFLOW_ID = "run.workflow_id"
RUN_VALUES = (KEY, REQUESTER, WORKFLOW_ID)
"""Values of a call that a request may name, as `${key}`: its idempotency key, who asked for the run, and its id."""

_RUN_VALUE = re.compile(r"\$\$\{(?!secret:)|\$\{([^{}]*)\}")
"""`${run.requester}`, or `$${` for a plain `${`; its first group is the name."""
_SHOWABLE = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")
"""A name that is hardly a secret which somebody put there."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")


def find_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets that `text` names, each once, in their order.

    Raises:
        ValueError: `${secret:` that is not followed by a name and `}`; the message holds nothing of `text`.
    """
    names = tuple(SECRET.findall(text))
    if text.count(SECRET_START) != len(names):
        raise ValueError("a secret is written '${secret:NAME}', its name of letters, digits, '_', '.' and '-'")
    return tuple(dict.fromkeys(names))


def find_run_values(text: str) -> tuple[str, ...]:
    """Return the values of the run that `text` names with `${name}`, each once, in their order; no secrets.

    Raises:
        ValueError: a name that is not known, or `${` without an end; the message holds no value of `text`.
    """
    names = [found[1] for found in _RUN_VALUE.finditer(text) if found[1] is not None]
    for name in names:
        if name not in RUN_VALUES and not name.startswith("secret:"):
            raise ValueError(_refuse_name(name))
    if "${" in _RUN_VALUE.sub("", text):
        raise ValueError(f"'${{' has no end; a plain '${{' is written '$${{', allowed are {_list_values()}")
    return tuple(dict.fromkeys(name for name in names if name in RUN_VALUES))


def fill_references(text: str, resolve: Callable[[str], str | None]) -> str:
    """Return `text` with what `resolve` says in place of each `${name}`, in one pass: values are not looked through.

    What it returns `None` for stays as it is.
    """

    def replace(found: re.Match[str]) -> str:
        if found[1] is None:
            return "${"
        value = resolve(found[1])
        return found[0] if value is None else value

    return _RUN_VALUE.sub(replace, text)


def _refuse_name(name: str) -> str:
    shown = f"'${{{name}}}'" if len(name) <= 40 and _SHOWABLE.fullmatch(name) else "a name in '${...}'"
    return f"{shown} is not known here{did_you_mean(name, RUN_VALUES)} allowed are {_list_values()}"


def _list_values() -> str:
    listed = ", ".join(f"'${{{name}}}'" for name in RUN_VALUES)
    return f"{listed} and, in header values, '${{secret:NAME}}'"


def find_arguments(url: str) -> tuple[str, ...]:
    """Return the arguments that `{name}` in `url` stands for, each once, in their order.

    Raises:
        ValueError: braces that are no `{name}`, a secret, or a placeholder where the host is.
    """
    if SECRET_START in url:
        raise ValueError("secrets are resolved in header values only, never in an address")
    find_run_values(url)
    plain = _RUN_VALUE.sub("", url)
    if set("{}") & set(_PLACEHOLDER.sub("", plain)):
        raise ValueError("an argument is written '{name}', its name of letters, digits, '_' and '-'")
    host = url.partition("://")[2].partition("/")[0].partition("?")[0]
    if _PLACEHOLDER.search(host) or _RUN_VALUE.search(host):
        raise ValueError("the host is fixed: '{name}' may stand after it only")
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(plain)))
