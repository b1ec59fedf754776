import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import seconds
from mandate.workers.cli.output import Output
from mandate.workers.cli.run import read_input
from mandate.workers.cli.runs.text import exit_code, shown
from mandate.workers.history.events import RunEnded
from mandate.workers.main import VERBS, load_verb, main, wants_json
from tests.support.mcp_peer import BARE_COMMAND
from tests.support.processes import PROJECT, lives

HEAVY = ("temporalio", "mcp", "genai_prices", "openai", "anthropic", "structlog", "asyncio", "ruamel", "rich")
UNNEEDED = (
    *("openai", "anthropic", "mcp", "cel_expr_python.cel", "cryptography", "jwt", "jsonschema_rs", "genai_prices"),
    *("httpx2", "asyncpg", "structlog", "temporalio.worker"),
)
"""What only workers need, and those who judge calls."""

NO_SERVER = ("--address", "127.0.0.1:1")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and what stderr says; nothing is on stdout."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.err


def loaded(names: tuple[str, ...], *words: str, cwd: Path | None = None) -> tuple[str, int, set[str]]:
    """What a command prints, its exit code, and which modules of `names` it has imported at its end."""
    program = (
        "import sys\nfrom mandate.workers.main import main\n"
        f"try: main({words!r})\nexcept SystemExit as end: code = end.code\n"
        f"print('\\n', code, *[name for name in {names!r} if name in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=cwd, env=environment
    )

    code, *found = done.stderr.splitlines()[-1].split()
    return done.stdout, int(code), set(found)


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    printed, code, found = loaded(HEAVY, *words)

    assert (code, found) == (0, set())
    assert "Usage:" in printed


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in {"worker", "validate", "doctor", "demo"}])
def test_help_of_a_verb_loads_nothing_that_it_does_not_need(verb: str) -> None:
    printed, code, found = loaded(UNNEEDED, verb, "--help")

    assert (code, found) == (0, set())
    assert f"Usage: mandate {verb}" in printed


@pytest.mark.parametrize(
    "words",
    [
        ["inbox", *NO_SERVER],
        ["show", "x", *NO_SERVER],
        ["show", "x:r1", *NO_SERVER],
        ["approve", "x:r1", *NO_SERVER],
        ["reject", "x:r1", *NO_SERVER],
        ["answer", "x:r1", "yes", *NO_SERVER],
        ["run", "shop", "Hello.", *NO_SERVER],
        ["stop", "x", *NO_SERVER],
    ],
)
def test_command_that_asks_the_server_has_loaded_nothing_that_it_does_not_need(words: list[str]) -> None:
    assert loaded(UNNEEDED, *words) == ("", 2, set())


