"""The command line as a shell sees it: completion, choices in the help, messages in its words, quiet."""

import ast
import collections
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import typer
from torch import nn

import npk
from npk import choices
from npk.checks.groups import GROUPS
from npk.cli import _flags, instruments, run
from npk.cli.commands import app
from npk.cli.words import _CALL, in_shell_words
from npk.networks.building import ARCHITECTURES

FLAGS = {
    "arch": "--arch",
    "arch_options": "--arch-option",
    "bias": "--bias",
    "crop": "--crop",
    "dtype": "--dtype",
    "fixed": "--fixed",
    "key": "--key",
    "layout": "--layout",
    "mean": "--mean",
    "memory": "--memory",
    "resize": "--resize",
    "scale": "--scale",
    "scale_pixels": "--scale-pixels",
    "std": "--std",
    "value_input": "--value-input",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    net = npk.networks.build("conv", input_shape=(1, 4, 4), classes=2, channels=[4], seed=0)
    npk.save(net, tmp_path / "net.safetensors")
    X = np.random.default_rng(0).standard_normal((6, 1, 4, 4), dtype=np.float32)
    np.save(tmp_path / "X.npy", X)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("said", "spoken"),
    [
        ("Give arch='module:callable'.", "Give --arch module:callable."),
        ('Use bias="ignore", or wait.', "Use --bias ignore, or wait."),
        ("memory=1000 bytes is too little", "--memory 1000 bytes is too little"),
        ("Give more memory=, so that", "Give more --memory, so that"),
        ("arch=m:f: importing m failed", "--arch m:f: importing m failed"),
        ("such as fixed=['blur.*'].", "such as --fixed 'blur.*'."),
        ('value_input="ones" or "auto".', '--value-input ones or "auto".'),
        ("its arguments as arch_options=", "its arguments as --arch-option"),
        ("Choose: key='a b', on the command line --key 'a b'.", "Choose: --key 'a b'."),
        ("Say mean=, std= and resize=, on the command line --mean, --std.", "Say --mean, --std."),
        ('npk.record_gates(net, X, bias="paths")', 'npk.record_gates(net, X, bias="paths")'),
        ("rescale=2 and --scale=cosine", "rescale=2 and --scale=cosine"),
        ("other=3", "other=3"),
        ("Write a keyword argument as key=value.", "Write a keyword argument as key=value."),
    ],
)
def test_messages_in_the_words_of_the_shell(said, spoken):
    assert in_shell_words(said, FLAGS) == spoken
    assert in_shell_words(said, {}) == said


def test_errors_and_notes_name_options(folder, capsys):
    words = ["kernel", "net.safetensors", "--data", "X.npy", "--out", "K.npy"]
    assert run([*words, "--memory", "much"]) == 2
    assert "npk: --memory much is not a size" in capsys.readouterr().err
    assert run(["inspect", "net.safetensors", "--arch", "none_such:make"]) == 2
    err = capsys.readouterr().err
    assert "npk: --arch none_such:make" in err
    assert "arch=" not in err


