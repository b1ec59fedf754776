"""Values of a run in texts of agent files: which names there are, and that values are only values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.templates import fill_references, find_arguments, find_run_values

ALLOWED = "allowed are '${key}', '${run.requester}', '${run.workflow_id}' and, in header values, '${secret:NAME}'"
VALUES = {"key": "k", "run.requester": "ann"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plain $5 {key} $key", ()),
        ("${key}", ("key",)),
        ("a ${run.requester} b ${key} ${run.requester}", ("run.requester", "key")),
        ("Bearer ${secret:TOKEN} ${run.workflow_id}", ("run.workflow_id",)),
        ("$${key} and $${any thing}", ()),
        ("$$${key}", ()),
        ("$${secret:TOKEN}", ()),
    ],
)
def test_values_that_a_text_names_are_found(text: str, names: tuple[str, ...]) -> None:
    assert find_run_values(text) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${run.user}", f"'${{run.user}}' is not known here; did you mean 'run.requester'? {ALLOWED}"),
        ("${keys}", f"'${{keys}}' is not known here; did you mean 'key'? {ALLOWED}"),
        ("${}", f"a name in '${{...}}' is not known here; {ALLOWED}"),
        ("${sk-A93kfj3}", f"a name in '${{...}}' is not known here; {ALLOWED}"),
        ("${ key }", f"a name in '${{...}}' is not known here; did you mean 'key'? {ALLOWED}"),
        ("${key", f"'${{' has no end; a plain '${{' is written '$${{', {ALLOWED}"),
        ("${key ${key}", f"'${{' has no end; a plain '${{' is written '$${{', {ALLOWED}"),
    ],
)
def test_name_that_is_not_known_is_refused_with_those_that_are(text: str, says: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole message is compared
        find_run_values(text)

    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${key}-${run.requester}", "k-ann"),
        ("$${key}", "${key}"),
        ("${unknown} ${secret:A}", "${unknown} ${secret:A}"),
        ("{key} $key", "{key} $key"),
    ],
)
def test_names_are_filled_in(text: str, filled: str) -> None:
    assert fill_references(text, VALUES.get) == filled


@given(st.text() | st.sampled_from(["${key}", "${secret:TOKEN}", "$${", "${run.requester}", "\\1", "\\g<0>"]))
def test_value_is_not_looked_through(value: str) -> None:
    assert fill_references("<${run.requester}>", {"run.requester": value}.get) == f"<{value}>"


def test_values_in_an_address_are_no_arguments() -> None:
    assert find_arguments("https://x.example/${run.workflow_id}/{id}?by=${run.requester}&q={q}") == ("id", "q")
