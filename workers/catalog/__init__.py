"""The catalog: agent files and what they name, read and checked.

catalog: all agents of a worker. agents: files of agents. tools: their tools, resolved. checks: checks, probes and
compensations. policies: shared policy files. examples: calls judged as a run would. policy_summary: what becomes of
calls. conditions: conditions checked against tools. condition_types: what conditions see. condition_reads: arguments
that conditions read. condition_errors: the CEL library's errors. people: who decides, and keys. channels: where people
are told. readiness: scripts, keys and hosts. mcp_acceptance: words of servers, accepted. earlier_agents: agents of
earlier files.
"""
