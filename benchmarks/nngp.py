"""The peer of ``bench_conv.py``: neural-tangents' ``nngp`` of a pooled convolutional network, for
an environment of its own.

python -m venv peer peer/bin/pip install neural-tangents "jax==0.4.38" "jaxlib==0.4.38"
"tf2jax==0.3.6" "numpy<2.2" peer/bin/python benchmarks/nngp.py --sides 8 16 --threads 1

Prints a JSON object: for each side the pairs of a run, the seconds of the first call, which
compiles, and those of the next ones.
"""

import argparse
import json
import os
import time
from typing import Any

PAIRS = {8: 64, 16: 16}  # of a run, 4 from 32 x 32 on


def main() -> None:
    """Measure each side."""
    options = parsed()
    if hasattr(os, "sched_setaffinity"):  # XLA has no reliable option for its number of threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    kernel = kernel_of(options.depth, options.channels)
    print(json.dumps({str(side): measured(kernel, side, options.repeat) for side in options.sides}))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4, help="convolutions")
    parser.add_argument("--channels", type=int, default=64, help="of each")
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 16, 32], help="of the images")
    parser.add_argument("--repeat", type=int, default=3, help="runs that count")
    parser.add_argument("--threads", type=int, default=1, help="cores of this process")
    return parser.parse_args()


def kernel_of(depth: int, channels: int) -> Any:
    """Circular 3 x 3 convolutions with rectifiers, a global average pool and a linear layer,
    compiled.
    """
    import jax
    from neural_tangents import stax

    layers = [
        layer
        for _ in range(depth)
        for layer in (stax.Conv(channels, (3, 3), padding="CIRCULAR"), stax.Relu())
    ]
    kernel = stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(1))[2]
    return jax.jit(lambda X, Y: kernel(X, Y, get="nngp"))


def measured(kernel: Any, side: int, repeat: int) -> dict[str, Any]:
    """Seconds of the kernel of a few samples with as many others."""
    import jax
    import numpy as np

    n = round(PAIRS.get(side, 4) ** 0.5)
    X, Y = (
        jax.numpy.asarray(values)
        for values in np.random.default_rng(0).standard_normal(
            (2, n, side, side, 3), dtype=np.float32
        )
    )
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        kernel(X, Y).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return {"pairs": n * n, "first": seconds[0], "seconds": seconds[1:]}


if __name__ == "__main__":
    main()
