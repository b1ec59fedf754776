"""Signer of a decision or a start, in the place of an identity provider: `--token-command` of `mandate` runs it.

    python -m mandate.workers.examples.sign_decision --make-key --key issuer.pem --jwks issuer.jwks.json
    MANDATE_JWKS=issuer.jwks.json MANDATE_TOKEN_ISSUER=example mandate worker
    export SIGN="python -m mandate.workers.examples.sign_decision --key issuer.pem --issuer example"
    mandate run refunds "Order 81" --token-command "$SIGN"
    mandate approve r1 --token-command "$SIGN"

Whoever has the key can sign for everybody. A real issuer asks first who is there, and shows what is signed.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

SECONDS_VALID = 300


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Print a token, or make the key that signs it; what is signed comes from the environment unless it is given."""
    env = os.environ if environment is None else environment
    options = _parser(env).parse_args(arguments)
    try:
        if options.make_key:
            _make_key(options.key, options.jwks)
            return 0
        lacking = [name for name in ("issuer", *_wanted(options), "by") if not getattr(options, name)]
        if lacking:
            print(f"missing: --{', --'.join(lacking).replace('_', '-')}", file=sys.stderr)
            return 2
        print(_token(options))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sign_decision", description="Sign a decision on a request, or a start.")
    parser.add_argument("--key", type=Path, required=True, help="private key, PEM")
    parser.add_argument("--make-key", action="store_true", help="make the key and write its public half to --jwks")
    parser.add_argument("--jwks", type=Path, default=Path("jwks.json"), help="key set, for MANDATE_JWKS")
    parser.add_argument("--issuer", default="", help="who signs, as in MANDATE_TOKEN_ISSUER")
    parser.add_argument("--audience", default="mandate", help="as in MANDATE_TOKEN_AUDIENCE")
    parser.add_argument("--digest", default=env.get("MANDATE_REQUEST_DIGEST", ""), help="the request's digest")
    parser.add_argument("--choice", default=env.get("MANDATE_CHOICE", ""), help="what is chosen")
    parser.add_argument("--by", default=env.get("MANDATE_BY", ""), help="who decides, or asks")
    parser.add_argument("--value-digest", default=env.get("MANDATE_VALUE_DIGEST", ""), help="of the value, if any")
    parser.add_argument("--agent", default=env.get("MANDATE_AGENT", ""), help="of a start: which agent")
    parser.add_argument("--workflow-id", default=env.get("MANDATE_WORKFLOW_ID", ""), help="of a start: which run")
    parser.add_argument("--input-digest", default=env.get("MANDATE_INPUT_DIGEST", ""), help="of a start's input")
    parser.add_argument("--labels-digest", default=env.get("MANDATE_LABELS_DIGEST", ""), help="of labels, if any")
    parser.add_argument("--model", default=env.get("MANDATE_MODEL", ""), help="that is asked for, if any")
    return parser


def _wanted(options: argparse.Namespace) -> tuple[str, ...]:
    """Return what must be given for what is signed: a start, if it names a run."""
    return ("agent", "workflow_id", "input_digest") if options.workflow_id else ("digest", "choice")


def _token(options: argparse.Namespace) -> str:
    key = serialization.load_pem_private_key(options.key.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"{options.key} is not a private key of the curve P-256")
    now = int(time.time())
    claims = {
        "iss": options.issuer,
        "aud": options.audience,
        "sub": options.by,
        "iat": now,
        "exp": now + SECONDS_VALID,
        **_signed(options),
    }
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": _key_id(key)})


def _signed(options: argparse.Namespace) -> dict[str, str]:
    """Return the claims that bind a token to one start or one decision."""
    if options.workflow_id:
        names = ("agent", "workflow_id", "input_digest", "labels_digest", "model")
        return {name: getattr(options, name) for name in names if getattr(options, name)}
    claims = {"request_digest": options.digest, "choice": options.choice, "value_digest": options.value_digest}
    return {name: value for name, value in claims.items() if value}


def _make_key(path: Path, jwks: Path) -> None:
    """Make a private key at `path`, which must not exist, and its public half as a key set at `jwks`."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_own(path, pem, os.O_EXCL)
    public = {**_public(key), "kid": _key_id(key), "use": "sig", "alg": "ES256"}
    # Nothing in it is secret, but whoever writes there decides.
    _write_own(jwks, f"{json.dumps({'keys': [public]}, indent=2)}\n".encode(), os.O_TRUNC)


def _write_own(path: Path, content: bytes, flag: int) -> None:
    """Write a file that its owner alone may read or write, also where it was open to others."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)


def _key_id(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the thumbprint of RFC 7638, so that nobody has to keep a name beside the key."""
    members = json.dumps(_public(key), sort_keys=True, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()


def _public(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    found = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: str(found[name]) for name in ("crv", "kty", "x", "y")}


if __name__ == "__main__":
    raise SystemExit(main())
