"""A decision that must be signed, from the key to the tool, as people make it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.support.agents import new_site
from tests.support.people import ASK_ALL, asked, decision, refusal_of, write_people
from tests.support.toolkit import calls_of

SIGNER = f"{sys.executable} -m workers.examples.sign_decision"
ROOT = Path(__file__).parents[2]


async def shell(command: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.fixture
async def keys(tmp_path: Path) -> Path:
    code, said = await shell(f"{SIGNER} --make-key --key {tmp_path}/issuer.pem --jwks {tmp_path}/jwks.json")
    assert code == 0, said
    return tmp_path


async def test_a_signed_decision_counts_and_an_unsigned_one_does_not(
    tmp_path: Path, client: Client, keys: Path
) -> None:
    site = new_site(
        tmp_path,
        client,
        MANDATE_PEOPLE=str(write_people(tmp_path)),
        MANDATE_JWKS=str(keys / "jwks.json"),
        MANDATE_TOKEN_ISSUER="example",
    )
    policy = [{**ASK_ALL[0], "signature": "required"}, ASK_ALL[1]]
    site.write("signed", [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}], policy=policy)
    token_command = f"{SIGNER} --key {keys}/issuer.pem --issuer example"
    address = client.service_client.config.target_host

    async with site.serving():
        handle = await site.start("signed")
        (request,) = await asked(handle)
        unsigned = await refusal_of(handle, "decide", decision(request))
        code, said = await shell(
            f"{sys.executable} -m workers.cli.main approve {handle.id}:{request.id} --address {address} "
            f"--by ann@example.com --set amount=80 --token-command '{token_command}'",
            MANDATE_STORE=site.settings.store,
            MANDATE_FOLDER=str(tmp_path),
        )
        result = await asyncio.wait_for(handle.result(), 20) if code == 0 else None

    assert unsigned == "token: is missing; r1 wants signed decisions"
    assert code == 0, said
    assert result is not None
    assert [call.arguments["amount"] for call in calls_of(handle.id, "pay")] == [80]
