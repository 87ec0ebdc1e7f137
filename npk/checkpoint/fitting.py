"""Weights go into a network whose every name they have, under one prefix."""

import difflib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint.files import first_line
from npk.checkpoint.state_dicts import SHOWN, StateDict, part_of, state_dicts
from npk.errors import CheckpointError, CheckpointWarning, warn

if TYPE_CHECKING:
    from torch import Tensor, nn

# How the names of weights call what wraps a network or a part of it: compiled, in parallel,
# sharded, with checkpoints of activations.
WRAPPING = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
OLDER = "num_batches_tracked"  # of batch norm; no path sees it, and old files have none


@dataclass(frozen=True)
class Fit:
    """How the names of a state dict fit those of a network.

    ``weights``: by the names of the network, of which it has ``known``. ``prefix``: what stood
    before these names. ``left``: names without it. ``told``: what does not fit.
    """

    source: StateDict
    prefix: str
    weights: "dict[str, Tensor]"
    left: list[str]
    known: int
    told: str


def fill(net: "nn.Module", content: Any, path: Path, label: str, key: str | None = None) -> None:
    """Put the weights of a file into a network; every name and shape must fit, half precision
    becomes float32.

    Args:
        net: the network.
        content: what the file holds.
        path: of the file, for messages.
        label: the network, in words.
        key: the part of the file that is meant; else it is found.

    Raises:
        CheckpointError: names or shapes do not fit, or more than one dictionary of tensors fits.
    """
    candidates = state_dicts(content if key is None else part_of(content, key, path), path)
    fits: list[Fit] = []
    for source in candidates:
        turn = next((fit.source.rank for fit in fits if not fit.told), None)
        if turn is not None and source.rank != turn:
            break  # one under a usual name fits, and those after it have later turns
        fits += _fits(net, source)
    good = [fit for fit in fits if not fit.told]
    if not good:
        raise CheckpointError(_misfit(fits, candidates, path, label))
    fit = _meant(good, path, label)
    _load(net, fit.weights)
    _say_what_is_left(fit, candidates, path, label)


def _meant(good: list[Fit], path: Path, label: str) -> Fit:
    """The only one that fits, or the first of those under the usual names."""
    first = [fit for fit in good if fit.source.rank == good[0].source.rank]
    if len(first) == 1:
        return first[0]
    names = [
        ".".join([*fit.source.place, fit.prefix.removesuffix(".")]).strip(".") for fit in first
    ]
    raise CheckpointError(
        f"{path} holds {len(first)} dictionaries of tensors that fit {label}: "
        f"{', '.join(names[:SHOWN])}. "
        f"Choose one: key={names[0]!r}, on the command line --key {names[0]}."
    )


def _misfit(fits: list[Fit], found: list[StateDict], path: Path, label: str) -> str:
    """What does not fit in the nearest dictionary, of those under the usual names if any."""
    nearest = max(
        fits,
        key=lambda fit: (
            fit.known,
            fit.source.rank is not None and len(fit.source.place) > 0,
            len(fit.weights),
        ),
    )
    if not nearest.source.name:
        what = f"{path} does not fit {label}"
    else:
        what = f"{path}: {nearest.source.name} does not fit {label}"
    others = [one.name for one in found if one is not nearest.source and one.name]
    remedy = "Give the arch, with its arguments, that the weights come from"
    if others:
        choice = f", or choose another dictionary of tensors by key: {', '.join(others[:SHOWN])}"
    else:
        choice = ""
    return f"{what}: {nearest.told}. {remedy}{choice}."


def _say_what_is_left(fit: Fit, found: list[StateDict], path: Path, label: str) -> None:
    if fit.source.rank is None:
        others = [one.name for one in found if one is not fit.source and one.name]
    else:
        others = []
    left = [*fit.left, *others]
    if left:
        told = f"{', '.join(left[:SHOWN])}{', ...' if len(left) > SHOWN else ''}"
        place = f"{fit.source.name} " if fit.source.name else ""
        if fit.left:
            under = f"the weights {place}under {fit.prefix}*"
        else:
            under = f"the weights under {fit.source.name}"
        text = f"{path}: {under} are all of {label}; not loaded: {told}."
        warn(text, CheckpointWarning)


def _fits(net: "nn.Module", source: StateDict) -> list[Fit]:
    """How the tensors fit under each prefix; else without the names of wrappers on either side."""
    expected = {name: name for name in net.state_dict()}
    tries = [
        _under(net, source, prefix, source.tensors, expected)
        for prefix in _prefixes(source.tensors, expected)
    ]
    if any(not fit.told for fit in tries):
        return tries
    bare, plain = ({_bare(name): name for name in names} for names in (source.tensors, expected))
    wrapped = any(short != long for short, long in (*bare.items(), *plain.items()))
    if not wrapped or len(bare) < len(source.tensors) or len(plain) < len(expected):
        return tries
    tensors = {name: source.tensors[long] for name, long in bare.items()}
    again = [_under(net, source, prefix, tensors, plain) for prefix in _prefixes(tensors, plain)]
    return [fit for fit in again if not fit.told] or tries


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPING)


