"""``check_duality`` of two checkouts of npk on ResNet-20, in turns: processor seconds of a call.

python benchmarks/duality_time.py OLD NEW --repeat 3

OLD and NEW are checkouts (``git worktree add``). The network is the CIFAR form on 3 x 32 x 32, with
200 random value networks unless ``--draws`` says otherwise. Each call is the first one of a process
of its own, as from the command line: with reading, recording and the compiled backend, without
imports. It is processor time of all threads, since the wall's is shared with whoever else is at
work; ``--threads`` of torch, by itself one a core. Threads that wait for one another count.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

CALL = """
import json, sys, time
import numpy as np, npk
net = npk.networks.build("resnet110", "dnn", input_shape=(3, 32, 32), classes=10, blocks=3, seed=0)
X = np.random.default_rng(0).standard_normal((16, 3, 32, 32), dtype=np.float32)
start = time.process_time()
found = npk.check_duality(net, X, draws=int(sys.argv[1]))
print(json.dumps([npk.__file__, found.passed, time.process_time() - start]))
"""


def call(tree, threads, draws):
    """Processor seconds of a call."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    place = Path(tree).resolve()
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALL, str(draws)],
        env={**environment, "PYTHONPATH": str(place)},
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    file, passed, seconds = json.loads(found.stdout)
    if not passed or not Path(file).is_relative_to(place):
        raise SystemExit(f"{file}: {'passed' if passed else 'not passed'}, asked for {place}")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args()
    how = arguments.threads, arguments.draws
    print("old, s   new, s   times faster")
    for _ in range(arguments.repeat):
        old, new = call(arguments.old, *how), call(arguments.new, *how)
        print(f"{old:6.1f} {new:8.2f} {old / new:14.1f}", flush=True)


if __name__ == "__main__":
    main()
