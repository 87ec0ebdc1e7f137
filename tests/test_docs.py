"""The documents say what is: their examples run, and the names in them exist."""

import re
from pathlib import Path

import pytest

import npk

ROOT = Path(npk.__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
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


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    assert examples(page)
    for block in examples(page):
        exec(compile(block, page, "exec"), names)  # the project's own text
