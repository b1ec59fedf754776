"""Settings of a process: its environment, which nothing else reads, and below it the file `mandate.yaml`."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mandate.workers.project import SettingsError, find_project
from mandate.workflows.contracts.run import TASK_QUEUE

SECRETS = ("TEMPORAL_API_KEY", "MANDATE_STORE", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "VLLM_API_KEY")
"""Settings that hold secrets: each may be a file of its name in the folder of secrets too."""

_TRUE = frozenset({"1", "true", "yes"})


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Address and key of one model provider; `None` leaves it to the provider's SDK."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """The servers of `mandate listen`, and how they are reached; the password is a secret, `MANDATE_KAFKA_PASSWORD`."""

    servers: str | None = None
    """`MANDATE_KAFKA_SERVERS`: `host:port`, several with commas."""
    tls: bool = False
    """`MANDATE_KAFKA_TLS`: `1` for TLS; the files below turn it on too."""
    ca: Path | None = None
    """`MANDATE_KAFKA_CA`: certificates of authorities; left out, those of the system."""
    certificate: Path | None = None
    """`MANDATE_KAFKA_CERTIFICATE`: our own, with `MANDATE_KAFKA_KEY`."""
    key: Path | None = None
    user: str | None = None
    """`MANDATE_KAFKA_USER`: sign in with SASL, under this name."""
    mechanism: str = "SCRAM-SHA-512"
    """`MANDATE_KAFKA_MECHANISM`: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "KafkaSettings":
        return cls(
            servers=env.get("MANDATE_KAFKA_SERVERS") or None,
            tls=env.get("MANDATE_KAFKA_TLS", "").lower() in _TRUE,
            ca=_named(env, "MANDATE_KAFKA_CA"),
            certificate=_named(env, "MANDATE_KAFKA_CERTIFICATE"),
            key=_named(env, "MANDATE_KAFKA_KEY"),
            user=env.get("MANDATE_KAFKA_USER") or None,
            mechanism=env.get("MANDATE_KAFKA_MECHANISM") or "SCRAM-SHA-512",
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between two installations.

    Each has an environment variable and, where it is no secret, a key of `mandate.yaml`; the variable wins. What stands
    here as a default in `deploy` or in the working folder is beside `mandate.yaml` where there is one.
    """

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
    plans: Path | None = None
    """`MANDATE_PLANS`: the folder of plans; left out, `plans` beside the folder of agent files."""
    channels: Path | None = None
    """`MANDATE_CHANNELS`: the file of channels; left out, `default_channels` if it exists, else the log alone."""
    people: Path | None = None
    """`MANDATE_PEOPLE`: the file of people; left out, `default_people` if it exists, else nobody is known."""
    budgets: Path | None = None
    """`MANDATE_BUDGETS`: the file of budgets; left out, `default_budgets` if it exists, else only runs have some."""
    endpoints: Path | None = None
    """`MANDATE_PROVIDERS`: the file of providers; left out, `default_endpoints` if it exists, else none."""
    triggers: Path | None = None
    """`MANDATE_TRIGGERS`: the file of triggers; left out, `default_triggers` if it exists, else no event is taken."""
    dead_letters: Path | None = None
    """`MANDATE_DEAD_LETTERS`: the folder of events that nothing can be done with; `dead-letters` in `folder`."""
    kafka: KafkaSettings = KafkaSettings()
    jwks: Path | None = None
    """`MANDATE_JWKS`: the public keys that sign decisions and starts, as a JSON Web Key Set."""
    token_issuer: str | None = None
    """`MANDATE_TOKEN_ISSUER`: who they must be from; wanted with `MANDATE_JWKS`."""
    token_audience: str = "mandate"  # noqa: S105 - a name, not a password
    """`MANDATE_TOKEN_AUDIENCE`: whom they must be for; `mandate`."""
    user: str | None = None
    """`MANDATE_USER`: who asks and decides on the command line; left out, git's `user.email`, else the login name and
    host."""
    requester: str | None = None
    """`MANDATE_REQUESTER`: in whose name `mandate run` asks; left out, as `user`."""
    allow_older: bool = False
    """`MANDATE_ALLOW_OLDER`: `1` lets workers serve files that are older than those of others of their queue."""
    health: str | None = None
    """`MANDATE_HEALTH`: address where a worker tells its health over HTTP, as `:8080`; left out, nowhere."""
    drain: str | None = None
    """`MANDATE_DRAIN`: time that a stopping worker lets calls finish; 30s."""
    project: Path | None = None
    """The folder of `mandate.yaml`, whose modules workers import too; `None` without such a file."""
    default_channels: Path = Path("deploy/channels.yaml")
    default_people: Path = Path("deploy/people.yaml")
    default_budgets: Path = Path("deploy/budgets.yaml")
    default_endpoints: Path = Path("deploy/providers.yaml")
    default_triggers: Path = Path("deploy/triggers.yaml")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment and, for what it leaves out, `mandate.yaml` of the working folder or the nearest above.

        Raises:
            SettingsError: all faults of `mandate.yaml`, or of secrets in files that cannot be read.
        """
        env = os.environ if environment is None else environment
        project = find_project()
        if project is not None:
            # A variable that is set to nothing is not set.
            env = {**project.variables, **{name: value for name, value in env.items() if value}}
        given = set(env)
        env = {**env, **_read_secrets(env)}
        place = Path("deploy") if project is None else project.folder
        folder = Path(env.get("MANDATE_FOLDER") or (place / ".mandate" if project else ".mandate"))
        hosts = env.get("MANDATE_HTTP_HOSTS", "")
        return cls(
            folder=folder,
            agents=Path(env.get("MANDATE_AGENTS") or place / "agents"),
            store=env.get("MANDATE_STORE") or f"sqlite:///{folder / 'store.db'}",
            secrets=_named(env, "MANDATE_SECRETS"),
            http_hosts=tuple(host.strip() for host in hosts.split(",") if host.strip()),
            task_queue=env.get("MANDATE_TASK_QUEUE") or TASK_QUEUE,
            temporal_address=env.get("TEMPORAL_ADDRESS") or None,
            temporal_profile=env.get("TEMPORAL_PROFILE") or None,
            providers={
                "openai": ProviderSettings(env.get("OPENAI_API_KEY"), env.get("OPENAI_BASE_URL") or None),
                "anthropic": ProviderSettings(env.get("ANTHROPIC_API_KEY"), env.get("ANTHROPIC_BASE_URL") or None),
                "vllm": ProviderSettings(env.get("VLLM_API_KEY"), env.get("VLLM_BASE_URL") or None),
            },
            # Other secrets of files are looked up there each time.
            environment={name: env[name] for name in env if name in given or name == "TEMPORAL_API_KEY"},
            policies=_named(env, "MANDATE_POLICIES") or (place / "policies" if project else None),
            plans=_named(env, "MANDATE_PLANS"),
            channels=_named(env, "MANDATE_CHANNELS"),
            people=_named(env, "MANDATE_PEOPLE"),
            budgets=_named(env, "MANDATE_BUDGETS"),
            endpoints=_named(env, "MANDATE_PROVIDERS"),
            triggers=_named(env, "MANDATE_TRIGGERS"),
            dead_letters=_named(env, "MANDATE_DEAD_LETTERS"),
            kafka=KafkaSettings.from_environment(env),
            jwks=_named(env, "MANDATE_JWKS"),
            token_issuer=env.get("MANDATE_TOKEN_ISSUER") or None,
            token_audience=env.get("MANDATE_TOKEN_AUDIENCE") or "mandate",
            user=env.get("MANDATE_USER") or None,
            requester=env.get("MANDATE_REQUESTER") or None,
            allow_older=env.get("MANDATE_ALLOW_OLDER", "").lower() in _TRUE,
            health=env.get("MANDATE_HEALTH") or None,
            drain=env.get("MANDATE_DRAIN") or None,
            project=project.folder if project else None,
            default_channels=place / "channels.yaml",
            default_people=place / "people.yaml",
            default_budgets=place / "budgets.yaml",
            default_endpoints=place / "providers.yaml",
            default_triggers=place / "triggers.yaml",
        )


def _read_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets that files hold and no variable."""
    folder = _named(environment, "MANDATE_SECRETS")
    wanted = [name for name in SECRETS if not environment.get(name)]
    if folder is None:
        return {}
    # Here: who has no such folder does not pay for the reader of texts.
    from mandate.activities.documents import Fault  # noqa: PLC0415 - only with a folder of secrets
    from mandate.activities.text_files import UnreadableText, read_text  # noqa: PLC0415 - as above

    found: dict[str, str] = {}
    faults: list[Fault] = []
    for path in (folder / name for name in wanted):
        try:
            value = read_text(path).rstrip("\r\n")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnreadableText) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            faults.append(Fault(str(path), 0, 0, "", "", f"the secret cannot be read: {why}"))
            continue
        if value:
            found[path.name] = value
    if faults:
        raise SettingsError(faults)
    return found


def find_plans(settings: Settings) -> Path:
    """Return the folder of plans: that of the settings, else `plans` beside that of the agents."""
    if settings.plans is not None:
        return settings.plans
    folder = settings.agents.parent if settings.agents.suffix in {".yaml", ".yml"} else settings.agents
    return (folder if folder.name not in {"", ".."} else folder.resolve()).parent / "plans"


def _named(environment: Mapping[str, str], variable: str) -> Path | None:
    """Return the path that a variable names; `None` where it names none."""
    return Path(environment[variable]) if environment.get(variable) else None


def find_set(variables: Iterable[str]) -> tuple[str, ...]:
    """Return those of `variables` that the environment sets, and that thus win over `mandate.yaml`."""
    return tuple(name for name in variables if os.environ.get(name))


def is_debugging() -> bool:
    """Tell by `MANDATE_DEBUG` whether errors of commands are shown with their tracebacks."""
    return bool(os.environ.get("MANDATE_DEBUG"))
