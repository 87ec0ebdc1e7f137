"""One random network, compared with its definition in every way: ``python tests/fuzz.py SEED``, or
many: ``python tests/fuzz.py 0:2000``.

The oracle knows the torch module alone (``frozen_gates``). A range is counted: read, refused by
reason, wrong, and errors of other kinds.
"""

import collections
import contextlib
import copy
import json
import random
import re
import sys
import traceback
import warnings

import numpy as np
import torch
from conftest import assert_kernels_equal
from frozen_gates import Normed, TooManyError, differentiated_kernel, fan_in, freeze, frozen_output
from random_networks import random_network, randomize, turns_channels_into_positions
from torch.utils._pytree import tree_leaves, tree_map

import npk
from npk.definition.paths import path_kernel
from npk.definition.value_network import evaluate, own_weights
from npk.errors import ShapeError, UnsupportedGraphError
from npk.gates.recording import record_gates
from npk.graph.path_graph import from_dict, to_dict

COEFFICIENTS = 20_000  # most that are found by differentiation
LEAST = 6  # operators of a network that a seed stands for
REFUSALS = (UnsupportedGraphError, ShapeError)
SINGLE = ("float32", "float64")


class Case:
    """A network with weights and samples, and what it is by itself: output, gates, a copy in
    float64.
    """

    def __init__(self, net, shape, seed, dtype="float64"):
        self.rng, self.dtype = np.random.default_rng(seed), dtype
        randomize(net, self.rng)
        self.net = net.to(getattr(torch, dtype))
        X = torch.as_tensor(self.rng.standard_normal((4, *shape))).to(getattr(torch, dtype))
        self.X = X.to(torch.float64 if dtype == "float64" else torch.float32).numpy()
        self.gates, self.output = freeze(self.net, X.clone())
        self.exact, self.inputs = copy.deepcopy(self.net).double(), X.double()
        self.frozen = tree_map(
            lambda gate: gate.double() if gate.is_floating_point() else gate, self.gates
        )

    @property
    def tolerance(self):
        """Gates that are real numbers are as exact as the network that makes them."""
        soft = any(
            gate.is_floating_point() and not (gate == gate.round()).all()
            for gate in tree_leaves(self.gates)
        )
        return "float32" if soft and self.dtype != "float64" else "float64"

    def sizes(self):
        """Of the entries of parameters where the kernel's scale is 1 / fan-in: its root."""
        modules = {name: module for name, module in self.net.named_modules() if name}
        weights = (
            (name, w, modules.get(name.rpartition(".")[0]))
            for name, w in self.net.named_parameters()
        )
        return {
            name: fan_in(module, w) ** -0.5
            for name, w, module in weights
            if module is not None and w.dim() > 1
        }


def case_of(seed):
    """The network that a seed stands for: most in float64, some in the types that people use."""
    choose = random.Random(seed).choice
    dtype = choose(["float64"] * 6 + ["float32"] * 3 + ["bfloat16"])
    net, shape = random_network(choose, least=LEAST, plain=dtype not in SINGLE)
    try:
        return Case(copy.deepcopy(net), shape, seed, dtype)
    except NotImplementedError:  # torch itself has no such operator in half precision
        return Case(net, shape, seed, "float32")


