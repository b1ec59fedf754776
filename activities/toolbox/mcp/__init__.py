"""Tools of MCP servers.

toolbox: calls, and their outcomes
lazy_toolbox: toolbox imported at first use
client_sdk: half of the SDK that is needed
session: live connection to a server
transport: way to reach a server
http: streamable HTTP
stdio: child process
message_filter: bounds on a server's messages
tool_list: tools that a server offers
result: result as text
handshake: first exchange with a server
"""
