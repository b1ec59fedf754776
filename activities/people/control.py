"""Control of runs: who of the file of people may steer, pause, resume and stop them."""

from mandate.activities.people.directory import DirectoryUnavailable, People
from mandate.workflows.contracts.control import ControlCheck
from mandate.workflows.contracts.people import AGENT_PREFIX, normalize_name

NAMES_SHOWN = 10


def find_control_refusal(check: ControlCheck, people: People | None) -> str | None:
    """Return why a message that controls a run has no effect, in one sentence; `None` where its author may.

    Raises:
        DirectoryUnavailable: this worker has no file of people, which said who controls when the run began.
    """
    if people is None:
        raise DirectoryUnavailable(
            "this worker has no file of people (MANDATE_PEOPLE), which said who controls runs when this one began"
        )
    if people.control is None:
        return None
    if _is_agent(check):
        return f"by: {check.by!r} is an agent or its run; only people control runs"
    who = f"who may {check.verb} runs: {_describe(people)}"
    known = people.find(check.by)
    if known is None:
        return f"by: {check.by!r} is not in the file of people; {who}"
    if not people.may_control(known):
        return f"by: {check.by!r} may not {check.verb} runs; {who}"
    return None


def _is_agent(check: ControlCheck) -> bool:
    by = normalize_name(check.by)
    parts = check.workflow_id.split("/")
    runs = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return by.startswith(AGENT_PREFIX) or by in map(normalize_name, (check.agent, *runs))


def _describe(people: People) -> str:
    assert people.control is not None
    names = [*(f"group {group}" for group in people.control.groups), *people.control.users]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"
