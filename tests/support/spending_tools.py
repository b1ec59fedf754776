"""The tool of the runs that spend: its results make each request longer than the one before."""

from mandate.activities.toolbox.decorator import tool

RESULT_WORDS = 350


@tool(effect="read", timeout="20s")
def read_page(topic: str) -> str:
    """Read the page about a topic."""
    return f"The page has {len(topic)} letters of topic. " + "It says the same again. " * (RESULT_WORDS // 5)
