"""Providers of a worker, each imported only when it is made."""

from collections.abc import Mapping
from pathlib import Path

from mandate.activities.own_files import OwnFiles
from mandate.activities.providers.base import MakeProvider, Provider
from mandate.workers.settings import ProviderSettings, Settings


class MissingKey(Exception):
    """A configured model needs a key that this worker does not have."""


def makers(settings: Settings, own: OwnFiles) -> Mapping[str, MakeProvider]:
    """Return a maker by provider name; its SDK is imported when it runs. Scripts must be in the worker's `own` files.

    Raises (from a maker):
        MissingKey: names the variable that is not set.
    """

    async def openai() -> Provider:
        from mandate.activities.providers.openai_responses import OpenAiResponses  # noqa: PLC0415 - only for its provider

        its = _demand(settings, "openai")
        return OpenAiResponses(api_key=its.api_key or "", base_url=its.base_url)

    async def vllm() -> Provider:
        from mandate.activities.providers.openai_chat import OpenAiChat  # noqa: PLC0415 - only for its provider

        its = _demand(settings, "vllm")
        return OpenAiChat(api_key=its.api_key or "none", base_url=its.base_url or "")

    async def anthropic() -> Provider:
        from mandate.activities.providers.anthropic import AnthropicMessages  # noqa: PLC0415 - only for its provider

        its = _demand(settings, "anthropic")
        return AnthropicMessages(api_key=its.api_key or "", base_url=its.base_url)

    async def scripted() -> Provider:
        from mandate.activities.own_scripts import OwnScripts  # noqa: PLC0415 - only for scripts
        from mandate.activities.providers.scripted.provider import ScriptedProvider  # noqa: PLC0415 - only for scripts

        return OwnScripts(ScriptedProvider([script_folder(settings)]), own)

    return {"openai": openai, "vllm": vllm, "anthropic": anthropic, "scripted": scripted}


def script_folder(settings: Settings) -> Path:
    """Return the folder where scripts are looked for after the working directory: beside the agents."""
    return settings.agents.parent if settings.agents.is_file() else settings.agents


def lacking(settings: Settings, provider: str) -> str | None:
    """Name the variables that models of `provider` need and the environment lacks; `None` when it has all."""
    match provider:
        case "openai" | "anthropic" if not settings.providers[provider].api_key:
            return f"models named '{provider}:...' need the environment variable {provider.upper()}_API_KEY"
        case "vllm" if settings.providers[provider].base_url is None:
            return "models named 'vllm:...' need VLLM_BASE_URL, for example http://localhost:8000/v1"
    return None


def _demand(settings: Settings, provider: str) -> ProviderSettings:
    if (why := lacking(settings, provider)) is not None:
        raise MissingKey(why)
    return settings.providers[provider]
