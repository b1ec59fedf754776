"""`mandate validate --live`, and endpoints in `mandate validate` and in runs, typed as people do."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dialects import chat, reply, used
from tests.support.fake_provider.behaviours import Answer, Call
from tests.support.fake_provider.server import FakeProvider
from tests.support.http_peer import HttpPeer, Reply, http_peer
from tests.support.place import BIN, Done, new_place
from tests.support.ports import free_port

KEY = "gsk_secret-0123456789"


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer() as found:
        yield found


def write(folder: Path, url: str, **more: object) -> None:
    endpoint = {"protocol": "openai.chat", "base_url": f"{url}/v1", "key": "${secret:IT_KEY}", **more}
    (folder / "providers.yaml").write_text(json.dumps({"endpoints": {"it": endpoint}}))


async def validate(folder: Path, *words: str, **env: str) -> Done:
    return await mandate(folder, "validate", *words, **env)


async def mandate(folder: Path, *words: str, **env: str) -> Done:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "MANDATE_"))}
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "mandate"), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**kept, "MANDATE_PROVIDERS": "providers.yaml", "IT_KEY": KEY, **env},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert KEY not in f"{out!r}{err!r}"
    return Done(process.returncode, out.decode(), err.decode())


def said(text: str, **more: Any) -> Reply:
    """An answer of Chat Completions with a text."""
    document = chat("llama-4-maverick", used(12, 2), **more)
    document["choices"] = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return reply(document)


async def test_answer_is_told_with_model_tokens_time_and_price(tmp_path: Path, peer: HttpPeer) -> None:
    peer.replies.append(said("ok"))
    write(tmp_path, peer.url)

    # The file may also be named.
    done = await validate(tmp_path, "providers.yaml", "--live", "it:llama-4", MANDATE_PROVIDERS="")

    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert lines[:4] == ["it:llama-4 answers", "said ok", "model llama-4-maverick", "tokens 12 in, 2 out"]
    assert lines[4].startswith("time ")
    assert lines[5:] == ["price not known: give `price` in the route, or `prices_as` at the endpoint"]
    (seen,) = peer.seen
    assert (seen.target, seen.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert json.loads(seen.body) == {
        "model": "llama-4",
        "max_completion_tokens": 64,
        "messages": [{"role": "user", "content": "Answer with the one word: ok"}],
    }


async def test_answer_is_told_to_programs(tmp_path: Path, peer: HttpPeer) -> None:
    peer.replies.append(said("ok"))
    write(tmp_path, peer.url, prices_as="groq")

    done = await validate(tmp_path, "--live", "it:llama-3.3-70b-versatile", "-o", "json")

    told = json.loads(done.out)
    assert done.code == 0
    assert told.pop("seconds") > 0
    assert told == {
        "model": "it:llama-3.3-70b-versatile",
        "answered": True,
        "answer": "ok",
        "finish": "complete",
        "problem": None,
        "answered_by": "llama-4-maverick",
        "input_tokens": 12,
        "output_tokens": 2,
        "tokens_reported": True,
        "cost_usd": "0.00000866",
    }


CHECK_URL = "check the model's name and the base URL 'URL/v1' (OpenAI's ends in /v1, Anthropic's does not)"
REFUSALS = [
    (
        reply({"error": {"message": f"Invalid API Key {KEY}", "code": "invalid_api_key"}}, 401),
        {"fault": "configuration", "status": 401},
        "answered 401 (invalid_api_key): Invalid API Key [key]; check the API key and what it may use",
    ),
    (
        reply({"error": {"message": "The model does not exist.", "code": "model_not_found"}}, 404),
        {"fault": "configuration", "status": 404},
        f"answered 404 (model_not_found): The model does not exist.; {CHECK_URL}",
    ),
    (
        reply({"error": {"message": "Slow down."}}, 429),
        {"fault": "rate_limit", "status": 429},
        "answered 429: Slow down.",
    ),
]


@pytest.mark.parametrize(("answer", "details", "sentence"), REFUSALS)
async def test_refusal_of_the_provider_is_one_sentence(
    tmp_path: Path, peer: HttpPeer, answer: Reply, details: dict[str, object], sentence: str
) -> None:
    peer.replies.append(answer)
    write(tmp_path, peer.url)
    sentence = f"'it:llama-4' {sentence}".replace("URL/v1", f"{peer.url}/v1")

    done = await validate(tmp_path, "--live", "it:llama-4")
    as_json = await validate(tmp_path, "--live", "it:llama-4", "-o", "json")

    told = json.loads(as_json.out)
    assert told.pop("seconds") > 0
    assert (done.code, done.out, done.err) == (1, "", f"error: {sentence}\n")
    assert (as_json.code, told) == (1, {"model": "it:llama-4", "answered": False, "reason": sentence, **details})


async def test_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    write(tmp_path, url)

    done = await validate(tmp_path, "--live", "it:llama-4")

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: 'it:llama-4' gave no whole answer at '{url}/v1': ConnectError: ")
    assert len(done.err.splitlines()) == 1


NO_KEY = "secret 'IT_KEY' is not in the environment, and there is no folder of secrets"
NO_FILE = (
    "--live asks one model, whatever agents name it: it takes a file of providers at most, and neither --call nor "
    "--accept"
)
NO_MODEL = (
    "is not 'provider:model' with one of the providers openai, anthropic, vllm, scripted, "
    "or 'endpoint:model' with an endpoint of providers.yaml: it"
)
NO_PROVIDER = (
    "there is no provider 'is' here; there are openai, anthropic, vllm, scripted, it; to add one, "
    "name it under 'endpoints' in providers.yaml, with 'protocol', 'base_url' and 'key'"
)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["it"], f"--live 'it' {NO_MODEL}"),
        (["gpt"], f"--live 'gpt' {NO_MODEL}"),
        (["is:llama"], f"--live 'is:llama': {NO_PROVIDER}"),
        (["scripted:x.yaml"], "--live 'scripted:x.yaml': a script plays this model, and there is nobody to call"),
        (
            ["openai:gpt"],
            "--live 'openai:gpt': models named 'openai:...' need the environment variable OPENAI_API_KEY",
        ),
        (
            ["it:x"],
            f"--live 'it:x': models named 'it:...' cannot be asked: {NO_KEY}",
        ),
        (["it:x", "a.yaml"], NO_FILE),
        (["it:x", "--accept"], NO_FILE),
    ],
)
async def test_what_cannot_be_sent_is_bad_input(tmp_path: Path, words: list[str], sentence: str) -> None:
    write(tmp_path, "http://127.0.0.1:1")

    done = await validate(tmp_path, "--live", *words, IT_KEY="", OPENAI_API_KEY="")

    assert (done.code, done.out, done.err) == (2, "", f"error: {sentence}\n")


async def test_without_a_file_of_providers_it_is_told_where_one_would_be(tmp_path: Path) -> None:
    done = await validate(tmp_path, "--live", "gpt", MANDATE_PROVIDERS="")

    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("or 'endpoint:model' with an endpoint of the file of providers (deploy/providers.yaml)\n")


async def test_file_of_providers_is_validated_and_shown(tmp_path: Path) -> None:
    write(tmp_path, "https://llm.example.com", headers={"X-Team": "a"}, query={"v": "1"})

    shown = await validate(tmp_path, "providers.yaml")
    as_json = await validate(tmp_path, "providers.yaml", "-o", "json", IT_KEY="")

    assert (shown.code, shown.err) == (0, "")
    assert [" ".join(line.split()) for line in shown.out.splitlines()] == [
        "endpoints providers.yaml",
        "endpoint protocol address sends",
        "it openai.chat https://llm.example.com/v1 IT_KEY",
    ]
    told = json.loads(as_json.out)
    assert told["endpoints"] == [
        {
            "name": "it",
            "protocol": "openai.chat",
            "base_url": "https://llm.example.com/v1",
            "secrets": ["IT_KEY"],
            "headers": ["X-Team"],
            "query": {"v": "1"},
            "prices_as": None,
        }
    ]
    assert told["warnings"] == [f"providers.yaml:1:92: endpoints.it.key: {NO_KEY}"]


async def test_faults_of_the_file_are_told_and_not_taken_for_unknown_providers(tmp_path: Path) -> None:
    write(tmp_path, "ftp://llm.example.com")
    (tmp_path / "a.yaml").write_text("name: a\ninstructions: x\nmodels: ['it:x']\n")

    done = await validate(tmp_path, "a.yaml")

    assert done.code == 2
    assert done.err == (
        "providers.yaml:1:50: endpoints.it.base_url: must begin with http:// or https:// and a host, for example "
        "https://api.example.com/v1\n"
    )


async def test_schema_of_the_file_is_printed(tmp_path: Path) -> None:
    done = await validate(tmp_path, "--schema", "providers")

    assert list(json.loads(done.out)["properties"]) == ["endpoints"]


async def test_run_asks_the_endpoint_with_its_params(tmp_path: Path) -> None:
    async with FakeProvider() as fake:
        agent = {
            "name": "it",
            "instructions": "Help.",
            "models": [
                {"model": "there:some/model:7b", "params": {"reasoning_effort": "low", "extra_body": {"user": "a"}}}
            ],
        }
        endpoint = {
            "protocol": "openai.chat",
            "base_url": f"{fake.url}/v1",
            "headers": {"Authorization": "Bearer ${secret:K}"},
        }
        files = {
            "agents/it.yaml": json.dumps(agent),
            "providers.yaml": json.dumps({"endpoints": {"there": endpoint}}),
        }
        fake.will(Answer(calls=(Call("read_result", "{}"),)), Answer(text="Done."))
        env = {"MANDATE_PROVIDERS": str(tmp_path / "providers.yaml"), "K": KEY}
        async with new_place(tmp_path, files, **env) as place, place.serving("it"):
            done = await place.run("run", "it", "Go", "-o", "json")

        assert done.code == 0, done.err
        assert json.loads(done.out.splitlines()[-1])["output"] == "Done."
        assert [(sent.json["model"], sent.json["reasoning_effort"], sent.json["user"]) for sent in fake.requests] == [
            ("some/model:7b", "low", "a")
        ] * 2
        assert [sent.headers["authorization"] for sent in fake.requests] == [f"Bearer {KEY}"] * 2
        assert KEY not in done.out + done.err


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("is:x", "must be 'scripted' or one of openai:MODEL, anthropic:MODEL, vllm:MODEL, it:MODEL"),
        ("it:x", f"models named 'it:...' cannot be asked: {NO_KEY}; without --model a script plays the model"),
    ],
)
async def test_demo_takes_models_of_endpoints(tmp_path: Path, model: str, sentence: str) -> None:
    write(tmp_path, "http://127.0.0.1:1")

    done = await mandate(tmp_path, "demo", "--model", model, IT_KEY="")

    assert (done.code, done.err) == (2, f"error: --model {model!r}: {sentence}\n")


async def test_worker_without_a_secret_of_its_endpoint_does_not_start(tmp_path: Path) -> None:
    write(tmp_path, "http://127.0.0.1:1")
    (tmp_path / "a.yaml").write_text("name: a\ninstructions: x\nmodels: ['it:x']\n")
    async with new_place(tmp_path, {}, MANDATE_PROVIDERS=str(tmp_path / "providers.yaml")) as place:
        done = await place.run("worker", "--agents", "a.yaml")

    assert done.code == 2
    assert done.err.endswith(
        f"a.yaml:3:10: models[0]: agent 'a', model 'it:x': models named 'it:...' cannot be asked: {NO_KEY}\n"
    )


async def test_worker_tells_the_faults_of_agents_and_of_providers_together(tmp_path: Path) -> None:
    write(tmp_path, "ftp://llm.example.com")
    (tmp_path / "a.yaml").write_text("name: a\ninstructions: x\nmodels: ['it:x']\ntoolz: []\n")

    done = await mandate(tmp_path, "worker", "--agents", "a.yaml", "--address", "127.0.0.1:1")

    assert done.code == 2
    assert [line.split(": ")[:2] for line in done.err.splitlines()] == [
        ["a.yaml:4:1", "toolz"],
        ["providers.yaml:1:50", "endpoints.it.base_url"],
    ]
