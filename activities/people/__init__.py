"""People: the directory, signatures and edited arguments.

directory: people and their groups
requesters: people who start runs
signatures: tokens of decisions and starts
signed_calls: tokens checked before a call
control: who may control runs
edits: arguments changed by a person
"""
