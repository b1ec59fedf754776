"""Servers of models: the address, and the headers and query that go with each request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mandate.activities.providers.base import Prompt

PATIENCE = 15.0
"""Seconds before another attempt where a secret is missing."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers of one request, with all that the server is told who asks."""

    values: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """Secrets among them, cut out of whatever the server says."""


class Unauthenticated(Exception):
    """A secret of an endpoint that is missing or cannot be sent; the text names it and never holds it."""


@dataclass(frozen=True, slots=True)
class Service:
    """One server, by the name that models have before `:`."""

    provider: str
    base_url: str | None = None
    """`None` leaves it to the vendor's SDK."""
    api_key: str = field(default="", repr=False)
    """Sent as the SDK does; of a built-in provider."""
    query: Mapping[str, str] = field(default_factory=dict)
    read_headers: Callable[[], Headers] | None = None
    """All headers of a server of the file of providers, read anew for each request: a file of secrets may be rotated.

    Raises `Unauthenticated`.
    """
    prices_as: str | None = None
    """Provider whose list prices hold; `None`: none do."""

    def make_headers(self, prompt: Prompt) -> Headers | None:
        """Return the headers of one request; `None` where they are the SDK's.

        Raises:
            ApplicationError: a secret is missing.
        """
        if self.read_headers is None:
            return None
        try:
            return self.read_headers()
        except Unauthenticated as error:
            from mandate.activities.failures import make_model_failure  # noqa: PLC0415 - `mandate validate` does without Temporal

            name = f"{self.provider}:{prompt.model}"
            # Another worker may have it, or this one a little later.
            raise make_model_failure(
                "configuration",
                f"{name!r} was not asked: {error}",
                attempt=prompt.attempt,
                retryable=True,
                retry_after=PATIENCE,
            ) from None


def list_foreign(sdk_headers: Mapping[str, object]) -> list[str]:
    """Return those headers of a vendor's SDK that are not for other servers: keys, and what the environment adds."""
    return ["Authorization", *(name for name in sdk_headers if not _is_of_protocol(name.lower()))]


def _is_of_protocol(name: str) -> bool:
    return name in {"accept", "content-type", "user-agent", "anthropic-version"} or name.startswith("x-stainless")
