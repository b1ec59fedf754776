"""Entries of a server's list of tools, each looked at by itself: one that is broken costs no other."""

from mcp_types import Tool as ListedTool
from mcp_types import methods
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import JsonValue, ValidationError

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules.plain_text import shorten

FAULT_META = "mandate/fault"
"""Key of the reason in the `_meta` of what stands for a broken entry."""
_PAGE: JsonObject = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
"""Fields of a page that later versions of the protocol demand, and that nothing here depends on."""


def find_version(method: str, result: JsonObject) -> str | None:
    """Return the version of the protocol that an answer to the handshake settles."""
    if method == "initialize" and isinstance(version := result.get("protocolVersion"), str):
        return version
    return MODERN_PROTOCOL_VERSIONS[-1] if method == "server/discover" else None


def mend_page(page: JsonObject, version: str) -> JsonObject:
    """Return a page of tools with a note in place of each broken entry, and without pictures, which are of no use."""
    tools = page.get("tools")
    if not isinstance(tools, list):
        return page
    mended = [_mend(tool, number, version) for number, tool in enumerate(tools, 1)]
    missing = _PAGE if version in MODERN_PROTOCOL_VERSIONS else {}
    return {**missing, **page, "tools": mended}


def find_fault(listed: ListedTool) -> str | None:
    """Return why an entry was broken."""
    fault = (listed.meta or {}).get(FAULT_META)
    return None if fault is None else str(fault)


def describe_protocol_fault(error: ValidationError, *, below: int = 0) -> str:
    """Return where an answer breaks the protocol, and how; `below` parts of the path are left out."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = shorten(".".join(str(part) for part in fault["loc"][below:]), 100)
    return f"its answer breaks the protocol: {where}: {fault['msg']}"


def _mend(tool: JsonValue, number: int, version: str) -> JsonValue:
    if not isinstance(tool, dict):
        return _note(f"(number {number})", "it is no object, as the protocol has it")
    plain: JsonObject = {key: value for key, value in tool.items() if key != "icons"}
    try:
        ListedTool.model_validate(plain, by_name=False)
    except ValidationError as error:
        return _note(_name(tool, number), describe_protocol_fault(error))
    try:
        methods.validate_server_result("tools/list", version, {**_PAGE, "tools": [plain]})
    except ValidationError as error:
        return _note(_name(tool, number), describe_protocol_fault(error, below=2))
    except (KeyError, ValueError):
        # A version that the SDK does not know: it refuses the connection.
        pass
    return plain


def _name(tool: JsonObject, number: int) -> str:
    name = tool.get("name")
    return shorten(name, 128) if isinstance(name, str) and name else f"(number {number})"


def _note(name: str, fault: str) -> JsonObject:
    return {"name": name, "inputSchema": {"type": "object"}, "_meta": {FAULT_META: fault}}
