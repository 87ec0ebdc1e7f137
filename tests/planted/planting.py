"""Faults that are planted on purpose, one a guard: a test must see each of them.

A guard is an ``if`` that ends in a refusal (planted: it never holds), or a text that is replaced by
another one. The functions of one file get the code with the fault, where they are loaded already.
"""

import ast
import gc
import re
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

HERE = Path(__file__).parent
NPK = HERE.parents[1] / "npk"
REFUSALS = HERE / "refusals.tsv"  # file, function, condition, test: made by listing.py
# Refusals that no test meets: no network is known whose exported program has what they refuse.
# They stay, since what is not wholly understood is refused.
UNSEEN = {
    ("reading/builder.py", "Builder.argument", "not isinstance(first, fx.Node)"),
    ("reading/rules/layers.py", "constant_number", "not is_batched(node)"),
    ("reading/rules/moves.py", "_plain", "not isinstance(value, int)"),
    ("reading/rules/sums.py", "sum_of", "len(inputs) != 1"),
    ("reading/tracing.py", "_last_node", "not isinstance(last, Layout)"),
    (
        "reading/tracing.py",
        "_read",
        "not all((isinstance(value, Layout) for value in inputs)) and name != 'getitem'",
    ),
}
_NO_REFUSALS = {"Exit", "Returned"}
_HELPERS = re.compile(r"_?refuse(_unknown|_operator)?")


@dataclass(frozen=True)
class Fault:
    """What is planted in a file, and the test that must see it."""

    file: str
    place: str
    old: str
    new: str
    test: str

    def __str__(self):
        return f"{self.file} {self.place}: {self.old}"

    def planted(self, source):
        """The source with the fault, as a tree."""
        if self.place == "text":
            assert source.count(self.old) == 1, (
                f"{self.file} has {self.old!r} {source.count(self.old)} times: list it anew"
            )
            return ast.parse(source.replace(self.old, self.new))
        tree = ast.parse(source)
        found = [
            node
            for function, node in refusals(tree)
            if (self.file, function, condition(node)) == self.key
        ]
        assert found, f"{self}: there is no such refusal, list it anew (tests/planted/listing.py)"
        for node in found:
            never = ast.BoolOp(ast.And(), [ast.Constant(False), node.test])
            node.test = ast.copy_location(never, node.test)
        return ast.fix_missing_locations(tree)

    @property
    def key(self):
        return self.file, self.place, self.old


def refusals(tree):
    """Pairs (function, ``if``) of a file: what ends in raising an error."""

    def walk(node, function):
        for child in ast.iter_child_nodes(node):
            inside = (
                f"{function}.{child.name}".lstrip(".")
                if isinstance(child, ast.FunctionDef | ast.ClassDef)
                else function
            )
            if isinstance(child, ast.If) and any(refuses(statement) for statement in child.body):
                yield inside, child
            yield from walk(child, inside)

    return list(walk(tree, ""))


def all_refusals():
    """All refusals of npk, as (file, function, condition)."""
    for path in sorted(NPK.rglob("*.py")):
        for function, node in refusals(ast.parse(path.read_text())):
            yield path.relative_to(NPK).as_posix(), function, condition(node)


def condition(node):
    """The condition of an ``if`` on one line."""
    return " ".join(ast.unparse(node.test).split())


def refuses(statement):
    """Whether a statement raises an error, itself or by a function that does nothing else."""
    call = getattr(statement, "exc" if isinstance(statement, ast.Raise) else "value", None)
    if not isinstance(call, ast.Call):
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if isinstance(statement, ast.Raise):
        return name not in _NO_REFUSALS
    return isinstance(statement, ast.Expr | ast.Return) and bool(_HELPERS.fullmatch(name))


def rows():
    """The rows of the list: file, function, condition, test."""
    return [
        line.split("\t") for line in REFUSALS.read_text().splitlines() if not line.startswith("#")
    ]


def plant(fault):
    """Give the functions of this process the fault."""
    path = str(NPK / fault.file)
    new = dict(_codes(compile(fault.planted(Path(path).read_text()), path, "exec")))
    changed = 0
    for found in gc.get_objects():
        if type(found) is FunctionType and found.__code__.co_filename == path:
            code = new[found.__code__.co_qualname, found.__code__.co_firstlineno]
            changed += code != found.__code__
            found.__code__ = code
    assert changed, f"{fault} changes no function that is loaded"


def _codes(code):
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield (inner.co_qualname, inner.co_firstlineno), inner
            yield from _codes(inner)
