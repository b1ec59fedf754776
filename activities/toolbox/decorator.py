"""Python functions as tools: the `@tool` decorator, and what it and an agent file say together."""

import importlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from mandate.activities.toolbox.context import NotDone, ToolContext
from mandate.activities.toolbox.signature import (
    Function,
    InvalidTool,
    Signature,
    check_parameters,
    function_name,
    read_signature,
)
from mandate.workflows.contracts.base import JsonObject, Name, check_storable, parse_duration
from mandate.workflows.contracts.faults import did_you_mean
from mandate.workflows.contracts.tool import Effect, PythonBinding, Tool, ToolDefinition
from mandate.workflows.contracts.tool_entry import LONGEST_CACHE, SENSITIVE_CACHE, PythonTool, refuse_cache
from mandate.workflows.rules.surrogates import repair_json, repair_text

__all__ = [
    "InvalidTool",
    "NotDone",
    "ToolContext",
    "ToolSettings",
    "define_tool",
    "find_settings",
    "load_function",
    "read_tool",
    "tool",
]

F = TypeVar("F", bound=Function)
EffectName = Literal["read", "idempotent", "keyed", "once"]

_MARK = "__mandate_tool__"
_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class ToolSettings:
    """Settings that `@tool` gives a function; an agent file may override each."""

    effect: Effect = Effect.ONCE
    timeout: timedelta = timedelta(seconds=60)
    patience: timedelta | None = None
    retries: int | None = None
    key_valid: timedelta | None = None
    untrusted: bool = False
    tags: tuple[str, ...] = ()
    risk: float = 0.0
    sensitive: tuple[str, ...] = ()
    cache: timedelta | None = None
    name: str | None = None
    description: str | None = None
    input_schema: JsonObject | None = None


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    effect: Effect | EffectName = ...,
    timeout: timedelta | str = ...,
    patience: timedelta | str | None = ...,
    retries: int | None = ...,
    key_valid: timedelta | str | None = ...,
    untrusted: bool = ...,
    tags: Sequence[str] = ...,
    risk: float = ...,
    sensitive: Sequence[str] = ...,
    cache: timedelta | str | None = ...,
    name: str | None = ...,
    description: str | None = ...,
    input_schema: Mapping[str, object] | None = ...,
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    effect: Effect | EffectName = Effect.ONCE,
    timeout: timedelta | str = timedelta(seconds=60),
    patience: timedelta | str | None = None,
    retries: int | None = None,
    key_valid: timedelta | str | None = None,
    untrusted: bool = False,
    tags: Sequence[str] = (),
    risk: float = 0.0,
    sensitive: Sequence[str] = (),
    cache: timedelta | str | None = None,
    name: str | None = None,
    description: str | None = None,
    input_schema: Mapping[str, object] | None = None,
) -> F | Callable[[F], F]:
    """Make a sync or async function a tool; it stays an ordinary function.

    The model is told its docstring and its arguments' type hints and descriptions. A single parameter that is a
    pydantic model takes all arguments; a parameter of type `ToolContext` is given the call's context.

    Args:
        function: Given when it is used without parentheses.
        effect: What a call does to the world: `read`, `idempotent`, `keyed` (it passes the idempotency key on) or
            `once`, which is never repeated on a guess.
        timeout: Longest time of one attempt, for example `"30s"`.
        patience: How long a call is repeated while the other side is down, for example `"5m"`: one minute for `read`,
            ten for `idempotent` and `keyed` if left out; never for `once`.
        retries: Attempts after the first at most, 0 to 20, if patience alone is not to bound them.
        key_valid: For `keyed`: how long the other side knows the idempotency key, for example `"24h"`; no attempt
            begins later.
        untrusted: Its results come from outside and may try to instruct the model.
        tags: Words that policy rules can match.
        risk: How much harm a call can do, from 0 on, on a scale of your own; rules and people see it.
        sensitive: Arguments that are shown nowhere but to the tool and the model, and of which rules see nothing.
        cache: For `read`: how long a result answers equal calls, of other runs too, for example `"10m"`; at most 24
            hours. Give it to functions whose results depend on their arguments alone. Left out, each call is made.
        name: What the model and the policy call it, if not the function's name.
        description: What the model is told, if not the docstring.
        input_schema: The JSON Schema of the arguments, if not what the type hints say: for a function that takes
            `**kwargs`, or whose arguments no type hint describes. Values are still converted to the type hints.

    Raises:
        InvalidTool: a setting out of range or without use, or a function whose arguments can have no schema.
    """
    known = _effect(effect)
    if key_valid is not None:
        _check_keyed("key_valid", known)
    if cache is not None and known is not Effect.READ:
        raise InvalidTool(f"cache {refuse_cache(known)}")
    if cache is not None and sensitive:
        raise InvalidTool(f"cache: {SENSITIVE_CACHE}")
    settings = ToolSettings(
        effect=known,
        timeout=_duration("timeout", timeout),
        patience=None if patience is None else _duration("patience", patience),
        retries=None if retries is None else _retries(retries),
        key_valid=None if key_valid is None else _duration("key_valid", key_valid),
        untrusted=untrusted,
        tags=_texts("tags", tags),
        risk=_risk(risk),
        sensitive=_texts("sensitive", sensitive),
        cache=None if cache is None else _cache(cache),
        name=name,
        description=description,
        input_schema=None if input_schema is None else _schema(input_schema),
    )

    def mark(marked: F) -> F:
        check_parameters(marked, has_schema=settings.input_schema is not None)
        setattr(marked, _MARK, settings)
        return marked

    return mark if function is None else mark(function)


