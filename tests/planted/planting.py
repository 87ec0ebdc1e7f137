"""Faults that are planted on purpose, one a guard: a test must see each of them.

A guard is an ``if`` that ends in a refusal (planted: it never holds), or a text that is replaced by
another one. A fault lives in a process of its own, which is forked from one that has loaded what
npk stands on.
"""

import ast
import contextlib
import importlib.machinery
import os
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NPK = HERE.parents[1] / "npk"
REFUSALS = HERE / "refusals.tsv"  # file, function, condition, test: made by listing.py
ERRORS = "Error"


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
        """The source with the fault."""
        if self.place == "text":
            assert source.count(self.old) == 1, (
                f"{self.file} has {self.old!r} {source.count(self.old)} times: list it anew"
            )
            return source.replace(self.old, self.new)
        found = [
            node
            for function, node in refusals(source)
            if (function, condition(node)) == (self.place, self.old)
        ]
        assert found, (
            f"{self.file} has no refusal of {self.place} where {self.old}: list it anew "
            f"(tests/planted/listing.py)"
        )
        tree = ast.parse(source)
        lines = {node.lineno for node in found}
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and node.lineno in lines and condition(node) == self.old:
                node.test = ast.copy_location(
                    ast.BoolOp(ast.And(), [ast.Constant(False), node.test]), node.test
                )
        return ast.unparse(ast.fix_missing_locations(tree))


def refusals(source):
    """Pairs (function, ``if``) of a source: what ends in raising one of npk's errors."""

    def walk(node, function):
        for child in ast.iter_child_nodes(node):
            inside = (
                f"{function}.{child.name}".lstrip(".")
                if isinstance(child, ast.FunctionDef | ast.ClassDef)
                else function
            )
            if isinstance(child, ast.If) and any(_refuses(statement) for statement in child.body):
                yield inside, child
            yield from walk(child, inside)

    return list(walk(ast.parse(source), ""))


def condition(node):
    """The condition of an ``if`` on one line."""
    return " ".join(ast.unparse(node.test).split())


def _refuses(statement):
    if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call):
        name = getattr(statement.exc.func, "attr", getattr(statement.exc.func, "id", ""))
        return name.endswith(ERRORS) or name.startswith("_")
    return False


def listed():
    """The refusals that are listed, as faults."""
    rows = (
        line.split("\t") for line in REFUSALS.read_text().splitlines() if not line.startswith("#")
    )
    return [
        Fault(file, function, held, "False", test)
        for file, function, held, test in rows
        if test != "-"
    ]


class _Loader:
    """Loads one file of npk with a fault in it."""

    def __init__(self, fault):
        self.fault, self.path, self.get_code = (
            fault,
            str(NPK / fault.file),
            importlib.machinery.SourceFileLoader.get_code,
        )

    def __call__(self, loader, name):
        if loader.path != self.path:
            return self.get_code(loader, name)
        return compile(self.fault.planted(Path(self.path).read_text()), self.path, "exec")


def begun(fault):
    """Process that runs the test with the fault: forked from one that has not loaded npk. It ends
    with 0 where the fault survives.
    """
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            code = _run(fault)
    finally:
        os._exit(code)


def _run(fault):
    import pytest

    load = _Loader(fault)
    importlib.machinery.SourceFileLoader.get_code = lambda loader, name: load(loader, name)  # noqa: PLW0108 (functions are bound)
    assert not any(name.split(".")[0] == "npk" for name in sys.modules), "npk is loaded already"
    fault.planted((NPK / fault.file).read_text())
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "",
        "--rootdir",
        str(NPK.parent),
    ]
    return int(pytest.main([*options, str(NPK.parent / fault.test)]))
