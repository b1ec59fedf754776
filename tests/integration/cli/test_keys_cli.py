"""`mandate keys`, and runs that go on while the key changes under them."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.activities.stores.address import open_store
from mandate.workers.main import main
from mandate.workflows.contracts.run import Progress, RunStatus
from tests.support.agents import new_site
from tests.support.toolkit import LET_GO, calls_of


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MANDATE_STORE", f"sqlite:///{tmp_path}/store.db")
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture(autouse=True)
def made(store: str) -> None:
    """Keys are of a store that there is."""

    async def make() -> None:
        opened = open_store(store)
        await opened.identity()
        await opened.close()

    asyncio.run(make())


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


async def numbers(store: str) -> list[int]:
    opened = open_store(store)
    try:
        return [key.number for key in (await opened.keys()).keys]
    finally:
        await opened.close()


def test_keys_are_listed_made_and_taken_away(capsys: pytest.CaptureFixture[str], store: str) -> None:
    code, out, _ = typed(capsys, "keys")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["key", "1"]

    code, out, _ = typed(capsys, "keys", "--new", "-o", "json")
    made: dict[str, Any] = json.loads(out)
    assert [key["number"] for key in made["keys"]] == [1, 2]
    assert made["keys"][1]["used_from"] > made["keys"][1]["made_at"]
    assert made["unmarked_until"] is None

    early = typed(capsys, "keys", "--remove", "1")
    assert early[:2] == (2, "")
    assert "no newer key is in use" in early[2]
    assert asyncio.run(numbers(store)) == [1, 2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--remove", "1"),
            "error: --remove 1: no newer key is in use; make one with --new, which is used two minutes after that\n",
        ),
        (("--remove", "7"), "error: --remove 7: there is no such key; the store has 1\n"),
        (
            ("--remove", "7", "--new"),
            "error: --new and --remove: give one of them; a new key is used two minutes after it was made\n",
        ),
    ],
)
def test_what_cannot_be_done_is_said(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str) -> None:
    typed(capsys, "keys")

    assert typed(capsys, "keys", *words) == (2, "", sentence)


def test_store_is_not_made_by_looking_for_its_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MANDATE_STORE", f"sqlite:///{tmp_path}/none.db")

    code, out, err = typed(capsys, "keys")

    assert (code, out) == (2, "")
    assert "none.db; set MANDATE_STORE to the workers' store" in err
    assert not (tmp_path / "none.db").exists()


def test_secrets_are_never_shown(capsys: pytest.CaptureFixture[str], store: str) -> None:
    _, out, _ = typed(capsys, "keys", "-o", "json")

    opened = open_store(store)
    (key,) = asyncio.run(opened.keys()).keys
    assert key.secret.hex() not in out
    assert key.secret.hex() not in repr(key)
    assert repr(key) == "Key(1)"


async def test_run_goes_on_while_its_key_is_replaced_and_taken_away(
    tmp_path: Path, client: Client, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers learn of the new key; what is asked for from then on has its mark."""
    monkeypatch.setattr("mandate.activities.stores.sqlite.USED_AFTER", timedelta(0))
    monkeypatch.setattr("mandate.activities.keyring.REFRESH_SECONDS", 0.1)
    site = new_site(tmp_path, client, MANDATE_STORE=store)
    turns = [{"call": [{"look": {"what": str(number), "held": True}}]} for number in range(2)]
    site.write("keys", [*turns, {"say": "done"}])
    async with site.serving(max_cached_workflows=0):
        handle = await site.start("keys")
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)
        opened = open_store(store)
        first = (await opened.keys()).keys[0]
        await opened.add_key()
        await asyncio.sleep(0.5)
        LET_GO.add(handle.id)
        result = await handle.result()
        assert result.status is RunStatus.COMPLETED

        assert await opened.retire_key(first.number)
        await asyncio.sleep(0.5)
        told = await site.client.get_workflow_handle(handle.id).query("progress", result_type=Progress)
        assert told.step == 3
        again = await site.start("keys")
        LET_GO.add(again.id)
        assert (await again.result()).status is RunStatus.COMPLETED
        await opened.close()
