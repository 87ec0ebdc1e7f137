"""The code of a TorchScript archive: parsed and checked as a whole before any of it is followed.

``torch.jit.save`` writes a small part of Python. It is read with Python's parser into a tree, and
only a tree of known parts is kept; Python never runs it, and neither does torch.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from npk.checkpoint.archives import Archive

MOST_CODE = 4 << 20  # bytes in all; that of a large network has some 500,000
_DEEPEST = 60
_STATEMENTS = (
    *(
        ast.Assign,
        ast.AnnAssign,
        ast.Expr,
        ast.If,
        ast.For,
        ast.While,
        ast.Return,
        ast.Pass,
        ast.Raise,
        ast.Assert,
    ),
    *(ast.Break, ast.Continue, ast.AugAssign, ast.With, ast.withitem),
)
_EXPRESSIONS = (
    *(
        ast.Name,
        ast.Attribute,
        ast.Call,
        ast.keyword,
        ast.Constant,
        ast.List,
        ast.Tuple,
        ast.Dict,
        ast.Subscript,
        ast.Slice,
    ),
    *(
        ast.UnaryOp,
        ast.BinOp,
        ast.BoolOp,
        ast.Compare,
        ast.IfExp,
        ast.expr_context,
        ast.operator,
        ast.unaryop,
        ast.boolop,
        ast.cmpop,
    ),
)


class StrangeCode(Exception):
    """What is wrong with the code, in a few words."""


class RunsWhileLoaded(Exception):
    """The member whose code torch would run while it loads the archive."""


@dataclass(frozen=True)
class Function:
    """A function or method: what it takes, and what it does."""

    tree: ast.FunctionDef
    source: str

    @property
    def names(self) -> list[str]:
        """The names of the arguments."""
        return [argument.arg for argument in self.tree.args.args]

    @property
    def defaults(self) -> dict[str, ast.expr]:
        """Literals, by the name of the argument that they stand for."""
        values = self.tree.args.defaults
        return dict(zip(self.names[len(self.names) - len(values) :], values, strict=True))


@dataclass(frozen=True)
class Class:
    """A class: its methods, and which attributes are parameters and buffers."""

    methods: dict[str, Function] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    constants: dict[str, ast.expr] = field(default_factory=dict)


class Code:
    """All functions and classes of an archive, by their whole name; never changed, so never copied."""

    def __init__(self, archive: Archive, root: str) -> None:
        """Read and check every member.

        Args:
            archive: the archive.
            root: the folder that it consists of.

        Raises:
            RunsWhileLoaded: a class restores itself by code.
            StrangeCode: what torch would not have written.
        """
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, Class] = {}
        members = [
            name
            for name in archive.names
            if name.startswith(f"{root}code/") and name.casefold().endswith(".py")
        ]
        if sum(archive.size(name) for name in members) > MOST_CODE:
            raise StrangeCode(f"it has more than {MOST_CODE:,} bytes of code")
        for name in members:
            self._read(name.removeprefix(root), archive.read(name))

    def __deepcopy__(self, memo: object) -> "Code":
        return self

    def _read(self, member: str, content: bytes) -> None:
        module = member.removeprefix("code/").rpartition(".")[0].replace("/", ".")
        for node in _parsed(member, content).body:
            whole = f"{module}.{getattr(node, 'name', '')}"
            if isinstance(node, ast.FunctionDef):
                self.functions[whole] = _function(member, node)
            elif isinstance(node, ast.ClassDef):
                self.classes[whole] = _class(member, node)
            elif not isinstance(node, ast.Import) and not _is_literal_assignment(node):
                raise StrangeCode(f"{member}:{node.lineno} is neither a function nor a class")


def _parsed(member: str, content: bytes) -> ast.Module:
    text = content.decode("ascii", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise StrangeCode(f"{member} cannot be parsed") from error
    for node, depth in _nested(tree):
        if depth > _DEEPEST:
            raise StrangeCode(f"{member}:{getattr(node, 'lineno', '?')} is nested too deeply")
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (
            node.decorator_list or _restores(node)
        ):
            raise RunsWhileLoaded(member)
    return tree


def _nested(tree: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    """Every part of a tree and how deep it lies."""
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting.extend((inner, depth + 1) for inner in ast.iter_child_nodes(node))


def _restores(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return (
        isinstance(node, ast.FunctionDef)
        and re.fullmatch(r"__[gs]etstate__", node.name.casefold()) is not None
    )


def _function(member: str, node: ast.FunctionDef) -> Function:
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        raise StrangeCode(f"{member}:{node.lineno} takes what npk does not know")
    if not all(_is_literal(value) for value in arguments.defaults):
        # torch computes what stands behind = while it loads the archive
        raise RunsWhileLoaded(member)
    for statement in node.body:
        for inner, _ in _nested(statement):
            if not isinstance(inner, _STATEMENTS + _EXPRESSIONS):
                raise StrangeCode(
                    f"{member}:{getattr(inner, 'lineno', node.lineno)} has a {type(inner).__name__}"
                )
    return Function(node, member.removeprefix("code/"))


def _class(member: str, node: ast.ClassDef) -> Class:
    if [base.id if isinstance(base, ast.Name) else "" for base in node.bases] not in (
        ["Module"],
        ["NamedTuple"],
        [],
    ) or node.keywords:
        raise StrangeCode(f"{member}:{node.lineno} is a class of what npk does not know")
    described = Class()
    for part in node.body:
        if isinstance(part, ast.FunctionDef):
            described.methods[part.name] = _function(member, part)
        elif (
            isinstance(part, ast.AnnAssign)
            and isinstance(part.target, ast.Name)
            and (part.value is None or _is_literal(part.value))
        ):
            if part.value is not None:
                described.constants[part.target.id] = part.value
        elif _is_literal_assignment(part):
            _note(described, part)
        elif not isinstance(part, ast.Pass):
            raise RunsWhileLoaded(member)
    return described


def _note(found: Class, part: ast.stmt) -> None:
    target = part.targets[0] if isinstance(part, ast.Assign) else None
    if (
        isinstance(target, ast.Name)
        and isinstance(part, ast.Assign)
        and target.id in ("__parameters__", "__buffers__")
    ):
        names = [str(name) for name in ast.literal_eval(part.value)]
        (found.parameters if target.id == "__parameters__" else found.buffers).extend(names)


def _is_literal_assignment(node: ast.stmt) -> bool:
    """``name = 1``, ``__parameters__ = ["weight"]``, ``__annotations__["0"] = a.type``."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    target = node.targets[0]
    if isinstance(target, ast.Subscript):
        annotations = (
            isinstance(target.value, ast.Name)
            and target.value.id == "__annotations__"
            and isinstance(target.slice, ast.Constant)
        )
        return annotations and not any(
            isinstance(inner, ast.Call) for inner in ast.walk(node.value)
        )
    return isinstance(target, ast.Name) and _is_literal(node.value)


def _is_literal(node: ast.expr) -> bool:
    """Numbers, texts, None, and lists and tuples of them."""
    if isinstance(node, ast.List | ast.Tuple):
        return all(_is_literal(value) for value in node.elts)
    if isinstance(node, ast.UnaryOp):
        return (
            isinstance(node.op, ast.USub)
            and isinstance(node.operand, ast.Constant | ast.Name)
            and _is_literal(node.operand)
        )
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Name) and node.id in ("inf", "nan")
    )
