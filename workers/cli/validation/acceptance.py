"""`mandate validate --accept`: what MCP servers say of their tools, shown and then accepted in the agent files."""

import contextlib
from pathlib import Path

from rich.text import Text

from mandate.workers.catalog import mcp_acceptance
from mandate.workers.catalog.agents import scan_agents
from mandate.workers.catalog.mcp_acceptance import Offer, Words
from mandate.workers.catalog.tools import McpDefinitions, definitions, secret_texts
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.output import Output
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.tool_entry import McpTools, ToolEntry


async def accept_words(out: Output, sources: list[Path], mcp: McpDefinitions, secrets: Secrets) -> list[Offer]:
    """Ask the servers of all valid agent files, write the digests of what they say, and show it.

    What is wrong with a file or a server is told by the checks that come after it.

    Raises:
        CliError: a file cannot be written, or has a form that cannot be edited.
    """
    found = []
    for source in sources:
        for file in scan_agents(source).files:
            found += await _offers(file.path, file.spec.tools, mcp, secrets)
    for offer in found:
        if offer.before == offer.words.digest:
            continue
        _show(out, offer)
        try:
            mcp_acceptance.accept(offer)
        except (OSError, ValueError) as error:
            raise CliError(str(error)) from None
    return found


def offer_json(offer: Offer) -> dict[str, object]:
    """Return one server, for `-o json`."""
    return {
        "path": str(offer.path),
        "server": offer.server,
        "accepted": offer.words.digest,
        "before": offer.before,
        "tools": offer.words.tools,
    }


async def _offers(path: Path, entries: tuple[ToolEntry, ...], mcp: McpDefinitions, secrets: Secrets) -> list[Offer]:
    found = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, McpTools) or secrets.missing([text for _, text in secret_texts(entry)]):
            continue
        with contextlib.suppress(ValueError):
            found.append(Offer(path, index, entry.mcp.name, entry.accepted, Words.of(await definitions(entry, mcp))))
    return found


def _show(out: Output, offer: Offer) -> None:
    before = mcp_acceptance.load(offer.path.parent, offer.before) if offer.before is not None else None
    what = mcp_acceptance.differences(before, offer.words) if before is not None else ()
    out.print(Text(f"{offer.path}: accepted what MCP server {offer.server!r} says of its tools", style="bold"))
    out.print(*(f"  {line}" for line in (*what, *mcp_acceptance.whole(before, offer.words))))
    out.print(f"  accepted: {offer.words.digest}", "")
