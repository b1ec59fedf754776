"""Ways back inside a run: to a step of its own, from which it goes on in another way."""

from mandate.workflows.contracts.base import Record


class WayBack(Record):
    """A step that a run goes back to, until a model has been told."""

    to: int
    """The step whose results are the newest that the model knows then."""
    note: str = ""
    """What the model is told in place of what it forgets."""
    because: str | None = None
    """Why the run goes back, where the note is written once the turn is over."""
