"""The transcript: the conversation of a run in the store.

log: chains of segments
blobs: bytes by content address
payload_blob_codec: payload codecs for the store
conversation: messages in memory
earlier_calls: calls that cuts left out
results: results of calls
sensitive_arguments: references to sensitive arguments
pinned_agents: agents by digest
"""
