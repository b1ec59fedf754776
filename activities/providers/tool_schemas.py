"""Tools as vendors take them: schemas rewritten so that none is refused, and the names of arguments read back.

The whole schema still judges the arguments of every call; what a vendor's form cannot say is told in the description.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from mandate.activities.providers import schema_root
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.vendor_rules import ROOT_KEYS, VendorRules
from mandate.activities.toolbox.schema_names import Names, find_children, find_others
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.rules import json_pointer
from mandate.workflows.rules.plain_text import shorten

TOLD_CHARACTERS = 600
"""Of the JSON in a description that says what the schema cannot."""
_SHOWN_CHARACTERS = 40

_NAMED = (
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependentRequired",
    "dependencies",
)
"""Keys whose value has names of the author's choice."""
_VALUES = ("enum", "const", "default", "examples")
_OLD_DRAFTS = ("draft-04", "draft-05", "draft-06", "draft-07", "2019-09")
_UPDATED = "its draft of JSON Schema is written as 2020-12"

Node = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as one vendor takes it."""

    description: str
    schema: JsonObject
    changes: tuple[str, ...] = ()
    """All of it that is rewritten, for people."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of arguments as they are sent, by those that the tool has; without those that are the same."""


def offer(definition: ToolDefinition, rules: VendorRules) -> OfferedTool:
    """Return a tool as a vendor with these rules takes it.

    Raises:
        UntellableSchema: no form of its schema would be taken.
    """
    rewriting = _Rewriting(definition.input_schema, rules)
    schema = rewriting.rewrite()
    description = "\n\n".join(filter(None, (definition.description.strip(), rewriting.told)))
    unchanged = definition.description if not rewriting.told else description
    return OfferedTool(unchanged, schema, tuple(dict.fromkeys(rewriting.changes)), rewriting.names)


def restore_names(definition: ToolDefinition, offered: OfferedTool, text: str) -> str:
    """Return the arguments `text` with the tool's own names; what is no JSON object stays as it is."""
    if not offered.names:
        return text
    try:
        return _restore(Raw.read(text), Names(definition.input_schema), (definition.input_schema,), offered.names)
    except ValueError:
        return text


def _restore(raw: Raw, reading: Names, applying: Sequence[JsonValue], names: Mapping[str, str]) -> str:
    if isinstance(raw.value, list):
        items = find_others(reading.parts(applying))
        return "[" + ",".join(_restore(item, reading, items, names) for item in raw.items) + "]"
    if not isinstance(raw.value, dict):
        return raw.text
    parts = reading.parts(applying)
    own = {names[name]: name for name in reading.collect_names(parts).names if name in names}
    others = find_others(parts)
    members = []
    for written, value in raw.pairs:
        name = own.get(written, written)
        members.append(f"{json.dumps(name)}:{_restore(value, reading, find_children(parts, name) or others, names)}")
    return "{" + ",".join(members) + "}"


