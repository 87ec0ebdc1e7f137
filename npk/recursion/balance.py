"""Samples of any size brought to one size, by powers of two, which change no bit of a kernel but
its exponent.

What every path passes equally often may be multiplied by a number of its own for each sample: the
input where no path starts at a constant, a layer of soft gates that no skip goes around. K(x, x')
is then the balanced kernel times 2**(power of x + power of x').
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from npk.gates.device_table import DeviceGates
from npk.gates.table import GateTable
from npk.recursion.masks import Factor
from npk.recursion.steps import Field, Recursion, Term

if TYPE_CHECKING:
    import torch

_COMFORTABLE = 8  # powers of two that a sample may be away from 1 before it is multiplied
_INPUT = "input"  # key of the samples; gates go by ("gate", name)
Table = TypeVar("Table", GateTable, DeviceGates)


@dataclass(frozen=True)
class Balance:
    """How often each path passes what may be multiplied: the ``input``, and soft ``gates`` by name;
    0: not equally often on all paths.
    """

    input: int
    gates: dict[str, int]

    def powers_of(self, table: GateTable | DeviceGates) -> dict[str, np.ndarray]:
        """Power of two of each sample, ``(n,)``, for what has to be multiplied; ``_INPUT`` stands
        for the samples.
        """
        found = {_INPUT: _powers(table.inputs)} if self.input else {}
        found |= {
            name: _powers(table.entries[name].data)
            for name in self.gates
            if table.entries[name].kind == "soft"
        }
        return {name: powers for name, powers in found.items() if powers.any()}

    def balanced(self, table: Table) -> tuple[Table, np.ndarray]:
        """A table whose samples have one size.

        Args:
            table: gates and samples.

        Returns:
            The table (the same one where nothing has to be done), and the power of two of each
            sample, ``(n,)``.
        """
        total, found = np.zeros(len(table), np.int64), self.powers_of(table)
        if not found:
            return table, total
        inputs, entries = table.inputs, dict(table.entries)
        for name, powers in found.items():
            if name == _INPUT:
                inputs, times = _divided(inputs, powers), self.input
            else:
                entries[name] = replace(entries[name], data=_divided(entries[name].data, powers))
                times = self.gates[name]
            total += times * powers
        _wait_for(inputs)
        return replace(table, inputs=inputs, entries=entries), total


def balance_of(recursion: Recursion) -> Balance:
    """What every path of a recursion passes equally often.

    Args:
        recursion: the plan.

    Returns:
        The counts.
    """
    passed: list[Counter[str]] = []
    uneven: set[str] = set()
    for step in recursion.steps:
        if isinstance(step, Field):
            met = passed[step.collapse]
            uneven |= set(met) if step.bias else set()  # the constant has passed nothing
        else:
            counts = [
                _met(recursion, term, passed) for term in step.terms if (term.cells >= 0).any()
            ]
            met: Counter[str] = counts[0] if counts else Counter()
            uneven |= {key for count in counts for key in {*count, *met} if count[key] != met[key]}
        passed.append(met)
    kept = {key: count for key, count in passed[-1].items() if key not in uneven}
    return Balance(
        kept.pop(_INPUT, 0), {key.removeprefix("gate "): count for key, count in kept.items()}
    )


def _met(recursion: Recursion, term: Term, passed: list[Counter[str]]) -> Counter[str]:
    """What the paths of a term have passed: up to its field, and in its mask."""
    factors = () if term.mask is None else recursion.masks[term.mask].factors
    before = Counter[str]() if term.field is None else passed[term.field]
    return before + Counter(key for factor in factors if (key := _key(factor)))


def _key(factor: Factor) -> str:
    return {"input": _INPUT, "gate": f"gate {factor.name}"}.get(factor.kind, "")


def _powers(values: "np.ndarray | torch.Tensor") -> np.ndarray:
    """Exponent of the largest value of each sample; 0 for samples of comfortable size, and for
    those that are all 0.
    """
    if values.dtype in (np.uint8, np.uint64, bool):
        return np.zeros(len(values), np.int64)
    flat = values.reshape(len(values), -1)
    if isinstance(flat, np.ndarray):
        if _is_comfortable(flat):
            return np.zeros(len(flat), np.int64)
        largest = np.maximum(flat.max(1), -flat.min(1))
    else:
        largest = flat.abs().amax(1).double().cpu().numpy()
    powers = np.frexp(largest)[1].astype(np.int64)
    return np.where((np.abs(powers) <= _COMFORTABLE) | (largest == 0), 0, powers)


def _is_comfortable(flat: np.ndarray) -> bool:
    """Whether the sums of squares say already that every sample is of comfortable size: they lie
    between the square of the largest value and ``width`` times that, and take a fraction of the time.
    """
    squares, most = np.einsum("ij,ij->i", flat, flat), 4.0 ** (_COMFORTABLE - 1)
    return bool(((squares >= flat.shape[1] / most) & (squares <= most)).all())


def _divided(
    values: "np.ndarray | torch.Tensor", powers: np.ndarray
) -> "np.ndarray | torch.Tensor":
    """Values divided by 2**powers, sample by sample, in float64: nothing is lost."""
    shape = (-1, *[1] * (values.ndim - 1))
    if isinstance(values, np.ndarray):
        return np.ldexp(values.astype(np.float64), -powers.reshape(shape))
    wide = values.double()
    for part in (-powers // 2, -powers - -powers // 2):  # 2**1074 itself is too large for a number
        wide = wide * wide.new_tensor(np.ldexp(1.0, part)).reshape(shape)
    return wide


def _wait_for(inputs: "np.ndarray | torch.Tensor") -> None:
    """Masks are formed in other streams of a device than torch's current one."""
    if not isinstance(inputs, np.ndarray) and inputs.is_cuda:
        import torch

        torch.cuda.synchronize(inputs.device)
