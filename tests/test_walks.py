"""The walks of docs/walks: their commands are understood, and their notebooks run."""

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

import npk
from npk.cli.commands import app

WALKS = Path(npk.__file__).parents[1] / "docs/walks"
NOTEBOOKS = sorted(path.stem for path in WALKS.glob("*.ipynb"))
COMMANDS = typer.main.get_command(app).commands
LINES = [
    line
    for path in sorted(WALKS.glob("*.sh"))
    for line in re.findall(r"^npk (.+)$", path.read_text().replace("\\\n", ""), re.MULTILINE)
]


def code_cells(name):
    cells = json.loads((WALKS / f"{name}.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("line", LINES)
def test_command_lines_are_understood(line):
    name, *words = shlex.split(line.partition(" 2>")[0])
    COMMANDS[name].make_context(name, words)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_python_without_outputs(name):
    for cell in code_cells(name):
        assert cell["outputs"] == []
        ast.parse(re.sub(r"^[!%].*$", "", "".join(cell["source"]), flags=re.MULTILINE))


def test_the_page_shows_every_script_and_names_every_notebook():
    page = (WALKS / "index.md").read_text()
    scripts = {path.name for path in WALKS.iterdir() if path.suffix in (".py", ".sh")}
    assert set(re.findall(r'^--8<-- "docs/walks/(.+)"$', page, re.MULTILINE)) == scripts
    assert {f"{name}.ipynb" for name in NOTEBOOKS} <= set(re.findall(r"\(([\w.]+)\)", page))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages that run notebooks
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(name, tmp_path):
    why = "notebooks run with: pip install '.[notebooks]'"
    for package in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(package, reason=why)
    if name == "engineer":
        pytest.importorskip("onnx")
    import nbclient
    import nbformat

    shutil.copytree(WALKS, tmp_path / "walks")
    notebook = nbformat.read(WALKS / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": tmp_path / "walks"}}
    nbclient.NotebookClient(notebook, timeout=1200, resources=where).execute()
    assert all(cell.outputs for cell in notebook.cells[-1:])
