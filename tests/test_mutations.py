"""Mutated files of every format: a sentence, or the values that were written; never a foreign
error, a crash or a process without end.
"""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import mutation_child
import numpy as np
import pytest
from mutations import mutate_file, seed

KINDS = (
    *(
        "pt",
        "pth",
        "legacy pt",
        "pt2",
        "torchscript",
        "torchscript weights",
        "onnx",
        "npz",
        "npy",
        "safetensors",
        "safetensors of npk",
    ),
    *("gates", "store"),
)
QUICK = ("pt", "pth", "legacy pt", "npz", "npy", "safetensors")


def run(kind, folder, first, last):
    """The outcomes of mutations first to last - 1; where one ends the process, another goes on
    behind it.
    """
    outcomes = {}
    while first < last:
        command = [
            sys.executable,
            str(Path(__file__).with_name("mutation_child.py")),
            kind,
            str(folder),
            str(first),
            str(last),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        lines = [
            json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"number"')
        ]
        outcomes |= {
            line["number"]: line.get("how", f"WRONG: the process ended with {done.returncode}")
            for line in lines
        }
        if not lines or done.stderr.strip():
            outcomes[first - 1] = f"WRONG: stderr: {done.stderr[-1500:]}"
        first = max([first, *(line["number"] + 1 for line in lines)]) if lines else last
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(tmp_path, kind):
    outcomes = run(kind, tmp_path, 0, int(os.environ.get("NPK_MUTATIONS", "300")))
    print(kind, dict(collections.Counter(how.split(":")[0] for how in outcomes.values())))
    assert {number: how for number, how in outcomes.items() if how.startswith("WRONG")} == {}


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_some_mutated_files(tmp_path, kind):
    suffix = mutation_child.SUFFIXES.get(kind, f".{kind.split()[0]}")
    good = tmp_path / f"good{suffix}"
    mutation_child.make(kind, good)
    expected = mutation_child.read(kind, good)
    outcomes = {}
    for number in range(1000, 1015):
        path = tmp_path / f"m{number}{suffix}"
        mutate_file(np.random.default_rng(seed(kind, number)), good, path)
        outcomes[number] = mutation_child.outcome(kind, path, expected)
    assert {number: how for number, how in outcomes.items() if how.startswith("WRONG")} == {}
    assert "refused" in outcomes.values()
