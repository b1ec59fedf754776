"""The file of providers: read, checked, and what it lacks in this process."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mandate.activities.documents import Document, Fault, in_order
from mandate.activities.files import FileError, read_spec
from mandate.activities.providers.vendor_rules import PROTOCOLS
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
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

    def find_protocol(self, provider: str) -> Protocol | None:
        """Return the protocol in which models of a provider are asked; `None` for scripts and unknown names."""
        endpoint = self.by_name.get(provider)
        return endpoint.protocol if endpoint is not None else PROTOCOLS.get(provider)

    def find_unknown(self, model: str) -> str | None:
        """Return why no request can be sent to a model, in a sentence that names what there is; `None` when it can."""
        provider = model.partition(":")[0]
        known = (*PROVIDERS, *self.by_name)
        if provider in known:
            return None
        hint = did_you_mean(provider, known).removesuffix(";")
        return (
            f"{model!r}: there is no provider {provider!r} here{hint}; there are {', '.join(known)}; to add one, name "
            f"it under 'endpoints' in {self.path}, with 'protocol', 'base_url' and 'key'"
        )

    def list_lacks(self, secrets: Secrets, used: Iterable[str]) -> tuple[Fault, ...]:
        """Return the endpoints without one of their secrets, but for those in `used`, of which the models are told."""
        if self.document is None:
            return ()
        skipped = frozenset(used)
        return in_order(
            [
                self.document.fault(place, f"{why}; no agent here uses this endpoint")
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
    return Endpoints(spec.endpoints, document, path)
