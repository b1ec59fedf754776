"""Statuses of HTTP in words."""

from http import HTTPStatus


def describe_status(status: int) -> str:
    """Write a status as `HTTP 404 Not Found`."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"
