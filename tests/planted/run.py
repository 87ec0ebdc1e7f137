"""Plants every fault that is listed, one at a time, and says which of them no test sees: ``python
tests/planted/run.py [WORD]``.

WORD: only faults that have it in their description or test. All tests are collected once. Then a
process is forked for each fault, and for each test without one, which must pass. Exit code 1: a
fault survives, its test cannot be run, or a refusal is not listed.
"""

import os
import resource
import signal
import sys
import tempfile
import time

import planting
import pytest
from edits import EDITS

# What a test with a fault may take. Where it needs more it does not count as one that sees the
# fault: a test that does says so by a limit of its own.
MOST_SECONDS, MOST_MEMORY = 120, 8 << 30
OUTCOMES = {
    0: "SURVIVES",
    -signal.SIGALRM: f"takes more than {MOST_SECONDS} s",
    3: "IS NOT PLANTED",
}


class Planter:
    """A plugin of pytest: instead of the tests as they are it runs those with faults."""

    def __init__(self, faults):
        self.faults, self.bad = faults, []

    def pytest_runtestloop(self, session):
        _warm_up()
        items = {item.nodeid: item for item in session.items}
        todo = [(None, test) for test in sorted({fault.test for fault in self.faults})]
        todo += [(fault, fault.test) for fault in self.faults]
        self.bad += [f"there is no test {test}" for fault, test in todo if test not in items]
        for fault, test, code in _outcomes([pair for pair in todo if pair[1] in items], items):
            if fault is None and code != 0:
                self.bad.append(f"{test} ends with {code} where nothing is planted")
            elif fault is not None and code != 1:
                self.bad.append(f"{OUTCOMES.get(code, f'ends with {code}')}: {fault} ({test})")
        return True


def main(word=""):
    faults = [planting.Fault(*row[:3], "False", row[3]) for row in planting.rows()]
    faults = [fault for fault in [*EDITS, *faults] if word in f"{fault} ({fault.test})"]
    planter = Planter([fault for fault in faults if fault.test != "-"])
    planter.bad += [f"{fault} has no test" for fault in faults if fault.test == "-"]
    start, root = time.monotonic(), planting.NPK.parent
    sys.path.insert(0, str(root))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
        code = pytest.main(
            [
                *("-qqs", "-m", "", "-p", "no:cacheprovider", "-p", "no:xdist"),
                *("--rootdir", str(root)),
                *sorted({str(root / fault.test.partition("::")[0]) for fault in planter.faults}),
            ],
            plugins=[planter],
        )
    print(*planter.bad, sep="\n", end="\n" * bool(planter.bad))
    spent = f"{time.monotonic() - start:.0f} s"
    print(f"{len(faults)} faults planted, {len(planter.bad)} not seen, {spent}")
    return code != 0 or bool(planter.bad)


def _warm_up():
    """Load once, for all, what torch and npk load when they need it."""
    import pkgutil

    import torch

    import npk

    for module in pkgutil.walk_packages(npk.__path__, "npk."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
    torch.set_num_threads(1)  # threads are lost where a process is forked
    torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))


def _outcomes(todo, items):
    """Triples (fault, test, code) as they end, as many at a time as there are processors."""
    todo, running = todo[::-1], {}
    while todo or running:
        while todo and len(running) < (os.cpu_count() or 1):
            fault, test = todo.pop()
            running[_begun(items[test], fault)] = fault, test
        child, status = os.wait()
        yield *running.pop(child), os.waitstatus_to_exitcode(status)


def _begun(item, fault):
    """Process that runs a test with a fault: code 0 where it passes, 1 where it fails."""
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        signal.alarm(MOST_SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        if fault is not None:
            planting.plant(fault)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        code = int(item.session.testsfailed > 0)
    finally:
        os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