def test_agent_without_servers_and_conditions_is_validated_without_their_libraries(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("turns: [{say: Hello.}]")
    (tmp_path / "a.yaml").write_text("name: a\ninstructions: x\nmodels: [scripted:x.yaml]\n")
    needed = {"jsonschema_rs", "structlog"}

    printed, code, found = loaded(tuple({*UNNEEDED} - needed), "validate", "a.yaml", cwd=tmp_path)

    assert (code, found) == (0, set())
    assert printed.startswith("a ")


def test_agent_with_mcp_servers_is_validated_with_the_client_half_of_the_sdk_alone(tmp_path: Path) -> None:
    server = {"name": "peer", "command": [*BARE_COMMAND, "hostile", "none"], "env": {"PYTHONPATH": str(PROJECT)}}
    agent = {"name": "a", "instructions": "x", "models": ["vllm:qwen3-32b"], "tools": [{"mcp": server}]}
    (tmp_path / "a.yaml").write_text(json.dumps(agent))

    _, code, found = loaded(
        ("mcp.client.session", "temporalio", "httpx2", "mcp.server", "uvicorn", "starlette"),
        "validate",
        "a.yaml",
        cwd=tmp_path,
    )

    assert (code, found) == (0, {"mcp.client.session"})


def test_warnings_of_a_tool_module_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "warning_tools.py").write_text(
        "import warnings\nfrom mandate import tool\nwarnings.warn('an old name')\n"
        "@tool(effect='read')\ndef look() -> str:\n    'Look.'\n    return ''\n"
    )
    agent = {
        "name": "a",
        "instructions": "x",
        "models": ["openai:gpt-6-sol"],
        "tools": [{"python": "warning_tools:look"}],
    }
    (tmp_path / "a.yaml").write_text(json.dumps(agent))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OPENAI_API_KEY": "none"}

    done = subprocess.run(
        [sys.executable, "-m", "mandate.workers.main", "validate", "a.yaml"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_list_of_verbs_says_of_each_what_its_own_help_begins_with(verb: str) -> None:
    written = load_verb(verb).help or ""

    assert VERBS[verb].help == " ".join(written.partition("\n\n")[0].split())


def test_verbs_are_listed_in_the_order_of_their_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    listed = capsys.readouterr().out.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines()] == [
        *(
            "init",
            "run",
            "chat",
            "show",
            "inbox",
            "approve",
            "reject",
            "decide",
            "answer",
            "steer",
            "pause",
            "resume",
            "stop",
        ),
        *("plan", "schedule", "listen", "worker", "server", "validate", "setup-namespace", "doctor", "keys"),
        *("budget", "stats", "cache", "demo"),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["frob"], "error: No such command 'frob'; see `mandate --help`\n"),
        (["wrker"], "error: No such command 'wrker'. Did you mean 'worker'?; see `mandate --help`\n"),
        (["run"], "error: Missing argument 'AGENT'; see `mandate run --help`\n"),
        (
            ["run", "shop", "x", "--steps", "many"],
            "error: Invalid value for '--steps': 'many' is not a whole number; see `mandate run --help`\n",
        ),
        (
            ["run", "shop", "x", "--steps", "0"],
            "error: Invalid value for '--steps': '0': must be at least 1; see `mandate run --help`\n",
        ),
        (
            ["run", "shop", "x", "-o", "xml"],
            (
                "error: Invalid value for '--output' / '-o': 'xml' is not one of 'text', 'json'; "
                "see `mandate run --help`\n"
            ),
        ),
        (["show", "x", "--frob"], "error: No such option: --frob; see `mandate show --help`\n"),
        (
            ["run", "shop"],
            "error: give what the agent is asked once: as TEXT, with --input-file, or with --input\n",
        ),
        (["run", "shop", "  "], "error: what the agent is asked is empty; give it a text or an object\n"),
        (["run", "shop", "x", "--label", "team"], "error: --label 'team' is not key=value\n"),
        (
            ["--env", "prod", "show", "x"],
            "error: --env 'prod': environments are not read; make it a profile of Temporal's config file\n",
        ),
        (
            ["worker", "--build-id", "1"],
            "error: --deployment and --build-id belong together: give both or neither\n",
        ),
        (
            ["--command-timeout", "5", "show", "x"],
            (
                "error: --command-timeout '5': a duration is a number and a unit, "
                "for example '30s', '5m', '1h30m' or '2d'\n"
            ),
        ),
        (
            ["--config-file", "/no/such.toml", "show", "x"],
            "error: --config-file '/no/such.toml' does not exist\n",
        ),
        (
            ["--disable-config-file", "--disable-config-env", "show", "x", "--tls"],
            "error: TLS or an API key is set, but no address: give --address or set TEMPORAL_ADDRESS\n",
        ),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert refused(capsys, *words) == (2, sentence)


@pytest.mark.parametrize("words", [["-o", "json", "run", "shop", ""], ["run", "shop", "", "--output=json"]])
def test_errors_are_json_on_stderr_when_json_is_asked_for(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, said = refused(capsys, *words)

    assert code == 2
    assert json.loads(said) == {"error": "what the agent is asked is empty; give it a text or an object", "code": 2}


def test_unreachable_server_is_named_with_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "show", "x", "--address", "127.0.0.1:1")

    assert code == 2
    assert said.startswith("error: no Temporal server at '127.0.0.1:1': connection refused; name")
    assert said.endswith("; name another with --address, or start one with `mandate server`\n")
    assert said.count("\n") == 1


def test_temporals_root_options_are_accepted_before_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("-o", "json", "--profile", "p", "--env", "default", "--env-file", "f", "--config-file", "c"),
                *("--disable-config-file", "--disable-config-env", "--log-level", "debug", "--log-format", "json"),
                *("--color", "never", "--time-format", "iso", "--command-timeout", "5s"),
                *("--client-connect-timeout", "2s", "--no-json-shorthand-payloads", "validate", "--schema"),
            ]
        )

    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Mandate agent file"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mandate 0.")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["-o", "json", "x"], True),
        (["x", "--output", "json"], True),
        (["x", "--output=json"], True),
        (["x", "-ojson"], True),
        (["-o", "text", "x"], False),
        (["json"], False),
        (["x", "-o"], False),
    ],
)
def test_json_is_recognised_in_any_command_line(words: list[str], wanted: bool) -> None:
    assert wants_json(words) is wanted


