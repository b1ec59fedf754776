"""Expressions in CEL: true or false, or a value, or why they cannot be evaluated.

The library is imported when the first condition is evaluated, so that processes without conditions do without it.
What runs for each rule and value calls no `isinstance`: in workflows the sandbox makes it 20 times slower.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, final

from pydantic import JsonValue

from mandate.workflows.rules.cel import cost, errors, growth
from mandate.workflows.rules.cel import tree as cel_tree
from mandate.workflows.rules.cel import values as cel_values

if TYPE_CHECKING:
    from cel_expr_python import cel

_ERROR = "ERROR"
"""Name of the type of errors, which the library returns as values."""

CACHED = 4096
"""Conditions that a process keeps compiled."""


@final
@dataclass(frozen=True, slots=True)
class Unevaluable:
    """A condition came to neither true nor false, or an expression to no value of JSON."""

    reason: str
    """Part of a sentence, without values of the call."""


Outcome = bool | Unevaluable


class _Program(NamedTuple):
    expression: "cel.Expression"
    loops: cost.Loops | None
    growing: cel_tree.Node | None
    """Set where something is made in a loop."""


class Facts:
    """The variables that conditions read, converted once for all conditions of a call."""

    def __init__(self, variables: Mapping[str, object], base: "Facts | None" = None) -> None:
        """Take variables, and those of `base` as they are converted there."""
        self._variables: Mapping[str, object] = variables if base is None else {**base._variables, **variables}
        self._names = tuple(sorted(self._variables))
        self._unreadable: dict[str, str] = {} if base is None else dict(base._unreadable)
        self._size: cost.Size | None = None
        values = {name: self._convert(name, value) for name, value in variables.items()}
        self._values: Mapping[str, Any] = values if base is None else {**base._values, **values}
        self._activation = _environment(self._names).Activation(self._values)

    def _convert(self, name: str, value: object) -> Any:
        try:
            return cel_values.convert(value, name)
        except cel_values.UnreadableValue as error:
            self._unreadable[name] = str(error)
            # An object that the library cannot take either: whatever reads the variable fails, and nothing else.
            return object()

    def evaluate(self, text: str) -> Outcome:
        """Evaluate the condition `text`; never raise."""
        program = self._program(text, is_kept=False)
        if type(program) is Unevaluable:
            return program
        try:
            value = program.expression.eval(self._activation)
            outcome = value.value()
            if outcome is True or outcome is False:
                return outcome
            kind = value.type().name()
        except Exception as error:  # noqa: BLE001 - the library has no class of errors of its own
            kind, outcome = _ERROR, str(error)
        if kind != _ERROR:
            return Unevaluable(f"it comes to {errors.describe_kind(kind)}, not to true or false")
        return self._fail(outcome, text)

    def value(self, text: str) -> JsonValue | Unevaluable:
        """Evaluate the expression `text` and return its value as JSON; never raise.

        Keys are in order, since those of the library differ from process to process. What JSON has no form for
        cannot be used: times, durations, bytes, NaN, integers beyond 64 bits, and texts that are only references.
        """
        program = self._program(text, is_kept=True)
        if type(program) is Unevaluable:
            return program
        try:
            value = program.expression.eval(self._activation)
            kind, plain = value.type().name(), value.plain_value()
        except Exception as error:  # noqa: BLE001 - the library has no class of errors of its own
            kind, plain = _ERROR, str(error)
        if kind == _ERROR:
            return self._fail(plain, text)
        try:
            return cel_values.to_json(plain)
        except cel_values.UnreadableValue as error:
            return Unevaluable(str(error))

    def _program(self, text: str, *, is_kept: bool) -> _Program | Unevaluable:
        program = _compile(text, self._names)
        if type(program) is Unevaluable or program.loops is None:
            return program
        if self._is_too_costly(program.loops) or self._is_too_large(program.growing, is_kept=is_kept):
            return Unevaluable("it is too costly for arguments of this size")
        return program

    def _fail(self, message: str, text: str) -> Unevaluable:
        return Unevaluable(self._find_unreadable(message) or errors.explain(message, text))

    def _is_too_costly(self, loops: cost.Loops) -> bool:
        if self._size is None:
            self._size = cost.Size.of(self._variables)
        return cost.is_too_costly(loops, self._size)

    def _is_too_large(self, growing: cel_tree.Node | None, *, is_kept: bool) -> bool:
        if growing is None:
            return False
        assert self._size is not None
        model = growth.Value(self._size.values, self._size.values, self._size.text_bytes)
        sizes = {name: growth.BOUNDED if name in cost.BOUNDED else model for name in self._names}
        return growth.is_too_large(growing, sizes, is_kept=is_kept)

    def _find_unreadable(self, message: str) -> str | None:
        """Return why the variable that `message` is about cannot be read."""
        for name, reason in self._unreadable.items():
            if f"Non-CEL value type for '{name}'" in message:
                return reason
        return None


@lru_cache(maxsize=CACHED)
def _compile(text: str, names: tuple[str, ...]) -> _Program | Unevaluable:
    try:
        expression = _environment(names).compile(text)
        tree = cel_tree.read(expression.serialize())
        return _Program(expression, cost.count_loops(tree), growth.find_growth(tree))
    except Exception as error:  # noqa: BLE001 - the library has no class of errors of its own
        return Unevaluable(errors.explain(str(error), text))


@lru_cache(maxsize=CACHED)
def parse(text: str) -> cel_tree.Node | Unevaluable:
    """Read an expression as a tree, whatever variables and functions it names; never raise."""
    try:
        return cel_tree.read(_environment(()).compile(text, disable_check=True).serialize())
    except Exception as error:  # noqa: BLE001 - the library has no class of errors of its own
        return Unevaluable(errors.explain(str(error), text))


def check(text: str, names: Iterable[str]) -> Unevaluable | None:
    """Return why an expression over variables of these names can be evaluated with no values at all; never raise."""
    program = _compile(text, tuple(sorted(names)))
    return program if type(program) is Unevaluable else None


@lru_cache(maxsize=64)
def _environment(names: tuple[str, ...]) -> "cel.Env":
    from cel_expr_python import cel  # noqa: PLC0415 - CEL only where conditions are

    return cel.NewEnv(cel_values.load_types(), variables=dict.fromkeys(names, cel.Type.DYN))
