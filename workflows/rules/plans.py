"""Plans."""

import re

from mandate.workflows.contracts.plan import PlanStep


def list_needs(step: PlanStep) -> frozenset[str]:
    """Return the steps that a step needs."""
    texts = [step.for_each, step.when]
    texts += step.input.values() if isinstance(step.input, dict) else [step.input]
    found = {name for text in texts if text for name in re.findall(r"\bsteps\.([A-Za-z][\w]*)", text)}
    return frozenset({*step.depends_on, *found})
