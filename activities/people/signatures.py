"""Signed decisions and starts: whether a token was signed by a known key, for this person and for just this."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mandate.activities.text_files import UnreadableText, read_text
from mandate.workflows.contracts.base import Digest, canonical_json, digest_of
from mandate.workflows.contracts.people import normalize_name
from mandate.workflows.contracts.request import Decision
from mandate.workflows.contracts.start import StartClaims

if TYPE_CHECKING:
    import jwt

ALGORITHM = "ES256"
"""The only one: a token does not choose how it is checked."""

AUDIENCE = "mandate"

CLOCK_SKEW = timedelta(seconds=60)
"""Largest difference between the issuer's clock and the server's."""

LONGEST_LIFE = timedelta(hours=1)

_ALWAYS = ("exp", "iat", "iss", "aud", "sub")

REQUIRED = (*_ALWAYS, "request_digest", "choice")
"""Of a decision. Without `choice`, a token for a rejection could be turned into an approval."""

START_REQUIRED = (*_ALWAYS, "agent", "workflow_id", "input_digest")
"""Of a start: none that a decision's token has, so that neither passes for the other."""

_LATEST = 253_402_300_799
"""The end of the year 9999 in Unix time."""

_NO_TOKEN = f"is not a JWT signed with {ALGORITHM}"


class KeysUnavailable(Exception):
    """The key set cannot be used now; nothing can be said of any token."""


class TokenRefused(Exception):
    """A token that does not count; the message is for the person and holds nothing of the token."""


class Signatures:
    """Keys of one issuer, read anew for each token that they check, so that keys can be changed."""

    def __init__(self, keys: Path, *, issuer: str, audience: str = AUDIENCE) -> None:
        self._path = keys
        self._issuer = issuer
        self._audience = audience

    async def check(self, token: str, decision: Decision, request_digest: Digest, at: datetime) -> None:
        """Check that `token` is good for `decision` on the request of this digest at `at`.

        Raises:
            TokenRefused: it is not.
            KeysUnavailable: the key set cannot be read, or does not have the token's key.
        """
        claims = await self._read(token, REQUIRED)
        _check_times(claims, at, "the decision came")
        _check_decision(claims, decision, request_digest)

    async def check_start(self, token: str, start: StartClaims, at: datetime) -> None:
        """Check that `token` is good for `start` at `at`; raise as `check`."""
        claims = await self._read(token, START_REQUIRED)
        _check_times(claims, at, "the run began")
        _check_start(claims, start)

    async def _read(self, token: str, required: Sequence[str]) -> Mapping[str, Any]:
        kid = _key_id(token)
        key = (await asyncio.to_thread(read_keys, self._path)).get(kid)
        if key is None:
            raise KeysUnavailable("the key set does not have the key that the token names")
        return self._claims(token, key, required)

    def _claims(self, token: str, key: "jwt.PyJWK", required: Sequence[str]) -> Mapping[str, Any]:
        """Return the claims of the token, when its signature, issuer and audience are right."""
        # Only workers that are sent signed decisions pay for the import.
        import jwt  # noqa: PLC0415 - only signed decisions need it

        # Times are held against the decision's or the start's own and not against the clock of this process.
        options: Any = {"require": list(required), "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            return jwt.decode(
                token, key, algorithms=[ALGORITHM], audience=self._audience, issuer=self._issuer, options=options
            )
        except jwt.InvalidSignatureError:
            raise TokenRefused("its signature is not that of the key it names") from None
        except jwt.MissingRequiredClaimError as error:
            raise TokenRefused(f"has no claim {error.claim!r}") from None
        except jwt.InvalidIssuerError:
            raise TokenRefused(f"is not from the issuer {self._issuer!r}") from None
        except jwt.InvalidAudienceError:
            raise TokenRefused(f"is not for the audience {self._audience!r}") from None
        except (jwt.InvalidTokenError, ValueError):
            raise TokenRefused(_NO_TOKEN) from None


def value_digest(decision: Decision) -> str | None:
    """Return the claim `value_digest` for a value: over its canonical JSON; `None` for a decision without one.

    Raises:
        ValueError: the value holds what JSON has no form for.
    """
    return None if decision.value is None else digest_of(canonical_json(decision.value))


