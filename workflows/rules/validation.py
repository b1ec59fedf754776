"""Errors of pydantic as sentences in the words of who wrote the value: no types of Python, no tags, no secrets."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, StringConstraints, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_json

from mandate.workflows.contracts import tool_entry
from mandate.workflows.contracts.base import DIGEST_PATTERN, Name, Spec
from mandate.workflows.contracts.faults import FAULT, Located, Place, did_you_mean, key_path
from mandate.workflows.contracts.policy import Group, Person
from mandate.workflows.contracts.route import ENDPOINT_FORM, NAME_FORM, ModelName
from mandate.workflows.contracts.session import MessageId
from mandate.workflows.rules import plain_text

VALUE_CHARACTERS = 60
PATH_CHARACTERS = 80

FAULTS_TOLD = 20
"""Most faults of one request that are put into words: a hundred thousand take longer than a workflow task may."""

CONTAINER = 30
"""What a list or an object weighs, in characters."""

_TIME = "is not a time with its zone, for example 2026-11-02T09:00:00Z"
_DURATION = "is not a duration, for example '30s', '5m', '1h30m' or '2d'"
_TYPES = {
    "string_type": "is not a text",
    "string_unicode": "holds half of a surrogate pair, which is no text",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "bool_type": "is not true or false",
    "bool_parsing": "is not true or false",
    "float_type": "is not a number",
    "decimal_parsing": "is not a number",
    "time_delta_type": _DURATION,
    "time_delta_parsing": _DURATION,
    "finite_number": "is not a finite number",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": _TIME,
    "tuple_type": "is not a list",
    "list_type": "is not a list",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_CHOICES = ("enum", "literal_error")
_MAPPINGS = ("dict_type", "model_type", "model_attributes_type")
_BOUNDS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def _pattern(annotated: object) -> str:
    constraints = next(item for item in getattr(annotated, "__metadata__", ()) if isinstance(item, StringConstraints))
    return str(constraints.pattern)


_PATTERNS = {
    _pattern(Name): "is not a letter followed by up to 63 letters, digits, '_' and '-'",
    _pattern(ModelName): f"is not {NAME_FORM}, or {ENDPOINT_FORM}",
    _pattern(Group): "is not a letter or digit followed by up to 63 letters, digits, '_', '.', '@', '/' and '-'",
    _pattern(Person): "is not a name of 1 to 200 characters without spaces around it",
    _pattern(MessageId): "is not a name of characters of ASCII without spaces",
    DIGEST_PATTERN: "is not a digest: 43 letters, digits, '_' and '-'",
    tool_entry.PYTHON_PATH: "is not 'module:function', for example 'shop.tools:lookup_order'",
    tool_entry.HTTP_ADDRESS: "does not begin with http:// or https://",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """One thing wrong in a file that a person wrote."""

    place: Place
    message: str
    """One sentence that goes on after the key: what is there and what is allowed."""
    value: str
    """Value as it stands, shortened; empty where it may not be shown."""


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[Explanation, ...]:
    """Return all that `error` says of what was to be a `model` and stands in a file, each with its place there."""
    faults = [_Fault(detail, model, is_file=True) for detail in error.errors(include_url=False)]
    found = [
        Explanation(place, sentence, fault.value) for fault in _meant(faults) for place, sentence in fault.sentences()
    ]
    return tuple(dict.fromkeys(found))


def sentences(
    error: ValidationError,
    model: type[BaseModel],
    *,
    unshown: Sequence[str] = (),
    forms: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return each fault of a request once, by its field, with the value and what is allowed.

    Values of `unshown` fields are left out; a field of `forms` has that form, whatever is wrong with it.
    """
    details = error.errors(include_url=False)[:FAULTS_TOLD]
    told: dict[str, str] = {}
    for fault in _meant([_Fault(detail, model, is_file=False, unshown=unshown) for detail in details]):
        name = str(fault.place[0]) if fault.place else "it"
        if name in forms and fault.kind not in {"missing", "extra_forbidden"}:
            told.setdefault(name, f"{fault.value} must be {forms[name]}".lstrip())
            continue
        for place, sentence in fault.sentences():
            told.setdefault(plain_text.shorten(key_path(place), PATH_CHARACTERS) or name, sentence)
    return "; ".join(f"{path}: {sentence}" for path, sentence in told.items())


