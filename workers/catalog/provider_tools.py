"""Tools of an agent as the vendors of its models take them: what is rewritten for whom, and what none of them takes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mandate.activities.providers.schema_root import UntellableSchema
from mandate.activities.providers.tool_schemas import offer
from mandate.activities.providers.vendor_rules import RULES, find_count_fault
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import Protocol


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Changes of one tool that some providers need."""

    tool: str
    providers: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason why a provider would refuse each request of an agent."""

    model: int
    """Position of the first model of that provider."""
    tool: str | None
    """The tool for which it would; `None` for all of them together."""
    why: str


FindProtocol = Callable[[str], Protocol | None]
"""The protocol in which models of a provider are asked; `None` for scripts."""


def list_providers(models: Sequence[str], find_protocol: FindProtocol) -> dict[str, tuple[int, Protocol]]:
    """Return the providers of a route that have rules for tools: the position of the first model, and the protocol."""
    first: dict[str, tuple[int, Protocol]] = {}
    for position, model in enumerate(models):
        provider = model.partition(":")[0]
        protocol = find_protocol(provider)
        if protocol is not None:
            first.setdefault(provider, (position, protocol))
    return first


def find_refusals(
    models: Sequence[str], tools: Sequence[ToolDefinition], find_protocol: FindProtocol
) -> Iterator[Refusal]:
    """Yield what the providers of `models` take in no form."""
    providers = list_providers(models, find_protocol)
    for provider, (position, protocol) in providers.items():
        why = find_count_fault(provider, protocol, len(tools))
        if why is not None:
            yield Refusal(position, None, f"{why}; choose tools with 'only', or models of another provider")
    for definition in tools:
        refused: dict[str, list[str]] = {}
        for provider, (_, protocol) in providers.items():
            try:
                offer(definition, RULES[protocol])
            except UntellableSchema as error:
                refused.setdefault(str(error), []).append(provider)
        for why, by in refused.items():
            name = definition.tool.name
            yield Refusal(
                providers[by[0]][0], name, f"{name}: {why}; {', '.join(by)} would refuse each request with it"
            )


def list_rewritings(agent: PinnedAgent, find_protocol: FindProtocol) -> list[Rewriting]:
    """Return what of the agent's tools is sent in another form, by tool; providers with the same changes are one."""
    found: list[Rewriting] = []
    for definition in agent.tools:
        by_changes: dict[tuple[str, ...], list[str]] = {}
        for provider, (_, protocol) in list_providers(agent.models, find_protocol).items():
            changes = offer(definition, RULES[protocol]).changes
            by_changes.setdefault(changes, []).append(provider)
        found += [
            Rewriting(definition.tool.name, tuple(providers), changes)
            for changes, providers in by_changes.items()
            if changes
        ]
    return found
