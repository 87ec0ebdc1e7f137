"""Standard output and error as they come: any encoding, readers that go away, no stream at all,
terminals of any size.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import npk
from npk import cli
from npk.cli import tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint whose name not every encoding has."""
    found = tmp_path_factory.mktemp("streams")
    npk.save(
        npk.networks.build("fc", input_shape=(4,), classes=2, hidden=[8]),
        found / "n\N{GREEK SMALL LETTER ALPHA}.safetensors",
    )
    return found


def run(folder, *arguments, **how):
    """In a process of its own, whose streams are made by the system."""
    env = {**os.environ, "PYTHONPATH": str(Path(npk.__file__).parents[1]), **how.pop("env", {})}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.run(
        [sys.executable, "-m", "npk", *arguments],
        cwd=folder,
        env=env,
        text=True,
        errors="replace",
        check=False,
        **how,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding(folder, encoding):
    name = "n\N{GREEK SMALL LETTER ALPHA}.safetensors"
    given = {"env": {"PYTHONIOENCODING": f"{encoding}:strict", "TERM": "dumb", "COLUMNS": "3"}}
    found = run(
        folder,
        "kernel",
        name,
        "--data",
        "none\N{GREEK SMALL LETTER BETA}",
        "--out",
        "K.npy",
        **given,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("npk: ")
    assert found.stderr.count("\n") == 1
    found = run(folder, "verify-store", name, **given)
    assert (found.returncode, "Traceback" in found.stderr) == (2, False)


def test_a_reader_that_goes_away_and_a_full_disk(folder):
    reader, writer = os.pipe()
    os.close(reader)
    found = run(folder, "--version", stdout=writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (cli.UNREAD, "")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            found = run(folder, "--version", stdout=full)
        assert found.returncode == 2
        assert found.stderr.startswith("npk: cannot read or write: No space left")
        assert found.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the stream")
def test_no_standard_output_at_all(folder):
    command = f'"{sys.executable}" -m npk --version >&-'
    found = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("columns", ["1", "5", "many"])
def test_tables_on_terminals_of_any_width(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    tables.table(("name", "value"), [("a long name of a node", "12345")], title="title")
    assert capsys.readouterr().out
