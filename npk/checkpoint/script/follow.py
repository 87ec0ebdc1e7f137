"""Follow the code of a TorchScript archive, statement by statement; see ``code``."""

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from npk.checkpoint.script.code import Code, Function
from npk.checkpoint.script.operators import computed
from npk.checkpoint.script.pickle import ScriptObject
from npk.errors import UnsupportedGraphError

MOST_STATEMENTS, DEEPEST_CALL = 200_000, 30
_LOOPS = {
    "For": "prim::Loop",
    "While": "prim::Loop",
    "Break": "prim::Loop",
    "Continue": "prim::Loop",
}
# Functions of the language itself; numbers stay what they are, a size of a traced network must stay
# a size.
_OWN: dict[str, Callable[..., Any]] = {
    "annotate": lambda kind, value: value,
    "bool": lambda value: value,
    "float": lambda value: float(value) if isinstance(value, str) else value,
    "int": lambda value: value,
    "unchecked_cast": lambda kind, value: value,
    "uninitialized": lambda kind: None,
}
_TYPED = ("annotate", "unchecked_cast", "uninitialized")  # their first argument is a type
_NUMBERS = {"inf": math.inf, "nan": math.nan}


@dataclass(frozen=True)
class Placed:
    """An object of the archive, and where it is in the network."""

    object: ScriptObject
    path: str


class Returned(Exception):
    """A function is at its end."""


class Follower:
    """One run of a network."""

    def __init__(
        self, code: Code, constants: Callable[[int], Any], tensor: Callable[[str], Any]
    ) -> None:
        """Give what the code refers to.

        Args:
            code: all functions and classes.
            constants: the constant of a number.
            tensor: the parameter or buffer at a path.
        """
        self._code, self._constants, self._tensor = code, constants, tensor
        self._statements, self._depth = 0, 0

    def call(self, function: Function, values: list[Any], named: dict[str, Any]) -> Any:
        """What a function gives.

        Raises:
            UnsupportedGraphError: a part that npk does not follow, or code without end.
        """
        frame = _Frame(self, function, values, named)
        self._depth += 1
        try:
            if self._depth > DEEPEST_CALL:
                frame.refuse("calls that are nested so deeply", function.tree)
            return frame.run()
        finally:
            self._depth -= 1

    def method(self, target: Placed, name: str) -> Function | None:
        """A method of an object."""
        kind = self._code.classes.get(target.object.kind)
        return kind.methods.get(name) if kind else None

    def attribute(self, target: Placed, name: str) -> Any:
        """An attribute of an object; a tensor is that of the network."""
        import torch

        kind = self._code.classes.get(target.object.kind)
        if name not in target.object.values and kind and name in kind.constants:
            return _literal(kind.constants[name])
        value, path = target.object.values[name], f"{target.path}.{name}".removeprefix(".")
        if isinstance(value, torch.Tensor):
            return self._tensor(path)
        return Placed(value, path) if isinstance(value, ScriptObject) else value

    def named(self, whole: str) -> Any:
        """A function or a constant, by its whole name."""
        if whole.startswith("CONSTANTS.c") and whole[11:].isdigit():
            return self._constants(int(whole[11:]))
        return self._code.functions.get(whole)

    def count(self) -> bool:
        """Count a statement; whether there are too many."""
        self._statements += 1
        return self._statements > MOST_STATEMENTS


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return _NUMBERS[node.id]
    if isinstance(node, ast.UnaryOp):
        return -_literal(node.operand)
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(value) for value in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    assert isinstance(node, ast.Constant)
    return node.value


