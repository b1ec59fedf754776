"""An issuer of tokens for signed decisions and starts, honest or not."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from pydantic import JsonValue

from mandate.workflows.contracts.start import start_claims


class Issuer:
    """Signs what it is given with its own key."""

    def __init__(self, kid: str = "k1") -> None:
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())

    def jwk(self) -> dict[str, Any]:
        return {**ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": self.kid}

    def write(self, path: Path, *others: dict[str, Any]) -> Path:
        """The public half as a key set."""
        path.write_text(json.dumps({"keys": [self.jwk(), *others]}))
        return path

    def sign_start(
        self, agent: str, asked: JsonValue, *, workflow_id: str, requester: str, issuer: str, **changes: Any
    ) -> str:
        """A token for a start, with `changes` of its claims; `None` leaves one out."""
        now = int(time.time())
        start = start_claims(agent, asked, workflow_id=workflow_id, requester=requester).model_dump()
        claims = {"iss": issuer, "aud": "mandate", "iat": now, "exp": now + 300, **start, **changes}
        return self.sign({name: value for name, value in claims.items() if value is not None})

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": self.kid, **header})
