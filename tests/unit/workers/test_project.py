"""`mandate.yaml`: which file is read, what it says, what it may not hold."""

import os
from pathlib import Path

import pytest

from mandate.workers import project
from mandate.workers.catalog import channels, people
from mandate.workers.project import SettingsError
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, *lines: str) -> None:
    (folder / "mandate.yaml").write_text("\n".join(lines) + "\n")


def faults(folder: Path, *lines: str) -> list[str]:
    write(folder, *lines)
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({})
    return str(refused.value).splitlines()


def test_without_a_file_everything_is_where_the_environment_says(folder: Path) -> None:
    assert Settings.from_environment({}) == Settings(
        folder=Path(".mandate"),
        agents=Path("deploy/agents"),
        store="sqlite:///.mandate/store.db",
        secrets=None,
        http_hosts=(),
        task_queue="agents",
        temporal_address=None,
        temporal_profile=None,
        providers=Settings.from_environment({}).providers,
        environment={},
        default_people=Path("deploy/people.yaml"),
        default_channels=Path("deploy/channels.yaml"),
        default_budgets=Path("deploy/budgets.yaml"),
        default_endpoints=Path("deploy/providers.yaml"),
    )


@pytest.mark.parametrize("lines", [[], ["# task_queue: refunds", "", "  # nothing else"]])
def test_a_file_without_keys_says_where_everything_is(folder: Path, lines: list[str]) -> None:
    write(folder, *lines)

    found = Settings.from_environment({})

    assert (found.project, found.folder, found.agents) == (Path(), Path(".mandate"), Path("agents"))
    assert (found.policies, found.people, found.channels) == (Path("policies"), None, None)
    assert (found.default_people, found.default_channels) == (Path("people.yaml"), Path("channels.yaml"))
    assert (found.budgets, found.default_budgets) == (None, Path("budgets.yaml"))
    assert (found.endpoints, found.default_endpoints) == (None, Path("providers.yaml"))
    assert (found.store, found.task_queue) == ("sqlite:///.mandate/store.db", "agents")


def test_the_nearest_file_above_is_read_and_its_paths_are_relative_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "task_queue: far")
    near = folder / "shop"
    deep = near / "src" / "tools"
    deep.mkdir(parents=True)
    write(near, "task_queue: near", "agents: conf/agents", "store: sqlite:///data/store.db", "secrets: /run/secrets")
    monkeypatch.chdir(deep)

    found = Settings.from_environment({})

    assert (found.task_queue, found.project, found.agents) == ("near", near, near / "conf/agents")
    assert (found.store, found.folder) == (f"sqlite:///{near}/data/store.db", near / ".mandate")
    assert (found.secrets, found.policies) == (Path("/run/secrets"), near / "policies")


def test_every_setting_can_be_in_the_file(folder: Path) -> None:
    write(
        folder,
        "agents: a",
        "policies: b",
        "people: c.yaml",
        "channels: d.yaml",
        "budgets: limits/k.yaml",
        "providers: e.yaml",
        "jwks: keys/e.json",
        "secrets: f",
        "folder: g",
        "store: postgresql://mandate@db.example/mandate",
        "http_hosts: [tickets.example.com, private:intern.example]",
        "task_queue: h",
        "token_issuer: i",
        "token_audience: j",
        "user: ann@example.com",
        "requester: support@example.com",
        "openai_base_url: http://localhost:1/v1",
        "anthropic_base_url: http://localhost:2",
        "vllm_base_url: http://localhost:3/v1",
        "temporal_address: localhost:7233",
        "temporal_namespace: shop",
        "temporal_profile: local",
        "temporal_tls: false",
    )

    found = Settings.from_environment({})

    assert (found.agents, found.policies, found.people) == (Path("a"), Path("b"), Path("c.yaml"))
    assert (found.channels, found.jwks, found.secrets) == (Path("d.yaml"), Path("keys/e.json"), Path("f"))
    assert found.budgets == Path("limits/k.yaml")
    assert found.endpoints == Path("e.yaml")
    assert (found.folder, found.store) == (Path("g"), "postgresql://mandate@db.example/mandate")
    assert found.http_hosts == ("tickets.example.com", "private:intern.example")
    assert (found.task_queue, found.token_issuer, found.token_audience) == ("h", "i", "j")
    assert found.requester == "support@example.com"
    assert (found.user, found.temporal_address, found.temporal_profile) == (
        "ann@example.com", "localhost:7233", "local",
    )  # fmt: skip
    assert {name: one.base_url for name, one in found.providers.items()} == {
        "openai": "http://localhost:1/v1",
        "anthropic": "http://localhost:2",
        "vllm": "http://localhost:3/v1",
    }
    assert found.environment["TEMPORAL_NAMESPACE"] == "shop"
    assert found.environment["TEMPORAL_TLS"] == "false"


def test_the_environment_wins_unless_it_is_empty(folder: Path) -> None:
    write(folder, "task_queue: of-file", "agents: of-file", "user: of-file", "http_hosts: [of-file]")

    found = Settings.from_environment({"MANDATE_TASK_QUEUE": "of-env", "MANDATE_AGENTS": "x/y", "MANDATE_USER": ""})

    assert (found.task_queue, found.agents, found.user) == ("of-env", Path("x/y"), "of-file")
    assert found.http_hosts == ("of-file",)


