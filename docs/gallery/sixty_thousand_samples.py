"""Many samples on a laptop. The kernel lies on disk in tiles, grows with the samples and goes on after
an interruption; ridge is solved by passes over the tiles. Landmarks beside it need no such matrix.

python sixty_thousand_samples.py idx:DIR idx:DIR/test takes other samples: Fashion-MNIST's 60,000.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

import npk
from npk.machines import conjugate_gradients, ridge
from npk.machines.approximate.low_rank import LowRank
from npk.machines.approximate.nystroem import NPKNystroem
from npk.report.style import COLOR, blank, house_style

HERE = Path(__file__).parent
LANDMARKS = 300


class CtrlC(npk.progress.Silent):
    """Somebody presses Ctrl-C when one more tile is on disk."""

    @contextlib.contextmanager
    def task(self, description, total, done=0):
        """Only tiles are interrupted."""

        def advance(steps):
            if description == "kernel tiles":
                raise KeyboardInterrupt

        yield advance


def right(scores):
    """Share of the test samples, in per cent."""
    return 100 * np.mean(classes[np.argmax(scores, 1)] == test.y)


def exact(n, folder):
    """Ridge on the kernel of the first n samples, which lies on disk: scores of the test samples."""
    options = {"scale": "cosine", "memory": "1GB", "progress": False}
    with contextlib.suppress(KeyboardInterrupt):
        npk.kernel(net, train.X[:n], out=folder / "K", **{**options, "progress": CtrlC()})
    print(f"{n:,} samples: all tiles there? {npk.Gram.load(folder / 'K').complete}")
    K = npk.kernel(net, train.X[:n], out=folder / "K", **options)  # goes on with what is missing
    solution = conjugate_gradients.solve(
        K, targets[:n], alpha, tolerance=1e-3, preconditioner=LANDMARKS
    )
    print(f"ridge on {n:,} samples: {solution.outcome} by {solution.steps} passes over the tiles")
    K_test = npk.kernel(net, test.X, train.X[:n], out=folder / "K_test", **options)
    return K_test @ solution.coefficients


def landmarks(n):
    """Ridge on the kernel as far as some samples show it: scores of the test samples."""
    features = NPKNystroem(net, LANDMARKS)
    low = LowRank(features.fit_transform(train.X[:n]))
    solution = conjugate_gradients.solve(low, targets[:n], alpha, tolerance=1e-3)
    return features.transform(test.X) @ low.weights(solution.coefficients)


def on_disk(folder):
    """Bytes of a store."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


train, test = map(npk.data.load, sys.argv[1:] or ("mnist5k[:4000]", "mnist5k[4000:]"))
targets, classes = ridge.signed_targets(train.y)
net = npk.networks.build("fc", input_shape=train.X.shape[1:], classes=10, hidden=[128] * 4, seed=0)
few = npk.kernel(net, train.X[:1000], scale="cosine", progress=False)
alpha = ridge.fit(few, targets[:1000], "auto", criterion="accuracy").alpha
sizes, found = [len(train.X) // part for part in (8, 4, 2, 1)], {}
with tempfile.TemporaryDirectory() as folder:
    for n in sizes:
        whole, part = right(exact(n, Path(folder))), right(landmarks(n))
        found[n] = whole, part, on_disk(Path(folder) / "K") / 1e6
        print(f"{n:,} samples: exact {whole:.1f} %, landmarks {part:.1f} %, {found[n][2]:.0f} MB")
with house_style():
    figure = blank(6.8, 2.8)
    left, beside = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    whole, part, disk = zip(*found.values(), strict=True)
    left.plot(sizes, whole, "o-", color=COLOR["dnn"], label="the whole kernel, on disk")
    left.plot(sizes, part, "s--", color=COLOR["dgn"], label=f"{LANDMARKS} landmarks")
    left.set(xscale="log", xlabel="samples", ylabel="test accuracy, %")
    left.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ends = np.array([sizes[0], 60_000])
    beside.plot(ends, 2 * ends**2 / 1e6, ":", color=COLOR["dnn"], label="one triangle: 2 n² bytes")
    beside.plot(
        ends,
        8 * LANDMARKS * ends / 1e6,
        ":",
        color=COLOR["dgn"],
        label=f"{LANDMARKS} features: 8 · {LANDMARKS} n bytes",
    )
    beside.plot(sizes, disk, "o", color=COLOR["dnn"], label="on disk, with samples and gates")
    beside.set(xscale="log", yscale="log", xlabel="samples", ylabel="MB")
    beside.set_xticks([1000, 10_000, 60_000], ["1,000", "10,000", "60,000"])
    beside.set_yticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    for ax in (left, beside):
        ax.minorticks_off()
        ax.legend()
    figure.savefig(HERE / "sixty_thousand_samples.png", dpi=110)