def _prefixes(names: "dict[str, Tensor]", expected: dict[str, str]) -> list[str]:
    """What stands before the most names of the network; where it stands before none (names may be
    older ones), what all names share.
    """
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        counts.update(
            ".".join([*parts[:i], ""]) for i in range(len(parts)) if ".".join(parts[i:]) in expected
        )
    if counts:
        most = max(counts.values())
        return [prefix for prefix, count in counts.items() if count == most]
    shared = [""]
    parts = next(iter(names)).split(".")
    for i in range(1, len(parts)):
        prefix = ".".join([*parts[:i], ""])
        shared += [prefix] if all(name.startswith(prefix) for name in names) else []
    return shared


def _under(
    net: "nn.Module",
    source: StateDict,
    prefix: str,
    tensors: "dict[str, Tensor]",
    expected: dict[str, str],
) -> Fit:
    short = {
        name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }
    weights = {expected.get(name, name): tensor for name, tensor in short.items()}
    left = [name for name in tensors if not name.startswith(prefix)]
    matching = len(weights.keys() & set(expected.values()))
    return Fit(source, prefix, weights, left, matching, _told(net, weights))


def _told(net: "nn.Module", weights: "dict[str, Tensor]") -> str:
    """What does not fit: names that the network misses or does not know, and shapes."""
    expected = net.state_dict()
    shapes = [
        name for name in weights if name in expected and not _is_like(weights[name], expected[name])
    ]
    try:
        missing, unknown = _by_name(expected, weights) if shapes else _load(net, weights)
    except Exception as error:  # the network's own hooks may raise anything
        return f"it cannot take them ({first_line(error)})"
    tied = _one_in_two_names(net, weights)
    reasons = [
        (len(missing), "missing", [f"{name}{_near(name, unknown)}" for name in missing[:3]]),
        (len(unknown), "unknown", [f"{name}{_near(name, missing)}" for name in unknown[:3]]),
        (
            len(shapes),
            "of another shape",
            [f"{n} is {_described(weights[n])}, not {_described(expected[n])}" for n in shapes[:3]],
        ),
        (len(tied), "tied in it and different here", tied[:3]),
    ]
    return ", ".join(
        f"{count} {what} ({'; '.join(first)}{'; ...' if count > 3 else ''})"
        for count, what, first in reasons
        if count
    )


def _is_like(tensor: "Tensor", expected: "Tensor") -> bool:
    """Whether a tensor can stand for another: a lazy one has no shape yet; no whole numbers."""
    import torch

    if torch.nn.parameter.is_lazy(expected):
        return True
    kinds = (
        tensor.is_floating_point() == expected.is_floating_point()
        and tensor.is_complex() == expected.is_complex()
    )
    return tensor.shape == expected.shape and kinds and tensor.layout == expected.layout


def _described(tensor: "Tensor") -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def _by_name(
    expected: "dict[str, Tensor]", weights: "dict[str, Tensor]"
) -> tuple[list[str], list[str]]:
    missing = [name for name in expected if name not in weights and not name.endswith(OLDER)]
    return missing, [name for name in weights if name not in expected]


def _load(net: "nn.Module", weights: "dict[str, Tensor]") -> tuple[list[str], list[str]]:
    """Names that are missing and unknown to the network's own hooks, which know older names."""
    import torch

    # never half
    net.to(
        torch.float64
        if any(tensor.dtype == torch.float64 for tensor in weights.values())
        else torch.float32
    )
    result = net.load_state_dict(weights, strict=False)
    if not hasattr(result, "missing_keys"):  # a network may have a load_state_dict of its own
        return _by_name(net.state_dict(), weights)
    groups = _tensors_of(net)
    missing = [name for name in result.missing_keys if not name.endswith(OLDER)]
    lost = set(missing)
    return [name for name in missing if set(groups.get(name, [name])) <= lost], list(
        result.unexpected_keys
    )


def _tensors_of(net: "nn.Module") -> dict[str, list[str]]:
    """For each name all names of the same tensor."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in net.state_dict().items():
        own = (tensor.data_ptr(), tensor.shape, tensor.stride()) if _has_place(tensor) else name
        groups.setdefault(own, []).append(name)
    return {name: names for names in groups.values() for name in names}


def _has_place(tensor: Any) -> bool:
    import torch

    return (
        isinstance(tensor, torch.Tensor)
        and not torch.nn.parameter.is_lazy(tensor)
        and tensor.numel() > 0
    )


def _one_in_two_names(net: "nn.Module", weights: "dict[str, Tensor]") -> list[str]:
    """Pairs of names that are one tensor in the network and two in the file."""
    import torch

    pairs = []
    for name, names in _tensors_of(net).items():
        first = next((other for other in names if other in weights), name)
        one, other = weights.get(first), weights.get(name)
        if one is None or other is None or one is other:
            continue
        if not torch.allclose(one.double(), other.double(), 0, 0, equal_nan=True):
            pairs.append(f"{first} and {name}")
    return pairs


def _near(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1)
    return f", near {near[0]}" if near else ""
