"""The client library: starts runs, asks them, sends them messages."""
