"""Channels: one module a kind; those with an HTTP client are imported only when a configuration names them.

A new one is a module here, its model in `workflows/contracts/channels.py`
and its sender in `workers/catalog/channels.py`.

base: channel, sender, filters
delivery: attempts within one deadline
http_post: one POST to a receiver
log: notices in the worker's log
slack: notices through a Slack webhook
slack_blocks: Slack messages within its limits
webhook: notices as signed JSON
"""
