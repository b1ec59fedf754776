"""A tokenizer that counts exactly, where the worker is told to use one: the encodings of OpenAI's models.

It is loaded once a process, before the worker serves: that takes half a second and 140 MB.
"""

import warnings
from collections.abc import Callable

ENCODINGS = ("o200k_base", "cl100k_base")

PROVIDER = "openai"
"""Models that count so; tokenizers of others are not public."""

PACKAGE = "pip install 'mandate-agents[tokenizer]'"

_LOADED: list[Callable[[str], int]] = []


class NoTokenizer(ValueError):
    """A tokenizer that there is none of here; the text is one sentence."""


def use(name: str | None) -> None:
    """Count by the encoding `name` from now on; `None` only estimates.

    Raises:
        NoTokenizer: there is no such encoding, or its package is not installed.
    """
    _LOADED.clear()
    if name is None:
        return
    if name not in ENCODINGS:
        raise NoTokenizer(f"{name!r} is not a tokenizer; allowed are {' and '.join(ENCODINGS)}")
    try:
        with warnings.catch_warnings():
            # It reads its own data in a way that the standard library is to lose.
            warnings.simplefilter("ignore", DeprecationWarning)
            from bpe_openai import get_encoding  # type: ignore[import-untyped]  # noqa: PLC0415 - large

            encoding = get_encoding(name)
    except ImportError:
        raise NoTokenizer(f"the package of {name!r} is not installed; {PACKAGE}") from None
    _LOADED.append(lambda text: len(encoding.encode(text, disallowed_special=())))


def count_exactly(text: str) -> int:
    """Return the tokens of `text`; 0 where no tokenizer is used."""
    return _LOADED[0](text) if _LOADED else 0


def fits(model: str) -> bool:
    """Return whether a tokenizer is used, and `model` counts so."""
    return bool(_LOADED) and model.partition(":")[0] == PROVIDER
