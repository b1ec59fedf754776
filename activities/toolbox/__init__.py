"""Toolboxes: one a source of tools; how its failures read is decided there and nowhere else.

A new one is a folder here, its entry in `workflows/contracts/tool_entry.py`, its source in `contracts/tool.py`, its
definitions in `workers/catalog/tools.py`, its row in `workers/worker.py`, what it may reach in
`activities/own_files.py`, and its name in `SOURCES` of `base` if probes may use it.

base: contract of a toolbox
builtin: definitions of tools that every agent has
written_plans: `run_plan`, the tool for plans of models
read_result: a long result, read on
python: calls of Python tools
returned_values: values of functions as text
raised_errors: errors of functions in words
contained_tasks: exits in tasks of tools
coroutines: coroutines of tools and checks, in a loop of their own
decorator: `@tool`
context: `ToolContext` and `NotDone`
signature: function as JSON Schema
docstrings: descriptions in docstrings
argument_descriptions: descriptions in type hints
calls: calls in a model's answer
arguments: arguments of a model's call
argument_names: names that receivers may confuse
schema: arguments against a JSON Schema
schema_cost: cost of a check by schema
schema_names: names that a schema knows
schema_types: types as a schema declares
closed_schemas: schemas without undeclared names
redaction: sensitive arguments, struck out
forms: forms for people, and their answers
dialogues: questions of servers, in the store
http: tools over HTTP
mcp: tools of MCP servers
"""
