"""What a process is told by its environment; nothing else reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mandate.workflows.contracts import queues


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """How to reach one model provider; `None` leaves it to the provider's SDK."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between two installations."""

    folder: Path
    """`MANDATE_FOLDER`: where the embedded server and the default store keep their files; `.mandate`."""
    agents: Path
    """`MANDATE_AGENTS`: the folder of agent files; `deploy/agents`."""
    store: str
    """`MANDATE_STORE`: `sqlite:///file` or `postgresql://...`; `store.db` in `folder`."""
    secrets: Path | None
    """`MANDATE_SECRETS`: a folder with one file a secret, read when the environment has no such variable."""
    http_hosts: tuple[str, ...]
    """`MANDATE_HTTP_HOSTS`: hosts that HTTP tools may call, separated by commas."""
    task_queue: str
    """`MANDATE_TASK_QUEUE`: where workers poll and runs are started; `agents`."""
    temporal_address: str | None
    """`TEMPORAL_ADDRESS`: set, no embedded server is started."""
    temporal_profile: str | None
    providers: Mapping[str, ProviderSettings]
    environment: Mapping[str, str] = field(repr=False)
    """Where secrets are looked up first."""
    policies: Path | None = None
    """`MANDATE_POLICIES`: the folder of shared policies; left out, `policies` beside the folder of agent files."""
    channels: Path | None = None
    """`MANDATE_CHANNELS`: the file of channels; left out, `deploy/channels.yaml` if it exists, else the log alone."""
    people: Path | None = None
    """`MANDATE_PEOPLE`: the file of people; left out, `deploy/people.yaml` if it exists, else nobody is known."""
    jwks: Path | None = None
    """`MANDATE_JWKS`: the public keys that sign decisions and starts, as a JSON Web Key Set."""
    token_issuer: str | None = None
    """`MANDATE_TOKEN_ISSUER`: who they must be from; wanted with `MANDATE_JWKS`."""
    token_audience: str = "mandate"  # noqa: S105 - a name, not a password
    """`MANDATE_TOKEN_AUDIENCE`: whom they must be for; `mandate`."""
    user: str | None = None
    """`MANDATE_USER`: who asks and decides on the command line; left out, git's `user.email`, else the login name and
    host."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        env = os.environ if environment is None else environment
        folder = Path(env.get("MANDATE_FOLDER") or ".mandate")
        hosts = env.get("MANDATE_HTTP_HOSTS", "")
        return cls(
            folder=folder,
            agents=Path(env.get("MANDATE_AGENTS") or "deploy/agents"),
            store=env.get("MANDATE_STORE") or f"sqlite:///{folder / 'store.db'}",
            secrets=Path(env["MANDATE_SECRETS"]) if env.get("MANDATE_SECRETS") else None,
            http_hosts=tuple(host.strip() for host in hosts.split(",") if host.strip()),
            task_queue=env.get("MANDATE_TASK_QUEUE") or queues.AGENTS,
            temporal_address=env.get("TEMPORAL_ADDRESS") or None,
            temporal_profile=env.get("TEMPORAL_PROFILE") or None,
            providers={
                "openai": ProviderSettings(env.get("OPENAI_API_KEY"), env.get("OPENAI_BASE_URL") or None),
                "anthropic": ProviderSettings(env.get("ANTHROPIC_API_KEY"), env.get("ANTHROPIC_BASE_URL") or None),
                "vllm": ProviderSettings(env.get("VLLM_API_KEY"), env.get("VLLM_BASE_URL") or None),
            },
            environment=env,
            policies=Path(env["MANDATE_POLICIES"]) if env.get("MANDATE_POLICIES") else None,
            channels=Path(env["MANDATE_CHANNELS"]) if env.get("MANDATE_CHANNELS") else None,
            people=Path(env["MANDATE_PEOPLE"]) if env.get("MANDATE_PEOPLE") else None,
            jwks=Path(env["MANDATE_JWKS"]) if env.get("MANDATE_JWKS") else None,
            token_issuer=env.get("MANDATE_TOKEN_ISSUER") or None,
            token_audience=env.get("MANDATE_TOKEN_AUDIENCE") or "mandate",
            user=env.get("MANDATE_USER") or None,
        )


def is_debugging() -> bool:
    """`MANDATE_DEBUG`: whether errors of commands are shown with their tracebacks."""
    return bool(os.environ.get("MANDATE_DEBUG"))
