import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mandate.workers.cli.errors import CliError
from mandate.workers.cli.requests import names as request_names
from mandate.workers.cli.requests.names import Numbered, Target

AT = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
INBOX = Numbered("namespace-id default", "namespace 'default' at here:1", AT, (("wf", "r1", "d1"), ("a:b", "r2", "d2")))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("wf:r3", Target("wf", "r3")),
        ("shop:r1:r12", Target("shop:r1", "r12")),
        ("a b/c1:r1", Target("a b/c1", "r1")),
        ("wf", None),
        ("wf:r0", None),
        ("wf:3", None),
        (":r1", None),
        ("wf:r1 ", None),
        ("7", None),
    ],
)
def test_request_is_named_by_workflow_and_request_id(name: str, target: Target | None) -> None:
    assert request_names.parsed(name) == target


def test_numbers_are_kept_for_the_next_command(tmp_path: Path) -> None:
    request_names.save(tmp_path / "state", INBOX)

    assert request_names.load(tmp_path / "state") == INBOX
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["inbox.json"]
    found = request_names.resolve(2, INBOX, server=INBOX.server, folder=tmp_path, program="mandate")
    assert found == Target("a:b", "r2", "d2", number=2)
    assert (found.name, found.shown) == ("a:b:r2", "2 (a:b:r2)")


@pytest.mark.parametrize(
    ("number", "numbered", "server", "sentence"),
    [
        (1, None, "", "1 is a number of the last inbox, and there is none in 'state'; "),
        (
            1,
            INBOX,
            "another default",
            "1 is a number of the inbox of 2026-11-02 09:00 UTC, which was of namespace 'default' at here:1; ",
        ),
        (3, INBOX, INBOX.server, "3 is not in the inbox of 2026-11-02 09:00 UTC, which has 2 requests; "),
    ],
)
def test_number_that_stands_for_nothing_is_refused(
    number: int, numbered: Numbered | None, server: str, sentence: str
) -> None:
    with pytest.raises(CliError) as refusal:
        request_names.resolve(number, numbered, server=server, folder=Path("state"), program="mandate")

    assert str(refusal.value) == f"{sentence}run `mandate inbox` and take the number from there"


@pytest.mark.parametrize(
    "written", ["", "{", "[]", '{"requests": [["a"]]}', json.dumps({"server": "s", "requests": 3})]
)
def test_broken_numbers_are_no_numbers(tmp_path: Path, written: str) -> None:
    (tmp_path / request_names.FILE).write_text(written)

    assert request_names.load(tmp_path) is None
