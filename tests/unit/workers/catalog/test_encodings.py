"""Files of a project in every encoding: all are read in one way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mandate.activities.files import FileError, read_spec
from mandate.activities.providers.scripted.script import load_script
from mandate.workers.catalog.agents import read_agent
from mandate.workers.catalog.channels import read_channels
from mandate.workers.catalog.policies import read_policy_file
from mandate.workers.project import SettingsError, find_project
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.people import PeopleSpec

SMILE = "\U0001f600"

AGENT = 'name: a\nmodels: [openai:m]\ninstructions: "%s"\n'
SCRIPT = 'turns:\n  - finish: complete\n    say: "%s"\n'
PEOPLE = 'people: [{name: ann, groups: [a]}]\ngroups:\n  a: {description: "%s"}\n'
CHANNELS = 'channels:\n  - kind: log\n    name: "%s"\n'
POLICY = 'name: mandate\nrules: [{id: r, match: {}, verdict: ask}]\ndescription: "%s"\n'
PROJECT = 'task_queue: a\nhttp_hosts: []\nuser: "%s"\n'


def agent(path: Path) -> str:
    return read_agent(path).instructions


def script(path: Path) -> str:
    return load_script(path).script.turns[0].say


def people(path: Path) -> str:
    return read_spec(path, PeopleSpec)[0].groups["a"].description or ""


def channels(path: Path) -> str:
    return read_channels(path, Secrets({})).channels[0].name


def policy(path: Path) -> str:
    return read_policy_file(path).spec.description or ""


def project(_path: Path) -> str:
    found = find_project()
    assert found is not None
    return found.variables["MANDATE_USER"]


FILES: list[tuple[Callable[[Path], str], str, str]] = [
    (agent, AGENT, f"ü {SMILE}"),
    (script, SCRIPT, f"ü {SMILE}"),
    (people, PEOPLE, f"ü {SMILE}"),
    (channels, CHANNELS, "log"),
    (policy, POLICY, f"ü {SMILE}"),
    (project, PROJECT, f"ü {SMILE}"),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mandate.yaml"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("read", "text", "value"), FILES)
def test_every_file_is_read_in_every_encoding(
    read: Callable[[Path], str], text: str, value: str, encoding: str, file: Path
) -> None:
    file.write_bytes((text % value).replace("\n", "\r\n").encode(encoding))

    assert read(file) == value


@pytest.mark.parametrize(("read", "text", "value"), FILES)
def test_emoji_may_be_escaped_as_a_pair_in_every_file(
    read: Callable[[Path], str], text: str, value: str, file: Path
) -> None:
    file.write_text(text % value.replace(SMILE, r"\ud83d\ude00"))

    assert read(file) == value


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        (b"caf\xe9", "is not UTF-8 text: byte 0xe9 cannot be read; save the file as UTF-8"),
        (b"cafe\x00", "is not valid YAML: U+0000 is not allowed"),
        (b"\\ud83d", "holds half of a surrogate pair ('\\ud83d'), which is no text"),
    ],
)
@pytest.mark.parametrize(("read", "text"), [(read, text) for read, text, _ in FILES])
def test_what_is_no_text_is_told_with_line_and_column_of_every_file(
    read: Callable[[Path], str], text: str, odd: bytes, fault: str, file: Path
) -> None:
    file.write_bytes(text.encode() % odd)

    with pytest.raises((FileError, SettingsError)) as refused:
        read(file)
    lines = str(refused.value).splitlines()
    assert any("mandate.yaml:3:" in line and line.endswith(fault) for line in lines), lines
