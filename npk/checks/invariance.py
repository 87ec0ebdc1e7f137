"""Invariance: which motions of the input leave the kernel alone, predicted by structure and measured.

Where layers are circular, of stride 1, and the read-out is global, all circular shifts do; strides,
pools, padding and read-outs leave fewer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.checks.groups import Element, Family, Group, Shifts, family
from npk.checks.levels import Levels, Measurement, curves, mean_of
from npk.choices import BiasName, GatesName, ValueInputName, bias_words
from npk.errors import DataError
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import KernelOptions, Promise
from npk.progress import Progress, Silent, as_progress
from npk.results import CheckResult, InvarianceCase, InvarianceDetails, Moved
from npk.samples import as_samples
from npk.structure.motions import Motion, Shift
from npk.structure.prediction import Prediction
from npk.typed import finite

if TYPE_CHECKING:
    import torch

_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

_ROUNDING = 1e-4  # share of gates that may flip because a pre-activation is within rounding of 0
_NAMED = 3  # elements that are listed by name


def check_invariance(
    net: "torch.nn.Module",
    X: np.ndarray,
    shifts: Shifts = "auto",
    *,
    group: Group = "circular",
    bias: BiasName = "auto",
    gates: GatesName = "auto",
    value_input: ValueInputName = "auto",
    fixed: str | Sequence[str] = (),
    seed: int = 0,
    progress: bool | Progress = False,
    name: str = "network",
    label: str = "",
) -> CheckResult:
    r"""Measure :math:`K(g x, x')` against :math:`K(x, x')` for the elements g of a group, beside what structure promises.

    Elements are circular shifts ("rotations" in the papers), shifts that fill with zeros,
    reflections, turns by 90 degrees, or any permutation of positions and any function of samples
    that you give. What the structure of the network promises is read off its path graph
    (``npk.structure``); of a function it tells nothing, and then all elements are taken for
    promised.

    Args:
        net: a network in eval mode.
        X: images ``(n, channels, *positions)``; a few suffice.
        shifts: of groups of shifts: "auto" (all where they are at most 256, else so many that are
            drawn), "all", how many to draw, or shifts as tuples with one number an axis.
        group: "circular", "filled", "reflections", "turns", "dihedral" (turns and reflections), or
            a dictionary: permutations of the positions (position i shows ``places[i]``) and
            functions of samples, by name.
        bias: "auto" (paths where the network has biases), "paths" or "ignore"; a bias is the same at
            all positions, and the promise holds for either.
        gates: "hard", "soft" or "auto".
        value_input: "x", "ones" or "auto".
        fixed: names of tensors that are coefficients and no weights, as in :func:`npk.trace`.
        seed: of the elements that are drawn.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.
        name: what the report calls the network.
        label: what the figure calls the case; the name if empty.

    Returns:
        ``passed``: every element that structure promises leaves the kernel alone.
        ``measured``: worst difference of those, relative to the root of the diagonals, in float64.
            Moved samples in which at most one gate in 10,000 (or a single one) flipped are left out
            of it and counted apart (``rounding``): there a pre-activation lies within rounding of 0.
        ``details``: a :class:`npk.results.InvarianceDetails` with one case: for each element how far
            samples, gates of each layer, kernel and output move; the same against distance, with
            intervals over samples; elements beyond the promise, and a summary in a line.

    Raises:
        DataError: samples without positions, or a function that makes no samples of them.
        OptionError: a group, shifts or another option that is not known, or does not fit.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    X = as_samples(X)
    if X.ndim < 3:
        raise DataError(
            f"X has shape {X.shape}, which has no positions to shift. Give images (n, "
            f"channels, height, width)."
        )
    options = KernelOptions(dtype="float64", bias=bias, gates=gates, value_input=value_input)
    kernel = NeuralPathKernel.of(net, Engine(options, Promise(), Silent()), fixed)
    prediction = Prediction(kernel.trace(X.shape[1:]))
    chosen = family(group, X.shape[2:], shifts, prediction.keeps, seed)
    measurement = Measurement(kernel, prediction, X)
    levels = measurement.of(chosen.elements, as_progress(progress))
    tolerance = _TOLERANCE[_numbers(net)]
    case = _case(label or name, chosen, levels, (measurement, tolerance))
    passed = case.holds == case.inside > 0
    words = bias_words(options.settled(prediction.graph).bias)
    statement = f"K(g x, x') = K(x, x') for {chosen.title} g, {words}. {_sentence(case.summary)}"
    details = InvarianceDetails((case,))
    return CheckResult("invariance", name, statement, passed, case.worst_inside, tolerance, details)