class _Frame:
    """One call of a function: its own values."""

    def __init__(
        self, follower: Follower, function: Function, values: list[Any], named: dict[str, Any]
    ) -> None:
        self._follower, self._function = follower, function
        self._values: dict[str, Any] = {
            name: _literal(value) for name, value in function.defaults.items()
        }
        self._values |= dict(zip(function.names, values, strict=False)) | named
        if len(values) > len(function.names) or set(self._values) != set(function.names):
            self.refuse(f"a call of {function.tree.name}", function.tree)

    def refuse(self, what: str, node: ast.AST) -> NoReturn:
        source = f"{self._function.source}:{getattr(node, 'lineno', '?')}"
        raise UnsupportedGraphError(
            f"npk does not follow {what} of TorchScript ({source}). Load the weights with "
            f"arch='module:callable', or export to .pt2."
        )

    def run(self) -> Any:
        """What the function returns."""
        try:
            self._follow(self._function.tree.body)
        except Returned as end:
            return end.args[0]
        return None

    def _follow(self, statements: list[ast.stmt]) -> None:
        for node in statements:
            if self._follower.count():
                self.refuse(f"more than {MOST_STATEMENTS:,} statements", node)
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._assign(node.targets[0], self._value(node.value))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._assign(node.target, self._value(node.value))
        elif isinstance(node, ast.Expr):
            self._value(node.value)
        elif isinstance(node, ast.If):
            self._follow(node.body if self._value(node.test) else node.orelse)
        elif isinstance(node, ast.Return):
            raise Returned(None if node.value is None else self._value(node.value))
        elif not isinstance(node, ast.Pass):
            kind = type(node).__name__
            self.refuse(_LOOPS.get(kind, f"the statement {kind}"), node)

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._values[target.id] = value
        elif (
            isinstance(target, ast.Tuple)
            and isinstance(value, list | tuple)
            and len(target.elts) == len(value)
        ):
            for inner, part in zip(target.elts, value, strict=True):
                self._assign(inner, part)
        else:
            self.refuse("the assignment to something other than a name", target)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._named(node.id, node)
        if isinstance(node, ast.List | ast.Tuple):
            values = [self._value(inner) for inner in node.elts]
            return values if isinstance(node, ast.List) else tuple(values)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple):
            return computed(
                "aten::__getitem__",
                [self._value(node.value), self._value(node.slice)],
                {},
                self._place(node),
            )
        if (
            isinstance(node, ast.UnaryOp)
            and isinstance(node.op, ast.USub)
            and isinstance(node.operand, ast.Constant | ast.Name)
        ):
            return -self._value(node.operand)
        if isinstance(node, ast.IfExp):
            return self._value(node.body if self._value(node.test) else node.orelse)
        self.refuse(f"the expression {type(node).__name__}", node)

    def _place(self, node: ast.AST) -> str:
        return f"{self._function.source}:{getattr(node, 'lineno', '?')}"

    def _named(self, name: str, node: ast.AST) -> Any:
        if name not in self._values and name not in _NUMBERS:
            self.refuse(f"the name {name}", node)
        return self._values[name] if name in self._values else _NUMBERS[name]

    def _whole(self, node: ast.expr) -> str | None:
        """The whole name of what belongs to no value: ``torch.add``, ``CONSTANTS.c0``."""
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self._values:
            return None
        return ".".join([node.id, *reversed(parts)])

    def _attribute(self, node: ast.Attribute) -> Any:
        whole = self._whole(node)
        if whole is not None:
            value = self._follower.named(whole)
            return value if value is not None else self.refuse(f"the name {whole}", node)
        return self._member(self._value(node.value), node.attr, node)

    def _member(self, target: Any, name: Any, node: ast.AST) -> Any:
        if not isinstance(target, Placed):
            self.refuse(f"the attribute {name}", node)
        try:
            return self._follower.attribute(target, name)
        except KeyError:
            self.refuse(f"the attribute {name}, which the archive does not hold,", node)

    def _call(self, node: ast.Call) -> Any:
        whole = self._whole(node.func)
        if whole in _TYPED:
            return _OWN[whole](
                *[None, *map(self._value, node.args[1:])][: 1 if whole == "uninitialized" else 2]
            )
        values = [self._value(argument) for argument in node.args]
        named = {str(word.arg): self._value(word.value) for word in node.keywords}
        if whole == "getattr":
            return self._member(values[0], values[-1], node)
        if whole in _OWN:
            return _OWN[whole](*values)
        head, _, name = (whole or "").rpartition(".")
        if head in ("torch", "ops.aten", "ops.prim", "ops.npk"):
            kind = f"{head.removeprefix('ops.').replace('torch', 'aten')}::{name}"
            return computed(kind, values, named, self._place(node))
        return self._follower.call(*self._callee(node, values), named)

    def _callee(self, node: ast.Call, values: list[Any]) -> tuple[Function, list[Any]]:
        """The function that is called, and its arguments; a method takes its object first."""
        function = node.func
        if isinstance(function, ast.Attribute) and self._whole(function) is None:
            target = self._value(function.value)
            method = (
                self._follower.method(target, function.attr) if isinstance(target, Placed) else None
            )
            if method:
                return method, [target, *values]
            return self.refuse(f"the method {function.attr}", node)
        callee = self._value(function)
        if isinstance(callee, Function):
            return callee, values
        return self.refuse("a call of what is no function", node)
