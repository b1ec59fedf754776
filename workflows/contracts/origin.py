"""Origins: runs whose conversations other runs go on with."""

from typing import Literal

from pydantic import Field

from mandate.workflows.contracts.base import Digest, Record, Spec

MOST_EARLIER = 200
"""Most calls of an origin after the step that a run goes on from; their digests and lines are part of its state."""


class ContinuesRequest(Spec):
    """Key `continues` of a start request: begin with the conversation of another run, which is left as it is."""

    run: str = Field(min_length=1, max_length=1000, description="Workflow id of that run.")
    run_id: str | None = Field(
        default=None, max_length=100, description="Which run of that workflow id; the newest if left out."
    )
    step: int | None = Field(default=None, ge=1, description="Go on after this step; its last one if left out.")

    @property
    def name(self) -> str:
        """The run and the step in one word: `run`, `run@step` or `run/run_id@step`."""
        which = self.run if self.run_id is None else f"{self.run}/{self.run_id}"
        return which if self.step is None else f"{which}@{self.step}"


class EarlierCall(Record):
    """A call that changes the world, which the origin has made after the step that this run goes on from."""

    digest: Digest
    """As of `CallRequest`."""
    line: str
    """Name and arguments in one line, sensitive ones hidden."""
    run: str = ""
    """Workflow id of the run that made it, where that is not the origin itself: it has kept the call in mind, too."""
    step: int
    """Of that run."""
    outcome: Literal["done", "unknown"]
    is_hidden: bool = False
    """Its tool has sensitive arguments, which its result may repeat."""
    text: str = ""
    """The beginning of its result, as the origin's model was shown it."""


class Origin(Record):
    """The run that another one goes on from."""

    run: str
    """Workflow id."""
    run_id: str
    step: int
    calls: tuple[EarlierCall, ...] = ()
    """Those that this run has not asked for yet."""
