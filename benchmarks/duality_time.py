"""``check_duality`` of two checkouts of npk on ResNet-20, in turns: processor seconds of a call.

python benchmarks/duality_time.py OLD NEW --repeat 3

OLD and NEW are checkouts (``git worktree add``). The network is the CIFAR form on 3 x 32 x 32, 200
random value networks. Each call is the first one of a process of its own, as from the command line,
with reading, recording and the compiled backend, and the second call of that process follows.
Imports are left out. Processor time, since the wall's is shared with whoever else is at work.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

CALL = """
import json, time
import numpy as np, torch, npk
torch.set_num_threads(1)
net = npk.networks.build("resnet110", "dnn", input_shape=(3, 32, 32), classes=10, blocks=3, seed=0)
X = np.random.default_rng(0).standard_normal((16, 3, 32, 32), dtype=np.float32)
times = []
for _ in range(2):
    start = time.process_time()
    found = npk.check_duality(net, X)
    times.append(time.process_time() - start)
print(json.dumps([found.passed, *times]))
"""


def call(tree):
    """Processor seconds of a first and a second call."""
    environment = {**os.environ, "PYTHONPATH": str(Path(tree).resolve()), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALL],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    passed, *times = json.loads(found.stdout)
    assert passed, f"the check of {tree} has not passed"
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    print("first call: old, s   new, s   times faster     second call: old, s   new, s   times")
    for _ in range(arguments.repeat):
        times = zip(call(arguments.old), call(arguments.new), strict=True)
        told = [f"{old:18.1f} {new:8.2f} {old / new:12.1f}" for old, new in times]
        print("     ".join(told), flush=True)


if __name__ == "__main__":
    main()
