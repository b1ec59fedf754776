"""Readiness of this process: all that the agents of a catalog need beside their tools."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mandate.activities.documents import Fault, in_order
from mandate.activities.files import FileError
from mandate.workers import providers
from mandate.workers.catalog.catalog import Catalog, Loaded
from mandate.workers.settings import Settings
from mandate.workflows.contracts.faults import Place

if TYPE_CHECKING:
    from mandate.activities.toolbox.http.hosts import AllowedHosts


def script_faults(catalog: Catalog, settings: Settings) -> tuple[Fault, ...]:
    """Return the faults of the scripts that play models: one that is not there, or all of one that is."""
    found: list[Fault] = []
    for loaded, place, model in _models(catalog):
        provider, _, name = model.partition(":")
        if provider != "scripted":
            continue
        folders = (Path(), providers.script_folder(settings))
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            looked = " and ".join(dict.fromkeys(repr(str(folder.absolute())) for folder in folders))
            found.append(loaded.document.fault(place, f"there is no script {name!r}; it was looked for in {looked}"))
            continue
        # Only workers whose agents play scripts pay for the import.
        from mandate.activities.providers.scripted.script import load_script  # noqa: PLC0415 - only agents with scripts need it

        try:
            load_script(path)
        except FileError as error:
            found.extend(error.faults)
    return in_order(found)


def missing_keys(catalog: Catalog, settings: Settings) -> tuple[Fault, ...]:
    """Return the models whose providers this environment says too little about."""
    endpoints = catalog.endpoints.by_name
    lacking = {provider: providers.lacking(settings, provider, endpoints) for provider in catalog.providers()}
    return in_order(
        [
            loaded.document.fault(place, f"agent {loaded.pinned.name!r}, model {model!r}: {why}")
            for loaded, place, model in _models(catalog)
            if (why := lacking[model.partition(":")[0]]) is not None
        ]
    )


async def closed_hosts(catalog: Catalog, settings: Settings) -> tuple[Fault, ...]:
    """Return the HTTP tools whose every call would be refused, since no setting allows their host.

    Raises:
        ValueError: an allowed host is none.
    """
    urls = [
        (loaded, made.tool.name, made.binding.url)
        for loaded in catalog.members
        for made in loaded.pinned.tools
        if made.binding.kind == "http"
    ]
    if not urls:
        return ()
    from mandate.activities.toolbox.http.hosts import AllowedHosts  # noqa: PLC0415 - HTTP only for HTTP tools

    allowed = AllowedHosts(settings.http_hosts, _look_up_nothing)
    return tuple(
        [
            Fault(loaded.document.file, 0, 0, "", "", f"tool {tool!r}: {why}")
            for loaded, tool, url in urls
            if (why := await _refusal(allowed, url)) is not None
        ]
    )


async def _look_up_nothing(*_: object) -> Sequence[str]:
    return ()


async def _refusal(allowed: "AllowedHosts", url: str) -> str | None:
    import httpx2  # noqa: PLC0415 - HTTP only for HTTP tools

    from mandate.activities.toolbox.http.hosts import HostRefused  # noqa: PLC0415 - HTTP only for HTTP tools

    try:
        await allowed.addresses(httpx2.URL(url))
    except HostRefused as refused:
        return f"every call is refused: {refused}"
    return None


def _models(catalog: Catalog) -> Iterator[tuple[Loaded, Place, str]]:
    for loaded in catalog.members:
        for place, model in loaded.models():
            yield loaded, place, model
