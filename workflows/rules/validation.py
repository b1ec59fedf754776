"""Why a start request does not fit, in one sentence a fault."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from pydantic import BaseModel, ValidationError

VALUE_CHARACTERS = 40

FAULTS_TOLD = 20
"""Most faults of one object that are put into words: a hundred thousand take longer than a workflow task may."""

PATH_CHARACTERS = 80

CONTAINER = 30
"""What a list or an object weighs, in characters."""

_MUST = {
    "string_type": "must be a text",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_pattern_mismatch": "must be a letter, then up to 63 letters, digits, '_' and '-'",
}


def sentences(
    error: ValidationError,
    model: type[BaseModel],
    *,
    unshown: Sequence[str] = (),
    forms: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Each fault once, by its field, with the value and what is allowed.

    Values of `unshown` fields are left out; a field of `forms` has that form, whatever is wrong with it.
    """
    told: dict[str, str] = {}
    for fault in error.errors(include_url=False, include_context=False)[:FAULTS_TOLD]:
        field = str(fault["loc"][0]) if fault["loc"] else "it"
        if field in forms and fault["type"] not in {"missing", "extra_forbidden"}:
            shown = "" if field in unshown else f"{_short(fault['input'])} "
            told.setdefault(field, f"{shown}must be {forms[field]}")
            continue
        union = field in unshown and len(fault["loc"]) > 1
        path = field if union else _cut(".".join(str(part) for part in fault["loc"]) or field, PATH_CHARACTERS)
        told.setdefault(path, _sentence(fault, path, model, union=union, shown=field not in unshown))
    return "; ".join(f"{path}: {sentence}" for path, sentence in told.items())


def _sentence(fault: Mapping[str, object], path: str, model: type[BaseModel], *, union: bool, shown: bool) -> str:
    kind, message = str(fault["type"]), str(fault["msg"])
    if union:
        return "must be a text or an object"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        near = get_close_matches(path, list(model.model_fields), n=1)
        return f"is not a known key; did you mean {near[0]!r}?" if near else "is not a known key"
    says = _MUST.get(kind) or message.removeprefix("Value error, ").replace("Input should be", "must be")
    says = says.replace("String should", "must").replace("Dictionary should", "must")
    value = fault["input"]
    if not shown or not isinstance(value, str | int | float) or kind == "value_error":
        return says
    return f"{_short(value)} {says}"


def is_vast(value: object, characters: int) -> bool:
    """Whether the keys, texts and items of a JSON value are more than `characters` in all; told without reading on."""
    return weight(value, characters) > characters


def weight(value: object, most: int) -> int:
    """The characters and items of a JSON value, and what its containers cost to read; more than `most` is not counted.

    A container takes about as long as thirty characters.
    """
    waiting, sum_ = [value], 0
    while waiting and sum_ <= most:
        one = waiting.pop()
        if isinstance(one, str):
            sum_ += len(one)
        elif isinstance(one, dict):
            sum_ += CONTAINER + len(one) + sum(map(len, one))
            waiting.extend(one.values())
        elif isinstance(one, list):
            sum_ += CONTAINER + len(one)
            waiting.extend(one)
    return sum_


def _short(value: object) -> str:
    return _cut(repr(value), VALUE_CHARACTERS)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
