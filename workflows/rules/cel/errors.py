"""Reasons why a condition cannot be evaluated, in words: the library's errors without codes and values."""

import re

_KINDS = {
    "bool": "a boolean",
    "bytes": "bytes",
    "double": "a decimal number",
    "duration": "a duration",
    "dyn": "a value",
    "int": "a whole number",
    "int64": "a whole number",
    "list": "a list",
    "map": "an object",
    "null": "null",
    "null_type": "null",
    "string": "a text",
    "struct": "a long text",
    "timestamp": "a time",
    "uint": "a whole number",
    "uint64": "a whole number",
}

_PLAIN = {
    "divide by zero": "it divides by zero",
    "modulus by zero": "it divides by zero",
    "integer overflow": "a whole number gets too large",
    "Iteration budget exceeded": "it is too costly",
    "Applying SELECT to non-message type": "it looks for a key in something that is not an object",
    "String to Timestamp conversion failed": "a text is not a time",
    "String to Duration conversion failed": "a text is not a duration",
    "Invalid timezone": "a time zone is not known",
    "No matching overloads found : <jump_condition>": "what stands before '?' is not true or false",
    "No matching overloads found : <iter_range>": "it goes through something that is neither a list nor an object",
    "No matching overloads found : @in": "'in' needs a list or an object",
}

_LOGIC = {"&&", "||", "!"}
_MIXED = {"a decimal number", "a whole number"}

_CODES = re.compile(r"^(?:[A-Z_]+: )+|(?: \[[A-Z_]+\])+$")
_KEY = re.compile(r'Key not found in map : "?(.*?)"?$', re.DOTALL)
_FIELD = re.compile(r"no_such_field : (\w+)")
_OPERATION = re.compile(r"No matching overloads found : ([!@_&|<>=+*/%?:\-\[\]]+)(?:\((.*)\))?$")
_FUNCTION = re.compile(r"No matching overloads found : (?:\((\w+)\)\.)?(\w+)\((.*)\)$")
_CHECKED = re.compile(
    r"found no matching overload for '(\w+|[!@_&|<>=+*/%?:\-\[\]]+)' applied to '(\w+\.)?\(?(.*?)\)?'"
)
_INDEX = re.compile(r"Index error: index=(-?\d+) size=(\d+)")
_INDEX_KIND = re.compile(r"Index error: expected integer type, got (\w+)")
_CONVERSION = re.compile(r"cannot convert (\w+) to (\w+)|Type conversion error from '(\w+)' to '(\w+)'")
_RANGE = re.compile(r"out of u?int64 range")
_CONTAINER = re.compile(r"Invalid container type: '(\w+)'")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_SYNTAX = re.compile(r"<input>:(\d+):(\d+): (.*)")


def describe_kind(name: str) -> str:
    """Return `a text` for `string`, with what stands in angle brackets left out."""
    plain = name.partition("<")[0].rpartition(".")[2].strip().lower()
    return _KINDS.get(plain, plain or "a value")


def explain(message: str, text: str) -> str:
    """Return why the condition `text` cannot be evaluated, as part of a sentence.

    `message` is the library's. Of its values only what stands in `text` too is named: others may be sensitive.
    """
    plain = _CODES.sub("", message.partition("\n")[0].strip()).removeprefix("ERROR: ")
    if plain in _PLAIN:
        return _PLAIN[plain]
    if found := _KEY.search(message.strip()):
        named = found[1].splitlines()[0] if found[1] else ""
        return f"the key {named!r} is missing" if named and named in text else "a key that it computes is missing"
    if found := _FIELD.search(plain):
        return f"a long text has 'size', 'digest' and 'preview', not {found[1]!r}"
    if found := _OPERATION.search(plain):
        return _describe_operation(found[1].replace("_", ""), found[2])
    if found := _FUNCTION.search(plain):
        return _describe_operation(found[2], ", ".join(part for part in (found[1], found[3]) if part))
    if found := _CHECKED.search(plain):
        name = found[1] if found[1].isidentifier() else found[1].replace("_", "")
        return _describe_operation(name, ", ".join(part for part in (found[2], found[3]) if part))
    return _explain_rare(plain)


def _explain_rare(plain: str) -> str:
    if found := _INDEX.search(plain):
        return f"a list of {found[2]} has no item {found[1]}"
    if found := _INDEX_KIND.search(plain):
        return f"an item of a list is looked for by {describe_kind(found[1])}"
    if found := _CONVERSION.search(plain):
        return f"{describe_kind(found[1] or found[3])} cannot be made {describe_kind(found[2] or found[4])}"
    if _RANGE.search(plain):
        return "a whole number gets too large"
    if found := _CONTAINER.search(plain):
        return f"it looks for an item in {describe_kind(found[1])}"
    if found := _UNDECLARED.search(plain):
        return f"{found[1]!r} is not known"
    if "invalid regular expression" in plain:
        return "a pattern is no regular expression"
    if found := _SYNTAX.search(plain):
        return f"it is no expression of CEL (line {found[1]}, column {found[2]})"
    return "the library of conditions failed on it"


def _describe_operation(operation: str, kinds: str | None) -> str:
    if operation in _LOGIC:
        return f"a part of {operation!r} is not true or false"
    parts = [describe_kind(part) for part in kinds.split(",")] if kinds else ["these values"]
    hint = " (write 100.0 for 100)" if set(parts) == _MIXED else ""
    return f"{operation!r} does not go with {' and '.join(parts)}{hint}"
