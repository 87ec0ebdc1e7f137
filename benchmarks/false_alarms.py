"""False alarms of ``check_duality``'s second moment, and wrong kernels that it sees.

python benchmarks/false_alarms.py --runs 10000

Two families of runs, each from light tails to tails that no number of draws can judge. *Simulated*:
Gaussian outputs of four samples (correlation 0.5) whose common size is log-normal, ``spread`` the
standard deviation of its logarithm, with 1 and 10 output units; and products of a chain of L layers
of w units (independent chi-squared factors). *Networks*: fully connected ones of random weights and
samples, from wide and shallow to narrow and deep, each run with a network of its own. The kernel is
exact; a planted one is a number times it, or lacks the paths through one unit of the first layer.
What is counted: verdicts of right kernels; of planted ones alarms, and after the stroke those that
are said to agree. ``5 errors``: alarms of the plain rule "the mean of some product lies more than 5
standard errors away" in the same runs.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import npk
from npk.checks.moments import second_moment
from npk.definition.value_network import ValueNetwork, random_weights

KERNEL = np.full((4, 4), 0.5) + 0.5 * np.eye(4)
SIDE = np.linalg.cholesky(KERNEL)
FACTORS = (1.1, 1.5, 2.0, 0.5)


def sized(spread, units):
    """Outputs whose common size is log-normal."""

    def made(rng):
        def draw(count):
            size = np.exp(spread * rng.standard_normal((count, 1, 1)) - spread**2)
            f = size * (SIDE @ rng.standard_normal((count, 4, units)))
            return f @ f.transpose(0, 2, 1) / units

        return draw, KERNEL, {}

    return made


def chain(depth, width):
    """Four samples that share a chain of layers, each a chi-squared factor of its width."""

    def made(rng):
        def draw(count):
            size = rng.chisquare(width, (count, depth, 1)) / width
            f = np.sqrt(size.prod(1)[:, :, None]) * (SIDE @ rng.standard_normal((count, 4, 1)))
            return f @ f.transpose(0, 2, 1)

        return draw, KERNEL, {}

    return made


def network(depth, width):
    """A network with ReLUs and random weights, and the kernel without a unit of its first layer."""

    def made(rng):
        layers = [torch.nn.Linear(6, width, bias=False), torch.nn.ReLU()]
        for _ in range(depth - 1):
            layers += [torch.nn.Linear(width, width, bias=False), torch.nn.ReLU()]
        torch.manual_seed(int(rng.integers(2**31)))
        net = torch.nn.Sequential(*layers, torch.nn.Linear(width, 4, bias=False)).eval()
        table = npk.record_gates(net, rng.standard_normal((4, 6)), progress=False)
        exact, run = kernel(table), ValueNetwork(table, dtype=torch.float32)
        gates = [layer.astype(float) for layer in table]
        less = 1 - np.outer(*[gates[0][:, 0]] * 2) / np.maximum(gates[0] @ gates[0].T, 1)

        def draw(count):
            f = np.array([run(random_weights(table.graph, rng)) for _ in range(count)], float)
            return f @ f.transpose(0, 2, 1) / f.shape[2]

        return draw, exact, {"a unit left out": exact * less}

    return made


def kernel(table):
    """By the closed form of fully connected networks: a right kernel that npk did not compute."""
    exact = table.inputs @ table.inputs.T / 6
    for gates in (layer.astype(float) for layer in table):
        exact = exact * (gates @ gates.T) / gates.shape[1]
    return exact


def plain(products, exact):
    """The rule of 5 standard errors."""
    error = products.std(0) / len(products) ** 0.5
    return bool((np.abs(products.mean(0) - exact) > 5 * error + 1e-5 * exact.max()).any())


def count(made, runs, draws, seed):
    """Verdicts of right kernels, and of planted ones in a tenth of the runs."""
    rng, found, alarms = np.random.default_rng(seed), Counter(), Counter()
    for number in range(runs):
        draw, exact, planted = made(rng)
        if not (np.diagonal(exact) > 0).all():
            found["dead"] += 1
        found[second_moment(draw, exact, draws).verdict] += 1
        alarms["5 errors"] += plain(draw(draws), exact)
        if number % 10 == 0:
            alarms["planted"] += 1
            wrong = {f"x {factor}": factor * exact for factor in FACTORS} | planted
            for name, other in wrong.items():
                verdict = second_moment(draw, other, draws).verdict
                alarms[name] += verdict == "deviates"
                alarms[f"{name} agrees"] += verdict == "agrees"
    return found, alarms


SIMULATED = {
    **{f"spread {s}, 1 unit": sized(s, 1) for s in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 4)},
    **{f"spread {s}, 10 units": sized(s, 10) for s in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 4)},
    **{f"{d} layers of {w}": chain(d, w) for d, w in ((3, 1), (10, 3), (10, 8), (30, 4), (100, 8))},
}
NETWORKS = {
    f"network, {d} layers of {w}": network(d, w)
    for d, w in ((1, 32), (2, 16), (3, 8), (6, 8), (12, 8), (12, 32), (30, 6))
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=10_000, help="of each simulated family; 0: none"
    )
    parser.add_argument(
        "--networks", type=int, default=1_000, help="of each family of networks; 0: none"
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, start = {}, time.process_time()
    columns = [*(f"x {factor}" for factor in FACTORS), "a unit left out"]
    print(
        "family                    runs   false  agrees  undecided  5 errors |", *columns, sep="  "
    )
    families = [(SIMULATED, arguments.runs), (NETWORKS, arguments.networks)]
    for name, made, runs in ((n, m, r) for group, r in families if r for n, m in group.items()):
        found, alarms = count(made, runs, arguments.draws, len(rows))
        rows[name] = {"runs": runs, **found, "alarms": dict(alarms)}
        whole = max(alarms["planted"], 1)
        pairs = [(alarms[c] / whole, alarms[f"{c} agrees"] / whole) for c in columns if c in alarms]
        seen = [f"{alarm:.3f} / {agrees:.3f}" for alarm, agrees in pairs]
        shares = [found[v] / runs for v in ("agrees", "undecided")] + [alarms["5 errors"] / runs]
        told = "  ".join(f"{share:8.4f}" for share in shares)
        print(f"{name:24}{runs:6}{found['deviates']:8}  {told}  |", *seen, flush=True)
    whole = sum(row["runs"] for row in rows.values())
    false = sum(row.get("deviates", 0) for row in rows.values())
    print(
        f"{false} false alarms in {whole} runs; {time.process_time() - start:.0f} processor seconds"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
