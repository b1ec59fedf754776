"""`run_plan`: the tool by which a model carries out a plan that it writes."""

import json
from collections.abc import Iterator, Mapping

from mandate.activities.toolbox import schema
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.faults import Located, Place, key_path
from mandate.workflows.contracts.plan import MOST_SIDE_BY_SIDE, MOST_STEPS, PlanSpec
from mandate.workflows.contracts.tool import AgentBinding, PlanTarget, PlanTerms, ToolDefinition
from mandate.workflows.rules.plans import written

SHOWN_BYTES = 16 * 1024
"""Most that a plan takes in the workflow's history, so that rules and people see its steps."""

SCHEMA_CHARACTERS = 300
"""Longest schema of an answer or of arguments that the description has."""

_CEL: JsonObject = {"type": "string", "minLength": 1, "maxLength": 4000}

_BUDGET: JsonObject = {
    "type": "object",
    "properties": {
        "cost_usd": {"type": "string", "description": 'US dollars, for example "0.20".'},
        "tokens": {"type": "integer", "minimum": 1},
        "model_calls": {"type": "integer", "minimum": 1},
    },
    "additionalProperties": False,
}

STEP_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Its name, which other steps use: `steps.<id>.output`."},
        "agent": {"type": "string", "description": "The agent that does it; or give `tool`."},
        "tool": {"type": "string", "description": "The tool that does it; or give `agent`."},
        "input": {
            "description": "What it is asked, in CEL: one text, as `'Look at ' + steps.find.output`; for a tool an "
            "object with CEL for each argument. A plain text has quotes of its own: `'Find the order.'`.",
            "anyOf": [dict(_CEL), {"type": "object", "additionalProperties": dict(_CEL)}],
        },
        "depends_on": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Steps that come first, beside those that the expressions name.",
        },
        "for_each": {**_CEL, "description": "A list in CEL: the step is made for each `item` of it, side by side."},
        "max_parallel": {"type": "integer", "minimum": 1, "maximum": MOST_SIDE_BY_SIDE},
        "needs": {"type": "integer", "minimum": 0, "description": "With `for_each`: items that must go well."},
        "when": {**_CEL, "description": "A condition: the step is left out unless it holds."},
        "success": {**_CEL, "description": "A condition over `output`: the step has failed unless it holds."},
        "attempts": {"type": "integer", "minimum": 1, "maximum": 20},
        "on_failure": {"type": "string", "enum": ["skip", "stop", "continue"]},
        "output_schema": {"type": "object", "description": "JSON Schema that an agent's answer must fit."},
        "budget": _BUDGET,
    },
    "required": ["id"],
    "additionalProperties": False,
}

INPUT_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-zA-Z][a-zA-Z0-9_-]{0,63}$", "description": "What the plan is for."},
        "input": {"description": "Data that the steps read as `input`."},
        "steps": {"type": "array", "items": STEP_SCHEMA, "minItems": 1, "maxItems": MOST_STEPS},
        "output": {
            **_CEL,
            "description": "The result in CEL; left out: the output of the step that no other needs, or all such.",
        },
        "max_parallel": {"type": "integer", "minimum": 1, "maximum": MOST_SIDE_BY_SIDE},
        "step_count": {"type": "integer", "readOnly": True, "description": "Leave it out: it is computed."},
        "agents": {"type": "array", "items": {"type": "string"}, "readOnly": True, "description": "As step_count."},
        "tools": {"type": "array", "items": {"type": "string"}, "readOnly": True, "description": "As step_count."},
        "cost_usd": {"type": "number", "readOnly": True, "description": "As step_count."},
    },
    "required": ["steps"],
    "additionalProperties": False,
}


def describe(terms: PlanTerms) -> str:
    """Return what a model is told of the tool."""
    text = (
        f"Carry out a plan of at most {terms.steps} steps. Steps begin as soon as those that they read have ended, "
        "side by side where they can; one that fails costs only those that need it. The result says how each went. "
        "Expressions are CEL over `input` and `steps`."
    )
    lines = [text]
    for kind, targets in (("agent", terms.agents), ("tool", terms.tools)):
        lines += [f"- {kind} {name!r}{_describe_target(target)}" for name, target in targets.items()]
    return "\n".join(lines)


def _describe_target(target: PlanTarget) -> str:
    told = []
    for what, shape in (("takes", target.input_schema), ("answers with", target.output_schema)):
        text = canonical_json(shape).decode() if shape is not None else ""
        if text and len(text) <= SCHEMA_CHARACTERS:
            told.append(f"{what} JSON of the schema {text}")
    return f": {'; '.join(told)}" if told else ""


def find_terms(definition: ToolDefinition) -> PlanTerms | None:
    """Return what a plan that is the arguments of a tool may hold; `None` for every other tool."""
    return definition.binding.plans if isinstance(definition.binding, AgentBinding) else None


def find_misfit(definition: ToolDefinition, arguments: Mapping[str, object]) -> str | None:
    """Return all that is wrong with the plan of a call, or `None`; for other tools there is nothing."""
    terms = find_terms(definition)
    if terms is None:
        return None
    size = len(canonical_json(dict(arguments)))
    if size > SHOWN_BYTES:
        return f"the plan has {size} bytes, and people are shown the whole of it: at most {SHOWN_BYTES}"
    if (fault := written.find_fault(arguments, terms)) is not None:
        return fault
    found = find_schema_faults(written.read_plan(arguments))
    return "; ".join(f"{key_path(place)}: {message}" for place, message in found) or None


def find_schema_faults(plan: PlanSpec) -> Iterator[Located]:
    """Yield what is wrong with the schemas of a plan's input, and of the answers of its steps."""
    found: list[tuple[Place, JsonObject | None]] = [(("input_schema",), plan.input_schema)]
    found += [(("steps", index, "output_schema"), step.output_schema) for index, step in enumerate(plan.steps)]
    for place, written_schema in found:
        if written_schema is None:
            continue
        try:
            # A plan may be asked any value; the answer of an agent is an object.
            schema.check_schema(written_schema, of_object=place != ("input_schema",))
        except ValueError as error:
            yield place, str(error)


def drop_facts(definition: ToolDefinition, arguments: JsonObject) -> JsonObject:
    """Return the arguments without those that are computed."""
    if find_terms(definition) is None:
        return arguments
    return {key: value for key, value in arguments.items() if key not in written.FACTS}


def add_facts(definition: ToolDefinition, arguments: JsonObject) -> JsonObject:
    """Return the arguments with those that are computed."""
    terms = find_terms(definition)
    return arguments if terms is None else {**written.compute_facts(arguments, terms), **arguments}


def write_input(arguments: Mapping[str, object]) -> str:
    """Return what the plan of a call is asked, as JSON."""
    return json.dumps(arguments.get("input"), ensure_ascii=False)
