"""Fashion-MNIST whole: the exact kernel of all training pictures on disk, ridge by conjugate gradients,
and beside it landmarks and random path features; time, disk, memory, accuracy on the test pictures.

python benchmarks/fashion_whole.py --data DIR --net NET.safetensors --out fashion.json [--n 5000]

DIR: the four idx files of Fashion-MNIST, as Debian's package dataset-fashion-mnist has them. The ridge
is chosen once, by leave-one-out on the first 5,000 pictures, and is the same for all machines. The
kernel lies in --folder while the script runs. What is done is in the file: a run that was stopped goes
on with what is missing.
"""

import argparse
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import machine
from torch import nn

import npk
from npk.machines import conjugate_gradients, ridge
from npk.machines.approximate.low_rank import LowRank
from npk.machines.approximate.nystroem import NPKNystroem
from npk.machines.approximate.path_features import RandomPathFeatures
from npk.machines.approximate.preconditioner import preconditioner

CHOSEN_ON = 5000  # pictures
BATCH = 2000  # test pictures at a time


def main() -> None:
    """Everything that is not in the file yet, one line each."""
    run = Run(parsed())
    run.row("alpha", run.alpha)
    if run.options.exact:
        run.row("kernel", run.kernel)
        run.row("exact", run.exact)
        shutil.rmtree(run.path, ignore_errors=True)
    for m in run.options.landmarks:
        run.row(f"landmarks {m}", lambda m=m: run.features(NPKNystroem(run.net, m)))
    for m in run.options.features:
        run.row(f"features {m}", lambda m=m: run.features(RandomPathFeatures(run.net, m)))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the idx files")
    parser.add_argument("--net", required=True, help="checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="file for the figures")
    parser.add_argument("--n", type=int, default=60_000, help="training pictures")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the kernel lies")
    parser.add_argument("--memory", default="4GB", help="promise for the kernel and its products")
    parser.add_argument("--rank", type=int, default=1000, help="of the preconditioner")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of conjugate gradients")
    parser.add_argument("--landmarks", type=int, nargs="*", default=[500, 1000, 2000, 4000])
    parser.add_argument("--features", type=int, nargs="*", default=[1000, 5000, 20_000])
    parser.add_argument("--exact", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


class Run:
    """The data, the network, and the figures so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.path = options, options.folder / "fashion_whole.zarr"
        self.net: nn.Module = npk.load(options.net)
        data, test = (npk.data.load(f"idx:{options.data}{part}") for part in ("", "/test"))
        self.X, self.labels = data.X[: options.n], data.y[: options.n]
        self.X_test, self.y_test = test.X, test.y
        self.targets, self.classes = ridge.signed_targets(self.labels)
        self.found: dict[str, Any] = {"machine": machine(), "n": len(self.X)}
        if options.out.exists():
            self.found |= json.loads(options.out.read_text())
        print(self.found["machine"], f"n = {len(self.X)}", flush=True)

    def row(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """One figure, with its time (wall clock and CPU) and the process's largest memory so far."""
        if name not in self.found:
            began, used = time.perf_counter(), time.process_time()
            row = measure()
            row["seconds"] = time.perf_counter() - began
            row["cpu_seconds"] = time.process_time() - used
            row["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            self.found[name] = row
            self.options.out.write_text(json.dumps(self.found, indent=1))
        shown = {k: round(v, 5) if isinstance(v, float) else v for k, v in self.found[name].items()}
        print(f"{name:16} {shown}", flush=True)

    def alpha(self) -> dict[str, Any]:
        """By leave-one-out on the first pictures, and what ridge on them reaches."""
        few = self.X[:CHOSEN_ON]
        K = npk.kernel(self.net, few, scale="cosine", progress=False)
        fitted = ridge.fit(K, self.targets[:CHOSEN_ON], "auto", criterion="accuracy")
        right = self.accuracy(few, fitted.solution.coefficients)
        return {"alpha": fitted.alpha, "pictures": len(few), "accuracy": right}

    def kernel(self) -> dict[str, Any]:
        """On disk."""
        npk.kernel(
            self.net,
            self.X,
            scale="cosine",
            memory=self.options.memory,
            out=self.path,
            progress=False,
        )
        sizes = [os.path.getsize(file) for file in self.path.rglob("*") if file.is_file()]
        return {"disk_gb": sum(sizes) / 1e9}

    def exact(self) -> dict[str, Any]:
        """Ridge on the whole kernel."""
        gram, began = npk.Gram.load(self.path, self.options.memory), time.perf_counter()
        eased = preconditioner(gram, min(self.options.rank, len(self.X) // 10))
        prepared = time.perf_counter() - began
        solution = self.solved(gram, preconditioner=eased)
        trained = time.perf_counter() - began
        return {
            "accuracy": self.accuracy(self.X, solution.coefficients),
            "rank": eased.rank,
            "prepared_seconds": prepared,
            "trained_seconds": trained,
            "steps": solution.steps,
            "residual": solution.residual,
            "outcome": solution.outcome,
        }

    def features(self, made: NPKNystroem | RandomPathFeatures) -> dict[str, Any]:
        """Ridge on features."""
        began = time.perf_counter()
        low = LowRank(made.fit_transform(self.X))
        transformed = time.perf_counter() - began
        solution = self.solved(low)
        weights = low.weights(solution.coefficients)
        trained = time.perf_counter() - began
        scores = LowRank(made.transform(self.X_test)).values(weights)
        row = {
            "accuracy": self.right(scores),
            "transformed_seconds": transformed,
            "trained_seconds": trained,
            "steps": solution.steps,
            "outcome": solution.outcome,
        }
        if isinstance(made, NPKNystroem):
            row["left"] = made.residual_trace_ / made.trace_
        return row

    def solved(self, matrix: Any, **options: Any) -> Any:
        """Coefficients under the ridge that was chosen."""
        alpha = self.found["alpha"]["alpha"]
        return conjugate_gradients.solve(
            matrix, self.targets, alpha, tolerance=self.options.tolerance, **options
        )

    def accuracy(self, X: np.ndarray, coefficients: np.ndarray) -> float:
        """On the test pictures, of a machine that learnt from X."""
        kernel = npk.NeuralPathKernel(self.net, scale="cosine", progress=False)
        table = kernel.record(X)
        scores = [
            kernel(self.X_test[start : start + BATCH], table) @ coefficients
            for start in range(0, len(self.X_test), BATCH)
        ]
        return self.right(np.concatenate(scores))

    def right(self, scores: np.ndarray) -> float:
        """Share of the test pictures."""
        return float(np.mean(self.classes[scores.argmax(1)] == self.y_test))


if __name__ == "__main__":
    main()
