"""One call to the fault server, as Python tools, MCP servers and activities make it."""

import http.client
import os
from urllib.parse import urlsplit

from tests.support.fault_plan import EFFECTS

URL = "MANDATE_TEST_FAULTS"
"""Environment: address of the fault server."""

CALLER = "MANDATE_TEST_CALLER"
"""Environment: the name of the process to kill when a call of it is to be hurt."""

NAIVE = "MANDATE_TEST_NAIVE"
"""Environment: the MCP server says that a call failed when it does not know."""

METHODS = {"read": "GET", "idempotent": "PUT", "keyed": "POST", "once": "POST"}


class Busy(Exception):
    """The server answered 503: nothing was done, and another attempt is welcome `retry_after` seconds later."""

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def call(tool: str, run: str, item: str, key: str | None) -> str:
    """The receipt.

    Raises:
        Busy: see there.
        OSError, http.client.HTTPException: it may have been done.
    """
    address = urlsplit(os.environ[URL])
    method = METHODS[EFFECTS[tool.partition("_")[0]]]
    headers = {"X-Caller": os.environ[CALLER]}
    if key is not None and method == "POST":
        headers["Idempotency-Key"] = key
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        connection.request(method, f"/{tool}/{run}/{item}", headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status == 503:
        raise Busy(text, float(answer.headers["Retry-After"]))
    if answer.status != 200:
        raise http.client.HTTPException(f"{answer.status}: {text}")
    return text
