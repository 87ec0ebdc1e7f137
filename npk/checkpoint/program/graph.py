"""The graph of a ``.pt2`` file and the table of its weights: every name and number in them is one
that torch itself would have written.
"""

import ast
import json
import keyword
import math
import re
from typing import Any

# Bytes of a cell, by torch's numbers for kinds of cells in these files.
_CELLS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
_NAMES = ("name", "opset", "graph_name")
_TARGET = re.compile(
    r"torch\.ops\.(aten|npk)\.\w+(\.\w+)?|torch\.(sym_\w+|_sym_sqrt)|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
_WORD = re.compile(r"[\w.:+ -]{0,300}", re.ASCII)
_SYMBOLIC = (
    *"Symbol Integer Rational Add Mul Pow Mod PythonMod FloorDiv CleanDiv CeilDiv Max Min".split(),
    *"Eq Ne Equality Unequality Ge Gt Le Lt And Or Not Piecewise ExprCondPair Where".split(),
    *"GreaterThan LessThan StrictGreaterThan StrictLessThan".split(),
    *"IntTrueDiv ToFloat TruncToInt Float".split(),
)
# of what a node remembers: where it was written
_KEPT = ("stack_trace", "nn_module_stack", "torch_fn")
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_MOST = 1 << 62
ALWAYS_ALLOWED = 1 << 20  # cells of a weight that repeats a few of its record by strides of 0


class Refused(Exception):
    """What is wrong with a part, in a few words."""


def parsed(content: bytes) -> Any:
    """JSON as torch reads it."""
    try:
        return json.loads(content, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise Refused("it is no JSON") from error


def dumped(content: Any) -> bytes:
    """JSON that holds what was checked."""
    return json.dumps(content).encode()


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise Refused("it has two entries of one name")
    return table


def checked_weights(table: Any, sizes: dict[str, int]) -> Any:
    """The table of weights or constants: each lies in a record of plain numbers, and within it.

    Args:
        table: the parsed table.
        sizes: bytes of each record beside it.

    Raises:
        Refused: another table, a pickled weight, or one that is larger than its record.
    """
    entries = table.get("config") if isinstance(table, dict) else None
    if not isinstance(entries, dict) or set(table) != {"config"}:
        raise Refused("it is no table of weights")
    for name, entry in entries.items():
        _check_word(name)
        if not isinstance(entry, dict) or set(entry) != {
            "path_name",
            "is_param",
            "use_pickle",
            "tensor_meta",
        }:
            raise Refused(f"it says of {name} what torch does not say")
        record, meta = entry["path_name"], entry["tensor_meta"]
        if (
            entry["use_pickle"] is not False
            or type(entry["is_param"]) is not bool
            or not isinstance(meta, dict)
        ):
            raise Refused(f"{name} is pickled")
        if not re.fullmatch(r"(weight|tensor)_\d{1,6}", str(record)) or record not in sizes:
            raise Refused(f"{name} is in no record of plain numbers")
        _check_extent(name, meta, sizes[record])
    return _walked(table, "")


def _check_extent(name: str, meta: dict[str, Any], size: int) -> None:
    """A weight has no more cells than its record, and its strides lead nowhere else."""
    try:
        cell = _CELLS[meta["dtype"]]
        sides, strides = ([side["as_int"] for side in meta[key]] for key in ("sizes", "strides"))
        offset = meta["storage_offset"]["as_int"]
    except (KeyError, TypeError) as error:
        raise Refused(f"{name} is of a kind that npk does not know") from error
    numbers = [*sides, *strides, offset]
    if len(sides) != len(strides) or not all(
        type(number) is int and 0 <= number < _MOST for number in numbers
    ):
        raise Refused(f"{name} has no shape")
    last = offset + sum((side - 1) * stride for side, stride in zip(sides, strides, strict=True))
    if math.prod(sides) and (
        (last + 1) * cell > size or math.prod(sides) > max(size, ALWAYS_ALLOWED)
    ):
        raise Refused(f"{name} has the shape {sides}, and its record has {size:,} bytes")


def checked_graph(program: Any) -> Any:
    """The graph without its guards; every operator is of PyTorch, every name is one, every
    expression is of sizes.

    Args:
        program: the parsed graph.

    Raises:
        Refused: what torch would not have written there.
    """
    if not isinstance(program, dict):
        raise Refused("it is no graph")
    return _walked({**program, "guards_code": []} if "guards_code" in program else program, "")


def _walked(value: Any, key: str) -> Any:
    """The value of an entry, checked by the name of the entry."""
    if key == "metadata":
        return _origin(value)
    if key in ("in_spec", "out_spec"):
        return _checked_spec(value, key)
    if key in ("as_custom_obj", "as_operator", "custom_obj", "custom_obj_values") and value:
        raise Refused("it holds an object")
    if isinstance(value, dict):
        for inner in value:
            _check_word(inner)
        return {inner: _walked(content, inner) for inner, content in value.items()}
    if isinstance(value, list):
        return [_walked(content, key) for content in value]
    if isinstance(value, str):
        return _text(value, key)
    if isinstance(value, int) and abs(value) > _MOST * 2:
        raise Refused(
            f"it holds the number {value:.3g}"
            if abs(value) < 1e300
            else "it holds a number of endless digits"
        )
    return value


def _text(text: str, key: str) -> str:
    if key == "expr_str":
        _check_expression(text)
    elif key == "target":
        _check_target(text)
    elif (key in _NAMES or key == "forward_arg_names") and text:
        _check_name(text)
    else:
        _check_word(text)
    return text


def _check_word(text: str) -> None:
    if not _WORD.fullmatch(text):
        raise Refused(f"{text[:60]!r} is no name")


def _check_name(text: str) -> None:
    if not re.fullmatch(r"[^\W\d]\w{0,300}", text, re.ASCII) or keyword.iskeyword(text):
        raise Refused(f"{text[:60]!r} is no name")


def _check_target(target: str) -> None:
    import torch

    if not _TARGET.fullmatch(target):
        raise Refused(f"{target[:100]!r} is no operator that npk knows")
    if target.startswith(("torch.ops.aten.", "torch.ops.npk.")):
        schemas = torch._C._jit_get_schemas_for_operator("::".join(target.split(".")[2:4]))
        if any(
            argument.name in ("filename", "file_name", "path")
            for schema in schemas
            for argument in schema.arguments
        ):
            raise Refused(f"{target} reads or writes files")


def _check_expression(text: str) -> None:
    """Sizes by names, whole numbers and SymPy's functions; SymPy would evaluate anything."""
    try:
        tree = ast.parse(text, mode="eval").body if len(text) < 2000 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or sum(1 for _ in ast.walk(tree)) > 300 or not _is_size(tree):
        raise Refused(f"{text[:60]!r} is no size")


def _is_size(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) and abs(node.value) < _MOST
    if isinstance(node, ast.Name):
        return re.fullmatch(r"z?[a-z]{1,2}\d{1,9}", node.id) is not None
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _is_size(node.operand)
    if isinstance(node, ast.BinOp):
        return (
            isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.FloorDiv | ast.Mod)
            and _is_size(node.left)
            and _is_size(node.right)
        )
    if (
        not isinstance(node, ast.Call)
        or not isinstance(node.func, ast.Name)
        or node.func.id not in _SYMBOLIC
    ):
        return False
    first, *rest = node.args or [None]
    words = all(
        word.arg and isinstance(word.value, ast.Constant) and type(word.value.value) is bool
        for word in node.keywords
    )
    if node.func.id == "Symbol":
        is_symbol = (
            isinstance(first, ast.Constant)
            and re.fullmatch(r"\w{1,40}", str(first.value), re.ASCII)
            and not rest
        )
        return bool(is_symbol) and words
    if node.func.id == "Pow" and not (
        len(rest) == 1 and rest[0] and re.fullmatch(r"Integer\((-1|2|3|4)\)", ast.unparse(rest[0]))
    ):
        return False
    return words and all(_is_size(inner) for inner in node.args)


def _origin(metadata: Any) -> Any:
    """Of what a node remembers, where it was written."""
    kept = {
        key: metadata[key]
        for key in _KEPT
        if isinstance(metadata, dict) and isinstance(metadata.get(key), str)
    }
    return {
        key: "".join(c for c in text[:100_000] if c == "\n" or " " <= c <= "~")
        for key, text in kept.items()
    }


def _checked_spec(text: Any, key: str) -> Any:
    """How inputs and outputs are nested: tuples, lists and dictionaries with plain keys."""
    if text in (None, ""):
        return text
    spec = parsed(text.encode()) if isinstance(text, str) else None
    if not isinstance(spec, list) or len(spec) != 2 or spec[0] != 1:
        raise Refused("it does not say how inputs and outputs are nested")
    _check_nesting(spec[1], key == "in_spec", 20)
    return text


def _check_nesting(spec: Any, named: bool, deepest: int) -> None:
    if (
        not isinstance(spec, dict)
        or set(spec) != {"type", "context", "children_spec"}
        or spec["type"] not in _CONTAINERS
        or not deepest
    ):
        raise Refused("it nests inputs or outputs in what npk does not know")
    keys = parsed(spec["context"].encode()) if isinstance(spec["context"], str) else spec["context"]
    if keys is not None and not (
        isinstance(keys, list) and all(type(key) in (str, int) for key in keys)
    ):
        raise Refused("it nests inputs or outputs in what npk does not know")
    for word in keys or ():
        (_check_name if named else _check_word)(str(word))
    for inner in spec["children_spec"] if isinstance(spec["children_spec"], list) else [None]:
        _check_nesting(inner, named, deepest - 1)
