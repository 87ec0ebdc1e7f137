"""Real work: train a deep linearly gated network on mnist5k, then its exact kernel, predicted and
measured, and a machine on the kernel.

python benchmarks/real_work.py --work shifts --checkpoint shifts.safetensors python
benchmarks/real_work.py --work stride --checkpoint stride.safetensors

``shifts``: four convolutions of stride 1 and a global pool on 28 x 28, so that all 784
displacements count; 2,000 samples. ``stride``: the first convolution has stride 2; all 5,000
samples. The last fifth of the kernel's samples is held out: the network is trained on all others of
the 5,000, the kernel machine on the others of the kernel's. The prediction times a few tiles of the
same kernel before; recording the gates is counted apart. Needs the extra ``demo``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import duration, machine, timed

import npk
from npk.data import Dataset
from npk.gram.kernel import NeuralPathKernel
from npk.gram.pace import measure
from npk.machines import ridge

WORK = {"shifts": ([1, 1, 1, 1], 2000), "stride": ([2, 1, 1, 1], 5000)}  # strides, samples
FEW = 64  # samples of the prediction


def main() -> None:
    """Train, predict, compute, fit, print."""
    options = parsed()
    n = options.n or WORK[options.work][1]
    samples, held_out = npk.data.load("mnist5k"), np.arange(n - n // 5, n)
    print(machine())
    net = network(samples, held_out, options)
    found = {
        "work": options.work,
        "n": n,
        "gates": options.gates,
        **kernel_of(net, samples.X[:n], options),
    }
    K = found.pop("kernel")
    found |= accuracies(net, K, samples, held_out)
    report(found)
    if options.json:
        options.json.write_text(
            json.dumps({"benchmark": "real work", "machine": machine(), **found}, indent=1)
        )


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", choices=WORK, default="shifts")
    parser.add_argument(
        "--gates",
        choices=("hard", "soft"),
        default="hard",
        help="of the kernel; the network is trained with soft ones",
    )
    parser.add_argument("--n", type=int, help="samples of the kernel, fewer than usual for a trial")
    parser.add_argument("--channels", type=int, default=64, help="of each convolution")
    parser.add_argument("--epochs", type=int, default=5, help="of the training")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="file for the trained network (.safetensors); what is there is not trained again",
    )
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args()


def network(samples: Dataset, held_out: np.ndarray, options: argparse.Namespace) -> torch.nn.Module:
    """The network of the checkpoint, or one that is trained now."""
    if options.checkpoint and options.checkpoint.exists():
        return npk.load(options.checkpoint)
    make, fit = npk.networks.recipe("mnist", "conv-gap", "dlgn")
    strides = WORK[options.work][0]
    make |= {"channels": [options.channels] * len(strides), "strides": strides}
    net = npk.networks.build(
        **make, input_shape=samples.X.shape[1:], classes=len(samples.classes), seed=0
    )
    others = np.delete(np.arange(len(samples)), held_out)
    trained = npk.networks.train(
        net, samples.X[others], samples.require_labels()[others], **fit | {"epochs": options.epochs}
    )
    print(
        f"trained on {len(others)} samples, {trained.epochs} epochs, in {duration(trained.seconds)}"
    )
    if options.checkpoint:
        npk.save(net, options.checkpoint)
    return net


def kernel_of(net: torch.nn.Module, X: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """The kernel, its predicted and its measured seconds, and those of the gates."""
    table, recording = timed(lambda: npk.record_gates(net, X, gates=options.gates))
    kernel = NeuralPathKernel(None, scale="cosine", bias="ignore", progress=False)
    cost, looking = timed(lambda: measure(kernel, table.take(slice(0, FEW))))
    predicted = cost.seconds(len(X)) - cost.before  # planned and compiled by now
    print(
        f"{len(X)} x {len(X)}, {options.gates} gates: predicted {duration(predicted)}", flush=True
    )
    K, measured = timed(lambda: kernel(table))
    return {
        "kernel": K,
        "recording": recording,
        "looking": looking,
        "predicted": predicted,
        "measured": measured,
    }


def accuracies(
    net: torch.nn.Module, K: np.ndarray, samples: Dataset, held_out: np.ndarray
) -> dict[str, float]:
    """Of ridge on the kernel and of the network, on the samples held out."""
    y, first = samples.require_labels(), held_out[0]
    targets, classes = ridge.signed_targets(y[:first])
    made, seconds = timed(lambda: ridge.fit(K[:first, :first], targets, criterion="accuracy"))
    scores = K[held_out, :first] @ made.solution.coefficients
    with torch.no_grad():
        guessed = net(torch.as_tensor(samples.X[held_out])).argmax(1).numpy()
    machine_right = classes[scores.argmax(1)] == y[held_out]
    return {
        "ridge": machine_right.mean(),
        "network": (guessed == y[held_out]).mean(),
        "fitting": seconds,
    }


def report(found: dict[str, Any]) -> None:
    """Times beside their prediction, and what the kernel was good for."""
    n, measured, predicted = found["n"], found["measured"], found["predicted"]
    pairs = n * (n + 1) / 2
    rate = f"{pairs / measured:,.0f} pairs/s, {duration(measured / pairs)} a pair"
    print(
        f"gates of {n} samples {duration(found['recording'])}, prediction "
        f"{duration(found['looking'])}"
    )
    print(f"measured {duration(measured)}: {measured / predicted:.2f} x predicted, {rate}")
    print(
        f"ridge on the kernel of {n - n // 5} samples, fitted in {duration(found['fitting'])}: "
        f"{found['ridge']:.1%} of {n // 5} held out; "
        f"the network itself {found['network']:.1%}"
    )


if __name__ == "__main__":
    main()
