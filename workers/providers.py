"""Providers of a worker, each imported only when it is made."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from mandate.activities.own_files import OwnFiles
from mandate.activities.providers.base import MakeProvider, Provider
from mandate.activities.providers.service import Headers, Service, Unauthenticated
from mandate.workers.secrets import Secrets
from mandate.workers.settings import ProviderSettings, Settings
from mandate.workflows.contracts.endpoints import Endpoint, EndpointProtocol, MaxTokensField
from mandate.workflows.contracts.templates import SECRET

_SENDABLE = re.compile(r"[\t\x20-\x7e]*")


class MissingKey(Exception):
    """A configured model needs a key that this worker does not have."""


def makers(
    settings: Settings, own: OwnFiles, endpoints: Mapping[str, Endpoint] | None = None
) -> Mapping[str, MakeProvider]:
    """Return a maker by provider name; its SDK is imported when it runs. Scripts must be in the worker's `own` files.

    `endpoints` are those of the file of providers.

    Raises (from a maker):
        MissingKey: names the variable that is not set.
    """

    async def openai() -> Provider:
        its = _demand(settings, "openai")
        return _make("openai.responses", Service("openai", its.base_url, its.api_key or "", prices_as="openai"))

    async def vllm() -> Provider:
        its = _demand(settings, "vllm")
        return _make("openai.chat", Service("vllm", its.base_url, its.api_key or "none"))

    async def anthropic() -> Provider:
        its = _demand(settings, "anthropic")
        return _make("anthropic.messages", Service("anthropic", its.base_url, its.api_key or "", prices_as="anthropic"))

    async def scripted() -> Provider:
        from mandate.activities.own_scripts import OwnScripts  # noqa: PLC0415 - only for scripts
        from mandate.activities.providers.scripted.provider import ScriptedProvider  # noqa: PLC0415 - only for scripts

        return OwnScripts(ScriptedProvider([script_folder(settings)]), own)

    secrets = Secrets(settings.environment, settings.secrets)
    named = {name: _maker(name, endpoint, secrets) for name, endpoint in (endpoints or {}).items()}
    return {**named, "openai": openai, "vllm": vllm, "anthropic": anthropic, "scripted": scripted}


def _maker(name: str, endpoint: Endpoint, secrets: Secrets) -> MakeProvider:
    async def make() -> Provider:
        service = Service(
            name,
            endpoint.base_url,
            query=endpoint.query,
            read_headers=lambda: read_headers(endpoint, secrets),
            prices_as=endpoint.prices_as,
        )
        return _make(endpoint.protocol, service, max_tokens_field=endpoint.max_tokens_field)

    return make


def _make(protocol: EndpointProtocol, service: Service, *, max_tokens_field: MaxTokensField | None = None) -> Provider:
    match protocol:
        case "openai.responses":
            from mandate.activities.providers.openai_responses import OpenAiResponses  # noqa: PLC0415 - only for its protocol

            return OpenAiResponses(service=service)
        case "openai.chat":
            from mandate.activities.providers.openai_chat import OpenAiChat  # noqa: PLC0415 - only for its protocol

            return OpenAiChat(service=service, max_tokens_field=max_tokens_field or "max_completion_tokens")
        case "anthropic.messages":
            from mandate.activities.providers.anthropic import AnthropicMessages  # noqa: PLC0415 - only for its protocol

            return AnthropicMessages(service=service)
        case _:
            assert_never(protocol)


def read_headers(endpoint: Endpoint, secrets: Secrets) -> Headers:
    """Return the headers of one request to an endpoint, its secrets in place.

    Raises:
        Unauthenticated: a secret is missing, or holds what no header takes.
    """
    texts = {**({"Authorization": f"Bearer {endpoint.key}"} if endpoint.key is not None else {}), **endpoint.headers}
    values, used = dict[str, str](), list[str]()
    for name, text in texts.items():
        try:
            values[name] = secrets(text)
        except LookupError as error:
            raise Unauthenticated(str(error.args[0])) from None
        if not _SENDABLE.fullmatch(values[name]):
            named = ", ".join(map(repr, SECRET.findall(text)))
            raise Unauthenticated(f"secret {named} holds a character that no header takes, for example a line break")
        used += [secrets(f"${{secret:{secret}}}") for secret in SECRET.findall(text)]
    return Headers(values, tuple(used))


def script_folder(settings: Settings) -> Path:
    """Return the folder where scripts are looked for after the working directory: beside the agents."""
    return settings.agents.parent if settings.agents.is_file() else settings.agents


def lacking(settings: Settings, provider: str, endpoints: Mapping[str, Endpoint] | None = None) -> str | None:
    """Name what models of `provider` need and this process lacks; `None` when it has all."""
    if (endpoint := (endpoints or {}).get(provider)) is not None:
        try:
            read_headers(endpoint, Secrets(settings.environment, settings.secrets))
        except Unauthenticated as error:
            return f"models named '{provider}:...' cannot be asked: {error}"
        return None
    key = settings.providers[provider].api_key if provider in settings.providers else None
    if key and not _SENDABLE.fullmatch(key):
        return f"{provider.upper()}_API_KEY holds a character that no header takes, for example a line break"
    match provider:
        case "openai" | "anthropic" if not key:
            return f"models named '{provider}:...' need the environment variable {provider.upper()}_API_KEY"
        case "vllm" if settings.providers[provider].base_url is None:
            return "models named 'vllm:...' need VLLM_BASE_URL, for example http://localhost:8000/v1"
    return None


def _demand(settings: Settings, provider: str) -> ProviderSettings:
    if (why := lacking(settings, provider)) is not None:
        raise MissingKey(why)
    return settings.providers[provider]