def test_one_file_of_another_kind_is_refused_by_one_line(folder, capsys):
    assert run(["kernel", "net.safetensors", "--data", "X.npy", "--out", "K.csv"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "K.csv: npk writes .npy files, or stores (folders) such as K.zarr" in err


@pytest.mark.parametrize("name", ["G.csv", "G.npy"])
def test_gates_under_the_name_of_a_file_are_refused(folder, capsys, name):
    assert run(["gates", "net.safetensors", "--data", "X.npy", "--out", name]) == 2
    assert f"{name}: npk writes gates as a folder, such as G.gates." in capsys.readouterr().err
    assert not (folder / name).exists()


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
@pytest.mark.parametrize("first", [True, False])
def test_quiet_leaves_results_and_errors(folder, capsys, flag, first):
    words = ["kernel", "net.safetensors", "--data", "X.npy", "--out", "K.npy"]
    assert run([flag, *words] if first else [*words, flag]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "K.npy: 6 x 6 float32" in told.out
    assert run([*words, flag, "--data", "none.npy"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.filterwarnings("default")
def test_quiet_has_no_notes(folder, capsys):
    X = np.load(folder / "X.npy")
    X[0] = 0
    np.save(folder / "X.npy", X)
    words = ["kernel", "net.safetensors", "--data", "X.npy", "--out", "K.npy", "--bias", "ignore"]
    assert run(words) == 0
    assert "note: 1 of 6 samples have no active path" in capsys.readouterr().err
    assert run([*words, "-q"]) == 0
    assert capsys.readouterr().err == ""


def options_of(command):
    return {p.name: p for p in typer.main.get_command(app).commands[command].params}


@pytest.mark.parametrize("command", list(typer.main.get_command(app).commands))
def test_the_help_shows_all_choices(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for name, parameter in options_of(command).items():
        if name in choices.CHOICES:
            assert "|".join(choices.CHOICES[name]) in shown, (name, parameter)


def test_choices_are_those_that_there_are():
    assert get_args(choices.ArchName) == tuple(ARCHITECTURES)
    assert get_args(choices.GroupName) == tuple(GROUPS)
    figures = (*instruments.KERNEL_FIGURES, *instruments.GATE_FIGURES)
    assert get_args(choices.FigureName) == figures


def shell(monkeypatch=None, **variables):
    done = subprocess.run(
        [sys.executable, "-m", "npk"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_a_shell_is_told_what_may_follow():
    asked = {"_NPK_COMPLETE": "complete_bash"}
    assert shell(**asked, COMP_WORDS="npk kernel net --scale ", COMP_CWORD="4") == [
        "fan_in",
        "count",
        "cosine",
    ]
    assert "--scale-pixels" in shell(**asked, COMP_WORDS="npk kernel --sca", COMP_CWORD="2")
    assert "_NPK_COMPLETE=complete_bash" in shell(_NPK_COMPLETE="source_bash")


@pytest.mark.parametrize(
    ("said", "spoken"),
    [
        ("It has its own graph. Leave key out.", "It has its own graph. Leave --key out."),
        ("Leave resize, crop and std out.", "Leave --resize, --crop and --std out."),
        ("Leave one of them out.", "Leave one of them out."),
        ("scale_pixels is -1.0. Give", "--scale-pixels is -1.0. Give"),
        ("std is (0.0,). Give", "--std is (0.0,). Give"),
        ("no such value: memory is 'x'", "no such value: --memory is 'x'"),
        ("the mean is 3, and memory is short", "the mean is 3, and memory is short"),
        ("such as value_input or scale", "such as --value-input or scale"),
        ("is (n, *value_input) of net.value_input", "is (n, *value_input) of net.value_input"),
        ("value_input(x), 'value_input'", "value_input(x), 'value_input'"),
    ],
)
def test_names_alone_in_the_words_of_the_shell(said, spoken):
    assert in_shell_words(said, FLAGS) == spoken


def test_an_option_that_a_file_has_no_use_for(folder, capsys):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    npk.save(net, folder / "net.pt2", example=torch.ones(2, 4))
    assert run(["inspect", "net.pt2", "--key", "model", "--input-shape", "4"]) == 2
    assert capsys.readouterr().err == (
        "npk: net.pt2 holds its own graph and has no use for --key model. Leave --key out.\n"
    )


def test_no_option_is_declared_twice():
    """What two commands share is in npk/cli/options.py, once."""
    declared = collections.Counter()
    for name in ("commands", "laboratory"):
        tree = ast.parse((Path(npk.__file__).parent / f"cli/{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Subscript):
                declared[node.arg, ast.unparse(node.annotation)] += 1
    assert len(declared) > 20
    assert [option for option, times in declared.items() if times > 1] == []


def messages():
    """Where a message of the library is, and its text, ``1`` in the place of each value."""
    for path in sorted(Path(npk.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                for part in (*node.exc.args, *(word.value for word in node.exc.keywords)):
                    yield f"{path.name}:{node.lineno}", _text(part)


def _text(node):
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return str(node.value) if isinstance(node, ast.Constant) else "1"


def test_no_message_on_the_shell_has_an_option_in_the_words_of_python():
    """Names of options that are words of English are looked for where they can be nothing else: as
    what is to be given or left out, and before a value. A message writes ``name=`` there.
    """
    commands = typer.main.get_command(app)
    flags = {}
    for command in commands.commands:
        flags |= _flags(commands, [command])
    names = "|".join(sorted(flags))
    two_words = "|".join(name for name in flags if "_" in name)
    python = re.compile(
        rf"(?:Leave|Give|Use|use|choose|Say|Lower|without|with) (?:{names})(?: out\b|[.;,]| ')"
        rf"|(?<![\w.*'\"`-])(?:{two_words})(?![\w('\"`])"
        rf"|^(?:{names}) is [\d'\"(\[]|(?<![\w.])(?:{names})=(?!value)"
    )
    bare = {}
    for place, text in messages():
        spoken = in_shell_words(text, flags)
        for found in python.finditer(spoken):
            if not _CALL.search(spoken[: found.start()]):
                bare[place] = spoken
    assert len(list(messages())) > 500
    assert list(bare.items()) == []
