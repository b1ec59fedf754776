"""Dialogues of a tool's server with people, in the store while people answer."""

import json

from mandate.activities.toolbox.base import AsksPeople
from mandate.activities.transcript.blobs import Blobs
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.question import (
    AnsweredQuestions,
    Dialogue,
    GivenAnswer,
    ServerQuestion,
    ServerQuestions,
)


async def store(blobs: Blobs, asks: AsksPeople) -> ServerQuestions:
    """Store what a server asks, its forms and its state; return what the workflow knows of it.

    Raises:
        StoreUnavailable: see there.
    """
    forms = [canonical_json(question.form) if question.form is not None else None for question in asks.questions]
    (state, *addresses) = await blobs.put(
        asks.dialogue.model_dump_json().encode(), *(form for form in forms if form is not None)
    )
    left = iter(addresses)
    return ServerQuestions(
        server=asks.server,
        state=state,
        round=asks.dialogue.round,
        questions=tuple(
            ServerQuestion(key=question.key, text=question.text, form=next(left) if form is not None else None)
            for question, form in zip(asks.questions, forms, strict=True)
        ),
        is_not_done=asks.outcome is not Outcome.UNKNOWN,
    )


async def load(blobs: Blobs, answered: AnsweredQuestions) -> Dialogue:
    """Return the dialogue with the answers of people to its last questions.

    Raises:
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    dialogue = Dialogue.model_validate_json(await blobs.get(answered.state))
    given = {answer.key: await _response(blobs, answer) for answer in answered.given}
    return dialogue.model_copy(update={"responses": {**dialogue.responses, **given}})


async def load_form(blobs: Blobs, form: str) -> JsonObject:
    """Return the form that an answer must fit.

    Raises:
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    loaded: JsonObject = json.loads(await blobs.get(form))
    return loaded


async def _response(blobs: Blobs, answer: GivenAnswer) -> JsonObject:
    if answer.content is None:
        return {"action": answer.action}
    return {"action": answer.action, "content": json.loads(await blobs.get(answer.content))}
