"""The project file, `mandate.yaml`: settings of one folder, below those of the environment."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from mandate.activities.documents import Fault

FILE = "mandate.yaml"

_SQLITE = "sqlite:///"
_POSTGRESQL = "postgresql://"

_SECRETS = ("anthropic_api_key", "openai_api_key", "temporal_api_key", "temporal_tls_client_key_data", "vllm_api_key")
"""Keys that would be settings if they were not secret."""
_SECRET_WORDS = re.compile(r"api_?key|credential|passw|private_?key|secret|token|_key$|_data$")


class SettingsError(ValueError):
    """A `mandate.yaml` that cannot be used; one line a fault."""

    def __init__(self, faults: "Iterable[Fault]") -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a `mandate.yaml`."""

    folder: Path
    """Relative, and empty, when it is the working folder; else absolute."""
    variables: Mapping[str, str]
    """Its settings by the environment variable of each, in the form that the variable would have."""


class _Refused(Exception):
    """A value that a key does not take; the text goes on after the key."""


Convert = Callable[[object, Path, str], str]
"""Make of a value what the variable of this name would hold; paths are relative to the folder.

Raises `_Refused`.
"""


def find_project() -> Project | None:
    """Return the project of the working folder: its own `mandate.yaml`, else the nearest above; `None` without one.

    Raises:
        SettingsError: all faults of the file, or it is above and somebody else's.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return None
    folder = next((folder for folder in (here, *here.parents) if os.path.isfile(folder / FILE)), None)  # noqa: PTH113 - never raises
    if folder is None:
        return None
    if folder == here:
        return read_project(Path(FILE))
    _demand_owner(folder / FILE, here)
    return read_project(folder / FILE)


def _demand_owner(path: Path, here: Path) -> None:
    """Refuse a file that somebody else put above the working folder: it says whose code workers import."""
    owner = path.stat().st_uid
    if owner in {0, os.geteuid(), here.stat().st_uid}:
        return
    from mandate.activities.documents import Fault  # noqa: PLC0415 - only where there is a file

    message = "belongs to another user, and is used from inside its own folder only; copy it, or change its owner"
    raise SettingsError([Fault(str(path), 0, 0, "", "", message)])


def read_project(path: Path) -> Project:
    """Read a `mandate.yaml`.

    Raises:
        SettingsError: all faults of the file.
    """
    folder = path.parent
    if _is_blank(path):
        return Project(folder, {})
    # Here: who has no such file does not pay for the YAML reader.
    from mandate.activities.documents import read_document  # noqa: PLC0415 - only where there is a file

    document = read_document(path)
    faults = list(document.faults)
    if not isinstance(document.value, dict):
        faults = faults or [document.fault((), "is not a mapping of settings, for example 'task_queue: agents'")]
        raise SettingsError(faults)
    variables: dict[str, str] = {}
    for key, value in document.value.items():
        if key not in KEYS:
            faults.append(document.fault((key,), _unknown(key)))
            continue
        try:
            variables[variable_of(key)] = KEYS[key](value, folder, variable_of(key))
        except _Refused as refused:
            faults.append(document.fault((key,), str(refused)))
    if faults:
        raise SettingsError(sorted(faults, key=lambda fault: (fault.line, fault.column)))
    return Project(folder, variables)


def _is_blank(path: Path) -> bool:
    """Tell whether a file holds nothing but comments; one that cannot be read does not."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return all(not line.strip() or line.lstrip().startswith("#") for line in lines)


def variable_of(key: str) -> str:
    """Return the environment variable that a key of `mandate.yaml` stands for."""
    return key.upper() if key.startswith(("anthropic_", "openai_", "temporal_", "vllm_")) else f"MANDATE_{key.upper()}"


def _unknown(key: str) -> str:
    name = key.lower().replace("-", "_")
    if name in _SECRETS:
        return f"is a secret, and secrets are never in this file; set the variable {variable_of(name)}"
    bare = name.removeprefix("mandate_")
    close = [bare] if bare in KEYS else get_close_matches(bare, list(KEYS), n=1, cutoff=0.8)
    if not close and _SECRET_WORDS.search(name):
        return (
            "looks like a secret, and secrets are never in this file; set the variable "
            f"{name.upper()}, which agent files and channels name as ${{secret:{name.upper()}}}"
        )
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"is not a key that is known here{hint} allowed are {', '.join(sorted(KEYS))}"


