"""Who of the file of people may steer, pause, resume and stop runs."""

from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.decision import PeopleActivities
from mandate.activities.people.control import find_control_refusal
from mandate.activities.people.directory import Directory, DirectoryUnavailable, People
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.control import ControlCheck, ControlChecked, ControlVerb
from mandate.workflows.contracts.people import PeopleSpec
from tests.support.memory_store import MemoryStore

PEOPLE = [
    {"name": "ann@example.com", "addresses": ["slack:U012AB"], "groups": ["ops"]},
    {"name": "bob@example.com", "groups": ["finance"]},
    {"name": "cleo@example.com"},
]
CONTROL = {"groups": ["ops"], "users": ["cleo@example.com"]}
MAY = "who may stop runs: group ops, cleo@example.com"


def people(control: dict[str, list[str]] | None) -> People:
    return People(PeopleSpec.model_validate({"people": PEOPLE, "control": control}))


def check(by: str, verb: ControlVerb = "stop") -> ControlCheck:
    return ControlCheck(verb=verb, by=by, agent="till", workflow_id="till-1/c1")


@pytest.mark.parametrize(
    ("by", "refusal"),
    [
        ("ann@example.com", None),
        ("ANN@example.com", None),
        ("slack:u012ab", None),
        ("cleo@example.com", None),
        ("bob@example.com", f"by: 'bob@example.com' may not stop runs; {MAY}"),
        ("eve@example.com", f"by: 'eve@example.com' is not in the file of people; {MAY}"),
        ("till", "by: 'till' is an agent or its run; only people control runs"),
        ("till-1", "by: 'till-1' is an agent or its run; only people control runs"),
        ("Agent:clerk", "by: 'Agent:clerk' is an agent or its run; only people control runs"),
    ],
)
def test_those_control_runs_whom_the_file_names(by: str, refusal: str | None) -> None:
    assert find_control_refusal(check(by), people(CONTROL)) == refusal
    assert find_control_refusal(check(by), people(None)) is None


def test_many_names_are_cut_and_those_that_nobody_has_let_nobody_through() -> None:
    control = {"groups": [f"g{number}" for number in range(12)], "users": ["gone@example.com"]}

    assert find_control_refusal(check("gone@example.com", "steer"), people(control)) == (
        "by: 'gone@example.com' is not in the file of people; who may steer runs: "
        + ", ".join(f"group g{number}" for number in range(10))
        + " and 3 more"
    )


def test_worker_without_a_file_cannot_tell() -> None:
    with pytest.raises(DirectoryUnavailable, match="this worker has no file of people"):
        find_control_refusal(check("ann@example.com"), None)


async def test_file_is_read_anew_for_each_message_and_one_that_cannot_be_is_told(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    file.write_text("people: [{name: ann@example.com, groups: [ops]}]\ncontrol: {groups: [ops]}\n")
    blobs = Blobs(MemoryStore())
    activities = PeopleActivities(Directory(file), None, PinnedAgents(blobs), TranscriptLog(blobs))
    ann, environment = check("ann@example.com"), ActivityEnvironment()

    allowed = await environment.run(activities.check_control, ann)
    file.write_text("people: [{name: ann@example.com}]\ncontrol: {groups: [ops]}\n")
    refused = await environment.run(activities.check_control, ann)
    file.unlink()
    with pytest.raises(ApplicationError) as unavailable:
        await environment.run(activities.check_control, ann)

    assert allowed == ControlChecked()
    assert refused == ControlChecked(refusal="by: 'ann@example.com' may not stop runs; who may stop runs: group ops")
    assert (unavailable.value.type, unavailable.value.message) == (
        "CheckUnavailable",
        f"the file of people is gone; put {file} back",
    )