@pytest.mark.parametrize(("written", "expected"), [("10s", 10.0), ("1m30s", 90.0), ("0", None), (None, None)])
def test_timeouts_have_units(written: str | None, expected: float | None) -> None:
    assert seconds("--command-timeout", written) == expected


def test_input_comes_from_one_place(tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("Refund order 81\n")
    (tmp_path / "ask.json").write_text('{"order": 81}')

    assert read_input("Refund", None, None) == "Refund"
    assert read_input(None, tmp_path / "ask.txt", None) == "Refund order 81\n"
    assert read_input(None, tmp_path / "ask.json", None) == {"order": 81}
    assert read_input(None, None, '{"order": 81}') == {"order": 81}


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("{", "--input is not JSON: "),
        ("[1]", "--input must be a JSON object that is not empty, not '[1]'"),
        ("{}", "--input must be a JSON object that is not empty, not '{}'"),
    ],
)
def test_input_that_is_no_object_is_refused(written: str, sentence: str) -> None:
    with pytest.raises(CliError) as refusal:
        read_input(None, None, written)

    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (RunEnded("completed"), 0),
        (RunEnded("stopped"), 1),
        (RunEnded("exhausted"), 1),
        (RunEnded("declined"), 1),
        (RunEnded("failed", "a defect"), 1),
        (RunEnded("failed", "agent: ...", bad_input=True), 2),
        (RunEnded("cancelled"), 1),
        (RunEnded("terminated"), 1),
        (RunEnded("timed_out"), 1),
    ],
)
def test_exit_code_tells_how_a_run_ended(ended: RunEnded, code: int) -> None:
    assert exit_code(ended) == code


def test_long_texts_say_how_much_is_left_out() -> None:
    assert shown("a" * 700, full=False) == "a" * 600 + " [… 100 more characters, see --full]"
    assert shown("a" * 700, full=True) == "a" * 700
    assert shown("short", full=False) == "short"


def test_faults_of_agent_files_are_told_one_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\nmodels: [foo:bar]\ninstructions: x\ntoolz: []\n")

    code, said = refused(capsys, "validate", str(tmp_path / "bad.yaml"))

    assert code == 2
    assert [line.split(": ")[1] for line in said.splitlines()] == ["models[0]", "toolz"]


