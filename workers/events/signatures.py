"""Senders of events over HTTP: whoever has the shared secret, or signs the body."""

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256

from mandate.workers.secrets import Secrets

SECRET = "MANDATE_EVENT_SECRET"  # noqa: S105 - the name of a variable
"""Shared secrets, of which any counts: `Authorization: Bearer ...`."""

SIGNING_KEY = "MANDATE_EVENT_SIGNING_KEY"
"""Keys of signatures, of which any counts."""

SIGNATURE = "x-hub-signature-256"
"""Header of a signature: `sha256=` and the HMAC-SHA-256 of the body in hexadecimal digits, as GitHub sends it."""

LEAST_CHARACTERS = 16

_BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)


class Denied(Exception):
    """An event that nobody vouches for; the text is one sentence."""


class Senders:
    """Checks events against secrets, which are read anew each time so that they can be changed."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def find_faults(self) -> str | None:
        """Return why nobody could send an event, or anybody could guess how, in one sentence."""
        given = {name: self._read(name) for name in (SECRET, SIGNING_KEY)}
        if not any(given.values()):
            return (
                f"there is neither {SECRET} nor {SIGNING_KEY}, and anybody could start runs; set one of them, for "
                "example to what `openssl rand -hex 32` prints"
            )
        for name, values in given.items():
            if any(len(value) < LEAST_CHARACTERS for value in values):
                return f"{name} has a value of fewer than {LEAST_CHARACTERS} characters, which can be guessed"
        return None

    def check_secret(self, headers: Mapping[str, str]) -> bool:
        """Tell whether the sender has shown a shared secret; false where it shows none.

        Raises:
            Denied: it is another one.
        """
        written = headers.get("authorization")
        if written is None:
            return False
        found = _BEARER.fullmatch(written.strip())
        if found is None or not _is_one_of(found[1].encode(), [value.encode() for value in self._read(SECRET)]):
            raise Denied("the secret is not the one that is expected here")
        return True

    def check_signature(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check the signature of a body.

        Raises:
            Denied: there is none, or it is not right.
        """
        written = headers.get(SIGNATURE)
        if written is None:
            raise Denied(f"send the secret as 'Authorization: Bearer ...', or a signature as '{SIGNATURE}'")
        keys = self._read(SIGNING_KEY)
        right = [f"sha256={hmac.new(key.encode(), body, sha256).hexdigest()}".encode() for key in keys]
        if not _is_one_of(written.strip().lower().encode(), right):
            raise Denied("the signature is not that of this body")

    def _read(self, name: str) -> tuple[str, ...]:
        try:
            return tuple(self._secrets(f"${{secret:{name}}}").split())
        except LookupError:
            return ()


def _is_one_of(shown: bytes, known: list[bytes]) -> bool:
    """Compare with each, in a time that tells nothing of any."""
    digest = sha256(shown).digest()
    # Not `any`, which ends at the first that is right.
    return sum(hmac.compare_digest(digest, sha256(one).digest()) for one in known) > 0
