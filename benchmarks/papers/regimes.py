"""The regimes of the papers, trained and asked what their gates know: test accuracies, kernel
machines on fresh samples, and gates copied after 0, 1, 2, ... epochs.

python benchmarks/papers/regimes.py --fashion DIR --cifar FILE.npz --out DIR [--write]
python benchmarks/papers/regimes.py --quick --out DIR

DIR of --fashion: the four idx files of Fashion-MNIST, as Debian's package dataset-fashion-mnist has
them. FILE of --cifar: CIFAR-10 as X, y, X_test, y_test of 3 x 32 x 32 bytes; four pixels are averaged
to one. What is not given is left out; --quick takes scikit-learn's digits, a few samples and epochs.

Every run (data, regime, seed) leaves a file in --out: a run that was killed goes on with what is
missing. Tables are printed and figures drawn of all files that are there; --write puts them into
docs/experiments.md, docs/img and benchmarks/results/regimes.json.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import regime_figures
import regime_tables
import torch
from machines_on_fresh import learning_curve, linear_kernel, rbf_kernels
from torch import nn

import npk
from npk import networks

SEEDS = (0, 1, 2)
FRESH = 1000  # samples that no weight has seen: the machines learn from 30 to all of them


@dataclasses.dataclass(frozen=True)
class Regime:
    """How a network is built and trained.

    Args:
        kind: of :func:`npk.networks.build`.
        regime: of :func:`npk.networks.train`.
        make: options of the first.
        gates: "learnt" here, "random", or "lent" by the ReLU network.
    """

    kind: str
    regime: str
    make: dict[str, Any] = dataclasses.field(default_factory=dict)
    gates: str = "learnt"


HARD = {"gates": "hard"}
REGIMES = {
    "relu": Regime("dnn", "relu"),
    "dlnpf": Regime("dgn", "dlnpf"),
    "flnpf": Regime("dgn", "flnpf", HARD, "lent"),
    "frnpf-ii": Regime("dgn", "frnpf-ii", HARD, "random"),
    "frnpf-di": Regime("dgn", "frnpf-di", HARD, "random"),
    "dlgn": Regime("dlgn", "dlnpf"),
    "dlgn-x": Regime("dlgn", "dlnpf", {"value_input": "x"}),
    "dlgn-sf": Regime("dlgn-sf", "dlnpf"),
    "half-spaces": Regime("dlgn-sf", "frnpf-ii", HARD | {"value_input": "x"}, "random"),
    "permuted": Regime("dlgn", "dlnpf"),  # its order is drawn by the seed
    "ones": Regime("dgn", "dlnpf", {"value_input": "ones"}),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A data set, and the networks that are trained on it.

    Args:
        make: options of :func:`npk.networks.build`.
        fit: options of :func:`npk.networks.train`.
        training: samples that weights learn from.
        validation: samples kept apart from them.
        tested: samples that the machines are tried on.
        stages: epochs after which the gates of the ReLU network are copied, the last one the end.
    """

    make: dict[str, Any]
    fit: dict[str, Any]
    training: int
    validation: int
    tested: int
    stages: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Gate layers."""
        return len(self.make.get("hidden", self.make.get("channels")))

    def quick(self) -> "Recipe":
        """The same with a few samples and epochs."""
        fit = {**self.fit, "epochs": 2}
        return dataclasses.replace(
            self, fit=fit, training=400, validation=100, tested=200, stages=(0, 1, 2)
        )


FC = {"arch": "fc", "hidden": [128] * 4}
CONV = {"arch": "conv", "channels": [32] * 4, "strides": [2, 1, 1, 1], "batch_norm": True}
RECIPES = {
    "fashion": Recipe(
        FC, {"epochs": 15, "learning_rate": 1e-3}, 10_000, 1_000, 2_000, (0, 1, 2, 4, 8, 15)
    ),
    "cifar": Recipe(
        CONV, {"epochs": 10, "learning_rate": 3e-3}, 5_000, 1_000, 1_000, (0, 1, 2, 4, 7, 10)
    ),
}


@dataclasses.dataclass(frozen=True)
class Samples:
    """What one seed draws: all sides share no sample."""

    training: npk.data.Dataset  # with those of validation
    fresh: npk.data.Dataset
    test: npk.data.Dataset


def accuracy(net: nn.Module, X: np.ndarray, y: np.ndarray) -> float:
    """Share of samples whose largest logit is that of their class."""
    with torch.no_grad():
        parts = [net(torch.as_tensor(part)) for part in np.array_split(X, -(-len(X) // 512))]
    return float((torch.cat(parts).argmax(1).numpy() == y).mean())


def main() -> None:
    """Run what is missing, then tell."""
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    for job in jobs(options):
        job.run()
    runs = [json.loads(path.read_text()) for path in sorted(options.out.glob("*-seed*.json"))]
    text = regime_tables.page(runs, REGIMES)
    print(text)
    figures = regime_figures.draw(runs, options.out)
    if options.write:
        regime_tables.write(text, runs, figures)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", type=Path, help="folder with the idx files")
    parser.add_argument("--cifar", type=Path, help="npz file of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("regimes"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--regimes", nargs="+", default=[*REGIMES], choices=REGIMES)
    parser.add_argument("--quick", action="store_true", help="digits, a few samples and epochs")
    parser.add_argument("--write", action="store_true", help="put all into docs and results")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--write is for whole runs: leave out --quick.")
    return options


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: what it is called, what it depends on, and what does it."""

    file: Path
    about: dict[str, Any]
    work: Callable[[], dict[str, Any]]

    def run(self) -> None:
        """Do it, unless its file is there already."""
        if self.file.exists():
            before = json.loads(self.file.read_text())["about"]
            if before != json.loads(json.dumps(self.about)):
                raise SystemExit(f"{self.file} was made in another way. Choose another --out.")
            return
        start = time.perf_counter()
        found = {"about": self.about, **self.work(), "seconds": time.perf_counter() - start}
        temporary = self.file.with_suffix(".part")
        temporary.write_text(json.dumps(found, indent=1))
        temporary.replace(self.file)
        print(f"{self.file.stem}: {found['seconds']:.0f} s", flush=True)


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed, so that what is there early is a whole table."""
    if options.quick:
        names = {"digits-fc": "fashion", "digits-conv": "cifar"}
        recipes = {name: RECIPES[like].quick() for name, like in names.items()}
        sources: dict[str, Callable[[Recipe, int], Samples]] = dict.fromkeys(recipes, digits)
    else:
        recipes, sources = RECIPES, {}
        if options.fashion:
            sources["fashion"] = lambda recipe, seed: fashion(options.fashion, recipe, seed)
        if options.cifar:
            sources["cifar"] = lambda recipe, seed: cifar(options.cifar, recipe, seed)
    for seed in options.seeds[: 1 if options.quick else None]:
        for data, source in sources.items():
            yield from Bench(data, recipes[data], source, seed, options.out).jobs(options.regimes)


class Bench:
    """All runs of one data set and seed."""

    def __init__(
        self,
        data: str,
        recipe: Recipe,
        source: Callable[[Recipe, int], Samples],
        seed: int,
        out: Path,
    ):
        self.data, self.recipe, self.seed, self.out = data, recipe, seed, out
        self._source, self._samples = source, None

    @property
    def samples(self) -> Samples:
        """Read when a run needs them."""
        if self._samples is None:
            self._samples = self._source(self.recipe, self.seed)
        return self._samples

    def jobs(self, regimes: list[str]) -> Iterator[Job]:
        """Pixels, every regime, then gates of each stage."""
        yield self.job("pixels", {}, lambda: {"machines": {"pixels": self.pixels()}})
        for name in regimes:
            about = dataclasses.asdict(REGIMES[name])
            yield self.job(name, about, lambda name=name: self.regime(name))
        if "flnpf" in regimes and "relu" in regimes:
            for epoch in self.recipe.stages[:-1]:
                name, about = f"stage-{epoch}", {"stage": epoch}
                yield self.job(name, about, lambda epoch=epoch: self.stage(epoch))

    def job(self, name: str, about: dict[str, Any], work: Callable[[], dict[str, Any]]) -> Job:
        """A run with all that its numbers depend on."""
        told = {"data": self.data, "name": name, "seed": self.seed, **about}
        told["recipe"] = dataclasses.asdict(self.recipe)
        return Job(self.out / f"{self.data}-{name}-seed{self.seed}.json", told, work)

    def built(self, regime: Regime, name: str) -> nn.Module:
        """The network before training."""
        training, make = self.samples.training, {**self.recipe.make, **regime.make}
        if name == "permuted":
            make["gate_order"] = derangement(self.recipe.layers, self.seed)
        shape, classes = training.X.shape[1:], len(training.classes)
        return networks.build(
            kind=regime.kind, input_shape=shape, classes=classes, seed=self.seed, **make
        )

    def trained(
        self, net: nn.Module, regime: str, features: nn.Module | None = None
    ) -> tuple[networks.TrainingResult, list[float]]:
        """Train, with the test accuracy after each epoch, which chooses nothing."""
        samples, recipe, test = self.samples, self.recipe, []
        right = samples.test.X, samples.test.require_labels()
        result = networks.train(
            net,
            samples.training.X,
            samples.training.require_labels(),
            regime=regime,
            features=features,
            validation=recipe.validation / (recipe.training + recipe.validation),
            select="last",
            snapshots=recipe.stages if regime == "relu" else (),
            callback=lambda _, now: test.append(accuracy(now, *right)),
            seed=self.seed,
            progress=False,
            **recipe.fit,
        )
        return result, test

    def regime(self, name: str) -> dict[str, Any]:
        """A network, and the machines on its gates."""
        regime = REGIMES[name]
        net, before = self.built(regime, name), self.built(regime, name)
        lent = None if regime.gates != "lent" else self.lender(self.recipe.stages[-1])
        result, test = self.trained(net, regime.regime, lent)
        for epoch, past in result.snapshots.items():
            self.lending(epoch).parent.mkdir(exist_ok=True)
            npk.save(past, self.lending(epoch))
        machines = {"penultimate": self.curve([linear_kernel(features_of(net))])}
        if regime.gates != "lent":  # with lent gates the kernel is that of the lender
            machines["trained"] = self.curve([kernel_of(net)])
        if regime.gates == "learnt":
            machines["before"] = self.curve([kernel_of(before)])
        return {**curves(result, test), "machines": machines}

    def stage(self, epoch: int) -> dict[str, Any]:
        """A network under the gates that the ReLU network had after some epochs."""
        net = self.built(REGIMES["flnpf"], "flnpf")
        return curves(*self.trained(net, "flnpf", self.lender(epoch)))

    def lending(self, epoch: int) -> Path:
        """The ReLU network after some epochs."""
        return self.out / f"{self.data}-relu-seed{self.seed}" / f"epoch-{epoch}.safetensors"

    def lender(self, epoch: int) -> nn.Module:
        """The ReLU network after some epochs, of its own run."""
        if not self.lending(epoch).exists():
            raise SystemExit(f"{self.lending(epoch)} is missing: delete the run of relu beside it.")
        return npk.load(self.lending(epoch))

    def pixels(self) -> dict[str, list[float]]:
        """RBF machines, whose width leave-one-out chooses."""
        return self.curve(rbf_kernels())

    def curve(self, kernels: list) -> dict[str, list[float]]:
        """Accuracy of machines on fresh samples, by their number."""
        fresh, test = self.samples.fresh, self.samples.test
        few = test[: self.recipe.tested]
        labels = fresh.require_labels(), few.require_labels()
        return learning_curve([kernel(fresh.X, few.X) for kernel in kernels], *labels)


def curves(result: networks.TrainingResult, test: list[float]) -> dict[str, Any]:
    """What came out of a training, epoch by epoch."""
    return {
        "test": test,
        "validation": result.curve_validation,
        "validation loss": result.curve_validation_loss,
        "training loss": result.curve_train,
    }


def kernel_of(net: nn.Module) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The network's own kernel, bias paths included: of the fresh samples, and of the test samples
    with them.
    """

    def kernel(fresh: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        of = npk.NeuralPathKernel(net, scale="cosine", bias="paths", progress=False)
        rows = of.record(fresh)
        return of(rows), of(test, rows)

    return kernel


def features_of(net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """What the last linear layer sees."""
    import torch

    last = [part for part in net.value.modules() if isinstance(part, nn.Linear)][-1]

    def features(X: np.ndarray) -> np.ndarray:
        seen: list[torch.Tensor] = []
        hook = last.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        with torch.no_grad():
            for part in np.array_split(X, max(1, len(X) // 500)):
                net(torch.from_numpy(part))
        hook.remove()
        return torch.cat(seen).double().numpy()

    return features


def derangement(layers: int, seed: int) -> list[int]:
    """A permutation that leaves no gate layer in its place."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(layers)
        if not np.any(order == np.arange(layers)):
            return order.tolist()


def drawn(pool: npk.data.Dataset, test: npk.data.Dataset, recipe: Recipe, seed: int) -> Samples:
    """Training and fresh samples, each with as many of every class as the pool has."""
    rest, fresh = npk.data.split(pool, test=FRESH / len(pool), seed=seed)
    wanted = recipe.training + recipe.validation
    if wanted < len(rest):
        rest = npk.data.split(rest, test=wanted / len(rest), seed=seed)[1]
    return Samples(rest, fresh, test)


def fashion(folder: Path, recipe: Recipe, seed: int) -> Samples:
    """Fashion-MNIST, with its own test set."""
    pool, test = npk.data.load(f"idx:{folder}"), npk.data.load(f"idx:{folder}/test")
    return drawn(pool, test, recipe, seed)


def cifar(file: Path, recipe: Recipe, seed: int) -> Samples:
    """CIFAR-10 at 16 x 16."""
    with np.load(file) as arrays:
        sides = [(arrays["X" + side], arrays["y" + side]) for side in ("", "_test")]
    classes = tuple(map(str, range(10)))
    pool, test = (
        npk.data.Dataset(halved(X), y.astype(np.int64), classes, f"{file.name}, halved")
        for X, y in sides
    )
    return drawn(pool, test, recipe, seed)


def halved(X: np.ndarray) -> np.ndarray:
    """Bytes as values from 0 to 1, means of 2 x 2 pixels."""
    n, channels, height, width = X.shape
    parts = X.reshape(n, channels, height // 2, 2, width // 2, 2)
    return (parts.mean((3, 5)) / 255).astype(np.float32)


def digits(recipe: Recipe, seed: int) -> Samples:
    """A small stand-in for both."""
    pool, test = npk.data.split(npk.data.load("digits"), test=200 / 1797, seed=0)
    return drawn(pool, test, recipe, seed)


if __name__ == "__main__":
    main()