def test_validation_says_what_no_rule_allows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("turns: [{say: Hello.}]")
    (tmp_path / "desk.yaml").write_text(
        "name: desk\ninstructions: x\nmodels: [scripted:x.yaml]\ntools:\n"
        "  - http: {method: POST, url: 'https://example.com/tickets'}\n    name: create_ticket\n"
        "    input_schema: {type: object}\n"
        "  - http: {method: GET, url: 'https://example.com/tickets'}\n    name: find_ticket\n    effect: read\n"
        "    input_schema: {type: object}\n"
    )

    with pytest.raises(SystemExit) as ended:
        main(["validate", str(tmp_path / "desk.yaml"), "-o", "json"])

    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    (agent,) = told["agents"]
    assert [warning.partition(": ")[2] for warning in told["warnings"]] == [
        f"tool '{name}': every call is refused: host 'example.com:443' is not allowed; "
        "MANDATE_HTTP_HOSTS of the worker allows: none"
        for name in ("create_ticket", "find_ticket")
    ]
    assert agent["models"] == ["scripted:x.yaml"]
    assert agent["open"] == ["create_ticket"]
    assert [tool["name"] for tool in agent["tools"] if tool["allowed"]] == [
        "find_ticket",
        "read_result",
        "ask_person",
        "keep_in_mind",
    ]


def test_script_that_cannot_be_played_is_a_fault(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "a.yaml").write_text("name: a\ninstructions: x\nmodels: [scripted:none.script.yaml]\n")
    (tmp_path / "agents" / "b.yaml").write_text("name: b\ninstructions: x\nmodels: [scripted:b.script.yaml]\n")
    (tmp_path / "agents" / "b.script.yaml").write_text("turns: [{say: Hi., cal: [x]}]\n")

    code, said = refused(capsys, "validate", str(tmp_path / "agents"))

    lines = said.splitlines()
    assert code == 2
    assert f"{tmp_path}/agents/a.yaml:3:" in lines[0]
    assert "models[0]: there is no script 'none.script.yaml'; it was looked for in " in lines[0]
    assert f"{tmp_path}/agents/b.script.yaml:1:" in lines[1]
    assert "turns[0].cal: is not a key that is known here" in lines[1]


def test_model_without_its_key_is_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_BASE_URL", raising=False)
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ninstructions: x\nmodels: [vllm:qwen]\n")

    with pytest.raises(SystemExit) as ended:
        main(["validate", str(path), "-o", "json", "--color", "never"])

    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [
        (
            f"{path}:3:10: models[0]: agent 'a', model 'vllm:qwen': models named 'vllm:...' need VLLM_BASE_URL, "
            "for example http://localhost:8000/v1"
        )
    ]


