"""Checks of an installation, which change nothing: what `mandate doctor` tells.

findings: result of one check
limits: time that a check may take
server: address, namespace, search attributes and clock of Temporal
certificates: client certificates
queue: workers that poll, and their versions
store: store of the workers
files: agents, people and keys
"""
