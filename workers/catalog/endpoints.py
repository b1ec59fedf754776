"""The file of providers: read, checked, and what it lacks in this process."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mandate.activities.documents import Document, Fault, in_order
from mandate.activities.files import FileError, read_spec
from mandate.activities.providers.prices import LISTED
from mandate.activities.providers.vendor_rules import PROTOCOLS
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.endpoints import Endpoint, ProvidersFile
from mandate.workflows.contracts.faults import Place, did_you_mean
from mandate.workflows.contracts.route import PROVIDERS
from mandate.workflows.contracts.transcript import Protocol


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Endpoints of this process, and the file that they are from."""

    by_name: Mapping[str, Endpoint] = field(default_factory=dict)
    document: Document | None = None
    path: Path = Path("deploy/providers.yaml")
    """Where the file is, or would be looked for."""
    is_broken: bool = False
    """The file has faults, so that nobody knows what it was to name."""

    def find_protocol(self, provider: str) -> Protocol | None:
        """Return the protocol in which models of a provider are asked; `None` for scripts and unknown names."""
        endpoint = self.by_name.get(provider)
        return endpoint.protocol if endpoint is not None else PROTOCOLS.get(provider)

    def find_prices(self, provider: str) -> str | None:
        """Return the provider whose list prices hold for models of `provider`; `None` where none do."""
        endpoint = self.by_name.get(provider)
        return endpoint.prices_as if endpoint is not None else provider if provider in LISTED else None

    def is_known(self, provider: str) -> bool:
        return provider in PROVIDERS or provider in self.by_name

    def find_unknown(self, model: str) -> str | None:
        """Return why no request can be sent to a model, in a sentence that names what there is; `None` when it can."""
        provider = model.partition(":")[0]
        if self.is_known(provider) or self.is_broken:
            return None
        known = (*PROVIDERS, *self.by_name)
        hint = did_you_mean(provider, known)
        return (
            f"{model!r}: there is no provider {provider!r} here{hint} there are {', '.join(known)}; to add one, name "
            f"it under 'endpoints' in {self.path}, with 'protocol', 'base_url' and 'key'"
        )

    def list_lacks(self, secrets: Secrets, used: Iterable[str]) -> tuple[Fault, ...]:
        """Return the secrets that endpoints lack, but for endpoints in `used`: their models are told of it."""
        if self.document is None:
            return ()
        skipped = frozenset(used)
        return in_order(
            [
                self.document.fault(place, why)
                for name, endpoint in self.by_name.items()
                if name not in skipped
                for place, why in _find_lacks(name, endpoint, secrets)
            ]
        )


def _find_lacks(name: str, endpoint: Endpoint, secrets: Secrets) -> Iterator[tuple[Place, str]]:
    texts: list[tuple[Place, str]] = [(("key",), endpoint.key)] if endpoint.key is not None else []
    texts += [(("headers", header), text) for header, text in endpoint.headers.items()]
    for place, text in texts:
        for missing in secrets.missing([text]):
            yield ("endpoints", name, *place), secrets.explain(missing)


def endpoints_path(settings: Settings) -> Path | None:
    """Return the file of providers, or `None` when there is none and none was named."""
    return settings.endpoints or (settings.default_endpoints if settings.default_endpoints.exists() else None)


def read_endpoints(settings: Settings) -> Endpoints:
    """Read the file of providers; without one there are none.

    Raises:
        FileError: all faults of the file.
    """
    path = endpoints_path(settings)
    if path is None:
        return Endpoints(path=settings.default_endpoints)
    if not path.is_file():
        message = "is not a file; MANDATE_PROVIDERS or mandate.yaml names the file of providers"
        raise FileError([Fault(str(path), 0, 0, "", "", message)])
    spec, document = read_spec(path, ProvidersFile)
    if faults := list(_find_price_faults(spec, document)):
        raise FileError(faults)
    return Endpoints(spec.endpoints, document, path)


def try_endpoints(settings: Settings) -> tuple[Endpoints, tuple[Fault, ...]]:
    """Return the endpoints, or the faults of their file: then any name of a provider may be one of theirs."""
    try:
        return read_endpoints(settings), ()
    except FileError as error:
        return Endpoints(is_broken=True), error.faults


def _find_price_faults(spec: ProvidersFile, document: Document) -> Iterator[Fault]:
    """Yield providers without list prices whose prices are to hold."""
    named = {name: endpoint.prices_as for name, endpoint in spec.endpoints.items() if endpoint.prices_as is not None}
    if not named:
        return
    # Here: half a second, only for prices.
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - only for prices

    known = sorted(provider.id for provider in get_snapshot().providers)
    for name, prices_as in named.items():
        if prices_as not in known:
            hint = did_you_mean(prices_as, known)
            why = f"{prices_as!r} is not a provider of genai-prices{hint} it has {', '.join(known)}"
            yield document.fault(("endpoints", name, "prices_as"), why, repr(prices_as))


def providers_schema() -> JsonObject:
    """Return the JSON Schema of files of providers, for editors."""
    return ProvidersFile.model_json_schema()
