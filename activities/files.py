"""Files that people write: a YAML file as a spec with the places of its values, or all that is wrong with it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from mandate.activities.documents import Document, Fault, in_order, read_document
from mandate.workflows.contracts.base import Spec
from mandate.workflows.rules import validation

S = TypeVar("S", bound=Spec)

_UNSAYABLE = "JSON cannot say it: it is nested too deep"


class FileError(Exception):
    """Files that cannot be used; its text has one line for each fault, in the order of the files."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = in_order(tuple(faults))
        super().__init__("\n".join(map(str, self.faults)))


def read_spec(path: Path, model: type[S]) -> tuple[S, Document]:
    """Read one file as a `model`.

    Raises:
        FileError: all faults of the file, each with line, column, key and what is allowed.
    """
    document = read_document(path)
    return parse_spec(document, model), document


def parse_spec(document: Document, model: type[S]) -> S:
    """Return what a document says as a `model`; raises as `read_spec`."""
    faults = list(document.faults)
    if document.value is None and faults:
        raise FileError(faults)
    try:
        written = to_json(document.value)
        from_json(written)
    except ValueError:
        raise FileError([*faults, document.fault((), _UNSAYABLE)]) from None
    try:
        # Strict, and as JSON: a list is a tuple here, but the text 'no' is no boolean.
        spec = model.model_validate_json(written, strict=True)
    except ValidationError as error:
        found = [document.fault(one.place, one.message, one.value) for one in validation.explain(error, model)]
        raise FileError([*faults, *found]) from None
    if faults:
        raise FileError(faults)
    return spec
