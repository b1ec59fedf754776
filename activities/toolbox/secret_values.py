"""Secrets of one server or request: filled in just before use, struck out of all that comes back."""

import re

from activities.toolbox.base import ResolveSecrets

_REFERENCE = re.compile(r"\$\{secret:[^}]*\}")
_SHORTEST_STRUCK = 4


class SecretValues:
    """Fills templates and remembers what it filled in."""

    def __init__(self, resolve: ResolveSecrets) -> None:
        self._resolve = resolve
        self._values: set[str] = set()

    def fill(self, template: str) -> str:
        """`template` with each `${secret:NAME}` replaced; raises `LookupError` naming one that is missing."""
        return _REFERENCE.sub(self._value, template)

    def strike(self, text: str) -> str:
        """`text` with every value that was filled in replaced by `***`; values under 4 characters stay."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def _value(self, reference: re.Match[str]) -> str:
        value = self._resolve(reference[0])
        if len(value) >= _SHORTEST_STRUCK:
            self._values.add(value)
        return value
