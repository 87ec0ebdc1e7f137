"""Conjugate gradients on a kernel on disk, with preconditioners and without: steps, time, what a step
costs, and memory.

python benchmarks/bench_preconditioner.py --data idx:DIR --net NET.safetensors --n 30000 --ranks 0 100 500

DIR: an MNIST-like folder, such as Debian's package dataset-fashion-mnist has; NET: a network on it
that npk saved. Rank 0 is no preconditioner. What is left of each residual is the same.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from timing import machine

import npk
from npk.machines import conjugate_gradients
from npk.machines.approximate.preconditioner import preconditioner
from npk.machines.ridge import signed_targets


def main() -> None:
    """Compute the kernel, solve, print a line a rank."""
    options = parsed()
    data = npk.data.load(options.data)
    X, (targets, _) = data.X[: options.n], signed_targets(data.y[: options.n])
    print(machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "K.zarr"
        began = time.perf_counter()
        npk.kernel(npk.load(options.net), X, scale="cosine", memory="1GB", out=path, progress=False)
        used = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        took = time.perf_counter() - began
        print(f"kernel of {len(X)}: {took:.0f} s, {used / 1e9:.2f} GB on disk")
        rows = [
            solved(npk.Gram.load(path), targets, alpha, rank, options.tolerance)
            for alpha in options.alphas
            for rank in options.ranks
        ]
    if options.json:
        options.json.write_text(json.dumps({"n": len(X), "machine": machine(), "rows": rows}))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="what npk.data.load reads")
    parser.add_argument("--net", required=True, help="checkpoint")
    parser.add_argument("--n", type=int, default=4000, help="samples")
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 100, 500])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.1, 0.001])
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--folder", type=Path, help="where the kernel lies for a while")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


def solved(gram: npk.Gram, targets, alpha: float, rank: int, tolerance: float) -> dict:
    """One solution, printed."""
    began = time.perf_counter()
    made = preconditioner(gram, rank) if rank else None
    prepared = time.perf_counter() - began
    solution = conjugate_gradients.solve(
        gram, targets, alpha, tolerance=tolerance, preconditioner=made
    )
    seconds = time.perf_counter() - began
    # one product more measures the residual
    step = (seconds - prepared) / (solution.steps + 1)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"alpha {alpha:<7g} rank {rank:5}: {solution.outcome} in {solution.steps:4} steps, "
        f"{seconds:7.1f} s ({prepared:.1f} to prepare, {step:.3f} a step), "
        f"residual {solution.residual:.1e}, at most {memory:.2f} GB so far"
    )
    return {
        "alpha": alpha,
        "rank": rank,
        "steps": solution.steps,
        "outcome": solution.outcome,
        "seconds": seconds,
        "prepared": prepared,
        "step": step,
        "residual": solution.residual,
        "memory_gb": memory,
    }


if __name__ == "__main__":
    main()
