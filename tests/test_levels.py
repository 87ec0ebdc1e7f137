"""The house rules that a machine can read: levels of imports, one tile loop, sizes, names.

Every rule is a function from source text to a list of offences, so that it can be tried on bad
sources too.
"""

import ast
from pathlib import Path

import pytest

import npk

ROOT = Path(npk.__file__).parent
# these may import one another
GROUND = (
    "errors",
    "files",
    "layouts",
    "results",
    "progress",
    "samples",
    "stores",
    "typed",
    "choices",
    "tie",
    "forks",
    "shown",
)
LEVELS = (
    GROUND,
    ("data", "networks", "report"),
    ("graph",),
    ("reading",),
    ("gates",),
    ("recursion",),
    ("definition", "structure", "checkpoint", "backends"),
    ("gram",),
    ("machines", "checks"),
    ("measures",),
    ("bench", "studies", "plot"),
    ("demo", "tracks"),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

TILES = "gram/tiles.py"
# Other files that may step through an array by a variable step, each with its reason.
STEP_LOOPS = {
    "gates/recording.py": "batches of samples that go through the network: no tile of a kernel is "
    "involved",
    "recursion/masks.py": "samples whose products are added up before the first weight: no pair of "
    "them is involved",
}
DUMPING_PLACES = {"utils.py", "helpers.py", "misc.py", "common.py"}
PRINTERS = {"cli.py", "demo.py"}
# rooms whose tables outlive one another: an id() may come back as that of another table
KNOWN_BY_CONTENT = {"graph", "gates", "recursion", "backends", "gram"}
MAX_FILE, MAX_BODY = 540, 60


def rooms_imported(source, file):
    """(line, room) for every import from npk in a file, imports inside functions included."""
    for line, parts in names_imported(source, file):
        yield line, _room(parts)


def names_imported(source, file):
    """(line, parts of the dotted name) for every import from npk in a file, imports inside
    functions included.
    """
    package = ["npk", *Path(file).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            names = [
                a.value
                for a in node.args
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
        else:
            continue
        for parts in (name.split(".") for name in names):
            if parts[0] == "npk" and parts[1:] != ["__version__"]:
                yield node.lineno, parts


def _room(parts):
    """The room of a dotted name; names that npk/__init__.py offers count for the room where they
    live.
    """
    if len(parts) == 1:
        return None
    home = npk._HOME.get(parts[1], "npk")
    return parts[1] if home == "npk" else home.split(".")[1]


def _called(call):
    return (
        call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    )


def level_offences(source, file):
    own = Path(file).parts[0].removesuffix(".py")
    if own not in LEVEL:
        return [
            f"{file}: {own} has no level. Give it one in tests/test_levels.py and docs/design.md"
        ]
    found = []
    for line, room in rooms_imported(source, file):
        if room is None:
            found.append(f"{file}:{line} imports npk itself: name the room")
        elif room not in LEVEL:
            found.append(f"{file}:{line} imports npk.{room}, which has no level")
        elif room != own and LEVEL[room] >= LEVEL[own] and not (room in GROUND and own in GROUND):
            found.append(f"{file}:{line} imports npk.{room}, which is not below {own}")
    return found


def inside_offences(source, file):
    """Imports from a folder inside another room: what a room keeps there is its own."""
    own = Path(file).parts[0].removesuffix(".py")
    for line, parts in names_imported(source, file):
        if len(parts) > 3 and parts[1] != own and (ROOT / parts[1] / parts[2]).is_dir():
            yield (
                f"{file}:{line} imports from npk.{parts[1]}.{parts[2]}, which is inside of "
                f"{parts[1]}"
            )


def files_imported(source, file, files):
    """Files of npk that a file imports, inside functions too; what only a type checker reads does
    not count.
    """
    tree = ast.parse(source)
    for block in [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]:
        block.body = [ast.Pass()]
    for _, parts in names_imported(ast.unparse(tree), file):
        if found := _file(parts[1:], files) or _file(parts[1:-1], files):
            yield found


def _file(parts, files):
    """The file of a module, if it is one."""
    place = "/".join(parts)
    return next((file for file in (f"{place}.py", f"{place}/__init__.py") if file in files), None)


def circles(imports):
    """Files that import one another, one circle for each file that begins one. ``imports``: of each
    file, the files it imports.
    """
    found, done = [], set()

    def walk(file, way):
        if file in way:
            found.append(" -> ".join((*way[way.index(file) :], file)))
        elif file not in done:
            for other in sorted(imports[file]):
                walk(other, (*way, file))
            done.add(file)

    for file in sorted(imports):
        walk(file, ())
    return found


def step_loop_offences(source, file):
    """Loops over range(start, stop, step) whose step is not a plain number."""
    if file == TILES or file in STEP_LOOPS:
        return []
    loops = [
        n.iter for n in ast.walk(ast.parse(source)) if isinstance(n, ast.For | ast.comprehension)
    ]
    steps = [
        (i.lineno, i.args[2])
        for i in loops
        if isinstance(i, ast.Call) and _called(i) in {"range", "prange"} and len(i.args) == 3
    ]
    return [
        f"{file}:{line} steps through an array: only {TILES} does"
        for line, step in steps
        if not _is_number(step)
    ]


def _is_number(node):
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def size_offences(source, file):
    lines = len(source.splitlines())
    found = [f"{file} has {lines} lines, at most {MAX_FILE}"] if lines > MAX_FILE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > MAX_BODY:
                found.append(
                    f"{file}:{node.lineno} {node.name} has a body of {length} lines, at "
                    f"most {MAX_BODY}"
                )
    return found


def assert_offences(source, file):
    """Asserts in public functions that look at an argument: under -O nobody would check it."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
            continue
        arguments = {
            a.arg
            for a in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        } - {"self", "cls"}
        for node in ast.walk(function):
            if isinstance(node, ast.Assert) and arguments & {
                n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)
            }:
                found.append(
                    f"{file}:{node.lineno} asserts on an argument of {function.name}: "
                    f"raise an error of npk.errors"
                )
    return found


def print_offences(source, file):
    return (
        []
        if file in PRINTERS
        else [
            f"{file}:{line} prints: the library is silent"
            for line in lines_that_call("print", source)
        ]
    )


def identity_offences(source, file):
    return (
        [
            f"{file}:{line} calls id(): know a table by what it holds"
            for line in lines_that_call("id", source)
        ]
        if Path(file).parts[0] in KNOWN_BY_CONTENT
        else []
    )


def lines_that_call(name, source):
    return [
        n.lineno
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name
    ]


def name_offences(source, file):
    return (
        [f"{file}: a name that invites dumping; name it after what a reader looks for"]
        if Path(file).name in DUMPING_PLACES
        else []
    )


RULES = (
    level_offences,
    inside_offences,
    step_loop_offences,
    size_offences,
    assert_offences,
    print_offences,
    identity_offences,
    name_offences,
)
FILES = sorted(
    str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"
)


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_the_rule(rule):
    assert len(FILES) > 4
    offences = [offence for file in FILES for offence in rule((ROOT / file).read_text(), file)]
    assert not offences, "\n".join(offences)


def test_no_files_import_one_another():
    sources = {file: (ROOT / file).read_text() for file in FILES}
    imports = {
        file: set(files_imported(source, file, sources)) - {file}
        for file, source in sources.items()
    }
    assert sum(map(len, imports.values())) > len(FILES)
    found = circles(imports)
    assert not found, "\n".join(found)


HERE = {"gates/a.py": "", "gates/b.py": "", "gates/c/__init__.py": "", "gates/c/d.py": ""}


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        (
            {"gates/a.py": "from npk.gates.b import x", "gates/b.py": "from npk.gates import a"},
            "gates/a.py -> gates/b.py -> gates/a.py",
        ),
        (
            {"gates/a.py": "def f():\n    import npk.gates.b", "gates/b.py": "from .a import x"},
            "gates/a.py -> gates/b.py -> gates/a.py",
        ),
        (
            {
                "gates/a.py": "from npk.gates.c import x",
                "gates/c/__init__.py": "from npk.gates.c.d import x",
                "gates/c/d.py": "from .. import a",
            },
            "gates/a.py -> gates/c/__init__.py -> gates/c/d.py -> gates/a.py",
        ),
        (
            {
                "gates/a.py": "from npk.gates.b import x",
                "gates/b.py": "if TYPE_CHECKING:\n    from npk.gates.a import x",
            },
            None,
        ),
        (
            {
                "gates/a.py": "from npk.gates import b, c",
                "gates/b.py": "from npk.gates.c.d import x\nimport numpy",
            },
            None,
        ),
    ],
)
def test_circle_rule(sources, circle):
    sources = {**HERE, **sources}
    imports = {file: set(files_imported(source, file, sources)) for file, source in sources.items()}
    assert circles(imports) == [circle] * (circle is not None)


def test_every_exception_is_still_needed():
    for file in STEP_LOOPS:
        if (ROOT / file).exists():
            assert step_loop_offences((ROOT / file).read_text(), f"not/{file}"), (
                f"{file} has no such loop: take it off the list"
            )


@pytest.mark.parametrize(
    ("source", "file", "why"),
    [
        (
            "import npk.gram.kernel",
            "definition/paths.py",
            "npk.gram, which is not below definition",
        ),
        (
            "from npk.gram import kernel",
            "definition/paths.py",
            "npk.gram, which is not below definition",
        ),
        (
            "def f():\n    from npk.cli import main",
            "machines/svm.py",
            "npk.cli, which is not below machines",
        ),
        (
            "from npk.checks.duality import check_duality",
            "machines/ridge.py",
            "npk.checks, which is not below machines",
        ),
        (
            "from npk import checkpoint",
            "backends/cpu.py",
            "npk.checkpoint, which is not below backends",
        ),
        (
            "from npk import kernel",
            "definition/paths.py",
            "npk.gram, which is not below definition",
        ),
        (
            "from npk import GateTable",
            "networks/gating.py",
            "npk.gates, which is not below networks",
        ),
        (
            "from ..gram import tiles",
            "definition/paths.py",
            "npk.gram, which is not below definition",
        ),
        ("from .. import machines", "gram/tiles.py", "npk.machines, which is not below gram"),
        (
            "import importlib\nimportlib.import_module('npk.cli')",
            "data.py",
            "npk.cli, which is not below data",
        ),
        ("import npk", "definition/paths.py", "imports npk itself"),
        ("import npk.secret", "cli.py", "npk.secret, which has no level"),
        ("", "secret.py", "secret has no level"),
        (
            "from npk.networks import gating",
            "report/page.py",
            "npk.networks, which is not below report",
        ),
        ("from npk.data import load", "errors.py", "npk.data, which is not below errors"),
    ],
)
def test_level_rule_sees(source, file, why):
    (offence,) = level_offences(source, file)
    assert why in offence


@pytest.mark.parametrize(
    ("source", "file", "seen"),
    [
        ("from npk.backends.cpu import CpuBackend", "gram/engine.py", True),
        (
            "def f():\n    from npk.backends.cuda.launcher import find_launcher",
            "machines/algebra.py",
            True,
        ),
        (
            "from npk.backends import make_backend\nfrom npk.backends.jit import can_cache",
            "gram/engine.py",
            False,
        ),
        ("from npk.backends.cpu.lanes import slide", "backends/cpu/tile.py", False),
    ],
)
def test_inside_rule_sees(source, file, seen):
    assert bool(list(inside_offences(source, file))) is seen


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("from npk import __version__", "definition/paths.py"),
        ("from npk.errors import NpkError", "files.py"),
        (
            "from npk.definition import paths\nfrom .value_network import evaluate\nfrom . import "
            "paths",
            "definition/paths.py",
        ),
        (
            "from npk.definition.paths import enumerate_paths\nimport numpy, npkother",
            "gram/kernel.py",
        ),
        ("from npk.demo import run\nfrom npk import kernel, networks", "cli.py"),
    ],
)
def test_level_rule_allows(source, file):
    assert level_offences(source, file) == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (step_loop_offences, "for i in range(0, n, step):\n    pass"),
        (step_loop_offences, "tiles = [x[i : i + k] for i in range(0, len(x), k)]"),
        (step_loop_offences, "for i in numba.prange(0, n, step):\n    pass"),
        (size_offences, "x = 1\n" * 541),
        (size_offences, "def f():\n    '''Doc.'''\n" + "    x = 1\n" * 61),
        (assert_offences, "def f(x):\n    assert x > 0"),
        (
            assert_offences,
            "class A:\n    def f(self, *, x):\n        if x:\n            assert len(x) == 2",
        ),
        (print_offences, "def f():\n    print('hello')"),
    ],
)
def test_rule_sees(rule, source):
    (offence,) = rule(source, "definition/paths.py")
    assert offence.startswith("definition/paths.py")


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (
            step_loop_offences,
            "for i in range(n - 1, -1, -1):\n    pass\nfor j in range(0, n):\n    pass",
        ),
        (size_offences, "x = 1\n" * 540 + ""),
        (
            size_offences,
            "def f():\n    '''Doc\n" + "    more\n" * 30 + "    '''\n" + "    x = 1\n" * 60,
        ),
        (assert_offences, "def _f(x):\n    assert x > 0\ndef g(x):\n    y = x\n    assert y > 0"),
    ],
)
def test_rule_allows(rule, source):
    assert rule(source, "definition/paths.py") == []


@pytest.mark.parametrize("room", sorted(KNOWN_BY_CONTENT))
def test_identity_rule_sees(room):
    source = "def f(known, table):\n    return known[id(table)]"
    assert identity_offences(source, f"{room}/a.py") == [
        f"{room}/a.py:2 calls id(): know a table by what it holds"
    ]
    assert not identity_offences(source, "networks/copies.py")


def test_name_rule_sees_dumping_places():
    assert name_offences("", "gram/utils.py")
    assert not name_offences("", "gram/tiles.py")
