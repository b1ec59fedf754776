"""One concept a file; every one runs without keys.

shop: tools of the demo
shop_checks: checks of its answers
shop_data: its database
shop_rules_server: return rules as MCP server
shop_supplier: tool of the team that is never answered
sign_decision: signer of decisions and starts
shop_books: shop's database, as proof
"""
