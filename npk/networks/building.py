"""Build a network from its name and options, and describe it in a line."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from npk.choices import KindName
from npk.errors import OptionError
from npk.networks import architectures
from npk.networks.gated import (
    GatedNetwork,
    GatingNetwork,
    PlainNetwork,
    ShallowGatingNetwork,
    check_order,
)
from npk.networks.gating import Gate
from npk.networks.layers import Layers, gate_points, without_first_norm

ARCHITECTURES: dict[str, Callable[..., Layers]] = {
    "fc": architectures.fc,
    "conv": architectures.conv,
    "residual": architectures.residual,
    "vgg16": architectures.vgg16,
    "resnet110": architectures.resnet110,
}
KINDS: tuple[str, ...] = get_args(KindName)


def build(
    arch: str,
    kind: str = "dnn",
    *,
    input_shape: Sequence[int],
    classes: int,
    gates: str = "soft",
    beta: float = 4.0,
    epsilon: float = 0.0,
    value_input: str | None = None,
    batch_norm: bool | None = None,
    bias: bool = True,
    padding: str = "circular",
    gate_order: Sequence[int] | None = None,
    seed: int | None = None,
    **options: Any,
) -> PlainNetwork | GatedNetwork:
    """Build a network with freshly drawn weights, in evaluation mode.

    ``build(**net.architecture)`` gives the same structure again. Gated kinds pool by averages,
    because a maximum is a non-linearity.

    Args:
        arch: ``"fc"`` | ``"conv"`` | ``"residual"`` | ``"vgg16"`` | ``"resnet110"``.
        kind: ``"dnn"`` (ReLU) | ``"dgn"`` | ``"dlgn"`` | ``"dlgn-sf"``.
        input_shape: of one sample: (channels, height, width), or (d,).
        classes: number of outputs.
        gates: of a gated kind: ``"soft"``, (1 + epsilon) sigmoid(beta q), or ``"hard"``, 1[q > 0].
        beta: steepness of soft gates.
        epsilon: how far soft gates may exceed 1.
        value_input: of a gated kind: ``"x"`` or ``"ones"``; ``None`` means ones for dlgn and
            dlgn-sf, else x.
        batch_norm: a batch norm before each gate; ``None`` means yes for vgg16 and resnet110, else
            no. Its shift is a bias even without ``bias``. On an all-ones input the first one has
            nothing to normalize (all samples are equal there) and is left out.
        bias: biases in the linear operators (none before a batch norm).
        padding: ``"circular"`` | ``"zero"``.
        gate_order: gate point i of the value network uses the gates ``gate_order[i]`` of the gating
            network; ``None``: its own.
        seed: of the weights, torch's global random state is then left alone; ``None`` draws from
            the global state.
        **options: of the architecture, see :mod:`npk.networks.architectures`: ``hidden``,
            ``channels``, ``strides``, ``readout``, ...

    Returns:
        The network; ``net.architecture`` is a dictionary of JSON values with all arguments.

    Raises:
        OptionError: an unknown name or value, or options that contradict each other.
    """
    given = {k: v for k, v in locals().items() if k != "options"}
    chosen = {**_resolved(given), **_architecture_options(arch, kind, options)}
    _check(chosen)
    with _seeded(seed):
        net = _assemble(chosen, _layers(chosen))
        _initialize(net)
    net.architecture = chosen
    return net.eval()


def describe(net: nn.Module) -> str:
    """The network in one line: kind, architecture and its options, gates, number of parameters.

    Raises:
        OptionError: the network was not made by :func:`build`.
    """
    chosen = getattr(net, "architecture", None)
    if not isinstance(chosen, dict):
        raise OptionError(
            f"a {type(net).__name__} carries no description of its architecture. Describe networks "
            f"made by npk.networks.build."
        )
    parts = [f"{chosen['arch']} {chosen['kind']}"]
    shown = list(inspect.signature(ARCHITECTURES[chosen["arch"]]).parameters)[2:]
    unused = ("pool", "pool_size") if chosen.get("pool_after") == [] else ()
    parts += [
        f"{name.replace('_', ' ')} {_short(chosen[name])}"
        for name in shown
        if name not in unused and chosen[name] not in (None, [])
    ]
    if any(isinstance(m, nn.Conv2d) for m in net.modules()):
        parts.append(f"{chosen['padding']} padding")
    if chosen["kind"] != "dnn":
        parts.append(
            f"soft gates beta {chosen['beta']:g}" if chosen["gates"] == "soft" else "hard gates"
        )
        parts.append(f"value input {chosen['value_input']}")
    parts += [
        name
        for name, used in (("batch norm", chosen["batch_norm"]), ("no bias", not chosen["bias"]))
        if used
    ]
    return ", ".join([*parts, f"{sum(p.numel() for p in net.parameters()):,} parameters"])


def _short(value: object) -> str:
    """Lists as 64-64-128, runs longer than three as 64x18."""
    if not isinstance(value, list):
        return str(value)
    runs: list[list] = []
    for item in value:
        if runs and runs[-1][0] == item:
            runs[-1][1] += 1
        else:
            runs.append([item, 1])
    return "-".join("-".join([str(item)] * n) if n < 4 else f"{item}x{n}" for item, n in runs)


def _resolved(given: dict[str, Any]) -> dict[str, Any]:
    """The common arguments with their defaults filled in."""
    for name, allowed in (("arch", tuple(ARCHITECTURES)), ("kind", KINDS)):
        architectures.check_choice(name, given[name], allowed)
    chosen = {k: _plain(v) for k, v in given.items()}
    if chosen["value_input"] is None:
        chosen["value_input"] = "ones" if chosen["kind"].startswith("dlgn") else "x"
    if chosen["batch_norm"] is None:
        chosen["batch_norm"] = chosen["arch"] in ("vgg16", "resnet110")
    return chosen


def _plain(value: Any) -> Any:
    """Sequences as lists and NumPy's numbers as Python's: JSON gives back what it was given."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def _architecture_options(arch: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of this architecture, defaults filled in."""
    accepted = {
        k: p.default
        for k, p in inspect.signature(ARCHITECTURES[arch]).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    for name in options:
        if name not in accepted:
            raise OptionError(f"{arch} has no option {name!r}. It has {', '.join(accepted)}.")
    chosen = {k: _plain(v) for k, v in {**accepted, **options}.items()}
    if "pool" in chosen and chosen["pool"] is None:
        chosen["pool"] = "max" if arch == "vgg16" and kind == "dnn" else "average"
    return chosen


def _check(chosen: dict[str, Any]) -> None:
    choices = {
        "gates": ("soft", "hard"),
        "value_input": ("x", "ones"),
        "padding": ("circular", "zero"),
        "pool": ("average", "max"),
        "readout": ("gap", "flatten"),
    }
    for name, allowed in choices.items():
        if name in chosen:
            architectures.check_choice(name, chosen[name], allowed)
    if chosen["kind"] != "dnn" and chosen.get("pool") == "max":
        raise OptionError(
            f"pool is 'max', but a {chosen['kind']} must pool by averages, a maximum "
            f"is a non-linearity. Use pool='average'."
        )
    if chosen["kind"] == "dnn" and (
        chosen["value_input"] == "ones" or chosen["gate_order"] is not None
    ):
        raise OptionError(
            "value_input='ones' and gate_order need external gates, kind is 'dnn'. "
            "Use kind='dgn', 'dlgn' or 'dlgn-sf'."
        )
    architectures.check_sizes("input_shape", chosen["input_shape"], least=1)
    architectures.check_sizes("classes", [chosen["classes"]])
    if not (0 < chosen["beta"] < math.inf and 0 <= chosen["epsilon"] < math.inf):
        raise OptionError(
            f"beta is {chosen['beta']} and epsilon {chosen['epsilon']}, they must be positive and "
            f"not negative. Correct them."
        )
    if len(chosen["input_shape"]) not in (1, 3):
        raise OptionError(
            f"input_shape is {chosen['input_shape']}, it must be (channels, height, "
            f"width) or (d,). Correct it."
        )


def _layers(chosen: dict[str, Any]) -> Layers:
    make = ARCHITECTURES[chosen["arch"]]
    names = list(inspect.signature(make).parameters)[2:]
    draft = architectures.Draft(
        chosen["input_shape"], chosen["bias"], chosen["batch_norm"], chosen["padding"] == "circular"
    )
    return make(draft, chosen["classes"], **{name: chosen[name] for name in names})


def _assemble(chosen: dict[str, Any], layers: Layers) -> PlainNetwork | GatedNetwork:
    kind = chosen["kind"]
    if kind == "dnn":
        return PlainNetwork(layers)
    shallow = kind == "dlgn-sf"
    if shallow:
        gating = ShallowGatingNetwork(layers, chosen["input_shape"])
    else:
        gating = GatingNetwork(layers, linear=kind == "dlgn")
    shapes = [point.shape for point in gate_points(layers)]
    order = range(len(shapes)) if chosen["gate_order"] is None else chosen["gate_order"]
    gate = Gate(chosen["gates"] == "hard", chosen["beta"], chosen["epsilon"])
    ones = chosen["value_input"] == "ones"
    return GatedNetwork(
        gating,
        without_first_norm(layers) if ones else layers,
        gate=gate,
        ones=ones,
        order=check_order(order, shapes),
    )


def _initialize(net: nn.Module) -> None:
    """Normal weights that keep the second moment: variance 2 / fan-in where a gate follows, 1 /
    fan-in in linear gating networks.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            linear = name.startswith("gating") and getattr(net.gating, "linear", True)
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt((1.0 if linear else 2.0) / fan_in))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw from ``seed`` and give torch its random state back."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