class _Rewriting:
    """One schema on its way to one vendor."""

    def __init__(self, schema: JsonObject, rules: VendorRules) -> None:
        self._schema = schema
        self._rules = rules
        self._is_old = any(draft in str(schema.get("$schema", "")) for draft in _OLD_DRAFTS)
        self.changes: list[str] = []
        self.told = ""
        self.names = self._choose_names()

    def rewrite(self) -> JsonObject:
        own = {key: value for key, value in self._schema.items() if key != "$schema"}
        whole = self._node(own)
        flat = schema_root.flatten(whole)
        schema: JsonObject = {"type": "object", "properties": {}, **flat.schema}
        if flat.lost:
            self._tell(flat.lost)
        how = "told in its description" if flat.lost else "written out"
        self.changes += [f"{key!r} at the top of its schema is {how}" for key in ROOT_KEYS if key in whole]
        self.changes += [f"argument {name!r} is called {sent!r}" for name, sent in self.names.items()]
        return self._repair(schema)

    def _tell(self, lost: JsonObject) -> None:
        written = json.dumps(lost, ensure_ascii=False, separators=(",", ":"))
        if len(written) <= TOLD_CHARACTERS:
            self.told = f"The arguments must also fit this JSON Schema: {written}"
        else:
            self.told = "The arguments must fit more than this schema says; a call that does not fit is told why."

    def _choose_names(self) -> dict[str, str]:
        """Return the names to send in place of those that the vendor refuses; they are the same in every process."""
        allowed = self._rules.argument_name
        if allowed is None:
            return {}
        found = {name for node in _nodes(self._schema) for name in _mapping(node.get("properties"))}
        taken = {name for node in _nodes(self._schema) for name in _list_required(node)}
        taken |= {name for name in found if allowed.fullmatch(name)}
        names: dict[str, str] = {}
        for name in sorted(name for name in found if not allowed.fullmatch(name)):
            plain = re.sub(r"[^a-zA-Z0-9_.-]+", "_", name).strip("_")
            if not allowed.fullmatch(plain) or plain in taken:
                plain = f"{plain[:53]}_{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:10]}"
            taken.add(plain)
            names[name] = plain
        return names

    def _node(self, node: JsonValue, *, named: bool = False) -> JsonObject:
        made = self._rewritten(node, named=named)
        assert isinstance(made, dict)
        return made

    def _rewritten(self, node: JsonValue, *, named: bool = False) -> JsonValue:
        if isinstance(node, list):
            return [self._rewritten(item) for item in node]
        if not isinstance(node, dict):
            return node
        made: Node = {
            key: item if not named and key in _VALUES else self._rewritten(item, named=not named and key in _NAMED)
            for key, item in node.items()
        }
        if named:
            return made
        for rewrite in (self._update_draft, self._rename, self._drop_patterns, self._add_items):
            rewrite(made)
        return made

    def _update_draft(self, node: Node) -> None:
        """Write as 2020-12 what earlier drafts write otherwise: Anthropic refuses any other draft."""
        if not self._is_old:
            return
        for limit, key in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(node.get(key), bool):
                self.changes.append(_UPDATED)
                if node.pop(key) and limit in node:
                    node[key] = node.pop(limit)
        rest = node.pop("additionalItems", None)
        if isinstance(node.get("items"), list):
            self.changes.append(_UPDATED)
            node["prefixItems"] = node.pop("items")
            if rest is not None:
                node["items"] = rest

    def _rename(self, node: Node) -> None:
        for key in ("properties", "dependentSchemas", "dependentRequired", "dependencies"):
            if isinstance(value := node.get(key), dict):
                node[key] = {self.names.get(name, name): self._names_in(item, key) for name, item in value.items()}
        node.update({"required": self._names_in(node["required"], "required")} if "required" in node else {})

    def _names_in(self, value: JsonValue, key: str) -> JsonValue:
        """Return a list of names as they are sent; whatever else stands under `key` stays."""
        if key == "properties" or not isinstance(value, list):
            return value
        return [self.names.get(name, name) if isinstance(name, str) else name for name in value]

    def _drop_patterns(self, node: Node) -> None:
        """Leave out patterns that Python has no reading for: vendors check them with it, "is not a 'regex'"."""
        pattern = node.get("pattern")
        if isinstance(pattern, str) and not _is_pattern(pattern):
            del node["pattern"]
            node["description"] = f"{node.get('description') or ''} Pattern: {pattern}".strip()
            self.changes.append(f"pattern {shorten(pattern, _SHOWN_CHARACTERS)!r} is told in a description")
        patterns = node.get("patternProperties")
        if isinstance(patterns, dict) and not all(map(_is_pattern, patterns)):
            node["patternProperties"] = {key: value for key, value in patterns.items() if _is_pattern(key)}
            # The names that are left out would be refused otherwise.
            node.pop("additionalProperties", None)
            self.changes.append("names of arguments by a pattern that vendors cannot read are left out")

    def _add_items(self, node: Node) -> None:
        kinds = node.get("type")
        is_list = "array" in (kinds if isinstance(kinds, list) else [kinds])
        if self._rules.lists_need_items and is_list and "items" not in node:
            node["items"] = {}

    def _repair(self, schema: JsonObject) -> JsonObject:
        """Return `schema` with what its references name, also where that stood at a place that it no longer has."""
        moved: dict[str, str] = {}
        repaired = _map_references(schema, lambda reference: self._find(schema, reference, moved))
        definitions: JsonObject = {}
        waiting = list(moved)
        while waiting:
            reference = waiting.pop(0)
            known = len(moved)
            part = self._rewritten(json_pointer.resolve(self._schema, reference))
            definitions[moved[reference]] = _map_references(part, lambda other: self._find(schema, other, moved))
            waiting += list(moved)[known:]
        if not definitions:
            return schema
        assert isinstance(repaired, dict)
        return {**repaired, "$defs": {**_mapping(repaired.get("$defs")), **definitions}}

    def _find(self, schema: JsonObject, reference: str, moved: dict[str, str]) -> str:
        if json_pointer.resolve(schema, reference) is not None or not reference.startswith("#/"):
            return reference
        if json_pointer.resolve(self._schema, reference) is None:
            return reference
        moved.setdefault(reference, f"moved_{len(moved) + 1}")
        return f"#/$defs/{moved[reference]}"


def _map_references(node: JsonValue, change: Callable[[str], str], *, named: bool = False) -> JsonValue:
    if isinstance(node, list):
        return [_map_references(item, change) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: change(item)
        if not named and key == "$ref" and isinstance(item, str)
        else item
        if not named and key in _VALUES
        else _map_references(item, change, named=not named and key in _NAMED)
        for key, item in node.items()
    }


def _nodes(schema: JsonValue, *, named: bool = False) -> Iterator[Node]:
    """Yield each schema in `schema`."""
    if isinstance(schema, list):
        for item in schema:
            yield from _nodes(item)
    if isinstance(schema, dict):
        if not named:
            yield schema
        for key, item in schema.items():
            if named or key not in _VALUES:
                yield from _nodes(item, named=not named and key in _NAMED)


def _list_required(node: Node) -> Iterator[str]:
    """Yield the names of arguments that stand in lists: those that there must be, alone or with others."""
    dependent = (*_mapping(node.get("dependentRequired")).values(), *_mapping(node.get("dependencies")).values())
    for names in (node.get("required"), *dependent):
        yield from (name for name in (names if isinstance(names, list) else ()) if isinstance(name, str))


def _mapping(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _is_pattern(pattern: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            return False
    return True
