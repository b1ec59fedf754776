"""Questions that the MCP server of a tool asks while a call is made, and what people answer."""

from typing import Literal

from mandate.workflows.contracts.base import Digest, JsonObject, Record

QUESTIONS_PER_ROUND = 10
ROUNDS = 10
"""Number of times that one call may ask."""

Action = Literal["accept", "decline", "cancel"]
"""The form is filled in, or the page was visited | people do not want it | nobody chose."""


class Dialogue(Record):
    """Questions that the server of a tool has asked in one call so far, and what people answered."""

    state: str | None = None
    """The server's own note of the call, which it gets back as it is."""
    requests: dict[str, JsonObject] = {}
    """Its questions of the last round in its own words, by their names there."""
    responses: dict[str, JsonObject] = {}
    """Answers to them, by the same names."""
    remembered: tuple[tuple[JsonObject, JsonObject], ...] = ()
    """Questions of all rounds before, and their answers."""
    round: int = 0


class ServerQuestion(Record):
    """One question, as people are shown it; the server's own words are in the store."""

    key: str
    """Its name in the server's request."""
    text: str
    """The message and the form's fields, or the address of the page, up to 4,000 characters."""
    form: Digest | None = None
    """Address of the JSON Schema that the answer must fit; `None` for a page to visit."""


class ServerQuestions(Record):
    """All that a server must know before it goes on with a call."""

    server: str
    state: Digest
    """Address of the dialogue so far, which the server and the answers are taken from when the call goes on."""
    round: int
    """Number of times that people have been asked for this call, this one included."""
    questions: tuple[ServerQuestion, ...]
    is_not_done: bool
    """The call has changed nothing yet, or may be made again whatever it has changed."""


class GivenAnswer(Record):
    """Answer to one question: `content`, by reference, goes with `accept` of a form."""

    key: str
    action: Action
    content: Digest | None = None


class AnsweredQuestions(Record):
    """Answers with which a call is made again; all of one round together."""

    state: Digest
    given: tuple[GivenAnswer, ...]
    round: int


class OpenQuestions(Record):
    """Questions of one open call, as the run keeps them."""

    asked: ServerQuestions
    requests: tuple[str, ...]
    """Ids of the requests to people, one for each question."""
    given: tuple[GivenAnswer, ...] = ()
    is_sent: bool = False
    """The answers are on their way to the server, or were."""

    @property
    def is_answered(self) -> bool:
        return len(self.given) == len(self.asked.questions)

    @property
    def answers(self) -> AnsweredQuestions | None:
        """Return what the call is made with; `None` while people have not answered all."""
        if not self.is_answered:
            return None
        return AnsweredQuestions(state=self.asked.state, given=self.given, round=self.asked.round)
