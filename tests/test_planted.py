"""Each guard of npk has a test that fails without it."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_planted_fault_survives():
    command = [sys.executable, Path(__file__).parent / "planted" / "run.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
