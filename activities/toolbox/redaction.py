"""Secrets and sensitive arguments, struck out of what is told of a call."""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus

from pydantic import JsonValue

from mandate.activities.toolbox.base import ResolveSecrets
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.templates import SECRET, find_secrets
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules.names import is_sensitive
from mandate.workflows.rules.redaction import is_hidden

SHORTEST_HIDDEN = 4
"""Characters from which a value is struck out wherever it stands; a shorter sensitive argument only as a word."""

SHORTEST_LINE = 8
"""Lines of a multi-line secret under this length are no secret by themselves."""


class SecretValues:
    """The secrets of one server or request: filled in just before use, struck out of all that comes back."""

    def __init__(self, resolve: ResolveSecrets) -> None:
        self._resolve = resolve
        self._values: set[str] = set()

    def fill(self, template: str) -> str:
        """Return `template` with each `${secret:NAME}` replaced.

        Raises:
            LookupError: a secret is missing; names it.
            ValueError: a misspelt `${secret:NAME}`.
        """
        find_secrets(template)
        return SECRET.sub(self._value, template)

    def strike(self, text: str) -> str:
        """Return `text` with every value that was filled in replaced by `***`; values under 4 characters stay."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def _value(self, reference: re.Match[str]) -> str:
        value = self._resolve(reference[0])
        lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= SHORTEST_LINE]
        self._values.update(
            form for text in (value, *lines) for form in list_forms(text) if len(form) >= SHORTEST_HIDDEN
        )
        return value


def strike_sensitive(text: str, tool: Tool, arguments: JsonObject) -> str:
    """Return `text` with `***` for each value of the tool's sensitive `arguments`, in the forms it may come back in."""
    values = set(_sensitive_leaves(arguments, tool.sensitive))
    forms = {form for value in values for form in list_forms(value)}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= SHORTEST_HIDDEN:
            text = re.sub(re.escape(form), "***", text, flags=re.IGNORECASE)
        elif form:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "***", text, flags=re.IGNORECASE)
    return text


def _sensitive_leaves(value: JsonValue, sensitive: Sequence[str]) -> Iterator[str]:
    """Yield what stands under a sensitive name, at every depth and in every spelling."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not is_sensitive(name, sensitive):
                yield from _sensitive_leaves(item, sensitive)
            elif not is_hidden(item):
                yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _sensitive_leaves(item, sensitive)


def list_forms(value: str) -> Iterator[str]:
    """Yield the forms of a value: as it is, without outer spaces, in JSON and Python texts, in addresses, in base64."""
    for text in {value, value.strip()}:
        yield text
        for in_json in (json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)):
            yield in_json
            yield in_json.replace("/", "\\/")
        yield "".join(f"\\u{ord(character):04x}" for character in text)
        yield repr(text)[1:-1]
        if len(text) >= SHORTEST_LINE:
            encoded = text.encode(errors="replace")
            yield from (encode(encoded).decode().rstrip("=") for encode in (b64encode, urlsafe_b64encode))
        yield quote(text, safe="", errors="replace")
        yield quote_plus(text, errors="replace")
        if re.fullmatch(r"-?\d+\.0", text):
            yield text[:-2]


def _leaves(value: JsonValue) -> Iterator[str]:
    """Yield the texts and numbers in `value`."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool) and str(value).strip():
        yield str(value)
