"""The file of channels: read, checked, and made into the activity that tells people."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from mandate.activities.channels.base import Channel, Sender
from mandate.activities.channels.log import LogSender
from mandate.activities.documents import Document, Fault, Place, in_order, read_document
from mandate.activities.notification import NotificationActivities
from mandate.workers.catalog.fault_texts import says, shown
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.channels import (
    CHANNEL_KINDS,
    ChannelsFile,
    ChannelSpec,
    LogChannel,
    SlackChannel,
    WebhookChannel,
    address_fault,
)
from mandate.workflows.contracts.templates import SECRET_START
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

if TYPE_CHECKING:
    from mandate.activities.channels.http_post import HttpPost

DEFAULT_FILE = Path("deploy/channels.yaml")

LOG_ALONE = ChannelsFile(channels=(LogChannel(name="log", kind="log"),))
"""Without a file."""

_MODELS: Mapping[str, type[BaseModel]] = {"log": LogChannel, "webhook": WebhookChannel, "slack": SlackChannel}
_CONFIDENTIAL = ("url", "secret")
"""What stands under these keys is never shown."""


class ChannelFileError(Exception):
    """A file of channels that cannot be used; one line a fault."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = in_order(tuple(faults))
        super().__init__("\n".join(map(str, self.faults)))


def notification_activities(settings: Settings) -> NotificationActivities:
    """The activity with all channels that the settings name; its owner closes it.

    Raises:
        ChannelFileError: all faults of the file, secrets that are missing included.
    """
    resolve = Secrets(settings.environment, settings.secrets)
    found = read_channels(settings.channels, resolve, default=settings.default_channels)
    return NotificationActivities(_channels(found, resolve))


def read_channels(path: Path | None, secrets: Secrets, *, default: Path = DEFAULT_FILE) -> ChannelsFile:
    """The file at `path`; without one that at `default` if it exists, else the log alone.

    Raises:
        ChannelFileError: see `notification_activities`.
    """
    if path is None:
        if not default.exists():
            return LOG_ALONE
        path = default
    if not path.is_file():
        why = "is not a file; MANDATE_CHANNELS or mandate.yaml names the file of channels"
        raise ChannelFileError([Fault(str(path), 0, 0, "", "", why)])
    document = read_document(path)
    found, faults = _spec(document)
    faults += _secret_faults(document, secrets)
    if found is None or faults:
        raise ChannelFileError(faults)
    return found


def _channels(file: ChannelsFile, resolve: Secrets) -> list[Channel]:
    if all(spec.kind == "log" for spec in file.channels):
        return [Channel(spec, LogSender()) for spec in file.channels]
    from mandate.activities.channels.http_post import HttpPost

    post = HttpPost()
    return [Channel(spec, _sender(spec, resolve, post)) for spec in file.channels]


def _sender(spec: ChannelSpec, resolve: Secrets, post: "HttpPost") -> Sender:
    match spec:
        case LogChannel():
            return LogSender()
        case WebhookChannel():
            from mandate.activities.channels.webhook import WebhookSender

            return WebhookSender(post, resolve, url=spec.url, secret=spec.secret)
        case SlackChannel():
            from mandate.activities.channels.slack import SlackSender

            return SlackSender(post, resolve, url=spec.url)


def _spec(document: Document) -> tuple[ChannelsFile | None, list[Fault]]:
    """What the document says, or all that is wrong with it."""
    faults = list(document.faults)
    if document.value is None and faults:
        return None, faults
    if not isinstance(document.value, dict):
        return None, [*faults, document.fault((), "a file of channels is a mapping, beginning with 'channels:'")]
    try:
        # Strict, and as JSON: a list is a tuple here, but the text 'no' is no boolean.
        found = ChannelsFile.model_validate_json(to_json(document.value), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        places = [_place(detail["loc"]) for detail in details]
        for detail, place in zip(details, places, strict=True):
            deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
            if detail["type"] == "too_short" and deeper:
                continue
            value = "" if _is_confidential(place) else shown(detail)
            faults.append(document.fault(place, _says(detail, place), value))
        return None, faults
    return (None if faults else found), faults


def _secret_faults(document: Document, secrets: Secrets) -> list[Fault]:
    """Secrets that are missing, and addresses that they do not make."""
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
        fault = address_fault(secrets(text)) if key == "url" and SECRET_START in text else None
    except ValueError:
        # Misspelt, which the contract says.
        return None
    return f"with its secrets in place, it {fault}" if fault else None


def _place(loc: tuple[str | int, ...]) -> Place:
    """Where in the file; pydantic puts the kind of a channel after its position, which is no key of the file."""
    return loc[:2] + loc[3:] if loc[:1] == ("channels",) and len(loc) > 2 and loc[2] in CHANNEL_KINDS else loc


def _says(detail: ErrorDetails, place: Place) -> str:
    """What is wrong and what is allowed, in one sentence that goes on after the key."""
    model = _model(detail["loc"])
    match detail["type"]:
        case "union_tag_not_found":
            return f"has no key 'kind'; it is one of {', '.join(CHANNEL_KINDS)}"
        case "union_tag_invalid":
            return f"'kind' is not one of {', '.join(CHANNEL_KINDS)}: {detail.get('ctx', {}).get('tag')!r}"
        case "missing" if model is not None:
            return f"is missing: {model.model_fields[str(place[-1])].description}"
        case "extra_forbidden" if model is not None:
            close = get_close_matches(str(place[-1]), list(model.model_fields), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ";"
            return f"is not a key that is known here{hint} allowed are {', '.join(sorted(model.model_fields))}"
    if _is_confidential(place):
        return says({**detail, "loc": ("headers",)})
    return says(detail)


def _model(loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that the key at the end of `loc` is, or would be, a field of."""
    if len(loc) == 1:
        return ChannelsFile
    return _MODELS.get(str(loc[2])) if len(loc) == 4 else None


def _is_confidential(place: Place) -> bool:
    return any(part in _CONFIDENTIAL for part in place)