KEYS = ", ".join(sorted(project.KEYS))
STORES = "sqlite:///file.db, sqlite:////absolute/file.db or postgresql://user@host:port/database"
SIGNING = "SLACK_SIGNING_SECRET"
NAMED = "which agent files and channels name as ${secret:SLACK_SIGNING_SECRET}"
REFUSED = "secrets are never in this file; set the variable"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("agent: x", f"agent: is not a key that is known here; did you mean 'agents'? allowed are {KEYS}"),
        ("MANDATE_USER: x", f"MANDATE_USER: is not a key that is known here; did you mean 'user'? allowed are {KEYS}"),
        ("colour: x", f"colour: is not a key that is known here; allowed are {KEYS}"),
        ("agents:", "agents: has no value; write one, or remove the key"),
        ("agents: ''", "agents: must not be empty"),
        ("task_queue: 7", "task_queue: 7 is not a text; put it in quotes"),
        ("task_queue: [a]", "task_queue: a list is not a text"),
        ("http_hosts: a.example", "http_hosts: is not a list of hosts, for example [tickets.example.com]"),
        ("http_hosts: [1]", "http_hosts: is not a list of hosts, for example [tickets.example.com]"),
        ("http_hosts: ['a, b']", "http_hosts: has an item with a comma; each host is an item of its own"),
        ("temporal_tls: maybe", "temporal_tls: maybe is not true or false"),
        (
            "temporal_address: http://localhost:7233",
            "temporal_address: is not the host and port of a Temporal server, for example localhost:7233",
        ),
        ("openai_base_url: localhost/v1", "openai_base_url: does not begin with http:// or https://"),
        (
            "store: mysql://me:hunter2@db/x",
            "store: holds a password, and secrets are never in this file; set the variable MANDATE_STORE to it",
        ),
        (
            "store: mysql://db/x",
            "store: mysql://... is not the address of a store; it must be " + STORES,
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(folder: Path, line: str, message: str) -> None:
    assert faults(folder, "# settings", line) == [f"mandate.yaml:2:1: {message}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "openai_api_key: hunter2",
            "openai_api_key: is a secret, and secrets are never in this file; set the variable OPENAI_API_KEY",
        ),
        (
            "TEMPORAL_API_KEY: hunter2",
            "TEMPORAL_API_KEY: is a secret, and secrets are never in this file; set the variable TEMPORAL_API_KEY",
        ),
        (
            "slack_signing_secret: hunter2",
            f"slack_signing_secret: looks like a secret, and {REFUSED} {SIGNING}, {NAMED}",
        ),
        (
            "store: postgresql://mandate:hunter2@db.example/mandate",
            "store: holds a password, and secrets are never in this file; set the variable MANDATE_STORE to it",
        ),
        (
            "store: postgresql://db.example/mandate?user=me&password=hunter2",
            "store: holds a password, and secrets are never in this file; set the variable MANDATE_STORE to it",
        ),
        (
            "vllm_base_url: https://me:hunter2@models.example/v1",
            "vllm_base_url: holds a password, and secrets are never in this file; set the variable VLLM_BASE_URL to it",
        ),
    ],
)
def test_secrets_are_refused_with_the_variable_and_never_shown(folder: Path, line: str, message: str) -> None:
    found = faults(folder, line)

    assert found == [f"mandate.yaml:1:1: {message}"]
    assert "hunter2" not in "".join(found)


def test_all_faults_are_told_in_order(folder: Path) -> None:
    assert [line.partition(": ")[0] for line in faults(folder, "b: 1", "agents: 2", "agents: x", "a: 3")] == [
        "mandate.yaml:1:1", "mandate.yaml:2:1", "mandate.yaml:3:1", "mandate.yaml:4:1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- agents", "mandate.yaml:1:1: is not a mapping of settings, for example 'task_queue: agents'"),
        ("agents: [", "mandate.yaml:2:1: is not valid YAML: while parsing a flow node"),
    ],
)
def test_what_is_no_mapping_is_refused(folder: Path, text: str, fault: str) -> None:
    assert faults(folder, text)[0].startswith(fault)


def test_a_file_that_somebody_else_put_above_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    write(folder, "task_queue: theirs")
    os.chown(folder / "mandate.yaml", 4242, -1)
    inside = folder / "inside"
    inside.mkdir()

    in_its_own_folder = Settings.from_environment({}).task_queue
    monkeypatch.chdir(inside)
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({})

    assert in_its_own_folder == "theirs"
    assert str(refused.value) == (
        f"{folder}/mandate.yaml: belongs to another user, and is used from inside its own folder only; "
        "copy it, or change its owner"
    )


def test_people_and_channels_beside_the_file_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)
    (folder / "people.yaml").write_text("people: [{name: ann@example.com}]")
    (folder / "channels.yaml").write_text("channels: [{name: mine, kind: log}]")
    below = folder / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    settings = Settings.from_environment({})

    known = people.read_people(settings)
    told = channels.read_channels(settings.channels, Secrets({}), default=settings.default_channels)

    assert people.people_path(settings) == folder / "people.yaml"
    assert known is not None
    assert [channel.name for channel in told.channels] == ["mine"]
