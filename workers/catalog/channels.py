"""The file of channels: read, checked, and made into the activity that tells people."""

from pathlib import Path
from typing import TYPE_CHECKING

from mandate.activities.channels.base import Channel, Sender
from mandate.activities.channels.log import LogSender
from mandate.activities.documents import Document, Fault, read_document
from mandate.activities.files import FileError, parse_spec
from mandate.activities.notification import NotificationActivities
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.channels import (
    ChannelsFile,
    ChannelSpec,
    LogChannel,
    SlackChannel,
    WebhookChannel,
    find_address_fault,
)
from mandate.workflows.contracts.templates import SECRET_START

if TYPE_CHECKING:
    from mandate.activities.channels.http_post import HttpPost

DEFAULT_FILE = Path("deploy/channels.yaml")

LOG_ALONE = ChannelsFile(channels=(LogChannel(name="log", kind="log"),))
"""Without a file."""

_CONFIDENTIAL = ("url", "secret")
"""Keys whose values may name secrets."""


def notification_activities(settings: Settings) -> NotificationActivities:
    """Return the activity with all channels that the settings name; its owner closes it.

    Raises:
        FileError: all faults of the file, secrets that are missing included.
    """
    resolve = Secrets(settings.environment, settings.secrets)
    found = read_channels(settings.channels, resolve, default=settings.default_channels)
    return NotificationActivities(_channels(found, resolve))


def faults_for(settings: Settings) -> tuple[Fault, ...]:
    """Return why nobody could be told through the file of channels, secrets that are missing included."""
    try:
        read_channels(
            settings.channels, Secrets(settings.environment, settings.secrets), default=settings.default_channels
        )
    except FileError as error:
        return error.faults
    return ()


def read_channels(path: Path | None, secrets: Secrets, *, default: Path = DEFAULT_FILE) -> ChannelsFile:
    """Read the file at `path`; without one that at `default` if it exists, else the log alone.

    Raises:
        FileError: see `notification_activities`.
    """
    if path is None:
        if not default.exists():
            return LOG_ALONE
        path = default
    if not path.is_file():
        raise FileError(
            [
                Fault(
                    str(path),
                    0,
                    0,
                    "",
                    "",
                    "is not a file; MANDATE_CHANNELS or mandate.yaml names the file of channels",
                )
            ]
        )
    document = read_document(path)
    lacking = _secret_faults(document, secrets)
    try:
        found = parse_spec(document, ChannelsFile)
    except FileError as error:
        raise FileError([*error.faults, *lacking]) from None
    if lacking:
        raise FileError(lacking)
    return found


def _channels(file: ChannelsFile, resolve: Secrets) -> list[Channel]:
    if all(spec.kind == "log" for spec in file.channels):
        return [Channel(spec, LogSender()) for spec in file.channels]
    from mandate.activities.channels.http_post import HttpPost  # noqa: PLC0415 - only for HTTP

    post = HttpPost()
    return [Channel(spec, _sender(spec, resolve, post)) for spec in file.channels]


def _sender(spec: ChannelSpec, resolve: Secrets, post: "HttpPost") -> Sender:
    match spec:
        case LogChannel():
            return LogSender()
        case WebhookChannel():
            from mandate.activities.channels.webhook import WebhookSender  # noqa: PLC0415 - only for HTTP

            return WebhookSender(post, resolve, url=spec.url, secret=spec.secret)
        case SlackChannel():
            from mandate.activities.channels.slack import SlackSender  # noqa: PLC0415 - only for HTTP

            return SlackSender(post, resolve, url=spec.url)


def _secret_faults(document: Document, secrets: Secrets) -> list[Fault]:
    """Return secrets that are missing, and addresses that they do not make."""
    faults = []
    entries = document.value.get("channels") if isinstance(document.value, dict) else None
    for position, entry in enumerate(entries if isinstance(entries, list) else []):
        for key in _CONFIDENTIAL:
            text = entry.get(key) if isinstance(entry, dict) else None
            message = _secret_fault(key, text, secrets) if isinstance(text, str) else None
            if message is not None:
                faults.append(document.fault(("channels", position, key), message))
    return faults


def _secret_fault(key: str, text: str, secrets: Secrets) -> str | None:
    try:
        missing = secrets.missing([text])
        if missing:
            return "; ".join(map(secrets.explain, missing))
        fault = find_address_fault(secrets(text)) if key == "url" and SECRET_START in text else None
    except ValueError:
        # Misspelt, which the contract says.
        return None
    return f"with its secrets in place, it {fault}" if fault else None
