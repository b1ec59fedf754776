"""Tools of MCP servers.

toolbox: calls, and their outcomes
lazy_toolbox: toolbox imported at first use
client_sdk: half of the SDK that is needed
session: live connection to a server
transport: way to reach a server
http: streamable HTTP
stdio: child process
http_refusal: statuses in place of an answer
message_filter: bounds on a server's messages
json_message: messages as servers write them
tool_list: tools that a server offers
tool_entries: entries of that list, one by one
definitions: tools as an agent file wants them
result: result as text
elicitation: questions for people
rounds: rounds of a call that asks
content: parts of a result
causes: causes inside exception groups
handshake: first exchange with a server
"""
