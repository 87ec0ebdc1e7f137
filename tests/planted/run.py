"""Plants every fault that is listed, one at a time, and says which of them no test sees: ``python
tests/planted/run.py [WORD]``.

WORD: only faults whose description has it. Exit code 1: a fault survives, or its test cannot be
run.
"""

import os
import sys
import time

import planting
from edits import EDITS

# 2: pytest was interrupted, as where npk cannot even be imported
OUTCOMES = {1: "seen", 0: "SURVIVES", 2: "seen"}


def main(word=""):
    sys.path.insert(0, str(planting.NPK.parent))
    import numba  # noqa: F401 (what npk stands on is loaded once)
    import pytest  # noqa: F401
    import sklearn.svm  # noqa: F401
    import torch.export  # noqa: F401

    todo = [fault for fault in [*EDITS, *planting.listed()] if word in str(fault)]
    running, bad, start, total = {}, [], time.monotonic(), len(todo)
    while todo or running:
        while todo and len(running) < (os.cpu_count() or 1):
            fault = todo.pop(0)
            running[planting.begun(fault)] = fault
        child, status = os.wait()
        fault, code = running.pop(child), os.waitstatus_to_exitcode(status)
        if code not in (1, 2):
            bad.append(fault)
            print(f"{OUTCOMES.get(code, f'ends with {code}')}: {fault} ({fault.test})", flush=True)
    print(f"{total} faults planted, {total - len(bad)} seen, {time.monotonic() - start:.0f} s")
    return bool(bad)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