def examine(case):
    """Compare every number that npk gives for the network with its definition. Tells why the
    network was not read, if it was not.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dead inputs, padded copies
        try:
            table = record_gates(case.net, case.X)
        except REFUSALS as error:
            return str(error)
        assert from_dict(json.loads(json.dumps(to_dict(table.graph)))) == table.graph
        assert str(table.graph)
        _examine_outputs(case, table)
        return next(
            filter(None, [_examine_kernel(case, table, bias) for bias in ("ignore", "paths")]), None
        )


def _examine_outputs(case, table):
    """The value network is the network, under its own weights and under others."""
    own = own_weights(case.net)
    if case.dtype == "float64":  # the oracle, and the network as it is
        np.testing.assert_allclose(case.output, case.net(case.inputs.clone()).detach(), atol=1e-12)
    others = {
        name: w * torch.as_tensor(case.rng.uniform(0.5, 1.5, tuple(w.shape)))
        for name, w in own.items()
    }
    # what is added to samples in float32 is rounded there, by the network as by npk
    rounded = _shifted(case, table) and case.dtype != "float64"
    exact = case.tolerance == "float64" and not rounded
    accuracy = {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 1e-4, "atol": 1e-5}
    # other weights would be another shift of the samples too
    for weights in (own,) if _shifted(case, table) else (own, others):
        expected = frozen_output(case.exact, case.inputs, case.frozen, weights, Normed).detach()
        np.testing.assert_allclose(
            evaluate(table, weights).reshape(expected.shape), expected, **accuracy
        )


def _examine_kernel(case, table, bias):
    """Both backends against enumeration and, where coefficients are few, against differentiation;
    then the other options.
    """
    options = {"scale": "count", "bias": bias, "dtype": "float64", "progress": False}
    try:
        kernels = [
            npk.kernel(table, backend=backend, **options) for backend in ("reference", "cpu")
        ]
        kernels += [_in_parts(table, options)]
    except REFUSALS as error:
        return str(error)
    expected = [np.array(path_kernel(table, table, scale="count", bias=bias))]
    # a constant is a bias of each channel
    if bias == "ignore" or not turns_channels_into_positions(case.net):
        expected += _differentiated(case, table, bias=bias)
    for kernel in kernels:
        for definition in expected:
            _compare(kernel, definition, case.tolerance)
    _examine_options(case, table, options)
    return None


def _in_parts(table, options):
    """The whole kernel, as the kernel of some rows with all columns."""
    parts = (slice(0, 1), slice(1, len(table)))
    return np.concatenate(
        [npk.kernel(table.take(part), table, backend="cpu", **options) for part in parts]
    )


def _examine_options(case, table, options):
    """The fan-in scale, cosines, ones in the place of the input, and single precision."""
    bias, starts_from_ones = options["bias"], "ones" in {step.label for step, _ in case.net.steps}
    fans = npk.kernel(table, **{**options, "scale": "fan_in"})
    _compare(fans, np.array(path_kernel(table, table, scale="fan_in", bias=bias)), "float64")
    _compare(
        npk.kernel(table, **{**options, "scale": "fan_in", "dtype": "float32"}), fans, "float32"
    )
    roots = np.sqrt(np.diagonal(fans))
    cosines = np.divide(
        fans, np.outer(roots, roots), out=np.zeros_like(fans), where=np.outer(roots, roots) > 0
    )
    np.testing.assert_allclose(
        npk.kernel(table, **{**options, "scale": "cosine"}), cosines, atol=1e-9
    )
    # matrices have a fan-in of their own
    if bias == "ignore" and not any("axis" in step.label for step, _ in case.net.steps):
        for definition in _differentiated(case, table, bias=bias, sizes=case.sizes()):
            _compare(fans, definition, case.tolerance)
    if not starts_from_ones:
        ones = npk.kernel(table, **options, value_input="ones")
        more = _differentiated(case, table, bias=bias, ones=True) if bias == "ignore" else ()
        for definition in more:
            _compare(ones, definition, case.tolerance)


def _shifted(case, table):
    """Whether the network adds something to its samples before its first weight."""
    return not np.array_equal(table.inputs, case.X)


def _differentiated(case, table, **options):
    """The kernel from the module alone, which takes what is added to samples for a bias."""
    if _shifted(case, table):
        return []
    with contextlib.suppress(TooManyError):
        return [
            differentiated_kernel(
                case.exact, case.inputs, gates=case.frozen, most=COEFFICIENTS, **options
            )
        ]
    return []


def _compare(kernel, definition, tolerance):
    """Relative to the diagonals; where gates of both signs cancel to nothing, a rounding may stay."""
    diagonal = np.diagonal(definition)
    nothing = (diagonal[:, None] * diagonal == 0) & (abs(kernel) <= 1e-15 * abs(definition).max())
    kernel = np.where(nothing, 0, kernel)
    assert_kernels_equal(kernel, definition, tolerance, (diagonal, diagonal))


def reason_of(text):
    """A refusal without names, places and numbers."""
    return re.sub(r"node \S+|'[^']*'|\([^()]*:\d+\)|\b\w+\.weight\b|-?\d+", "_", text)[:110]


def count(seeds, out=sys.stdout):
    """Examine the networks of some seeds, and tell what came of them."""
    found, reasons = collections.Counter(), collections.Counter()
    for seed in seeds:
        try:
            refused = examine(case_of(seed))
            found["refused" if refused else "read"] += 1
            reasons.update([reason_of(refused)] if refused else [])
        except Exception as error:  # told, and counted
            found["wrong" if isinstance(error, AssertionError) else "other errors"] += 1
            print(
                f"seed {seed}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
                file=out,
                flush=True,
            )
        if sum(found.values()) % 50 == 0:
            print(dict(found), file=out, flush=True)
    print(
        dict(found),
        *(f"{number:5} {reason}" for reason, number in reasons.most_common()),
        sep="\n",
        file=out,
        flush=True,
    )
    return found


def main(argument):
    """One seed: the network, and what differs. A range: counts; exit code 1 where anything is
    wrong.
    """
    torch.set_num_threads(1)
    if ":" in argument:
        found = count(range(*map(int, argument.split(":"))))
        return int(found["wrong"] + found["other errors"] > 0)
    case = case_of(int(argument))
    print(case.net, case.dtype, tuple(case.X.shape), sep="\n")
    try:
        print(examine(case) or "as defined")
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
