"""The networks of a study: what they are called, what they give, and how they were before training."""

import copy
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.data import Dataset
from npk.errors import DataError, OptionError
from npk.gates.recording import place_of
from npk.networks.given import as_network, only_tensor
from npk.results import NetworkSummary
from npk.typed import Typed

if TYPE_CHECKING:
    from torch import nn

    from npk.reading.tracing import Trace

Untrained = Callable[[int], "nn.Module"]  # a network like it, from a seed
_BATCH = 256
_SMALL_BATCH = 32  # of a look beside other work, so that it takes no memory to speak of
_NEAR_CHANCE = 0.25  # of the way from chance to 1


@dataclass(frozen=True)
class OwnAccuracy(Typed):
    """How many samples a network itself puts into the right class."""

    accuracy: float  # 0..1
    samples: int
    classes: int
    chance: float  # the accuracy of who knows the classes and not the samples

    @property
    def near_chance(self) -> bool:
        """Whether the network knows little more than who guesses."""
        return self.accuracy - self.chance < _NEAR_CHANCE * (1 - self.chance)

    def __str__(self) -> str:
        right = f"{100 * self.accuracy:.1f} % of {self.samples:,} samples right"
        text = f"the network itself: {right} ({self.classes} classes)"
        if not self.near_chance:
            return text
        return (
            f"{text}. That is not far from chance: are these the samples that it was trained on? Give npk "
            f"what you gave the network: --mean, --std, --resize, --scale-pixels."
        )


def own_accuracy(net: "nn.Module", given: Dataset, most: int | None = None) -> OwnAccuracy | None:
    """The accuracy of a network itself on labelled samples.

    Args:
        net: the network.
        given: samples and labels.
        most: so many of them at most, evenly from all.

    Returns:
        The accuracy; ``None`` where there are no labels or no outputs of their classes, or where
        the network does not take these samples, of which others tell.
    """
    if given.y is None or len(given.classes) < 2:
        return None
    rows = np.linspace(0, len(given) - 1, min(len(given), most or len(given))).astype(int)
    y, classes = given.y[rows], len(given.classes)
    try:
        found = outputs(net, given.X[rows], _SMALL_BATCH)
    except Exception:  # of the network's own code: any kind; who reads the network says why
        return None
    if found.shape[1] != classes and not (found.shape[1] == 1 and classes == 2):
        return None
    counts = np.bincount(y, minlength=classes)
    chance = counts.max() / len(y) if np.count_nonzero(counts) > 1 else 0.0
    right = float((decided(found) == y).mean())
    return OwnAccuracy(right, len(y), classes, max(1 / classes, float(chance)))


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, its name, and what is known of it."""

    net: "nn.Module"
    name: str
    checkpoint: Path | None = None  # None: in memory only
    arch: Callable[[], "nn.Module"] | None = None  # what makes the network around the weights
    untrained: Untrained | None = None  # None: found by :func:`before_training`
    fixed: tuple[str, ...] = ()  # tensors that are coefficients and no weights
    family: str = ""
    kind: str = ""
    curves: Mapping[str, list] = field(default_factory=dict)
    reused: bool = False

    @property
    def stem(self) -> str:
        """The name as that of a file."""
        return re.sub(r"[^\w.=+-]+", "-", self.name).strip("-.") or "network"

    def summary(self, bias: str, untrained: str, place: str) -> NetworkSummary:
        """What a page says of it."""
        kind = self.kind or str(getattr(self.net, "architecture", {}).get("kind", ""))
        return NetworkSummary(
            name=self.name,
            family=self.family,
            kind=kind,
            description=described(self.net),
            parameters=sum(p.numel() for p in self.net.parameters()),
            checkpoint=place,
            bias=bias,
            untrained=untrained,
            curve_train=list(self.curves.get("curve_train", [])),
            curve_validation=list(self.curves.get("curve_validation", [])),
            reused=self.reused,
        )


def as_subjects(nets: Any, names: Sequence[str] | None) -> tuple[Subject, ...]:
    """The networks of a call.

    Args:
        nets: a network, several in a list, or a mapping from names to networks; a Subject is taken
            as it is.
        names: of the networks; ``None``: "network", or "network 1", "network 2", ...

    Returns:
        The subjects, with names of their own.

    Raises:
        OptionError: no network, something else, or not as many different names.
    """
    if isinstance(nets, Mapping):
        names, nets = list(nets) if names is None else names, list(nets.values())
    several = isinstance(nets, list | tuple)
    given: list[Any] = list(nets) if several else [nets]
    if not given:
        raise OptionError("there is no network to study. Give one, or a list of them.")
    if names is None and not all(isinstance(one, Subject) for one in given):
        names = [f"network {i + 1}" for i in range(len(given))] if several else ["network"]
    if names is None:
        names = [one.name for one in given]
    names = [names] if isinstance(names, str) else [str(name) for name in names]
    if len(names) != len(given) or len(set(names)) != len(names) or not all(names):
        what = f"names are {names} for {len(given)} networks"
        raise OptionError(f"{what}. Give each network a name of its own.")
    return tuple(_subject(one, name) for one, name in zip(given, names, strict=True))


def _subject(one: Any, name: str) -> Subject:
    return one if isinstance(one, Subject) else Subject(as_network(one).eval(), name)


def described(net: "nn.Module") -> str:
    """A network in one line."""
    from npk.networks import describe

    if isinstance(getattr(net, "architecture", None), dict):
        return describe(net)
    return f"{type(net).__name__}, {sum(p.numel() for p in net.parameters()):,} parameters"


def before_training(subject: Subject) -> tuple[Untrained | None, str]:
    """How the network is made anew.

    Args:
        subject: the network.

    Returns:
        What makes it from a seed, and the words for it; or ``None``, and why there is none.
    """
    make, how = _made_anew(subject)
    if make is None or not subject.fixed:
        return make, how
    return lambda seed: _holding(make(seed), subject), f"{how}; fixed coefficients as they are"


def _holding(net: "nn.Module", subject: Subject) -> "nn.Module":
    """The network with the fixed coefficients of another, which no training has made."""
    import torch

    own = dict(itertools.chain(subject.net.named_parameters(), subject.net.named_buffers()))
    with torch.no_grad():
        for name, tensor in itertools.chain(net.named_parameters(), net.named_buffers()):
            if name in own and any(fnmatchcase(name, pattern) for pattern in subject.fixed):
                tensor.copy_(own[name])
    return net


def _made_anew(subject: Subject) -> tuple[Untrained | None, str]:
    if subject.untrained is not None:
        return subject.untrained, "made anew by the function that was given"
    made = getattr(subject.net, "architecture", None)
    if isinstance(made, dict):
        from npk.networks import build

        return lambda seed: build(**{**made, "seed": seed}), "built anew from its description"
    if subject.arch is not None:
        arch = subject.arch
        return lambda seed: _seeded(arch, seed), "made anew by what --arch names"
    owners = [part for part in subject.net.modules() if part._parameters]
    without = [part for part in owners if not callable(getattr(part, "reset_parameters", None))]
    if without or not owners:
        what = (
            f"{type(without[0]).__name__} has no reset_parameters" if without else "no parameters"
        )
        return None, f"{what}: give untrained=, or --arch"
    return lambda seed: _seeded(lambda: _reset(subject.net), seed), "parameters drawn anew"


def _seeded(make: Callable[[], "nn.Module"], seed: int) -> "nn.Module":
    """A network whose initial weights come from the seed; torch's random state stays."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def _reset(net: "nn.Module") -> "nn.Module":
    """A copy with the initial weights of its own modules."""
    fresh: Any = copy.deepcopy(net)
    for part in fresh.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return fresh


