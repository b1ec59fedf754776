"""A function's parameters as a JSON Schema for the model, and JSON arguments as that function's arguments."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from mandate.activities.toolbox.context import ToolContext
from mandate.workflows.contracts.base import JsonObject

Function = Callable[..., object]


class InvalidTool(ValueError):
    """A function that cannot be a tool; the message names it, what is wrong, and what to do."""


def function_name(function: Function) -> str:
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"


def check_parameters(function: Function) -> None:
    """Refuse what can be seen without resolving type hints, so that it fails where the function is written.

    Raises:
        InvalidTool: not a plain or async function, `*args`, `**kwargs`, positional-only, or no type hint.
    """
    name = function_name(function)
    if isinstance(function, type) or not callable(function):
        raise InvalidTool(f"{name} is not a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTool(f"{name} is a generator; a tool returns one result")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise InvalidTool(f"{name}: '{stars}{parameter.name}' has no schema; name every argument")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise InvalidTool(f"{name}: argument {parameter.name!r} is positional-only; remove the '/'")
        if parameter.annotation is parameter.empty:
            raise InvalidTool(
                f"{name}: argument {parameter.name!r} has no type hint, for example '{parameter.name}: str'"
            )
        if isinstance(parameter.default, FieldInfo):
            raise InvalidTool(
                f"{name}: argument {parameter.name!r}: write Annotated[type, Field(...)], not '= Field(...)'"
            )


@dataclass(frozen=True, slots=True)
class Signature:
    """Signature of one function: JSON becomes its arguments."""

    description: str
    """Of the function, from its docstring; empty without one."""
    returns_nothing: bool
    """Declared `-> None`."""
    _model: type[BaseModel]
    _parameters: Mapping[str, str]
    """Parameter by field of the model; empty when `_whole` is set."""
    _whole: str | None
    """The one parameter that takes the whole model."""
    _context: tuple[str, ...]
    """Parameters that take the `ToolContext`."""

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the arguments: an object, references stay inside."""
        schema = self._model.model_json_schema(by_alias=True, schema_generator=_Schema)
        schema.pop("title", None)
        return schema

    def bind(self, arguments: JsonObject, context: ToolContext) -> dict[str, object]:
        """Return the keyword arguments for the function; an argument left out keeps the function's default.

        Raises:
            ValueError: arguments that do not fit, in one sentence without their values.
        """
        try:
            values = self._model.model_validate(arguments)
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None
        if self._whole is not None:
            bound: dict[str, object] = {self._whole: values}
        else:
            given = values.model_fields_set
            bound = {name: getattr(values, field) for field, name in self._parameters.items() if field in given}
        return bound | dict.fromkeys(self._context, context)


def read_signature(function: Function) -> Signature:
    """Read the signature of `function` from its type hints and docstring.

    Raises:
        InvalidTool: see `check_parameters`; or a type hint that cannot be resolved or has no JSON form.
    """
    check_parameters(function)
    name = function_name(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 - evaluating a hint runs any code
        raise InvalidTool(f"{name}: its type hints cannot be resolved: {type(error).__name__}: {error}") from None
    doc = docstring_parser.parse(inspect.getdoc(function) or "")
    parameters = inspect.signature(function).parameters
    context = tuple(parameter for parameter in parameters if _is_context(hints[parameter]))
    taken = [parameter for key, parameter in parameters.items() if key not in context]
    whole = taken[0].name if len(taken) == 1 and _is_model(hints[taken[0].name]) else None
    if whole is not None:
        model: type[BaseModel] = hints[whole]
    else:
        descriptions = {param.arg_name: param.description for param in doc.params if param.description}
        model = _arguments(name, taken, hints, descriptions)
    made = Signature(
        description=(doc.description or "").strip(),
        returns_nothing=hints.get("return") is type(None),
        _model=model,
        _parameters={} if whole else {f"a{index}": parameter.name for index, parameter in enumerate(taken)},
        _whole=whole,
        _context=context,
    )
    try:
        made.schema()
    except Exception as error:  # noqa: BLE001 - types bring their own schema code
        raise InvalidTool(f"{name}: its arguments have no JSON Schema: {_first_line(error)}") from None
    return made


def _arguments(
    function: str, parameters: list[inspect.Parameter], hints: Mapping[str, object], texts: Mapping[str, str]
) -> type[BaseModel]:
    """Return a model with one field a parameter; fields are numbered, so that any argument name is possible."""
    fields: dict[str, typing.Any] = {}
    for index, parameter in enumerate(parameters):
        hint = hints[parameter.name]
        own = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, FieldInfo)]
        field: object = Field(
            default=... if parameter.default is parameter.empty else parameter.default,
            alias=next((extra.alias for extra in own if extra.alias), parameter.name),
            description=next((extra.description for extra in own if extra.description), texts.get(parameter.name)),
        )
        fields[f"a{index}"] = (hint, field)
        try:
            create_model("Argument", a=fields[f"a{index}"])
        except Exception as error:  # noqa: BLE001 - types bring their own schema code
            raise InvalidTool(
                f"{function}: argument {parameter.name!r} has a type without a JSON form: {_first_line(error)}"
            ) from None
    return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)


class _Schema(GenerateJsonSchema):
    """JSON Schema without what costs tokens and tells the model nothing."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own attribute

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - a field's title repeats its name
        return False


def _is_context(hint: object) -> bool:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return ToolContext in typing.get_args(hint)
    return hint is ToolContext


def _is_model(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _sentence(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}" for fault in faults[:3]]
    return "; ".join(lines) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
