"""Secrets of one server or request: filled in just before use, struck out of all that comes back."""

import json
import re

from mandate.activities.toolbox.base import ResolveSecrets

_REFERENCE = re.compile(r"\$\{secret:[^}]*\}")
_SHORTEST_STRUCK = 4
_SHORTEST_LINE = 8
"""Lines of a multi-line secret under this length are no secret by themselves."""


class SecretValues:
    """Secrets that templates were filled with."""

    def __init__(self, resolve: ResolveSecrets) -> None:
        self._resolve = resolve
        self._values: set[str] = set()

    def fill(self, template: str) -> str:
        """Return `template` with each `${secret:NAME}` replaced; raise `LookupError` naming one that is missing."""
        return _REFERENCE.sub(self._value, template)

    def strike(self, text: str) -> str:
        """Return `text` with every value that was filled in replaced by `***`; values under 4 characters stay."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def _value(self, reference: re.Match[str]) -> str:
        value = self._resolve(reference[0])
        self._values.update(form for form in _forms(value) if len(form) >= _SHORTEST_STRUCK)
        return value


def _forms(value: str) -> set[str]:
    """Return the forms in which `value` may come back: as it is, inside JSON, or one line of it."""
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= _SHORTEST_LINE]
    escaped = {
        json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in (value, *lines) for ascii_only in (True, False)
    }
    return {value, *lines, *escaped}
