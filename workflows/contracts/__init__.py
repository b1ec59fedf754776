"""Frozen values that cross Temporal, the store and files; stdlib and pydantic only.

base: kinds of contract, digests, durations
agent: agent file and pinned agent
tool: tools, calls and their results
tool_entry: entry of `tools` in a file
templates: secrets and arguments in texts
policy: rules, verdicts, totals
budget: limits and ledger of a run
budget_file: limits beyond one run
route: models of an agent, and prices
context: how conversations are cut
model: one model call
transcript: messages and segments
run: start and result
session: messages and replies of a session
origin: run that another one goes on from
children: runs below a run
board: values that runs share
plan: steps as data, and how they went
backtrack: step that a run goes back to
state: state of a run
changes: changes that older runs do without
start: claims of a signed start
request: requests to people, their decisions
question: questions of MCP servers
decision_lookups: decisions looked up together
control: checks of who controls runs
people: file of people
channels: file of channels
endpoints: file of providers
verification: checks and probes
compensation: calls that take others back
failures: types of failure, outcomes
faults: faults inside a value
marks: messages with authentication codes
telemetry: facts of a run for spans and metrics
"""
