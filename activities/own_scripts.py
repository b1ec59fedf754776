"""Limits of one worker to the scripted models that its own files name."""

from pathlib import PurePath

from mandate.activities.failures import make_model_failure
from mandate.activities.own_files import PATIENCE, OwnFiles
from mandate.activities.providers.base import Completion, Prompt, Provider


class OwnScripts:
    """The provider of scripted models: plays scripts that own files name, and others in this worker's own folders."""

    def __init__(self, provider: Provider, own: OwnFiles) -> None:
        self._provider = provider
        self._own = own

    async def complete(self, prompt: Prompt) -> Completion:
        path = PurePath(prompt.model)
        if prompt.model not in self._own.scripts and (path.is_absolute() or ".." in path.parts):
            reason = f"the files of this worker do not name the script {prompt.model!r}"
            raise make_model_failure("script", reason, attempt=prompt.attempt, retryable=True, retry_after=PATIENCE)
        return await self._provider.complete(prompt)

    async def close(self) -> None:
        await self._provider.close()