def read_keys(path: Path) -> "dict[str, jwt.PyJWK]":
    """Return the keys for ES256 in a JWKS file, by key id; others in it are left out.

    Raises:
        KeysUnavailable: the file cannot be read or is no such set; the message names no path.
    """
    try:
        document = json.loads(read_text(path))
    except OSError as error:
        raise KeysUnavailable(f"the key set cannot be read: {error.strerror}") from None
    except UnreadableText as error:
        raise KeysUnavailable(f"the key set cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise KeysUnavailable(f"the key set is not JSON: {where}: {error.msg}") from None
    except (ValueError, RecursionError):
        raise KeysUnavailable(
            "the key set is not JSON: it is nested too deep, or holds a number that is too long"
        ) from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeysUnavailable("the key set has no list 'keys'")
    keys: dict[str, jwt.PyJWK] = {}
    for index, entry in enumerate(listed):
        key = _key(entry, index)
        if key is None:
            continue
        if key.id in keys:
            raise KeysUnavailable(f"the key set has two keys with the 'kid' of keys[{index}]")
        keys[key.id] = key.key
    if not keys:
        raise KeysUnavailable(f"the key set has no key for {ALGORITHM}: 'kty' EC, 'crv' P-256, with a 'kid'")
    return keys


@dataclass(frozen=True, slots=True)
class _Key:
    id: str
    key: "jwt.PyJWK"


def _key(entry: object, index: int) -> _Key | None:
    import jwt  # noqa: PLC0415 - only signed decisions need it

    if not isinstance(entry, dict) or entry.get("kty") != "EC" or entry.get("crv") != "P-256":
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", ALGORITHM) != ALGORITHM:
        return None
    kid = entry.get("kid")
    if not isinstance(kid, str) or not kid:
        return None
    if "d" in entry:
        raise KeysUnavailable(f"keys[{index}] of the key set is a private key; only public keys belong there")
    try:
        return _Key(kid, jwt.PyJWK(entry, ALGORITHM))
    except (jwt.PyJWTError, ValueError, TypeError):
        raise KeysUnavailable(f"keys[{index}] of the key set is no point of the curve P-256") from None


def _key_id(token: str) -> str:
    """Return the key id of a token of which nothing is known to be true yet: looked up in the key set, nowhere else."""
    import jwt  # noqa: PLC0415 - only signed decisions need it

    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError):
        raise TokenRefused(_NO_TOKEN) from None
    if header.get("alg") != ALGORITHM:
        raise TokenRefused(_NO_TOKEN)
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise TokenRefused("names no key: its header has no 'kid'")
    return kid


def _check_times(claims: Mapping[str, Any], at: datetime, event: str) -> None:
    """Refuse a token that is not valid at `at`, when `event` happened, or valid for long."""
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name, 0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LATEST:
            raise TokenRefused(f"its claim {name!r} is not a time")
    exp, iat, nbf = claims["exp"], claims["iat"], claims.get("nbf", 0)
    now, skew = at.timestamp(), CLOCK_SKEW.total_seconds()
    if now >= exp + skew:
        raise TokenRefused(f"was expired when {event}; get another one")
    if now < max(nbf, iat) - skew:
        raise TokenRefused(f"was not valid yet when {event}")
    if exp - iat > LONGEST_LIFE.total_seconds():
        raise TokenRefused("is valid for more than 1 hour; a shorter one is wanted")


def _check_start(claims: Mapping[str, Any], start: StartClaims) -> None:
    """Refuse a token that was made for anything else than this start."""
    if normalize_name(claims["sub"]) != normalize_name(start.sub):
        raise TokenRefused(f"is not of {start.sub!r}: its claim 'sub' names somebody else")
    if claims["agent"] != start.agent:
        raise TokenRefused(f"is for another agent: its claim 'agent' is not {start.agent!r}")
    if claims["workflow_id"] != start.workflow_id:
        raise TokenRefused(f"is for another run: its claim 'workflow_id' is not {start.workflow_id!r}")
    if claims["input_digest"] != start.input_digest:
        raise TokenRefused("is for another input: its claim 'input_digest' is not that of the input")
    _check_optional(claims, "labels_digest", start.labels_digest, "start", "labels")
    _check_optional(claims, "model", start.model, "start", "a model")
    _check_optional(claims, "continues", start.continues, "start", "a run that it goes on from")


def _check_decision(claims: Mapping[str, Any], decision: Decision, request_digest: Digest) -> None:
    """Refuse a token that was made for anything else than this decision."""
    if normalize_name(claims["sub"]) != normalize_name(decision.by or ""):
        raise TokenRefused(f"is not of {decision.by!r}: its claim 'sub' names somebody else")
    if claims["request_digest"] != request_digest:
        raise TokenRefused("is for another request: its claim 'request_digest' is not this request's")
    if claims["choice"] != decision.choice:
        raise TokenRefused(f"is for another choice: its claim 'choice' is not {decision.choice!r}")
    try:
        wanted = value_digest(decision)
    except ValueError:
        raise TokenRefused("cannot be for this value, which is no JSON") from None
    _check_optional(claims, "value_digest", wanted, "decision", "a value")


def _check_optional(claims: Mapping[str, Any], name: str, wanted: str | None, kind: str, having: str) -> None:
    """Refuse a token whose claim `name` is not `wanted`, or is there without it: of a start or decision `having` it."""
    signed = claims.get(name)
    if signed == wanted:
        return
    if wanted is None:
        raise TokenRefused(f"is for a {kind} with {having}: its claim {name!r} has nothing to go with")
    if signed is None:
        raise TokenRefused(f"is for a {kind} without {having}: it has no claim {name!r}")
    raise TokenRefused(f"is for another {kind}: its claim {name!r} is not that of this one")
