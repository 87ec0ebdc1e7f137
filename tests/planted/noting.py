"""A plugin of pytest that notes which test meets which refusal: ``pytest -p planted.noting`` with
``NPK_REFUSALS=FILE``.

Each line of the file is a refusal (file, function, condition) and a test that meets it in its own
process, the quickest first.
"""

import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import npk
from npk.errors import NpkError

ROOT = Path(npk.__file__).parent
_met: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
_began = [0.0]
_plain = NpkError.__init__


def _noted(self, *arguments):
    frame = sys._getframe(1)
    while (
        frame is not None
        and frame.f_code.co_name == "__init__"
        and frame.f_locals.get("self") is self
    ):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename) if frame is not None else Path()
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" (")
    if test[2].startswith("call") and path.is_relative_to(ROOT):
        _met[path.relative_to(ROOT).as_posix(), frame.f_lineno].setdefault(
            test[0], time.monotonic() - _began[0]
        )
    _plain(self, *arguments)


def pytest_configure(config):
    NpkError.__init__ = _noted


def pytest_runtest_call(item):
    _began[0] = time.monotonic()


def pytest_sessionfinish(session):
    out = Path(os.environ["NPK_REFUSALS"])
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with out.with_suffix(f".{worker}").open("w") as file:
        for (path, line), tests in sorted(_met.items()):
            for test, seconds in sorted(tests.items(), key=lambda item: item[1])[:5]:
                print(path, line, f"{seconds:.3f}", test, sep="\t", file=file)
