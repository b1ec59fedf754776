"""Providers: one module a model protocol; each is imported only when a configuration names it.

A new one is a module here, its rules in `vendor_rules`, its name in `workflows/contracts/route.py`, its settings in
`workers/settings.py` and its maker in `workers/providers.py`.

base: contract of a provider
anthropic: Anthropic's Messages protocol
openai_responses: OpenAI's Responses protocol
openai_chat: Chat Completions of compatible servers
openai_client: connection to such servers
service: address and headers of a server
params: request fields of an agent file
requests: parts of all requests
responses: parts of all answers
streams: answers that come in pieces
openai_responses_stream: streamed answers of Responses
openai_chat_stream: streamed answers of Chat Completions
anthropic_stream: streamed answers of Messages
server_events: server-sent events in bytes
response_limits: bounds on an answer's size
breaker: pauses for models that are down
errors: a provider's faults as failures
prices: prices and costs of calls
rawjson: JSON kept as its text
vendor_rules: what vendors refuse of tools
tool_schemas: tools as vendors take them
schema_root: the top of a tool's schema
scripted: models that play a script
"""
