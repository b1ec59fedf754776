"""References of schemas: what they name, and what names nothing."""

import pytest
from pydantic import JsonValue

from mandate.workflows.rules import json_pointer

ROOT: JsonValue = {"$defs": {"a/b": {"m~n": 1}, "é x": 2, "list": [3, {"deep": 4}]}, "": 5}


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("#", ROOT),
        ("#/$defs/list/0", 3),
        ("#/$defs/list/1/deep", 4),
        ("#/$defs/a~1b/m~0n", 1),
        ("#/%24defs/%C3%A9%20x", 2),
        ("#/", 5),
        ("#/$defs/list/2", None),
        ("#/$defs/list/-", None),
        ("#/$defs/list/" + "9" * 5000, None),
        ("#/$defs/none", None),
        ("#anchor", None),
        ("other.json#/$defs/list", None),
        ("", None),
    ],
)
def test_reference_names_one_place_of_its_own_document(reference: str, named: JsonValue) -> None:
    assert json_pointer.resolve(ROOT, reference) == named