def outputs(net: "nn.Module", X: np.ndarray, together: int = _BATCH) -> np.ndarray:
    """What a network gives for samples, ``(n, outputs)``.

    Raises:
        DataError: values that are not finite.
    """
    import torch

    first = next(iter([*net.parameters(), *net.buffers()]), torch.zeros(()))
    parts = []
    with torch.no_grad():
        for i in range(-(-len(X) // together)):
            batch = torch.tensor(X[i * together : (i + 1) * together], device=first.device)
            parts.append(only_tensor(net(batch.to(first.dtype))).double().cpu())
    found = torch.cat(parts).reshape(len(X), -1).numpy()
    if not np.isfinite(found).all():
        raise DataError(
            "the network gives NaN or infinite values. Are its weights finite, and X of the size "
            "it was trained on?"
        )
    return found


def check_outputs(subject: Subject, given: np.ndarray, classes: tuple[str, ...]) -> None:
    """Refuse a network that tells other classes apart than the labels.

    Args:
        subject: the network.
        given: some of its outputs.
        classes: names of the classes.

    Raises:
        DataError: another number of outputs than classes; one output is enough for two.
    """
    width = given.shape[1]
    if width != len(classes) and not (width == 1 and len(classes) == 2):
        what = f"{subject.name} has {width} outputs, and the labels have {len(classes)} classes"
        raise DataError(
            f"{what}. Give labels of the classes that it was trained for, or choose an output with "
            f"--output."
        )


def decided(given: np.ndarray) -> np.ndarray:
    """The class of each row of outputs; one output is positive for the second class."""
    return (given[:, 0] > 0).astype(int) if given.shape[1] == 1 else given.argmax(1)


def penultimate(trace: "Trace", X: np.ndarray) -> np.ndarray | None:
    """What the last layer of weights reads: its input, flat; averaged over positions where the last
    layer is a convolution.

    Args:
        trace: of the network.
        X: samples.

    Returns:
        ``(n, features)``; ``None`` where the network has no layer of weights behind another.
    """
    from npk.reading.apart import thread_of_its_own

    program = _up_to_features(trace)
    if program is None:
        return None
    import torch

    device, dtype = place_of(trace)

    def run(part: np.ndarray) -> np.ndarray:
        batch = torch.tensor(part, device=device).to(dtype)
        found = program.forward(batch).double().cpu()
        return (found.flatten(2).mean(2) if found.ndim > 2 else found).numpy()

    parts = np.array_split(X, -(-len(X) // _BATCH))
    with thread_of_its_own() as quietly:
        return np.concatenate([quietly(run, part) for part in parts])


def _up_to_features(trace: "Trace") -> Any:
    """The program, ended before its last layer of weights."""
    from torch import fx

    from npk.reading.exported import is_batched

    names = [node.name for node in trace.graph.nodes if node.operator.parameters]
    if len(names) < 2:
        return None
    graph = fx.Graph()
    copies = graph.graph_copy(trace.program.graph, memory := {})
    del copies
    by_name = {node.name: node for node in trace.program.graph.nodes}
    last = by_name.get(names[-1].split(".")[0])
    inputs = [node for node in last.all_input_nodes if _computed(node, is_batched)] if last else []
    if not inputs:
        return None
    graph.output(memory[inputs[0]])
    graph.eliminate_dead_code()
    return fx.GraphModule(trace.program, graph)


def _computed(node: Any, is_batched: Callable[[Any], bool]) -> bool:
    return node.op != "get_attr" and "val" in node.meta and is_batched(node)
