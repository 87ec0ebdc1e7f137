"""The documents say what is: their examples run, and the names in them exist."""

import re
import shlex
import sys
from collections import Counter
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_cuda_compile
import typer
from emu.fibers import compiler_is_missing
from emu.nvrtc import compilers
from test_backends import BackendContract
from test_report import build_run

import npk
from npk.backends.cuda import registry
from npk.checkpoint.onnx.operators import RULES as ONNX_RULES
from npk.cli.checking import named
from npk.cli.commands import app
from npk.data.files import FILES as FILES_OF_DATA
from npk.gates.entries import MADE
from npk.graph.operators import OPERATORS
from npk.reading.rules import RULES
from npk.reading.rules.refused import REFUSED
from npk.report import write_page
from npk.results import DETAILS, Case, CaseDetails, CheckResult

ROOT = Path(npk.__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
)
CONTRIBUTING = [page for page in PAGES if page.startswith("docs/contributing/")]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^npk (.+)$", re.MULTILINE)
COMMANDS = typer.main.get_command(app).commands
LINES = [
    (page, line)
    for page in PAGES
    for line in COMMAND.findall("".join(SHELL.findall((ROOT / page).read_text())))
]
FILES = {path.stem for path in (ROOT / "npk").iterdir()}


def examples(page):
    return BLOCK.findall((ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_names_in_the_documents_exist(page):
    named = set(re.findall(r"\bnpk\.([A-Za-z_]\w*)", (ROOT / page).read_text()))
    assert named <= {*npk.__all__, *FILES}


@pytest.mark.parametrize("page", PAGES)
def test_examples_are_python(page):
    for block in examples(page):
        compile(block, page, "exec")


@pytest.mark.parametrize(("page", "line"), LINES)
def test_command_lines_are_understood(page, line):
    name, *words = shlex.split(line, comments=True)
    COMMANDS[name].make_context(name, words)  # reads the words, runs nothing


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_page_has_every_option_and_no_other(name):
    text = (
        (ROOT / "docs/guide/command-line.md")
        .read_text()
        .split(f"## npk {name}\n")[1]
        .split("\n## ")[0]
    )
    told = set(
        re.findall(
            r"(?<![\w-])--[a-z][a-z-]*",
            "\n".join(row.split("|")[1] for row in text.splitlines() if row.startswith("| `--")),
        )
    )
    options = {o for p in COMMANDS[name].params for o in p.opts if o.startswith("--")}
    opposites = {o for p in COMMANDS[name].params for o in p.secondary_opts}
    assert options <= told <= options | opposites


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Those of README too, which is no page of the site; pictures apart, and targets inside a page
    are checked by mkdocs.
    """
    links = re.findall(r"(?<!!)\[[^\]]+\]\((?!http|#)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_changelog_says_nothing_twice():
    """Two versions of one line are left behind where changes are merged."""
    starts = [line[:70] for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line]
    assert [start for start, times in Counter(starts).items() if times > 1] == []


def test_the_gallery_shows_every_script_and_every_figure():
    """Scripts are put into the page by a mark, which a formatter may take apart."""
    folder, page = ROOT / "docs/gallery", (ROOT / "docs/gallery/index.md").read_text()
    shown = re.findall(r'^--8<-- "docs/gallery/(\w+)\.py"$', page, re.MULTILINE)
    assert sorted(shown) == sorted({path.stem for path in folder.glob("*.py")} - {"draw"})
    figures = re.findall(r"!\[[^\]]+\]\((\w+\.png)\)", page)
    assert sorted(figures) == sorted(path.name for path in folder.glob("*.png"))
    saved = "".join(path.read_text() for path in folder.glob("*.py"))
    assert all(name in saved or name.startswith("through_training_") for name in figures)


def test_the_list_of_operators_names_every_rule():
    """By the word that the page has for it: that of the rule's name, but for those below. A new
    rule needs a row.
    """
    text = (
        (ROOT / "docs/guide/checkpoints.md")
        .read_text()
        .split("## Operators")[1]
        .split("\n## ")[0]
        .lower()
    )
    words = {
        "mul": "h * g",
        "avg_pool": "avgpool",
        "max_pool": "maxpool",
        "adaptive_avg_pool": "adaptiveavgpool",
        "full_like": "ones",
    }
    words |= {
        "to_copy": "casts",
        "to": "casts",
        "new_ones": "ones",
        "unsafe_view": "view",
        "native_dropout": "dropout",
    }
    # made by torch.export, never written by a user
    unsaid = {"alias", "getitem", "get_attr", "input"}
    for rule in {re.sub(r"\dd(_with_indices)?$", "", rule.strip("_")) for rule in RULES} - unsaid:
        assert "batch norm" in text if "batch_norm" in rule else words.get(rule, rule) in text, rule


# How the addition that a page of docs/contributing describes gets into npk.
ADDED = {
    "operator": lambda names: (OPERATORS, "Signs", names["Signs"]),
    "onnx-operator": lambda names: (ONNX_RULES, "SpaceToDepth", names["_space_to_depth"]),
    "check": lambda names: (DETAILS, "homogeneity", CaseDetails),
    "measure": lambda names: (vars(npk.measures), "participation", names["participation"]),
    "data-source": lambda names: (FILES_OF_DATA, ".dat", names["_dat"]),
}


def run_page(page):
    names = {"__name__": "example"}
    for block in examples(f"docs/contributing/{page}.md"):
        exec(compile(block, page, "exec"), names)  # the project's own text
    return names


def parameters_of(test):
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    return [{marks[0].args[0]: value} for value in marks[0].args[1]] if marks else [{}]


def run_tests(names, tmp_path):
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        wants = {"tmp_path": tmp_path} if "tmp_path" in signature(test).parameters else {}
        for parameters in parameters_of(test):
            test(**wants, **parameters)


@pytest.mark.parametrize("page", ADDED)
def test_worked_examples_pass_their_own_tests(page, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    names = run_page(page)
    monkeypatch.setitem(*ADDED[page](names))
    run_tests(names, tmp_path)


def test_the_worked_example_of_a_gate_passes_its_own_test(tmp_path, monkeypatch):
    names = run_page("gate")
    monkeypatch.setitem(MADE, "outside", names["OUTSIDE"])
    monkeypatch.setitem(RULES, "hardshrink", names["hardshrink"])
    monkeypatch.delitem(REFUSED, "hardshrink")
    run_tests(names, tmp_path)


def test_the_worked_example_of_a_check_is_seen(tmp_path, monkeypatch):
    """Its line in DETAILS is enough for the command and the page."""
    check = run_page("check")["check_homogeneity"]
    place = "npk.checks.homogeneity"
    monkeypatch.setitem(sys.modules, place, SimpleNamespace(check_homogeneity=check))
    monkeypatch.setitem(DETAILS, "homogeneity", CaseDetails)
    assert named("homogeneity") is check
    details = CaseDetails((Case("times 3", 1e-16),))
    result = CheckResult("homogeneity", "a net", "Factors stay", True, 1e-16, 1e-10, details)
    run = build_run(networks=(), accuracies=(), kernels=(), checks=(result,))
    write_page(run, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>Homogeneity.</b> Factors stay. Gray: within the tolerance." in text
    assert "Deviation of each case of the check homogeneity: a net" in text


@pytest.mark.parametrize("name", DETAILS)
def test_every_check_is_public_and_told(name):
    command = (ROOT / "docs/guide/command-line.md").read_text().split("## npk check\n")[1]
    assert f"check_{name}" in npk.__all__
    assert f"::: npk.checks.{name}\n" in (ROOT / "docs/api/checks.md").read_text()
    assert f"`{name}`" in command.split("\n## ")[0]


def test_the_worked_example_of_a_cuda_kernel(tmp_path, monkeypatch):
    """Its tests pass, and it keeps the budget that it declares."""
    if compiler_is_missing():
        pytest.skip("the emulator by C++ needs g++, and there is none here")
    page = (ROOT / "docs/contributing/cuda-kernel.md").read_text()
    source = re.search(r"^```cpp\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "overlap.cu").write_text(source)
    monkeypatch.setattr(registry, "KERNELS_FOLDER", tmp_path)
    names, key = run_page("cuda-kernel"), ("overlap", "any", "int32")
    run_tests(names, tmp_path)
    monkeypatch.setitem(test_cuda_compile.KERNELS, key, names["OVERLAP"])
    test_cuda_compile.test_budgets_are_the_declared_ones(key)
    for major in compilers():
        test_cuda_compile.test_kernel_keeps_its_budget(key, major, 80)


def test_the_worked_example_of_a_backend_keeps_the_contract(rng):
    backend = run_page("backend")["BandedBackend"]

    class Banded(BackendContract):
        def make(self, recursion, table, dtype):
            return backend(recursion, table, dtype)

    for sizes in ((1, 17), (9, 33), (33, 9)):
        Banded().test_shapes(*sizes, rng)
    Banded().test_widths(65, "hard", "float64", rng)
    Banded().test_overlaps_are_exact(rng)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *CONTRIBUTING])
def test_places_that_contributors_are_sent_to_exist(page):
    """All but the files that a worked example adds."""
    named = set(
        re.findall(r"`((?:npk|docs|tests|benchmarks)/[\w./-]+)`", (ROOT / page).read_text())
    )
    assert {place for place in named if not (ROOT / place).exists()} <= {
        "npk/checks/homogeneity.py",
        "npk/backends/cuda/kernels/overlap.cu",
    }


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_what_one_block_writes_no_other_block_writes(page):
    """So the blocks can be followed in order: a kernel of other samples does not go to a store."""
    shell = "".join(SHELL.findall((ROOT / page).read_text()))
    written = re.findall(r"--(?:out|figure|json)[ =](\S+)", shell)
    written += re.findall(r'out="([^"]+)"', "".join(examples(page)))
    assert written
    assert sorted(set(written)) == sorted(written)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    assert examples(page)
    for block in examples(page):
        exec(compile(block, page, "exec"), names)  # the project's own text
