"""Starts and decisions that must be signed, from the key to the tool, as people make them."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from mandate.workflows.contracts.start import start_claims
from tests.support.agents import Site, new_site
from tests.support.people import ASK_ALL, asked, decision, refusal_of, write_people
from tests.support.toolkit import calls_of

SIGNER = f"{sys.executable} -m mandate.workers.examples.sign_decision"
ROOT = Path(__file__).parents[3]

NOBODY = (
    "start request: requester: is missing; a run of 'signed' wants a name or address of the file of people "
    "(`requester: anyone` in the agent file lets anybody ask)"
)
UNSIGNED = (
    "start request: token: is missing; decisions on runs of 'signed' are signed, and so is who asks for one "
    "(`mandate run --token-command`; `requester: anyone` in the agent file lifts it)"
)


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


@pytest.fixture
def site(tmp_path: Path, client: Client, keys: Path) -> Site:
    """With an agent `signed`, whose payments wait for a signature."""
    site = new_site(
        tmp_path,
        client,
        MANDATE_PEOPLE=str(write_people(tmp_path)),
        MANDATE_JWKS=str(keys / "jwks.json"),
        MANDATE_TOKEN_ISSUER="example",
    )
    policy = [{**ASK_ALL[0], "signature": "required"}, ASK_ALL[1]]
    site.write("signed", [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}], policy=policy)
    return site


async def mandate(site: Site, words: str, *, sign: bool = True) -> tuple[int, str]:
    """A command of `mandate` that connects, signing if it is told to."""
    signing = f" --token-command '{SIGNER} --key {site.folder}/issuer.pem --issuer example'" if sign else ""
    address = site.client.service_client.config.target_host
    return await shell(
        f"{sys.executable} -m mandate.workers.main {words} --address {address}{signing}",
        MANDATE_STORE=site.settings.store,
        MANDATE_FOLDER=str(site.folder),
    )


async def test_a_signed_decision_counts_and_an_unsigned_one_does_not(site: Site) -> None:
    start = f"run signed 'Pay 1' --requester bob@example.com --label team=x -t {site.queue}"

    async with site.serving():
        unsigned_start = await mandate(site, start, sign=False)
        begun, printed = await mandate(site, f"{start} --id signed-by-command --detach")
        assert begun == 0, printed
        handle = site.agents.handle("signed-by-command")
        (request,) = await asked(handle)
        unsigned = await refusal_of(handle, "decide", decision(request))
        code, said = await mandate(site, f"approve {handle.id}:{request.id} --by ann@example.com --set amount=80")
        result = await asyncio.wait_for(handle.result(), 20) if code == 0 else None

    assert unsigned_start[0] == 2
    assert f"error: {UNSIGNED}\n" in unsigned_start[1]
    assert unsigned == "token: is missing; r1 wants signed decisions"
    assert code == 0, said
    assert result is not None
    assert [call.arguments["amount"] for call in calls_of(handle.id, "pay")] == [80]


async def test_who_may_approve_asks_for_nothing_under_another_name(site: Site, keys: Path) -> None:
    """Ann has a key to sign for herself; she begins no run that somebody else seems to ask for, or nobody."""
    ann = {"MANDATE_BY": "ann@example.com"}
    async with site.serving():
        as_ann = await mandate(site, f"run signed Pay --requester ann@example.com --id own-1 -t {site.queue} -d")
        handle = site.agents.handle("own-1")
        (request,) = await asked(handle)
        own, said = await mandate(site, f"approve own-1:{request.id} --by slack:ann")
        own_name, said_too = await mandate(site, f"approve own-1:{request.id} --by ann@example.com")
        refused = [await reason(site, "own-2", requester=name, token=token) for name, token in await starts(site, ann)]
        await handle.terminate()

    assert as_ann[0] == 0
    assert (own, own_name) == (1, 1)
    assert "'slack:ann' is not in the file of people" in said
    assert "'ann@example.com' asked for this run and cannot decide for it" in said_too
    assert refused == [
        NOBODY,
        "start request: token: is not of 'bob@example.com': its claim 'sub' names somebody else",
        "start request: token: is not of 'ann': its claim 'sub' names somebody else",
        UNSIGNED,
    ]


async def starts(site: Site, told: dict[str, str]) -> list[tuple[str | None, str | None]]:
    """Requesters with what ann can sign for a start of `own-2`."""
    claims = start_claims("signed", "Pay", workflow_id="own-2", requester="ann@example.com")
    signing = {
        **told,
        "MANDATE_AGENT": claims.agent,
        "MANDATE_WORKFLOW_ID": claims.workflow_id,
        "MANDATE_INPUT_DIGEST": claims.input_digest,
    }
    code, token = await shell(f"{SIGNER} --key {site.folder}/issuer.pem --issuer example", **signing)
    assert code == 0, token
    return [
        (None, token.strip()),
        ("bob@example.com", token.strip()),
        ("ann", token.strip()),
        ("bob@example.com", None),
    ]


async def reason(site: Site, name: str, **start: str | None) -> str:
    """Why a start fails."""
    given = {"agent": "signed", "input": "Pay", **{key: value for key, value in start.items() if value is not None}}
    with pytest.raises(WorkflowFailureError) as failed:
        await site.client.execute_workflow("AgentWorkflow", given, id=name, task_queue=site.queue)
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == "BadInput"
    return failed.value.cause.message


async def test_a_token_of_a_history_begins_no_second_run(site: Site) -> None:
    """Whoever can read histories finds the token there; the id is free again once the run has ended."""
    async with site.serving():
        code, said = await mandate(
            site, f"run signed Pay --requester bob@example.com --id paid-once -t {site.queue} -d"
        )
        assert code == 0, said
        handle = site.agents.handle("paid-once")
        (request,) = await asked(handle)
        first = await anext(handle.fetch_history_events())
        given = json.loads(first.workflow_execution_started_event_attributes.input.payloads[0].data)
        await handle.terminate()
        again = await reason(site, "paid-once", requester="bob@example.com", token=given["token"])
        shown = [
            await mandate(site, f"show paid-once{more}", sign=False) for more in ("", " -o json", f":{request.id}")
        ]

    assert again == "start request: token: has begun another run already; get another one"
    assert not any(part in str(shown) for part in given["token"].split("."))
