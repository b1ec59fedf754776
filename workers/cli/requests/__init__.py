"""Requests to people on a terminal, and their answers.

names: names of requests
text: requests in words
entitled: requests of a person
decisions: decisions looked up and sent
edit: other arguments for a call
"""
