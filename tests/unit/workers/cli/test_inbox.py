"""Names of requests in the table of an inbox."""

import pytest

from mandate.workers.cli.inbox import shorten_path


@pytest.mark.parametrize(
    ("workflow_id", "shown"),
    [
        ("refunds-1a2b3c4d/c1/c2", "refunds-1a2b3c4d/c1/c2"),
        ("refunds-1a2b3c4d/c1/c2/c3/c4/c5", "refunds-1a2b3c4d/…/c4/c5"),
        ("refunds-1a2b3c4d/9f8e7d6c/c100", "refunds-1a2b3c4d/…/c100"),
        ("a-root-with-a-name-of-thirty-characters/c1", "a-root-with-a-name-of-thirty-characters/c1"),
        ("a-root-with-a-name-of-thirty-characters/c1/c2", "a-root-with-a-name-of-thirty-characters/…/c2"),
    ],
)
def test_the_path_of_a_child_keeps_its_root_and_its_last_parts(workflow_id: str, shown: str) -> None:
    assert shorten_path(workflow_id, 24) == shown
