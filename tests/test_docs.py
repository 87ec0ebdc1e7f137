"""The documents say what is: their examples run, and the names in them exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

import npk
from npk.cli.commands import app
from npk.dual.operators import RULES

ROOT = Path(npk.__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^npk (.+)$", re.MULTILINE)
COMMANDS = typer.main.get_command(app).commands
LINES = [(page, line) for page in PAGES for line in COMMAND.findall("".join(SHELL.findall((ROOT / page).read_text())))]
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
    text = (ROOT / "docs/guide/command-line.md").read_text().split(f"## npk {name}\n")[1].split("\n## ")[0]
    told = set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(row.split("|")[1] for row in text.splitlines() if row.startswith("| `--")))
    )
    assert told == {option for p in COMMANDS[name].params for option in p.opts if option.startswith("--")}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Those of README too, which is no page of the site; pictures apart, and targets inside a page are checked by mkdocs."""
    links = re.findall(r"(?<!!)\[[^\]]+\]\((?!http|#)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_list_of_operators_names_every_rule():
    """By the word that the page has for it: that of the rule's name, but for those below. A new rule needs a row."""
    text = (ROOT / "docs/guide/checkpoints.md").read_text().split("## Operators")[1].split("\n## ")[0].lower()
    words = {"mul": "h * g", "avg_pool": "avgpool", "max_pool": "maxpool", "adaptive_avg_pool": "adaptiveavgpool", "full_like": "ones"}
    words |= {"to_copy": "casts", "to": "casts", "new_ones": "ones", "unsafe_view": "view", "native_dropout": "dropout"}
    unsaid = {"alias", "getitem", "get_attr", "input"}  # made by torch.export, never written by a user
    for rule in {re.sub(r"\dd(_with_indices)?$", "", rule.strip("_")) for rule in RULES} - unsaid:
        assert "batch norm" in text if "batch_norm" in rule else words.get(rule, rule) in text, rule


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    assert examples(page)
    for block in examples(page):
        exec(compile(block, page, "exec"), names)  # the project's own text
