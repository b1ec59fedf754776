"""Tokens of a text by `o200k_base`, an encoding of OpenAI's models; tokenizers of other vendors are not public.

It is loaded once a process, at its first use: that takes 40 ms and 65 MB. A worker loads it before it serves.
"""

from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Protocol

ENCODING = "o200k_base"

PROVIDERS = ("openai", "scripted")
"""Models that count so, and scripts, which count nothing."""

_PACKAGE = "bpe_openai"


class Encoding(Protocol):
    """Encoding of texts as tokens."""

    def count(self, text: str) -> int: ...


@cache
def load() -> Encoding:
    """Return the encoding, loaded once a process."""
    # The package itself reads three vocabularies that are not needed, which takes nine times as long.
    package = find_spec(_PACKAGE)
    where = package.submodule_search_locations if package is not None else None
    found = PathFinder.find_spec(f"{_PACKAGE}._bindings", where)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    encoding: Encoding = module.tokenizer_for_encoding(ENCODING)
    return encoding


def count(text: str) -> int:
    """Return the tokens of `text`, half surrogate pairs replaced."""
    return load().count(text if text.isascii() else text.encode(errors="replace").decode())


def fits(model: str) -> bool:
    """Return whether the `provider:model` counts by this encoding."""
    return model.partition(":")[0] in PROVIDERS
