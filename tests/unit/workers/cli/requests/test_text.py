from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mandate.activities.people.directory import People
from mandate.workers.cli import identity
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.output import Output
from mandate.workers.cli.requests import text as request_text
from mandate.workers.cli.requests.entitled import read_entitled
from mandate.workers.client.entitlement import Entitled
from mandate.workers.settings import Settings
from mandate.workflows.contracts.people import PeopleSpec
from mandate.workflows.contracts.request import Need, OpenRequests, Request, Then
from mandate.workflows.rules import decisions

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=2)
DIGEST = "d" * 43

PEOPLE = People(
    PeopleSpec.model_validate(
        {
            "people": [
                {"name": "ann@example.com", "addresses": ["slack:ann"], "groups": ["finance"]},
                {"name": "bob@example.com"},
            ]
        }
    )
)


def need(**given: Any) -> Need:
    return Need(**{"rule": "large", "expires_at": LATER, **given})


def request(*needs: Need, **given: Any) -> Request:
    return Request(
        **{
            "id": "r1",
            "kind": "approval",
            "digest": DIGEST,
            "title": "pay amount=120?",
            "tool": "pay",
            "arguments": {"amount": 120},
            "reason": "rule 'large' asks people about 'pay'",
            "step": 1,
            "head": DIGEST,
            "index": 0,
            "choices": ("approve", "reject"),
            "needs": needs,
            "requested_at": NOW,
            **given,
        }
    )


def run(*requests: Request, requester: str | None = None) -> OpenRequests:
    return OpenRequests(
        workflow_id="wf",
        run_id="x",
        agent="till",
        version="v1",
        status="waiting",
        requester=requester,
        requests=requests,
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0s"),
        (0, "0s"),
        (89, "89s"),
        (90, "2m"),
        (119, "2m"),
        (3600, "1h"),
        (5400, "2h"),
        (86390, "24h"),
        (172800, "2d"),
    ],
)
def test_lengths_are_rounded_to_a_unit_that_says_enough(seconds: float, words: str) -> None:
    assert decisions.round_duration(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (need(groups=("finance",)), "1 of finance (rule 'large'): nobody has decided"),
        (
            need(groups=("finance",), users=("cy",), quorum=2, signature=True, approved_by=("ann",)),
            "2 of finance, cy (rule 'large'), signed: ann has approved",
        ),
        (
            need(rule=None, rejections=2, rejected_by=("ann",), approved_by=("bob", "cy")),
            "1 of everybody in the file of people; 2 rejections reject: bob and cy have approved; ann has rejected",
        ),
    ],
)
def test_needs_say_who_how_many_and_who_has(need: Need, words: str) -> None:
    assert request_text.needed(need) == words


def test_expiry_says_what_it_means() -> None:
    goes_on = Then(groups=("leads",), users=("cy",), expires=timedelta(hours=4))

    assert decisions.describe_expiry(request(need())) == "it counts as rejected"
    assert decisions.describe_expiry(request(need(then=goes_on))) == "leads, cy can answer too, for 4h"
    assert decisions.describe_expiry(request(need(expires_at=LATER + timedelta(1)), need(then=goes_on))) == (
        "leads, cy can answer too, for 4h"
    )
    assert request_text.remaining(request(need()), NOW) == "2h"
    assert request_text.remaining(request(need()), LATER) == "over"


@pytest.mark.parametrize(
    ("person", "needs", "requester", "mine"),
    [
        ("ann@example.com", [need(groups=("finance",))], None, True),
        ("SLACK:Ann", [need(groups=("Finance",))], None, True),
        ("bob@example.com", [need(groups=("finance",))], None, False),
        ("bob@example.com", [need(groups=("finance",)), need(users=("Bob@example.com",))], None, True),
        ("bob@example.com", [need()], None, True),
        ("ann@example.com", [need()], "slack:ann", False),
        ("ann@example.com", [need(quorum=2, approved_by=("ann@example.com",))], None, False),
        (
            "ann@example.com",
            [need(groups=("finance",), approved_by=("cy",)), need(users=("bob@example.com",))],
            None,
            False,
        ),
    ],
)
def test_mine_is_what_my_decision_would_bring_further(
    person: str, needs: list[Need], requester: str | None, mine: bool
) -> None:
    asked = request(*needs)

    assert Entitled(person, PEOPLE).may_decide(run(asked, requester=requester), asked) is mine


def test_without_a_file_of_people_groups_are_what_one_says(tmp_path: Path) -> None:
    asked = request(need(groups=("finance",)))

    assert not Entitled("ann", None).may_decide(run(asked), asked)
    assert Entitled("ann", None, ("finance",)).may_decide(run(asked), asked)


def test_person_whom_the_file_does_not_have_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "people.yaml"
    path.write_text("people: [{name: ann@example.com}]")
    settings = Settings.from_environment({"MANDATE_PEOPLE": str(path)})

    with pytest.raises(CliError) as refusal:
        read_entitled(settings, "cy@example.com")

    assert str(refusal.value) == f"'cy@example.com' is not in {path}; say who you are with --by or MANDATE_USER"
    assert read_entitled(settings, "Ann@example.com")[1] is None


def test_who_acts_is_what_was_given_then_the_environment_then_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_COUNT", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    named = Settings.from_environment({"MANDATE_USER": "ann@example.com"})
    unnamed = Settings.from_environment({})

    system = identity.person(unnamed, None)
    (tmp_path / ".gitconfig").write_text("[user]\nemail = git@example.com\n")

    assert str(identity.person(named, "bob")) == "bob"
    assert str(identity.person(named, None)) == "ann@example.com"
    assert str(identity.person(unnamed, None)) == "git@example.com (from git)"
    assert identity.person(unnamed, None).name == "git@example.com"
    assert "@" in system.name
    assert str(system) == f"{system.name} (from the login name)"
    assert system.name != "git@example.com"


WHO = "; say who you are with it, or with MANDATE_USER"
NO_NAME = f" is not a name of 1 to 200 characters that can all be seen{WHO}"


@pytest.mark.parametrize("option", ["--by", "--requester"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", f" is empty{WHO}"),
        ("  ", f" is empty{WHO}"),
        ("<your name>", " '<your name>' stands for your own name; put that in its place"),
        ("ann\u200b@example.com", f" 'ann\\u200b@example.com'{NO_NAME}"),
        ("x" * 201, f" '{'x' * 59}\u2026'{NO_NAME}"),
    ],
)
def test_who_asks_and_who_decides_are_named_alike(option: str, name: str, says: str) -> None:
    with pytest.raises(CliError) as refused:
        identity.person(Settings.from_environment({}), name, option=option)

    assert str(refused.value) == f"{option}{says}"


@pytest.mark.parametrize("kind", ["approval", "question", "escalation", "outcome"])
def test_request_says_that_who_asked_for_the_run_decides_on_nothing(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(
        need(groups=("finance",)), kind=kind, choices=("stop",) if kind in request_text.MEANINGS else ("reject",)
    )

    for requester in ("bob@example.com", None):
        request_text.print_request(Output(), run(asked, requester=requester), asked, {}, NOW)

    first, second = capsys.readouterr().out.split("who must agree\n")[1:]
    assert "\n  never bob@example.com, who asked for the run\n" in first
    assert "never" not in second
