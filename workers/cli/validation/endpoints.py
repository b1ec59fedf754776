"""The file of providers in words and JSON for `mandate validate`."""

from rich.text import Text

from mandate.workers.catalog.endpoints import Endpoints
from mandate.workers.cli.output import Output, print_table
from mandate.workflows.contracts.endpoints import Endpoint
from mandate.workflows.contracts.templates import find_secrets


def print_endpoints(out: Output, endpoints: Endpoints) -> None:
    """Print the endpoints as a table; nothing where there are none."""
    if not endpoints.by_name:
        return
    out.print(Text.assemble(("endpoints", "bold"), f" {endpoints.path}"))
    rows = [
        (name, endpoint.protocol, endpoint.base_url, ", ".join(_secrets(endpoint)) or "no secret")
        for name, endpoint in endpoints.by_name.items()
    ]
    print_table(out, rows, ("endpoint", "protocol", "address", "sends"), indent=2)


def endpoint_json(name: str, endpoint: Endpoint) -> dict[str, object]:
    """Return one endpoint, for `-o json`."""
    return {
        "name": name,
        "protocol": endpoint.protocol,
        "base_url": endpoint.base_url,
        "secrets": _secrets(endpoint),
        "headers": list(endpoint.headers),
        "query": dict(endpoint.query),
        "prices_as": endpoint.prices_as,
    }


def _secrets(endpoint: Endpoint) -> list[str]:
    return list(dict.fromkeys(name for text in endpoint.confidential for name in find_secrets(text)))
