"""Every script of the benchmarks still finds what it imports from npk."""

import ast
import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_benchmark_imports_is_there(script):
    tree = ast.parse((FOLDER / script).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "npk":
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(
                    f"{node.module}.{name.name}"
                )
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.partition(".")[0] == "npk":
                    importlib.import_module(name.name)
