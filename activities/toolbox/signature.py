"""A function's parameters as a JSON Schema for the model, and JSON arguments as that function's arguments."""

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from mandate.activities.toolbox.argument_descriptions import DescribedSchema, describe_parts, find_text, is_union
from mandate.activities.toolbox.context import ToolContext
from mandate.activities.toolbox.docstrings import read_docstring
from mandate.workflows.contracts.base import JsonObject

Function = Callable[..., object]


class InvalidTool(ValueError):
    """A function that cannot be a tool; the message names it, what is wrong, and what to do."""


def function_name(function: Function) -> str:
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"


def check_parameters(function: Function, *, has_schema: bool = False) -> None:
    """Refuse what can be seen without resolving type hints, so that it fails where the function is written.

    With a schema of its own, a function needs no type hints and may take `**kwargs`.

    Raises:
        InvalidTool: not a plain or async function, `*args`, `**kwargs`, positional-only, or no type hint.
    """
    name = function_name(function)
    if isinstance(function, type) or not callable(function):
        raise InvalidTool(f"{name} is not a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTool(f"{name} is a generator; a tool returns one result")
    for parameter in inspect.signature(function).parameters.values():
        if has_schema and parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise InvalidTool(f"{name}: '{stars}{parameter.name}' has no schema; name every argument")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise InvalidTool(f"{name}: argument {parameter.name!r} is positional-only; remove the '/'")
        if parameter.annotation is parameter.empty and not has_schema:
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
    _described: Mapping[str, str]
    """Description by argument, from the docstring."""
    _text: str | None = None
    """Description of the one parameter that takes all arguments."""
    _given: JsonObject | None = None
    """The schema that the author wrote."""

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the arguments: an object, references stay inside."""
        if self._given is not None:
            return self._given
        schema = self._model.model_json_schema(by_alias=True, schema_generator=DescribedSchema)
        schema.pop("title", None)
        if self._text and not schema.get("description"):
            schema["description"] = self._text
        for name, shown in schema.get("properties", {}).items():
            if name in self._described:
                shown.setdefault("description", self._described[name])
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
            bound |= values.model_extra or {}
        return bound | dict.fromkeys(self._context, context)


def read_signature(function: Function, given: JsonObject | None = None) -> Signature:
    """Read the signature of `function` from its type hints and docstring; `given` is a schema of the author's.

    Raises:
        InvalidTool: see `check_parameters`; or a type hint that cannot be resolved or has no JSON form, or a given
            schema that does not fit the parameters.
    """
    check_parameters(function, has_schema=given is not None)
    name = function_name(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 - evaluating a hint runs any code
        raise InvalidTool(f"{name}: its type hints cannot be resolved: {type(error).__name__}: {error}") from None
    doc = read_docstring(inspect.getdoc(function) or "")
    parameters = inspect.signature(function).parameters
    context = tuple(parameter for parameter in parameters if _is_context(hints.get(parameter)))
    keywords = [key for key, parameter in parameters.items() if parameter.kind is parameter.VAR_KEYWORD]
    taken = [parameter for key, parameter in parameters.items() if key not in (*context, *keywords)]
    whole = taken[0].name if len(taken) == 1 and not keywords and _is_model(hints.get(taken[0].name)) else None
    if whole is not None:
        model: type[BaseModel] = _bare(hints[whole])
    else:
        model = _arguments(name, taken, hints, doc.arguments, is_open=bool(keywords))
    made = Signature(
        description=doc.description,
        returns_nothing=hints.get("return") is type(None),
        _model=model,
        _parameters={} if whole else {f"a{index}": parameter.name for index, parameter in enumerate(taken)},
        _whole=whole,
        _context=context,
        _described=doc.arguments if whole else {},
        _text=(find_text(hints[whole]) or doc.arguments.get(whole)) if whole else None,
        _given=given,
    )
    if given is not None:
        if whole is None:
            _check_given(name, given, model, is_open=bool(keywords))
        return made
    try:
        made.schema()
    except Exception as error:  # noqa: BLE001 - types bring their own schema code
        raise InvalidTool(f"{name}: its arguments have no JSON Schema: {_first_line(error)}") from None
    return made


def _arguments(
    function: str,
    parameters: list[inspect.Parameter],
    hints: Mapping[str, object],
    texts: Mapping[str, str],
    *,
    is_open: bool,
) -> type[BaseModel]:
    """Return a model with one field a parameter; fields are numbered, so that any argument name is possible."""
    fields: dict[str, typing.Any] = {}
    for index, parameter in enumerate(parameters):
        hint = describe_parts(hints.get(parameter.name, typing.Any))
        own = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, FieldInfo)]
        field: object = Field(
            default=... if parameter.default is parameter.empty else parameter.default,
            alias=next((extra.alias for extra in own if extra.alias), parameter.name),
            description=find_text(hint) or texts.get(parameter.name),
        )
        fields[f"a{index}"] = (hint, field)
        try:
            create_model("Argument", a=fields[f"a{index}"])
        except Exception as error:  # noqa: BLE001 - types bring their own schema code
            raise InvalidTool(
                f"{function}: argument {parameter.name!r} has a type without a JSON form: {_first_line(error)}"
            ) from None
    return create_model("Arguments", __config__=ConfigDict(extra="allow" if is_open else "forbid"), **fields)


def _check_given(function: str, schema: JsonObject, model: type[BaseModel], *, is_open: bool) -> None:
    """Refuse a schema of the author's that calls fit which the function cannot take.

    Raises:
        InvalidTool: names the argument.
    """
    fields = {str(field.alias): field for field in model.model_fields.values()}
    properties, required = schema.get("properties"), schema.get("required")
    for name in properties if isinstance(properties, dict) else ():
        if name not in fields and not is_open:
            raise InvalidTool(f"{function}: input_schema has the property {name!r}, which is no parameter of it")
    for name, field in fields.items():
        if field.is_required() and not (isinstance(required, list) and name in required):
            raise InvalidTool(
                f"{function}: parameter {name!r} has no default, so input_schema must name it under 'required'"
            )
    more = [key for key in ("additionalProperties", "patternProperties") if schema.get(key, False) is not False]
    if more and not is_open:
        raise InvalidTool(f"{function}: input_schema takes more arguments by {more[0]!r}, and it has no '**kwargs'")


def _bare(hint: typing.Any) -> typing.Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _is_context(hint: object) -> bool:
    hint = _bare(hint)
    return ToolContext in map(_bare, typing.get_args(hint)) if is_union(hint) else hint is ToolContext


def _is_model(hint: object) -> bool:
    return isinstance(hint := _bare(hint), type) and issubclass(hint, BaseModel)


def _sentence(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}" for fault in faults[:3]]
    return "; ".join(lines) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
