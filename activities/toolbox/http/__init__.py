"""Tools over HTTP.

toolbox: one request a call
request: request of a call
response: outcome and text of an answer
status: statuses in words
body_text: bodies as text
hosts: hosts that tools may reach
public_address: addresses on the open internet
"""
