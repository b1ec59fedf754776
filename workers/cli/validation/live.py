"""`mandate validate --live`: one tiny call of a model, and what came."""

import time
from datetime import timedelta

from pydantic import TypeAdapter, ValidationError
from rich.text import Text
from temporalio.exceptions import ApplicationError

from mandate.activities.own_files import OwnFiles
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.transcript.conversation import Conversation
from mandate.workers import providers
from mandate.workers.catalog.endpoints import Endpoints, read_endpoints
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError
from mandate.workers.cli.output import Output
from mandate.workers.settings import Settings
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.route import ENDPOINT_FORM, NAME_FORM, ModelName
from mandate.workflows.contracts.transcript import TextPart, UserMessage
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import shorten

QUESTION = "Answer with the one word: ok"
MOST_TOKENS = 64
WITHIN = timedelta(seconds=60)
_SHOWN_CHARACTERS = 80


async def call_live(out: Output, settings: Settings, model: str) -> int:
    """Make one tiny call of `model`, and tell the answer or why there is none; return the exit code.

    Raises:
        CliError: nothing could be sent (exit code 2), or the provider gave no answer (1).
        FileError: all faults of the file of providers.
    """
    endpoints = read_endpoints(settings)
    provider_name = _check_model(model, endpoints)
    if (why := endpoints.find_unknown(model)) is not None:
        raise CliError(f"--live {why}")
    if (why := providers.lacking(settings, provider_name, endpoints.by_name)) is not None:
        raise CliError(f"--live {model!r}: {why}")
    provider = await providers.makers(settings, OwnFiles(), endpoints.by_name)[provider_name]()
    began = time.monotonic()
    try:
        completion = await provider.complete(_prompt(model))
    except ApplicationError as error:
        return _tell_failure(out, model, error, time.monotonic() - began)
    finally:
        await provider.close()
    _tell_answer(out, model, completion, time.monotonic() - began)
    return DONE


def _check_model(model: str, endpoints: Endpoints) -> str:
    """Return the provider that a model's name begins with."""
    try:
        TypeAdapter(ModelName).validate_python(model)
    except ValidationError:
        named = f"'endpoint:model' with an endpoint of {endpoints.path}: {', '.join(endpoints.by_name)}"
        form = named if endpoints.by_name else f"{ENDPOINT_FORM} ({endpoints.path})"
        raise CliError(f"--live {model!r} is not {NAME_FORM}, or {form}") from None
    provider = model.partition(":")[0]
    if provider == "scripted":
        raise CliError(f"--live {model!r}: a script plays this model, and there is nobody to call")
    return provider


def _prompt(model: str) -> Prompt:
    return Prompt(
        model=model.partition(":")[2],
        instructions="",
        tools=(),
        agent=digest_of(QUESTION.encode()),
        conversation=Conversation((UserMessage(role="user", parts=(TextPart(kind="text", text=QUESTION),)),)),
        max_output_tokens=MOST_TOKENS,
        timeout=WITHIN,
        attempt=1,
    )


def _tell_failure(out: Output, model: str, error: ApplicationError, seconds: float) -> int:
    if not out.as_json:
        raise CliError(error.message, ENDED_OTHERWISE)
    details = error.details[0] if error.details else {}
    out.json(
        {
            "model": model,
            "answered": False,
            "fault": details.get("fault"),
            "status": details.get("status"),
            "reason": error.message,
            "seconds": round(seconds, 3),
        }
    )
    return ENDED_OTHERWISE


def _tell_answer(out: Output, model: str, completion: Completion, seconds: float) -> None:
    usage, text = completion.usage, shorten(completion.message.text.strip(), _SHOWN_CHARACTERS)
    cost = None if usage.unpriced_calls else usage.cost_usd
    if out.as_json:
        out.json(
            {
                "model": model,
                "answered": True,
                "answer": text,
                "finish": str(completion.finish),
                "problem": completion.problem,
                "answered_by": completion.answered_by or None,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "tokens_reported": usage.input_tokens > 0 and usage.output_tokens > 0,
                "seconds": round(seconds, 3),
                "cost_usd": None if cost is None else f"{cost:f}",
            }
        )
        return
    is_told = usage.input_tokens > 0 and usage.output_tokens > 0
    tokens = f"{usage.input_tokens} in, {usage.output_tokens} out"
    untold = "the server does not report them; budgets count such a call as it was reserved"
    price = "not known: give `price` in the route, or `prices_as` at the endpoint" if cost is None else f"{cost:f} USD"
    out.print(
        Text.assemble((model, "bold"), " answers"),
        f"  said    {text or '(nothing)'}{f' ({completion.problem})' if completion.problem else ''}",
        f"  model   {completion.answered_by or 'its name is not in the answer'}",
        f"  tokens  {tokens if is_told else untold}",
        f"  time    {quantities.write_seconds(seconds)}",
        f"  price   {price}",
    )
