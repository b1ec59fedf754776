"""Descriptions in docstrings of every style."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.toolbox.docstrings import read_docstring

GOOGLE = """Search the catalogue.

    Slow on :class:`Monday`.

    Args:
        query (Optional[Dict[str, int]], optional): What to look for.
            On more lines.
        shelf (:obj:`str`): Where.
        *rest: Others.

    Keyword Args:
        limit: Most hits.

    Other Parameters:
        page, size: Of the list.

    Returns:
        The hits.

    Note:
        Never by night.

    Raises:
        KeyError: Nothing is there.
    """

NUMPY = """Search the catalogue.

    Slow on :class:`Monday`.

    Parameters
    ----------
    query : {'a', 'b'}, optional
        What to look for.
        On more lines.
    shelf
        Where.
    *rest
        Others.

    Keyword Arguments
    -----------------
    limit : int
        Most hits.

    Other Parameters
    ----------------
    page, size : int
        Of the list.

    Returns
    -------
    list
        The hits.

    Notes
    -----
    Never by night.

    Examples
    --------
    >>> search("x")
    """

SPHINX = """Search the catalogue.

    Slow on :class:`Monday`.

    :param query: What to look for.
        On more lines.
    :type query: dict(str, int)
    :arg str shelf: Where.
    :parameter rest: Others.
    :keyword limit: Most hits.
    :param page, size: Of the list.
    :returns: The hits.
    :raises KeyError: Nothing is there.

    Never by night.
    """

EPYTEXT = """Search the catalogue.

    Slow on :class:`Monday`.

    @param query: What to look for.
        On more lines.
    @type query: C{str}
    @arg shelf: Where.
    @param rest: Others.
    @keyword limit: Most hits.
    @param page, size: Of the list.
    @return: The hits.
    @raise KeyError: Nothing is there.

    Never by night.
    """

ARGUMENTS = {
    "query": "What to look for.\nOn more lines.",
    "shelf": "Where.",
    "rest": "Others.",
    "limit": "Most hits.",
    "page": "Of the list.",
    "size": "Of the list.",
}


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (GOOGLE, "Note:\n    Never by night."),
        (NUMPY, "Notes\n-----\nNever by night."),
        (SPHINX, "Never by night."),
        (EPYTEXT, "Never by night."),
    ],
    ids=["google", "numpy", "sphinx", "epytext"],
)
def test_sections_of_every_style_are_read(text: str, note: str) -> None:
    read = read_docstring(text)

    assert read.arguments == ARGUMENTS
    assert read.description == f"Search the catalogue.\n\nSlow on `Monday`.\n\n{note}"


@pytest.mark.parametrize(
    ("title", "style"),
    [
        (title, style)
        for title in (
            "Args",
            "Arguments",
            "Parameters",
            "Params",
            "Keyword Args",
            "Keyword Arguments",
            "Other Parameters",
        )
        for style in ("google", "numpy")
    ],
)
def test_section_of_arguments_has_many_titles(title: str, style: str) -> None:
    google, numpy = f"Do.\n\n{title}:\n  a: First.", f"Do.\n\n{title}\n{'-' * len(title)}\na : int\n  First."

    assert read_docstring(google if style == "google" else numpy).arguments == {"a": "First."}


@pytest.mark.parametrize("mark", [":", "@"])
@pytest.mark.parametrize("field", ["param", "parameter", "arg", "argument", "key", "keyword", "kwarg"])
def test_field_of_an_argument_has_many_names(field: str, mark: str) -> None:
    assert read_docstring(f"Do.\n\n{mark}{field} a: First.").arguments == {"a": "First."}


def test_styles_may_be_mixed_and_the_first_description_counts() -> None:
    read = read_docstring("Do.\n\nArgs:\n  a: First.\n  odd line\n\n:param a: Later.\n:param b: Second.\n")

    assert read.arguments == {"a": "First.\nodd line", "b": "Second."}
    assert read.description == "Do."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "One line.",
        "Look up: the order.\n\nWarning: slow.",
        "Do.\n\nOne of:\n    - a: first\n    - b: second\nAll.",
        "Args:",
        "Args: none",
        "Title\n-----\nText.",
        "`x`: a role at the start\n@decorated functions are fine",
        "Time is 12:30:\n\nnot indented",
    ],
)
def test_text_that_is_no_section_stays_in_the_description(text: str) -> None:
    read = read_docstring(text)

    assert (read.description, read.arguments) == (text, {})


@given(st.text(st.sampled_from("a:@- \n*(),`")) | st.text())
def test_every_text_is_read(text: str) -> None:
    read = read_docstring(text)

    assert all(name and words for name, words in read.arguments.items())
    assert len(read.description) <= len(inspect.cleandoc(text))
