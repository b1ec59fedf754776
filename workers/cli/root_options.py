"""Options that stand before the verb; with little to import, since they are read before the verb is known."""

from dataclasses import dataclass
from typing import Literal

OutputFormat = Literal["text", "json"]
Color = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class RootOptions:
    """Options before the verb: Temporal's own, which its CLI moves there."""

    output: OutputFormat = "text"
    profile: str | None = None
    config_file: str | None = None
    disable_config_file: bool = False
    disable_config_env: bool = False
    log_level: str | None = None
    log_format: str | None = None
    color: Color = "auto"
    time_format: str = "relative"
    command_timeout: str | None = None
    connect_timeout: str | None = None
    program: str = "mandate"
    """How the user calls us."""
