"""Questions that a server asks before it goes on with a call: read, checked, and answered from what people said."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from pydantic import JsonValue

from mandate.activities.toolbox.base import AskedQuestion
from mandate.activities.toolbox.forms import describe_form, read_form
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.question import QUESTIONS_PER_ROUND, Dialogue
from mandate.workflows.rules.plain_text import make_plain, shorten

TEXT_CHARACTERS = 4000
MESSAGE_CHARACTERS = 2000
_ELICIT = "elicitation/create"
_LACKING = {"sampling/createMessage": "an answer of a model", "roots/list": "the folders of its client"}


class CannotAsk(Exception):
    """Demand of a server that is not met here, in a sentence that goes on after its name."""

    def __init__(self, reason: str, *, is_lacking: bool = False) -> None:
        super().__init__(reason)
        self.is_lacking = is_lacking
        """It is a capability that this client never said it had."""


def read_requests(result: JsonObject) -> dict[str, JsonObject]:
    """Return the questions in a result, by their names there.

    Raises:
        CannotAsk: they are no questions for people, or too many.
    """
    listed = result.get("inputRequests") or {}
    if not isinstance(listed, dict) or not all(isinstance(request, dict) for request in listed.values()):
        raise CannotAsk("asks in a way that cannot be read")
    requests = {key: request for key, request in listed.items() if isinstance(request, dict)}
    for request in requests.values():
        method = request.get("method")
        if method != _ELICIT:
            wanted = _LACKING.get(method, repr(method)) if isinstance(method, str) else "something without a name"
            raise CannotAsk(f"asks for {wanted}, which Mandate does not give to servers", is_lacking=True)
    if len(requests) > QUESTIONS_PER_ROUND:
        raise CannotAsk(f"asks {len(requests)} questions at once; at most {QUESTIONS_PER_ROUND} are asked")
    return requests


def read_question(key: str, request: JsonObject, sensitive: Sequence[str]) -> AskedQuestion:
    """Return a question as people are asked it.

    Raises:
        CannotAsk: its form or its address cannot be used.
    """
    params = request.get("params")
    params = params if isinstance(params, dict) else {}
    message = params.get("message")
    said = shorten(message, MESSAGE_CHARACTERS) if isinstance(message, str) and message.strip() else "(without a word)"
    if params.get("mode", "form") == "url":
        return AskedQuestion(key, f"{said}\n{_describe_address(params.get('url'))}"[:TEXT_CHARACTERS], None)
    try:
        form = read_form(params.get("requestedSchema"), sensitive)
    except ValueError as error:
        raise CannotAsk(f"asks {said!r}, and cannot be answered: {error}") from None
    return AskedQuestion(key, f"{said}\n{describe_form(form)}"[:TEXT_CHARACTERS], form)


def _describe_address(address: JsonValue) -> str:
    if not isinstance(address, str) or len(address) > MESSAGE_CHARACTERS:
        raise CannotAsk("asks for a visit to a page without an address that can be shown")
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or make_plain(address) != address:
        raise CannotAsk(f"asks for a visit to {make_plain(address)!r}, which is no address of a page")
    careful = "" if parts.scheme == "https" else ", without encryption"
    return (
        f"the page is at {host}{careful}: {address}\n"
        "visit it only if you know this host; answer with any word when you have done what it asks"
    )


def repeat(requests: Mapping[str, JsonObject], said: list[tuple[JsonObject, JsonObject]]) -> dict[str, JsonObject]:
    """Return the answers to those of `requests` that people have answered word for word; each is taken out of `said`.

    In the order in which they were given: two questions in the same words may have had different answers.
    """
    found: dict[str, JsonObject] = {}
    for key, request in requests.items():
        for position, (earlier, response) in enumerate(said):
            if _asked(earlier) == _asked(request):
                found[key] = response
                del said[position]
                break
    return found


def _asked(request: JsonObject) -> JsonValue:
    """Return what is asked, without the names that are new each time."""
    params = request.get("params")
    if not isinstance(params, dict):
        return None
    return {key: value for key, value in params.items() if key not in ("_meta", "elicitationId")}


def remember(dialogue: Dialogue) -> tuple[tuple[JsonObject, JsonObject], ...]:
    """Return all questions of `dialogue` that have an answer, the last round's included."""
    last = tuple((request, dialogue.responses[key]) for key, request in dialogue.requests.items())
    return (*dialogue.remembered, *last)