def _text(value: object, _folder: Path, _variable: str) -> str:
    if value is None:
        raise _Refused("has no value; write one, or remove the key")
    if not isinstance(value, str):
        quotes = "" if isinstance(value, dict | list) else "; put it in quotes"
        raise _Refused(f"{_shown(value)} is not a text{quotes}")
    if not value.strip():
        raise _Refused("must not be empty")
    return value


def _path(value: object, folder: Path, variable: str) -> str:
    return str(folder / _text(value, folder, variable))


def _flag(value: object, _folder: Path, _variable: str) -> str:
    if not isinstance(value, bool):
        raise _Refused(f"{_shown(value)} is not true or false")
    return "true" if value else "false"


def _hosts(value: object, _folder: Path, _variable: str) -> str:
    if not isinstance(value, list) or not all(isinstance(host, str) and host.strip() for host in value):
        raise _Refused("is not a list of hosts, for example [tickets.example.com]")
    joined = ",".join(map(str, value))
    if joined.count(",") >= max(len(value), 1):
        raise _Refused("has an item with a comma; each host is an item of its own")
    return joined


def _address(value: object, folder: Path, variable: str) -> str:
    text = _text(value, folder, variable)
    if "/" in text or "@" in text or not re.fullmatch(r".+:[0-9]+", text):
        raise _Refused("is not the host and port of a Temporal server, for example localhost:7233")
    return text


def _url(value: object, folder: Path, variable: str) -> str:
    text = _text(value, folder, variable)
    _demand_no_password(text, variable)
    if not text.startswith(("http://", "https://")):
        raise _Refused("does not begin with http:// or https://")
    return text


def _store(value: object, folder: Path, variable: str) -> str:
    text = _text(value, folder, variable)
    _demand_no_password(text, variable)
    if text.startswith(_SQLITE) and len(text) > len(_SQLITE):
        return f"{_SQLITE}{folder / text.removeprefix(_SQLITE)}"
    if text.startswith(_POSTGRESQL):
        return text
    # Never the whole of it, which may hold a password.
    scheme, separator, _ = text.partition("://")
    shown = f"{scheme}://..." if separator else "a text without '://'"
    forms = "sqlite:///file.db, sqlite:////absolute/file.db or postgresql://user@host:port/database"
    raise _Refused(f"{shown} is not the address of a store; it must be {forms}")


def _demand_no_password(text: str, variable: str) -> None:
    try:
        parts = urlsplit(text)
        has_password = parts.password is not None or any("password" in name for name in parse_qs(parts.query))
    except ValueError:
        raise _Refused("is not an address") from None
    if has_password:
        raise _Refused(f"holds a password, and secrets are never in this file; set the variable {variable} to it")


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return str(value).lower() if isinstance(value, bool) else str(value)


KEYS: Mapping[str, Convert] = {
    "agents": _path,
    "anthropic_base_url": _url,
    "budgets": _path,
    "channels": _path,
    "dead_letters": _path,
    "drain": _text,
    "folder": _path,
    "health": _text,
    "http_hosts": _hosts,
    "jwks": _path,
    "kafka_ca": _path,
    "kafka_certificate": _path,
    "kafka_key": _path,
    "kafka_mechanism": _text,
    "kafka_servers": _text,
    "kafka_tls": _flag,
    "kafka_user": _text,
    "openai_base_url": _url,
    "people": _path,
    "plans": _path,
    "policies": _path,
    "providers": _path,
    "requester": _text,
    "secrets": _path,
    "store": _store,
    "task_queue": _text,
    "temporal_address": _address,
    "temporal_config_file": _path,
    "temporal_namespace": _text,
    "temporal_profile": _text,
    "temporal_tls": _flag,
    "temporal_tls_client_cert_path": _path,
    "temporal_tls_client_key_path": _path,
    "temporal_tls_server_ca_cert_path": _path,
    "temporal_tls_server_name": _text,
    "token_audience": _text,
    "token_issuer": _text,
    "triggers": _path,
    "user": _text,
    "vllm_base_url": _url,
}
"""Each key of the file, and what makes its value that of the variable."""
