"""Sessions: runs that wait for another message after each answer."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, field_validator

from mandate.workflows.contracts.base import Digest, Duration, Record, Spec
from mandate.workflows.contracts.request import WORDS_CHARACTERS, By, Message

MessageId = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
"""Id of a message, which its sender makes: 1 to 64 characters of ASCII without spaces."""

IDLE = timedelta(minutes=30)

IDS_KEPT = 500
"""Messages of a session whose ids are known: one that comes again is not told again."""

REPLIES_CHARACTERS = 64 * 1024
"""Of the texts of the last replies that a session keeps, for messages that come again."""

QUEUED = 100
QUEUED_BYTES = 32 * 1024
"""Most messages that wait for the model, and most that they take."""


class SessionRequest(Spec):
    """Key `session` of a start request: the run waits for more messages."""

    idle: Duration = Field(default=IDLE, description="How long it waits for the next message before it ends.")
    message: MessageId | None = Field(
        default=None, description="Id of the message that `input` is; one that comes again counts once."
    )


class Say(Message):
    """Message of a person to a session: the argument of `say`."""

    text: str = Field(min_length=1, description="The words, which the model is told as this person's.")
    by: By = Field(description="Who says it.")
    id: MessageId | None = Field(
        default=None, description="Made by the sender: a message that comes again with the same id counts once."
    )
    when: Literal["now", "next"] = Field(
        default="next",
        description="While the agent works: told at its next step, or once it has answered what came before.",
    )
    tainted: bool = Field(
        default=False, description="The words come from strangers: rules see `run.tainted` once the model is told them."
    )
    until: Literal["answer", "people"] = Field(
        default="people", description="The reply comes with the answer; or before it, when the run waits for people."
    )

    @field_validator("text")
    @classmethod
    def _is_short(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        if len(value) > WORDS_CHARACTERS:
            raise ValueError(f"has {len(value):,} characters; at most {WORDS_CHARACTERS:,} are told at once")
        return value


class SaidMessage(Record):
    """A message of a session that the model has not been told yet."""

    id: str
    by: str
    text: str
    tainted: bool = False
    """As of `Say`."""


ReplyStatus = Literal["completed", "exhausted", "declined", "stopped", "waiting"]


class Reply(Record):
    """Answer of the update `say`."""

    id: str
    """Of the message."""
    status: ReplyStatus
    """Of a run that ended so, with the answer; `waiting` while people are asked, and there is no answer yet."""
    text: str | None = None
    """The answer, or its beginning; `None` where there is none, or where it is too long ago."""
    output: JsonValue = None
    """The answer as an object, where the agent has an `output_schema`."""
    output_digest: Digest | None = None
    """Address of an answer over 16 KiB."""
    reason: str | None = None
    """The reason why it is not complete, in one sentence."""
    step: int
    waiting_for: tuple[str, ...] = ()
    """People and groups whom the run waits for."""


class SessionRecord(Record):
    """A session as it is kept in the store after each answer; a later run of the same workflow id goes on from it."""

    number: int
    """Answers of the session so far."""
    run_id: str | None = None
    """Of the part of the run that has kept it."""
    begun: tuple[str, ...] = ()
    """Ids of the runs that have begun to go on with it since, the newest last."""
    state: str | None = Field(default=None, repr=False)
    """The `RunState` as JSON; `None` before the first answer."""


class SessionKeep(Record):
    """Input of `keep_session`."""

    workflow_id: str
    record: SessionRecord


class SessionKept(Record):
    """Output of `keep_session`."""

    number: int = 0
    """Answers of the session as the store has it."""
