"""Tokens of texts and requests, by what makes them: each is corrected apart by what a run's own answers report."""

from dataclasses import dataclass

from mandate.activities.context import tokenizer

LONG_TEXT = 4 * 1024 * 1024
"""Characters from which on a text is not read: it has as many tokens as bytes at most."""

AROUND = 5
"""Tokens around a text, a call, a result or a tool, about."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens as our tokenizer counts them, and what they stand among."""

    fixed: int = 0
    """Of instructions and tools, which each vendor writes in a form of its own."""
    text: int = 0
    """Of all other texts."""
    native: int = 0
    """Of what only its provider understands, such as encrypted reasoning."""
    parts: int = 0
    """Number of texts, calls, results and tools: each has some tokens around it."""
    extra_bytes: int = 0
    """Bytes of all texts beyond one a character: other tokenizers may know such scripts less well."""

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.fixed + other.fixed,
            self.text + other.text,
            self.native + other.native,
            self.parts + other.parts,
            self.extra_bytes + other.extra_bytes,
        )

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.fixed - other.fixed,
            self.text - other.text,
            self.native - other.native,
            self.parts - other.parts,
            self.extra_bytes - other.extra_bytes,
        )

    @property
    def total(self) -> int:
        """All of them, about."""
        return self.fixed + self.text + self.native + self.parts * AROUND


def measure_text(text: str) -> Tokens:
    """Return the tokens of a text as one part."""
    if text.isascii():
        return Tokens(text=len(text) if len(text) > LONG_TEXT else tokenizer.count(text), parts=1)
    encoded = text.encode(errors="replace")
    tokens = len(encoded) if len(text) > LONG_TEXT else tokenizer.count(text)
    return Tokens(text=tokens, parts=1, extra_bytes=len(encoded) - len(text))
