"""Files inside installed packages, and what the three scripts of this folder write beside them."""

import argparse
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.svm import SVC

Samples = tuple[np.ndarray, np.ndarray]  # X of shape (n, *input_shape), y of n class numbers


def file_of(package: str, path: str) -> Path:
    """A file that a package brought along. The package is not imported: what it needs may be
    absent.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            f"{package} is not installed: see docs/guide/foreign-checkpoints.md for the versions."
        )
    return Path(found.submodule_search_locations[0]) / path


def folder_asked(doc: str | None) -> Path:
    """The folder that the command line names, made if need be."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument(
        "--out", type=Path, default=Path("run"), help="folder for the checkpoint and the samples"
    )
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    return out


def write(
    out: Path,
    checkpoint: Path,
    parts: dict[str, Samples],
    classes: list[str],
    predict: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Copy the checkpoint, write the samples of each part, and print how often the network is
    right, and a machine that never saw it.

    The first part is that for training. The machine is an SVM with a Gaussian kernel on the samples
    themselves.
    """
    shutil.copy(checkpoint, out)
    print(f"{out / checkpoint.name}: {checkpoint.stat().st_size} bytes, as installed")
    X, y = next(iter(parts.values()))
    plain = SVC(C=10).fit(X.reshape(len(X), -1), y)
    for part, (X, y) in parts.items():
        np.savez(out / f"{part}.npz", X=X, y=y, classes=classes)
        network, machine = np.mean(predict(X) == y), plain.score(X.reshape(len(X), -1), y)
        print(
            f"{out / part}.npz: {len(X)} samples, the network is right on {network:.1%}, an SVM "
            f"without it on {machine:.1%}"
        )