def _numbers(net: "torch.nn.Module") -> str:
    """The type of number whose rounding decides the tolerance."""
    import torch

    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    return "float64" if dtype == torch.float64 else "float32"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _case(
    label: str, chosen: Family, levels: Levels, under: tuple[Measurement, float]
) -> InvarianceCase:
    """All that is told of one network."""
    measurement, tolerance = under
    inside = np.array([kept is not False for kept in levels.predicted])
    gates_each = sum(
        int(np.prod(measurement.table.entries[name].shape)) for name in measurement.table.names
    )
    few = (levels.flips > 0) & (levels.flips <= max(1, _ROUNDING * gates_each))
    left_out = few & inside[:, None]
    worst = np.where(left_out, 0.0, levels.kernel).max(1)
    still = (worst <= tolerance) & ~left_out.all(1)
    beyond = levels.kernel[~inside].max(1)
    counts = {
        "inside": int(inside.sum()),
        "holds": int((inside & still).sum()),
        "outside": int((~inside).sum()),
        "also": int((beyond <= tolerance).sum()),
        "flips": int(levels.flips[inside].sum()),
        "rounding": int(left_out.sum()),
        "gates": gates_each * int(inside.sum()) * len(measurement.X),
    }
    sizes: dict[str, Any] = {
        "worst_inside": finite(float(worst[inside].max(initial=0.0))),
        "outside_median": finite(float(np.median(beyond))) if len(beyond) else None,
        "outside_worst": finite(float(beyond.max())) if len(beyond) else None,
    }
    predicted = _predicted(chosen, levels, measurement.prediction)
    return InvarianceCase(
        label=label,
        group=chosen.title,
        size=chosen.size,
        predicted=predicted,
        reasons=_reasons(chosen, levels, measurement.prediction),
        layers=tuple(measurement.table.names),
        moved=tuple(
            _moved(levels, number, element) for number, element in enumerate(chosen.elements)
        ),
        curves=curves(levels, chosen.elements, measurement.table.names),
        summary=_summary(predicted, {**counts, **sizes}, (chosen, tolerance)),
        **counts,
        **sizes,
    )


def _moved(levels: Levels, number: int, element: Element) -> Moved:
    return Moved(
        name=element.name,
        by=tuple(element.by) if isinstance(element, Shift) else (),
        distance=float(element.distance),
        predicted=levels.predicted[number],
        input=mean_of(levels.input[number]),
        gates=tuple(mean_of(layer) for layer in levels.gates[number]),
        kernel=finite(float(levels.kernel[number].max())),
        output=mean_of(levels.logits[number]),
        labels=None if levels.outputs == 1 else mean_of(levels.labels[number]),
    )


def _predicted(chosen: Family, levels: Levels, prediction: Prediction) -> str:
    """What structure promises, in a few words."""
    known = [kept for kept in levels.predicted if kept is not None]
    if not known:
        return ""
    elements = chosen.elements
    as_said = [
        prediction.keeps(element) == kept
        for element, kept in zip(elements, levels.predicted, strict=True)
        if isinstance(element, Motion) and kept is not None
    ]
    if chosen.title == "circular shifts" and all(as_said):
        return prediction.shifts.words
    if all(known):
        return "all shifts" if isinstance(elements[0], Shift) else "all of them"
    named = [
        element.name
        for element, kept in zip(elements, levels.predicted, strict=True)
        if kept and not element.is_identity
    ]
    if not named:
        return "the identity alone"
    return ", ".join(named) if len(named) <= _NAMED else f"{len(named)} beside the identity"


def _reasons(chosen: Family, levels: Levels, prediction: Prediction) -> tuple[str, ...]:
    """What breaks the others."""
    outside = [why for why in levels.why if why]
    if outside or all(kept is not False for kept in levels.predicted):
        return tuple(dict.fromkeys(outside))
    if chosen.title == "circular shifts":
        return prediction.shifts.reasons
    broken = (
        element
        for element, kept in zip(chosen.elements, levels.predicted, strict=True)
        if kept is False and isinstance(element, Motion)
    )
    return tuple(filter(None, (prediction.reason(next(broken)),)))


def _summary(
    predicted: str, facts: dict[str, int | float | None], under: tuple[Family, float]
) -> str:
    """Prediction and measurement in a line."""
    chosen, _ = under
    parts = [f"predicted: {predicted or 'nothing, for structure does not tell'}"]
    parts += [
        f"holds on {facts['holds']} of {facts['inside']}, worst {_size(facts['worst_inside'])}"
    ]
    if facts["outside"]:
        size, worst = _size(facts["outside_median"]), _size(facts["outside_worst"])
        also = f", {facts['also']} hold too" if facts["also"] else ""
        parts += [f"outside ({facts['outside']}): median {size}, worst {worst}{also}"]
    if facts["rounding"]:
        parts += [f"{facts['rounding']} moved samples left out, with gates within rounding of 0"]
    if len(chosen.elements) < chosen.size:
        parts += [f"{len(chosen.elements)} of {chosen.size} looked at"]
    return "; ".join(parts)


def _size(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2g}"
