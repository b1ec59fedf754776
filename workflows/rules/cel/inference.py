"""Types of what an expression reads and comes to, before there are values."""

from collections.abc import Mapping

from mandate.workflows.rules.cel import shapes, tree
from mandate.workflows.rules.cel.shapes import ANYTHING, ListShape, ObjectShape, Shape, of_kinds
from mandate.workflows.rules.cel.tree import CALL, CONSTANT, LIST, LOOP, NAME, OBJECT, Node
from mandate.workflows.rules.cel.variables import INDEX, find_key

_CONSTANTS = {
    tree.TEXT: of_kinds("string"),
    tree.TRUTH: of_kinds("boolean"),
    tree.NULL: of_kinds("null"),
    tree.WHOLE: of_kinds("number"),
    tree.DECIMAL: of_kinds("number"),
}
_TRUTHS = frozenset(
    {
        *("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@in", "@not_strictly_false"),
        *("bool", "contains", "endsWith", "matches", "startsWith"),
    }
)
_RESULTS = {
    **dict.fromkeys(_TRUTHS, of_kinds("boolean")),
    **dict.fromkeys(("double", "int", "size", "uint", "_*_", "_/_", "_%_"), of_kinds("number")),
    "string": of_kinds("string"),
}
"""By function: what it always comes to."""
_WITH_ITEMS = frozenset({"array", "object"})
_ADDED = (of_kinds("string"), of_kinds("number"), of_kinds("array"))


class Inference:
    """The type of one expression, with all that it reads and that is not there."""

    def __init__(self, expression: Node, variables: Mapping[str, Shape]) -> None:
        self.misfits: list[str] = []
        """Sentences of what is not there, each once."""
        self._variables = variables
        self.shape = self._infer(expression, {})

    def _infer(self, node: Node, scope: Mapping[str, Shape]) -> Shape:
        """Return the type of a part; `scope` has the variables of the loops around it."""
        if node.kind == CONSTANT:
            return _CONSTANTS.get(node.name, ANYTHING)
        if node.kind == NAME:
            plain = node.name.removeprefix(".")
            return scope.get(node.name) or self._variables.get(plain, ANYTHING)
        if (key := find_key(node)) is not None:
            return self._take(self._infer(node.parts[0], scope), key)
        if node.kind == LOOP:
            return self._infer_loop(node, scope)
        parts = [self._infer(part, scope) for part in node.parts]
        if node.kind == CALL and node.name == INDEX:
            return self._take_item(parts[0])
        if node.kind == LIST:
            return ListShape(item=shapes.merge(parts))
        if node.kind == OBJECT:
            return _infer_object(node, parts)
        return _infer_call(node, parts) if node.kind == CALL else ANYTHING

    def _take(self, shape: Shape, key: str) -> Shape:
        taken = shapes.take(shape, key)
        return taken if isinstance(taken, Shape) else self._miss(taken)

    def _take_item(self, shape: Shape) -> Shape:
        if shape.kinds.isdisjoint(_WITH_ITEMS):
            return self._miss(f"{shape.where or 'what it reads'} is {shape.describe()}; it has no items")
        return shape.find_items() if shape.kinds - {"null"} == {"array"} else ANYTHING

    def _miss(self, misfit: str) -> Shape:
        if misfit not in self.misfits:
            self.misfits.append(misfit)
        return ANYTHING

    def _infer_loop(self, node: Node, scope: Mapping[str, Shape]) -> Shape:
        range_, first, condition, step, result = node.parts
        through = self._infer(range_, scope)
        if through.kinds.isdisjoint(_WITH_ITEMS):
            self._miss(f"{through.where or 'what it goes through'} is {through.describe()}; a loop goes through lists")
        gathered = self._infer(first, scope) if first.kind == CONSTANT else ANYTHING
        within = {**scope, node.sum_name: gathered, node.name: through.find_items()}
        self._infer(condition, within)
        added = _find_added(step, node.sum_name)
        if added is not None:
            gathered = ListShape(item=self._infer(added, within))
        if added is None or step.name == "_?_:_":
            self._infer(step.parts[0] if added is not None else step, within)
        return self._infer(result, {**scope, node.sum_name: gathered})


def _find_added(step: Node, sum_name: str) -> Node | None:
    """Return what a loop adds to the list that it makes; `None` if it makes none."""
    if step.kind == CALL and step.name == "_?_:_":
        step = step.parts[1]
    if step.kind != CALL or step.name != "_+_" or step.parts[0] != Node(NAME, sum_name):
        return None
    added = step.parts[1]
    return added.parts[0] if added.kind == LIST and len(added.parts) == 1 else None


def _infer_object(node: Node, parts: list[Shape]) -> Shape:
    keys = node.parts[: len(node.parts) // 2]
    if node.name or any(key.kind != CONSTANT or key.name != tree.TEXT for key in keys):
        return ANYTHING
    return ObjectShape(known=dict(zip((key.text for key in keys), parts[len(keys) :], strict=True)))


def _infer_call(node: Node, parts: list[Shape]) -> Shape:
    if node.name == "_?_:_":
        return shapes.merge(parts[1:])
    if node.name == "_+_":
        return next((shape for shape in _ADDED if all(part.kinds == shape.kinds for part in parts)), ANYTHING)
    return _RESULTS.get(node.name, ANYTHING)
