"""What pydantic says of a script, in the words of the file."""

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, TypeVar, Union, get_args, get_origin

from mandate.activities.documents import Document, Fault, Place, in_order
from pydantic import BaseModel, JsonValue, Tag, ValidationError
from pydantic_core import ErrorDetails, to_json

Model = TypeVar("Model", bound=BaseModel)

_VALUE_CHARACTERS = 80


class ScriptError(ValueError):
    """A script that cannot be played; its text has one line for each fault, in the order of the file."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = in_order(tuple(faults))
        super().__init__("\n".join(map(str, self.faults)))


def checked(document: Document, model: type[Model]) -> Model:
    """The document as a `model`.

    Raises:
        ScriptError: all that is wrong, each with file, line, key, value and what is allowed.
    """
    if document.faults:
        raise ScriptError(document.faults)
    try:
        # Strict, and as JSON: a list is a tuple here, but the text 'no' is no boolean.
        return model.model_validate_json(to_json(document.value), strict=True)
    except ValidationError as error:
        raise ScriptError([_fault(document, details, model) for details in error.errors(include_url=False)]) from None


def _fault(document: Document, details: ErrorDetails, model: type[BaseModel]) -> Fault:
    location = details["loc"]
    place = _place(document.value, location)
    match details["type"]:
        case "extra_forbidden":
            allowed = ", ".join(_fields_at(model, location[:-1]))
            return document.fault(place, f"is not a key that is known here; allowed are {allowed}")
        case "missing":
            return document.fault((*place, location[-1]), "is missing")
    given = repr(details["input"])
    given = given if len(given) <= _VALUE_CHARACTERS else f"{given[: _VALUE_CHARACTERS - 1]}…"
    says = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return document.fault(place, f"{given}: {says}", given)


def _place(value: JsonValue, location: Place) -> Place:
    """The parts of `location` that the document has: pydantic adds the names of unions' branches."""
    place: Place = ()
    for part in location:
        inner: JsonValue
        match value:
            case dict() if isinstance(part, str) and part in value:
                inner = value[part]
            case list() if isinstance(part, int) and part < len(value):
                inner = value[part]
            case _:
                continue
        value, place = inner, (*place, part)
    return place


def _fields_at(model: type[BaseModel], location: Place) -> list[str]:
    """Keys of the models at `location`."""
    types: list[object] = [model]
    for part in location:
        types = list(_inner(types, part)) or types
    models = [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sorted({name for kind in models for name in kind.model_fields})


def _inner(types: list[object], part: int | str) -> Iterator[object]:
    """Types behind `part`: of a field, of a list's items, or the branch of a union with this tag."""
    for kind in types:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
            yield from _branches(kind.model_fields[str(part)].annotation)
        elif get_origin(kind) is tuple and isinstance(part, int):
            yield from _branches(get_args(kind)[0])
        elif get_origin(kind) is Annotated and any(isinstance(e, Tag) and e.tag == part for e in get_args(kind)):
            yield get_args(kind)[0]


def _branches(annotation: object) -> Iterator[object]:
    """The members of a union, tagged ones with their tags, or the annotation itself."""
    origin = get_origin(annotation)
    if origin is Annotated and not any(isinstance(extra, Tag) for extra in get_args(annotation)):
        yield from _branches(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _branches(member)
    else:
        yield annotation
