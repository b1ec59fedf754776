"""Secrets of a worker: from its environment or a folder of files, and nowhere else."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mandate.activities.text_files import UnreadableText, read_text
from mandate.workflows.contracts.templates import SECRET, find_secrets
from mandate.workflows.rules.surrogates import is_encodable


def names(text: str) -> tuple[str, ...]:
    """Return the secrets that `text` names with `${secret:NAME}`.

    Raises:
        ValueError: `${secret:` that is not followed by a name and `}`.
    """
    return find_secrets(text)


class Secrets:
    """Secrets by name, read anew each time, so that a rotated file is seen without a restart."""

    def __init__(self, environment: Mapping[str, str], folder: Path | None = None) -> None:
        self._environment = environment
        self._folder = folder

    def __call__(self, text: str) -> str:
        """Return `text` with the value of each secret in place.

        Raises:
            LookupError: a secret is missing; names it.
            ValueError: a misspelt `${secret:NAME}`.
        """
        values = {name: self._value(name) for name in names(text)}
        # One pass: a value that holds '${secret:...}' itself stays as it is.
        return SECRET.sub(lambda found: values[found[1]], text)

    def __repr__(self) -> str:
        return "Secrets()"

    def missing(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Return the secrets that `texts` name and that are nowhere, each once, in their order."""
        wanted = dict.fromkeys(name for text in texts for name in names(text))
        return tuple(name for name in wanted if self._find(name) is None)

    def explain(self, name: str) -> str:
        """Return the sentence for a secret that is missing."""
        if not is_encodable(self._environment.get(name, "")):
            return f"secret {name!r} in the environment is not UTF-8 text"
        if self._folder is None:
            return f"secret {name!r} is not in the environment, and there is no folder of secrets"
        try:
            read_text(self._folder / name)
        except UnreadableText as error:
            return f"secret {name!r} in {self._folder} is not UTF-8 text: line {error.line}, column {error.column}"
        except OSError:
            pass
        return f"secret {name!r} is neither in the environment nor in {self._folder}"

    def _value(self, name: str) -> str:
        value = self._find(name)
        if value is None:
            raise LookupError(self.explain(name))
        return value

    def _find(self, name: str) -> str | None:
        """Return a secret; an empty value counts as missing: it is a variable that somebody forgot to fill."""
        if (value := self._environment.get(name)) and is_encodable(value):
            return value
        if self._folder is None:
            return None
        try:
            return read_text(self._folder / name).rstrip("\r\n") or None
        except (OSError, UnreadableText):
            return None
