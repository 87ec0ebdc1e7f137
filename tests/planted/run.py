"""Plants every fault that is listed, one at a time, and says which of them no test sees: ``python
tests/planted/run.py [WORD]``.

WORD: only faults that have it in their description or test. All tests are collected once. Then a
process is forked for each fault, and for the tests of each file without one, where they must pass.
Exit code 1: a fault survives, its test cannot be run, or a refusal is not listed.
"""

import os
import resource
import signal
import sys
import tempfile
import time
from itertools import groupby

# Threads that the first process begins are lost where it is forked, and the child waits for them.
os.environ["OMP_NUM_THREADS"] = "1"

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
        self.faults, self.bad = faults, 0

    def tell(self, what):
        self.bad += 1
        print(what, flush=True)

    def pytest_runtestloop(self, session):
        _warm_up()
        items = {item.nodeid: item for item in session.items}
        for test in {fault.test for fault in self.faults} - set(items):
            self.tell(f"there is no test {test}")
        seeing = [fault for fault in self.faults if fault.test in items]
        by_file = groupby(
            sorted({fault.test for fault in seeing}), lambda test: test.split("::")[0]
        )
        todo = [(None, [items[test] for test in tests]) for _, tests in by_file]
        todo += [(fault, [items[fault.test]]) for fault in seeing]
        for fault, tests, code in _outcomes(todo):
            if fault is None and code != 0:
                names = " ".join(item.nodeid for item in tests)
                self.tell(f"ends with {code} where nothing is planted: one of {names}")
            elif fault is not None and code != 1:
                self.tell(f"{OUTCOMES.get(code, f'ends with {code}')}: {fault} ({fault.test})")
        return True


def main(word=""):
    faults = [planting.Fault(*row[:3], "False", row[3]) for row in planting.rows()]
    faults = [fault for fault in [*EDITS, *faults] if word in f"{fault} ({fault.test})"]
    planter = Planter([fault for fault in faults if fault.test != "-"])
    for fault in faults:
        if fault.test == "-" and fault.key not in planting.UNSEEN:
            planter.tell(f"{fault} has no test")
    for key in {*planting.all_refusals()} - {tuple(row[:3]) for row in planting.rows()}:
        planter.tell(f"{' '.join(key)} is not listed (tests/planted/listing.py)")
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
    spent = f"{time.monotonic() - start:.0f} s"
    print(f"{len(planter.faults)} faults planted, {planter.bad} complaints, {spent}")
    return code != 0 or planter.bad > 0


def _warm_up():
    """Load once, for all, what torch and npk load when they need it."""
    import pkgutil

    import torch

    import npk

    for module in pkgutil.walk_packages(npk.__path__, "npk."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
    torch.set_num_threads(1)
    torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))


def _outcomes(todo):
    """Triples (fault, tests, code) as they end, as many at a time as there are processors."""
    todo, running = todo[::-1], {}
    while todo or running:
        while todo and len(running) < (os.cpu_count() or 1):
            fault, tests = todo.pop()
            running[_begun(tests, fault)] = fault, tests
        child, status = os.wait()
        yield *running.pop(child), os.waitstatus_to_exitcode(status)


def _begun(tests, fault):
    """Process that runs tests with a fault: code 0 where all pass, 1 where one fails."""
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        signal.alarm(MOST_SECONDS * len(tests))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        if fault is not None:
            planting.plant(fault)
        for item, after in zip(tests, [*tests[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
        code = int(tests[0].session.testsfailed > 0)
    finally:
        os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
