"""The embedded Temporal server.

server: server of a folder, shared
lease: share in that server
keeper: process that runs the server
binary: Temporal CLI that it runs
"""