def test_place_without_agents_is_refused_with_a_way_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "nope.yaml"
    monkeypatch.setenv("MANDATE_AGENTS", str(tmp_path))
    way = "has no agent files (*.yaml); "

    assert refused(capsys, "validate", str(missing)) == (2, f"{missing}: does not exist\n")
    assert refused(capsys, "validate") == (
        2,
        f"{tmp_path}: {way}write one, name it or another folder as FILE, or set MANDATE_AGENTS\n",
    )
    assert refused(capsys, "worker") == (
        2,
        (
            f"error: the folder '{tmp_path}' {way}write one, or name another folder or file "
            "with --agents or MANDATE_AGENTS\n"
        ),
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            [],
            (
                "there are no agents: 'deploy/agents' does not exist; write an agent file (*.yaml) in that folder, "
                "or name another folder or file with --agents or MANDATE_AGENTS"
            ),
        ),
        (
            ["--agents", "mine.yaml"],
            (
                "there are no agents: 'mine.yaml' does not exist; write an agent file (*.yaml) in that folder, or name "
                "another folder or file with --agents or MANDATE_AGENTS"
            ),
        ),
        (
            ["--agents", "."],
            (
                "the folder '.' has no agent files (*.yaml); write one, or name another folder or file "
                "with --agents or MANDATE_AGENTS"
            ),
        ),
    ],
)
def test_worker_without_agents_says_so_before_it_looks_for_anything(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MANDATE_AGENTS", raising=False)
    monkeypatch.setenv("MANDATE_STORE", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("MANDATE_PEOPLE", "none.yaml")
    # Its import is not what is timed.
    load_verb("worker")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()

        told = refused(capsys, "worker", "--address", f"127.0.0.1:{silent.getsockname()[1]}", *words)

        # A connection to a server that does not answer is given up after ten seconds.
        assert time.monotonic() - began < 5
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.accept()
    assert told == (2, f"error: {sentence}\n")
    assert list(tmp_path.iterdir()) == []


def test_worker_with_faulty_agent_files_tells_all_faults_before_it_looks_for_a_server(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("name: a\ninstructions: x\nmodels: [foo:bar]\ntoolz: []\n")
    (tmp_path / "b.yaml").write_text("name: b\ninstructions: x\n")
    # Its import is not what is timed.
    load_verb("worker")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()

        code, said = refused(
            capsys, "worker", "--address", f"127.0.0.1:{silent.getsockname()[1]}", "--agents", str(tmp_path)
        )

        assert time.monotonic() - began < 5
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.accept()
    assert code == 2
    assert [line.split(": ")[:2] for line in said.splitlines()] == [
        [f"{tmp_path}/a.yaml:3:10", "models[0]"],
        [f"{tmp_path}/a.yaml:4:1", "toolz"],
        [f"{tmp_path}/b.yaml:1:1", "models"],
    ]


def test_sigterm_ends_a_validation_and_the_servers_it_waits_for(tmp_path: Path) -> None:
    stub = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    server = json.dumps({"name": "slow", "command": [sys.executable, "-c", stub]})
    (tmp_path / "x.yaml").write_text("turns: [{say: Hello.}]")
    (tmp_path / "a.yaml").write_text(
        f"name: a\ninstructions: x\nmodels: [scripted:x.yaml]\ntools: [{{mcp: {server}}}]\n"
    )

    validation = subprocess.Popen(
        [sys.executable, "-m", "mandate.workers.main", "validate", "a.yaml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert validation.stderr is not None
    waiting = validation.stderr.readline()
    # It waits for the server from before that runs.
    deadline = time.monotonic() + 60
    while not ((written := tmp_path / "pid").exists() and written.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = int(written.read_text())
    validation.terminate()
    said = validation.communicate(timeout=60)

    assert waiting == "waiting for MCP servers: slow\n"
    assert (validation.returncode, said) == (130, ("", ""))
    assert not lives(pid)


def test_port_of_the_web_ui_that_is_taken_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        code, said = refused(capsys, "server", "--ui-port", str(port), "--folder", str(tmp_path / "state"))

    assert code == 2
    assert said.startswith(f"error: --ui-port {port} is taken (address already in use)")


def test_control_characters_of_models_and_tools_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output().print("a\x1b]0;title\x07b\r\x9bc")

    assert capsys.readouterr().out == "a\ufffd]0;title\ufffdb\ufffd\ufffdc\n"


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    program = "from mandate.workers import main\nfrom mandate.workers.cli.output import Output\nimport sys\n"
    program += "def talk(*_):\n    while True: Output().print('x' * 1000)\n"
    program += "main._invoke = talk\nmain.main([])"

    talker = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert talker.stdout is not None
    assert talker.stderr is not None
    talker.stdout.readline()
    talker.stdout.close()

    said = talker.stderr.read()
    talker.stderr.close()
    assert (talker.wait(60), said) == (130, "")


def test_defects_are_one_sentence_unless_they_are_searched_for(tmp_path: Path) -> None:
    program = "from mandate.workers import main\ndef fail(*_): raise KeyError('lost')\n"
    program += "main._invoke = fail\nmain.main([])"

    short, long = (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={"MANDATE_DEBUG": debug}
        )
        for debug in ("", "1")
    )

    assert (short.returncode, short.stderr) == (2, "error: KeyError: 'lost' (MANDATE_DEBUG=1 shows where)\n")
    assert "Traceback" in long.stderr


@pytest.mark.parametrize("words", [("show", "no\udcffpe"), ("run", "shop", "h\udcff"), ("inbox", "--group", "\udcff")])
def test_bytes_that_are_no_text_are_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, said = refused(capsys, *words, *NO_SERVER)

    assert code == 2
    assert said == f"error: {words[-1]!a} on the command line holds bytes that are no UTF-8 text\n"