def describe_misfit(error: ValidationError) -> str:
    """Return what is wrong with one value that is no part of a model, as the word of a command line."""
    detail = error.errors(include_url=False)[0]
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return "; ".join(sentence for _, sentence in _Fault(detail, BaseModel, is_file=False).sentences())


def _meant(faults: "Sequence[_Fault]") -> "list[_Fault]":
    """Leave out errors of kinds that a value was not meant to be of, and those that only follow from others."""
    values = {fault.place: fault.detail["input"] for fault in faults}
    around = {fault.place[:length] for fault in faults for length in range(len(fault.place))}
    meant = [
        fault
        for fault in faults
        # A list whose items have faults is told to be empty too.
        if fault.is_meant(values) and not (fault.kind == "too_short" and fault.place in around)
    ]
    return meant or list(faults)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A value that may be of several kinds, and the kind that an error is about."""

    place: Place
    kinds: tuple[object, ...]
    kind: object

    def is_meant(self, value: object) -> bool:
        """Tell whether `value` was probably meant to be of this kind; meant as none, it is told for the first."""
        fitting = [kind for kind in self.kinds if _fits(kind, value)] or [self.kinds[0]]
        return self.kind in fitting

    def suits(self, value: object) -> bool:
        return any(_fits(kind, value) for kind in self.kinds)


class _Fault:
    """An error of pydantic, found again in the model that the value was to be."""

    def __init__(
        self, detail: ErrorDetails, model: type[BaseModel], *, is_file: bool, unshown: Sequence[str] = ()
    ) -> None:
        self.detail = detail
        self.kind = detail["type"]
        self.place: Place = ()
        self._is_file = is_file
        self._is_hidden = bool(detail["loc"]) and detail["loc"][0] in unshown
        self._kinds: tuple[object, ...] = (model,)
        self._owner: type[BaseModel] | None = None
        self._field: FieldInfo | None = None
        self._choices: list[_Choice] = []
        """From the outermost on: a list of texts or lists has one within the other."""
        for part in detail["loc"]:
            self._enter(part)

    def _enter(self, part: str | int) -> None:
        if len(self._kinds) > 1:
            # Pydantic names the kind that it tried, which is no key of the value.
            tagged = next((kind for kind in self._kinds if part in _tags(kind)), None)
            found = tagged or next((kind for kind in self._kinds if _is_named(kind, str(part))), None)
            if found is None:
                # Of a validator of ours, which names the value's keys alone.
                self._step(None, part)
                return
            if tagged is None:
                self._choices.append(_Choice(self.place, self._kinds, found))
            self._kinds = (found,)
        elif part != "[key]":
            self._step(_bare(self._kinds[0]), part)

    def _step(self, kind: object, part: str | int) -> None:
        """Go from a value of this kind to the one under the key or position `part`."""
        self._owner, self._field, inner = None, None, None
        if _is_model(kind):
            self._owner, self._field = kind, _find_field(kind, str(part))
            if self._field is not None:
                inner = self._field.annotation
                self._is_hidden = self._is_hidden or not self._field.repr
        elif get_origin(kind) in {tuple, list}:
            inner = get_args(kind)[0]
        elif get_origin(kind) is dict:
            inner = get_args(kind)[1]
        self._kinds, self.place = _members(inner), (*self.place, part)

    @property
    def value(self) -> str:
        """Value as given, shortened; empty for what may be secret, and for mappings and lists that are looked into."""
        value = self.detail["input"]
        if self._is_hidden or self.kind in {"missing", FAULT, "tool_kind", "union_tag_not_found"}:
            return ""
        if self.kind == "union_tag_invalid":
            value = self.detail["ctx"]["tag"]
        if isinstance(value, dict):
            return self._mapping if self.kind in {*_TYPES, *_CHOICES} else ""
        if isinstance(value, list):
            return "a list" if self.kind in {*_TYPES, *_MAPPINGS, *_CHOICES} and value and self.place else ""
        written = repr(value) if not isinstance(value, bool | None) else to_json(value).decode()
        return plain_text.shorten(written, VALUE_CHARACTERS)

    def is_meant(self, values: Mapping[Place, object]) -> bool:
        """Tell whether the value was meant to be of the kind that this is about; `values` are those with errors."""
        return all(choice.place not in values or choice.is_meant(values[choice.place]) for choice in self._choices)

    def sentences(self) -> Iterator[Located]:
        """Say what is wrong and what is allowed, in a sentence that goes on after the key."""
        value = self.value
        choice = next((choice for choice in reversed(self._choices) if choice.place == self.place), None)
        if choice is not None and not choice.suits(self.detail["input"]):
            yield self.place, f"{value} is neither {' nor '.join(map(self._describe, choice.kinds))}".lstrip()
        elif self.kind == "union_tag_not_found":
            yield self.place, f"has no key {self._discriminator!r}; it is one of {self._allowed_tags}"
        elif self.kind == "union_tag_invalid":
            yield (*self.place, self._discriminator), f"{value} is not one of {self._allowed_tags}".lstrip()
        else:
            yield self.place, self._sentence(value)

    def _sentence(self, value: str) -> str:
        ctx = self.detail.get("ctx", {})
        match self.kind:
            case "missing":
                described = self._field.description if self._field is not None and self._is_file else None
                return f"is missing: {described}" if described else "is missing"
            case "extra_forbidden":
                return self._unknown_key()
            case "tool_kind":
                return tool_entry.kind_fault(self.detail["input"])
            case kind if kind in _CHOICES:
                allowed = re.findall(r"'([^']*)'", str(ctx["expected"])) or [str(ctx["expected"]).lower()]
                return f"{value} is not one of {', '.join(allowed)}".lstrip()
            case "string_pattern_mismatch":
                pattern = str(ctx["pattern"])
                return f"{value} {_PATTERNS.get(pattern, f'does not match {pattern}')}".lstrip()
            case "string_too_long":
                size = len(self.detail["input"])
                return _after(value, f"has {size:,} characters and must have at most {ctx['max_length']:,}")
            case "value_error":
                return _after(value, str(ctx["error"]))
            case "fault":
                return self.detail["msg"]
        if self.kind in _MAPPINGS:
            return f"{value} is not {self._mapping if self.place else self._describe(self._kinds[0])}".lstrip()
        if self.kind in _TYPES:
            # Quotes make a text of a number or a boolean; of nothing, a list or a mapping they do not.
            is_quotable = self.kind == "string_type" and isinstance(self.detail["input"], bool | int | float)
            quotes = "; put it in quotes" if is_quotable and self._is_file else ""
            return f"{value} {_TYPES[self.kind]}{quotes}".lstrip()
        if self.kind in _BOUNDS:
            key, must = _BOUNDS[self.kind]
            bound = ctx[key]
            return _after(value, f"{must} {f'{bound:g}' if isinstance(bound, float) else bound}")
        return _after(value, re.sub(r"^\w+ should ", "must ", self.detail["msg"]))

    def _unknown_key(self) -> str:
        if self._owner is None:
            return "is not allowed here"
        key = str(self.place[-1])
        if issubclass(self._owner, Spec) and key in self._owner.unavailable:
            return "is not available in this version; remove it"
        known = _keys(self._owner)
        if not self._is_file:
            return f"is not a known key{did_you_mean(key, known)}".removesuffix(";")
        return f"is not a key that is known here{did_you_mean(key, known)} allowed are {', '.join(sorted(known))}"

    @property
    def _discriminator(self) -> str:
        return str(self.detail["ctx"]["discriminator"]).strip("'")

    @property
    def _allowed_tags(self) -> str:
        return ", ".join(tag for kind in self._kinds for tag in _tags(kind))

    @property
    def _mapping(self) -> str:
        return "a mapping" if self._is_file else "an object"

    def _describe(self, kind: object) -> str:
        """Say what a value of this kind is."""
        plain = _bare(kind)
        if _is_model(plain):
            needed = [repr(field.alias or name) for name, field in plain.model_fields.items() if field.is_required()]
            listed = " and ".join(filter(None, (", ".join(needed[:-1]), *needed[-1:])))
            return f"{self._mapping} with {listed}" if needed else self._mapping
        match get_origin(plain) or plain:
            case origin if origin is Literal:
                return " nor ".join(map(repr, get_args(plain)))
            case origin if origin is str:
                return "a name" if any(getattr(mark, "pattern", None) for mark in get_args(kind)[1:]) else "a text"
            case origin if origin is dict:
                return self._mapping
            case origin if origin in {tuple, list}:
                return "a list"
        return "a number"


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _find_field(model: type[BaseModel], key: str) -> FieldInfo | None:
    return next((field for name, field in model.model_fields.items() if key in {name, field.alias}), None)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _bare(kind: object) -> object:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _members(type_: object) -> tuple[object, ...]:
    """Return the kinds that a value of this type may be of, `None` left out; most types are of one kind."""
    if get_origin(_bare(type_)) not in {Union, UnionType}:
        return (type_,)
    kinds = tuple(kind for kind in get_args(_bare(type_)) if kind is not NoneType)
    return _members(kinds[0]) if len(kinds) == 1 else kinds


def _tags(kind: object) -> tuple[str, ...]:
    """Return the words by which a value says that it is of this kind."""
    if get_origin(kind) is Annotated:
        return tuple(str(mark.tag) for mark in get_args(kind)[1:] if isinstance(mark, Tag))
    if not _is_model(kind):
        return ()
    literals = [field.annotation for field in kind.model_fields.values() if field.is_required()]
    return tuple(get_args(literal)[0] for literal in literals if get_origin(literal) is Literal)


def _is_named(kind: object, label: str) -> bool:
    """Tell whether pydantic calls this kind `label`."""
    plain = _bare(kind)
    if _is_model(plain):
        return label == plain.__name__ or label.endswith(f" {plain.__name__}]")
    if get_origin(plain) is Literal:
        return label.startswith("literal[")
    name = getattr(get_origin(plain) or plain, "__name__", "").lower()
    # A validator of ours around it is part of the label.
    return re.match(rf"(?:function-\w+\[\w+\(\), )?(?:constrained-)?{name}\b", label) is not None


def _fits(kind: object, value: object) -> bool:
    """Tell whether somebody who wrote `value` probably meant something of this kind."""
    plain = _bare(kind)
    if isinstance(value, dict):
        return _is_model(plain) or get_origin(plain) is dict
    if isinstance(value, list):
        return get_origin(plain) in {tuple, list}
    return isinstance(value, str) and plain is str


def _after(value: str, sentence: str) -> str:
    return f"{value}: {sentence}" if value else sentence


def is_vast(value: object, characters: int) -> bool:
    """Tell whether the keys, texts and items of a JSON value are more than `characters`; reads no further than that."""
    return weight(value, characters) > characters


def weight(value: object, most: int) -> int:
    """Weigh a JSON value: its characters and items, and the cost to read its containers; not beyond `most`.

    A container takes about as long as thirty characters.
    """
    waiting, sum_ = [value], 0
    while waiting and sum_ <= most:
        one = waiting.pop()
        if isinstance(one, str):
            sum_ += len(one)
        elif isinstance(one, dict):
            sum_ += CONTAINER + len(one) + sum(map(len, one))
            waiting.extend(one.values())
        elif isinstance(one, list):
            sum_ += CONTAINER + len(one)
            waiting.extend(one)
    return sum_
