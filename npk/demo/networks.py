"""The demo's networks: two families, three kinds, trained or taken from an earlier run."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk import checkpoint
from npk.errors import CheckpointError, NpkError
from npk.progress import Progress
from npk.studies.subjects import Subject, decided, outputs

if TYPE_CHECKING:
    from npk.demo import Samples

FAMILIES = {"conv-gap": "shift-invariant", "conv-flat": "position-keeping"}
KINDS = ("dnn", "dgn", "dlgn")


def prepare_networks(samples: "Samples", out: Path, seed: int, progress: Progress) -> list[Subject]:
    """Train what an earlier run did not leave, one process a core: threads gain them nothing."""
    wanted = [Plan(samples, out, family, kind, seed) for family in FAMILIES for kind in KINDS]
    missing = [plan for plan in wanted if plan.earlier() is None]
    with progress.task("training networks", len(wanted)) as advance:
        advance(len(wanted) - len(missing))
        with ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, len(wanted)))) as pool:
            for _ in pool.map(
                _train_apart,
                sorted(missing, key=lambda plan: (plan.family != "conv-gap", plan.kind == "dnn")),
            ):  # the long ones first
                advance(1)
    return [plan.trained(reused=plan not in missing) for plan in wanted]


@dataclass(frozen=True, eq=False)
class Plan:
    """One network of the demo: how it is built and trained, and where it is kept."""

    samples: "Samples"
    out: Path
    family: str
    kind: str
    seed: int

    @property
    def path(self) -> Path:
        """The checkpoint."""
        return self.out / f"{self.family}-{self.kind}.safetensors"

    @property
    def about(self) -> dict[str, Any]:
        """Everything the weights depend on; an earlier checkpoint with the same is used again."""
        from npk.networks.recipes import recipe

        make, fit = recipe(self.samples.recipe, self.family, self.kind)
        shape, classes = list(self.samples.train.X.shape[1:]), len(self.samples.classes)
        make = {**make, "input_shape": shape, "classes": classes, "seed": self.seed}
        return {
            "data": self.samples.notation,
            "samples": len(self.samples.train),
            "make": make,
            "fit": fit,
            "seed": self.seed,
        }

    def earlier(self) -> dict[str, Any] | None:
        """Details of a whole checkpoint that was made in this very way, or ``None``."""
        try:
            details = checkpoint.read_details(self.path)
            checkpoint.load(self.path)
        except CheckpointError:
            return None
        return details if details.get("about") == self.about else None

    def train(self) -> None:
        """Train and write the checkpoint; the model is chosen on validation samples, the test
        samples only give the number at the end.
        """
        from npk import networks

        about, train, test = self.about, self.samples.train, self.samples.test
        net = networks.build(**about["make"])
        result = networks.train(
            net, train.X, train.require_labels(), seed=self.seed, progress=False, **about["fit"]
        )
        right = float((decided(outputs(net, test.X)) == test.require_labels()).mean())
        checkpoint.save(
            net,
            self.path,
            about=about,
            accuracy=right,
            seconds=result.seconds,
            curve_train=result.curve_train,
            curve_validation=result.curve_validation,
        )

    def trained(self, *, reused: bool) -> Subject:
        """The network as later commands will load it, with what the page says of it."""
        details, net = checkpoint.read_details(self.path), checkpoint.load(self.path)
        curves = {name: details[name] for name in ("curve_train", "curve_validation")}
        return Subject(
            net,
            f"{self.family} {self.kind}",
            self.path,
            family=FAMILIES[self.family],
            kind=self.kind,
            curves=curves,
            reused=reused,
        )


def _train_apart(plan: Plan) -> None:
    """Train in a process of its own, with one thread.

    Raises:
        NpkError: the process failed; its last line says why.
    """
    job = json.dumps(
        {
            "data": plan.samples.notation,
            "seed": plan.seed,
            "out": str(plan.out),
            "family": plan.family,
            "kind": plan.kind,
        }
    )
    # this very npk, installed or not
    path = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
    )
    command = [sys.executable, "-m", "npk.demo.train_one", job]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NpkError(f"training {plan.family}-{plan.kind} failed: {last}")