def find_settings(function: Function) -> ToolSettings | None:
    """Return the settings that `@tool` gave `function`, or `None` when it is not decorated."""
    settings = getattr(function, _MARK, None)
    return settings if isinstance(settings, ToolSettings) else None


def read_tool(function: Function) -> Signature:
    """Read the signature of `function`, with the schema that `@tool` gives it; raises as `read_signature`."""
    settings = find_settings(function)
    return read_signature(function, settings.input_schema if settings is not None else None)


def load_function(path: str) -> Function:
    """Import the module of `module:function` and return the function.

    Raises:
        InvalidTool: the module is not found or does not import, or has no such function.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InvalidTool(f"module {module_name!r} does not import: {_line(error)}") from None
        raise InvalidTool(f"module {module_name!r} is not found; looked in {', '.join(_folders())}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - importing runs the user's code, which may raise anything
        raise InvalidTool(f"module {module_name!r} does not import: {_line(error)}") from None
    found = getattr(module, attribute, None)
    if found is None:
        functions = inspect.getmembers(module, inspect.isfunction)
        known = [name for name, function in functions if function.__module__ == module.__name__]
        hint = did_you_mean(attribute, known)
        if hint == ";":
            hint += f" it has {', '.join(known) or 'no functions'}"
        raise InvalidTool(f"module {module_name!r} has no function {attribute!r}{hint}")
    if isinstance(found, type) or not callable(found):
        raise InvalidTool(f"{path!r} is not a function but {type(found).__name__}")
    function: Function = found
    return function


def define_tool(function: Function, settings: PythonTool | None = None) -> ToolDefinition:
    """Return `function` as a tool, by the agent file, else by `@tool`, else by the defaults.

    Raises:
        InvalidTool: the function's arguments or name cannot be a tool's, or a sensitive argument does not exist.
    """
    marked = find_settings(function) or ToolSettings()
    path = settings.python if settings is not None else function_name(function)
    entry = settings or PythonTool.model_construct(python=path)
    takes = read_tool(function)
    schema = _check_json(path, takes.schema())
    sensitive = entry.sensitive if entry.sensitive is not None else marked.sensitive
    known = schema.get("properties")
    unknown = [argument for argument in sensitive if not isinstance(known, dict) or argument not in known]
    if unknown:
        its = f"argument {unknown[0]!r} is not one" if len(unknown) == 1 else f"arguments {_listed(unknown)} are none"
        raise InvalidTool(f"{path}: sensitive {its} of its arguments")
    described = entry.description if entry.description is not None else marked.description
    effect = entry.effect or marked.effect
    if entry.key_valid is not None:
        _check_keyed(f"{path}: key_valid", effect)
    if entry.cache is not None and effect is not Effect.READ:
        raise InvalidTool(f"{path}: cache {refuse_cache(effect)}")
    cache = entry.cache if "cache" in entry.model_fields_set else marked.cache
    if cache is not None and sensitive:
        raise InvalidTool(f"{path}: cache: {SENSITIVE_CACHE}")
    declared = Tool(
        name=_name(entry.name or marked.name or str(getattr(function, "__name__", ""))),
        source="python",
        effect=effect,
        timeout=entry.timeout or marked.timeout,
        retries=marked.retries if entry.retries is None else entry.retries,
        patience=entry.patience or marked.patience,
        key_valid=(entry.key_valid or marked.key_valid) if effect is Effect.KEYED else None,
        tags=marked.tags if entry.tags is None else entry.tags,
        risk=marked.risk if entry.risk is None else entry.risk,
        untrusted=marked.untrusted if entry.untrusted is None else entry.untrusted,
        sensitive=sensitive,
    )
    whole = ToolDefinition(
        tool=declared,
        description=repair_text(takes.description if described is None else described),
        input_schema=schema,
        binding=PythonBinding(kind="python", function=path),
        cache=cache if effect is Effect.READ else None,
    )
    return whole if entry.result_limit is None else whole.model_copy(update={"result_limit_bytes": entry.result_limit})


def _effect(value: Effect | str) -> Effect:
    try:
        return Effect(value)
    except ValueError:
        raise InvalidTool(f"effect {value!r} is not one of {', '.join(Effect)}") from None


def _check_keyed(setting: str, effect: Effect) -> None:
    if effect is not Effect.KEYED:
        raise InvalidTool(f"{setting} belongs to the effect 'keyed'; this tool is {str(effect)!r}")


def _duration(setting: str, value: timedelta | str) -> timedelta:
    try:
        parsed = parse_duration(value)
    except ValueError as error:
        raise InvalidTool(f"{setting} {value!r}: {error}") from None
    if not isinstance(parsed, timedelta) or parsed <= timedelta(0):
        raise InvalidTool(f"{setting} {value!r} is not a positive duration, for example '30s'")
    return parsed


def _cache(value: timedelta | str) -> timedelta:
    lifetime = _duration("cache", value)
    if lifetime > LONGEST_CACHE:
        raise InvalidTool(f"cache {value!r}: a result answers other calls for at most 24h")
    return lifetime


def _retries(value: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= 20:
        raise InvalidTool(f"retries {value!r} is not a number from 0 to 20")
    return value


def _risk(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidTool(f"risk {value!r} is not a number from 0 on, for example 0.7")
    return float(value)


def _schema(value: Mapping[str, object]) -> JsonObject:
    if not isinstance(value, Mapping):
        raise InvalidTool(f"input_schema {value!r} is not a mapping")
    try:
        schema = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTool(f"input_schema is no JSON: {_line(error)}") from None
    if schema.get("type") != "object":
        raise InvalidTool("input_schema must be the JSON Schema of an object, with 'type': 'object'")
    return dict(schema)


def _check_json(path: str, schema: JsonObject) -> JsonObject:
    """Return a schema that can be stored; a default of a type that JSON lacks is left out by pydantic already."""
    repaired = repair_json(schema)
    assert isinstance(repaired, dict)
    try:
        check_storable(repaired)
    except ValueError as error:
        raise InvalidTool(f"{path}: the schema of its arguments {error}") from None
    return repaired


def _texts(setting: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise InvalidTool(f"{setting} {values!r} is not a list of texts, for example {setting}=['a']")
    return tuple(values)


def _name(value: str) -> str:
    try:
        return _NAME.validate_python(value)
    except ValidationError:
        raise InvalidTool(
            f"tool name {value!r} is not a letter and up to 63 letters, digits, '_' and '-'; set 'name'"
        ) from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _folders() -> list[str]:
    """Return the folders of one's own modules; the standard library and installed packages are none."""
    return [folder or "." for folder in sys.path if "site-packages" not in folder and "lib/python" not in folder]
