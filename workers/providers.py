"""Which providers a worker has, each imported only when it is made."""

from collections.abc import Mapping

from activities.providers.base import MakeProvider, Provider
from workers.settings import ProviderSettings, Settings


class MissingKey(Exception):
    """A configured model needs a key that this worker does not have."""


def makers(settings: Settings) -> Mapping[str, MakeProvider]:
    """By provider name; making one imports its SDK.

    Raises (from a maker):
        MissingKey: names the variable that is not set.
    """

    async def openai() -> Provider:
        from activities.providers.openai_responses import OpenAiResponses

        its = settings.providers["openai"]
        return OpenAiResponses(api_key=_key(its, "openai", "OPENAI_API_KEY"), base_url=its.base_url)

    async def vllm() -> Provider:
        from activities.providers.openai_chat import OpenAiChat

        its = settings.providers["vllm"]
        if its.base_url is None:
            raise MissingKey("models named 'vllm:...' need VLLM_BASE_URL, for example http://localhost:8000/v1")
        return OpenAiChat(api_key=its.api_key or "none", base_url=its.base_url)

    async def anthropic() -> Provider:
        from activities.providers.anthropic import AnthropicMessages

        its = settings.providers["anthropic"]
        return AnthropicMessages(api_key=_key(its, "anthropic", "ANTHROPIC_API_KEY"), base_url=its.base_url)

    async def scripted() -> Provider:
        from activities.providers.scripted import ScriptedProvider

        return ScriptedProvider([settings.agents])

    return {"openai": openai, "vllm": vllm, "anthropic": anthropic, "scripted": scripted}


def _key(its: ProviderSettings, provider: str, variable: str) -> str:
    if not its.api_key:
        raise MissingKey(f"models named '{provider}:...' need the environment variable {variable}")
    return its.api_key
