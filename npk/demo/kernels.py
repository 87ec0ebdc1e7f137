"""The demo's kernels, the machines on them, and the baselines that see pixels only."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.errors import StoreError
from npk.files import locked
from npk.gram.kernel import NeuralPathKernel
from npk.machines import ridge, svm
from npk.measures import class_overlap, effective_rank, spectrum
from npk.progress import Progress
from npk.results import Accuracy, KernelSummary
from npk.typed import finite

if TYPE_CHECKING:
    from npk.demo import Samples
    from npk.demo.networks import Trained

SCALE = "cosine"
UNTRAINED = " at random initialisation"
_HEAT_A_CLASS = 12
_OVERLAP_SAMPLES = 400


class Machines:
    """Kernels of trained and untrained networks on the demo's samples, kept in the folder."""

    def __init__(self, samples: "Samples", out: Path, progress: Progress) -> None:
        self.samples, self.folder, self.progress = samples, out / "kernels", progress
        self.y, self.y_test = samples.kernel_train.require_labels(), samples.test.require_labels()

    def on(self, trained: "Trained") -> tuple[list[Accuracy], KernelSummary]:
        """Accuracies of the network and of machines on its kernel, and the kernel for the page."""
        name = trained.summary.name
        kernel = NeuralPathKernel(trained.net, scale=SCALE, progress=self.progress)
        K, cross, seconds = self.matrices(kernel, trained.stem)
        accuracies = [
            Accuracy(
                name,
                "network",
                trained.accuracy,
                trained.seconds,
                {"epochs": trained.epochs, "samples": len(self.samples.train)},
            )
        ]
        accuracies += self.fit(name, K, cross, seconds, "")
        before = NeuralPathKernel(trained.untrained, scale=SCALE, progress=self.progress)
        accuracies += self.fit(name, *self.matrices(before, f"{trained.stem}-untrained"), UNTRAINED)
        return accuracies, self.summary(name, kernel, K, seconds)

    def matrices(self, kernel: NeuralPathKernel, stem: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Train x train and test x train, from the folder where they are there already."""
        started = time.perf_counter()
        train, test = kernel.record(self.samples.kernel_train.X), kernel.record(self.samples.test.X)
        K = np.asarray(self.stored(kernel, train, None, f"{stem}.train.zarr"))
        cross = np.asarray(self.stored(kernel, test, train, f"{stem}.test.zarr"))
        return K, cross, time.perf_counter() - started

    def stored(self, kernel: NeuralPathKernel, rows: Any, cols: Any, name: str) -> Any:
        """A kernel of the folder; one of something else is replaced: the folder is the demo's."""
        import shutil

        out = self.folder / name
        try:
            return kernel.to_store(rows, cols, out)
        except StoreError:
            if not out.is_dir():
                raise
            with locked(out / ".lock", of=out):  # not one that another process writes
                shutil.rmtree(out, ignore_errors=True)
            return kernel.to_store(rows, cols, out)

    def fit(
        self, name: str, K: np.ndarray, cross: np.ndarray, seconds: float, suffix: str
    ) -> list[Accuracy]:
        """SVM and ridge on one kernel; C and alpha are chosen on the training samples."""
        started = time.perf_counter()
        vectors = svm.fit(K, self.y)
        right = float((vectors.machine.predict(cross) == self.y_test).mean())
        middle = time.perf_counter()
        targets, classes = ridge.signed_targets(self.y)
        linear = ridge.fit(K, targets, criterion="accuracy")
        guess = float(
            (classes[np.argmax(cross @ linear.solution.coefficients, 1)] == self.y_test).mean()
        )
        end, n = time.perf_counter(), len(self.y)
        return [
            Accuracy(
                name,
                f"NPK-SVM{suffix}",
                right,
                seconds + middle - started,
                {"C": vectors.C, "samples": n},
            ),
            Accuracy(
                name,
                f"NPK-ridge{suffix}",
                guess,
                seconds + end - middle,
                {"alpha": linear.alpha, "samples": n},
            ),
        ]

    def summary(
        self, name: str, kernel: NeuralPathKernel, K: np.ndarray, seconds: float
    ) -> KernelSummary:
        """What the page draws."""
        rows = balanced(self.y, _HEAT_A_CLASS)
        few = slice(0, _OVERLAP_SAMPLES)
        table = kernel.record(self.samples.kernel_train.X[few])
        overlap = class_overlap(table, self.y[few])
        values = spectrum(K)
        heat = np.round(K[np.ix_(rows, rows)].astype(float), 4).tolist()
        return KernelSummary(
            network=name,
            scale=SCALE,
            data="train.npz",
            samples=len(K),
            seconds=seconds,
            heat=heat,
            heat_labels=self.y[rows].tolist(),
            spectrum=values[values > 0].tolist(),
            effective_rank=effective_rank(values),
            layers=list(table.names),
            overlap_same=[finite(share) for share in overlap.same],
            overlap_different=[finite(share) for share in overlap.different],
            dead_inputs=int((np.diagonal(K) == 0).sum()),
        )


def balanced(labels: np.ndarray, most: int) -> np.ndarray:
    """Rows sorted by class, equally many of each, at most ``most``."""
    count = min(most, int(np.unique(labels, return_counts=True)[1].min()))
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])


def baselines(samples: "Samples", progress: Progress) -> list[Accuracy]:
    """Logistic regression and an RBF-SVM on the pixels; options by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    models: list[tuple[str, Any, dict[str, list]]] = [
        ("logistic regression", LogisticRegression(max_iter=2000), {"C": [0.1, 1.0, 10.0]}),
        ("RBF-SVM", SVC(), {"C": [1.0, 10.0, 100.0], "gamma": ["scale", 0.01, 0.1]}),
    ]
    train, test = samples.kernel_train, samples.test
    flat = [part.X.reshape(len(part.X), -1) for part in (train, test)]
    accuracies = []
    with progress.task("baselines on pixels", len(models)) as advance:
        for name, model, grid in models:
            started = time.perf_counter()
            search = GridSearchCV(model, grid, cv=3).fit(flat[0], train.require_labels())
            right = float(search.score(flat[1], test.require_labels()))
            accuracies.append(
                Accuracy(
                    "pixels",
                    name,
                    right,
                    time.perf_counter() - started,
                    {**search.best_params_, "samples": len(train)},
                )
            )
            advance(1)
    return accuracies
