"""NASWOT: how well the gates tell samples apart."""

import numpy as np

from npk.errors import DataError
from npk.gates.table import GateTable, ones_in
from npk.measures.given import Floats, Gates, blocks, checked_table, refuse_soft

_NAMED = 6  # samples that a message names, at most


def naswot(table: Gates) -> float:
    r"""The logarithm of the determinant of how alike the gates of samples are.

    .. math:: \log \det \sum_l \big( G_l G_l^\top + (1 - G_l)(1 - G_l)^\top \big)

    Args:
        table: hard gates of n samples, in memory or in a store. The score grows with n: compare
            networks on the same samples.

    Returns:
        The score: high where no two samples have nearly the same gates.

    Raises:
        DataError: no gate table; or the determinant is 0: samples with the same gates, dead ones
            among them, more samples than gates, or gates of samples that follow from those of
            others. The message names them.
        OptionError: soft gates, which are neither on nor off.

    References:
        Mellor, Turner, Storkey and Crowley, *Neural architecture search without training*, ICML
        2021.
    """
    alike = agreement(table)
    units = int(alike[0, 0])
    if len(again := _repeated(alike)):
        raise DataError(_same_gates(table, alike, again))
    if len(alike) > units + 1:
        what = f"there are {len(alike)} samples and {units} gates"
        raise DataError(f"NASWOT is log 0: {what}. Give at most {units + 1} samples.")
    values = np.linalg.eigvalsh(alike)
    # whole numbers: what is below their rounding is 0
    if values[0] <= len(alike) * np.finfo(np.float64).eps * values[-1]:
        rank = int((values > len(alike) * np.finfo(np.float64).eps * values[-1]).sum())
        what = f"the gates of {len(alike)} samples have rank {rank}: some follow from others"
        raise DataError(f"NASWOT is log 0: {what}. Give fewer samples, or those of more gates.")
    return float(np.log(values).sum())


def agreement(table: Gates) -> Floats:
    r"""Of each pair of samples, the number of gates that are on for both or off for both.

    .. math:: \sum_l \big( G_l G_l^\top + (1 - G_l)(1 - G_l)^\top \big)

    Args:
        table: hard gates of n samples, in memory or in a store.

    Returns:
        (n, n) whole numbers as float64: all gates less the bits that differ, counted in words of
        64.

    Raises:
        DataError: no gate table, or one without samples or gate layers.
        OptionError: soft gates.
    """
    refuse_soft(checked_table(table), "NASWOT")
    units = sum(int(np.prod(table.entries[name].shape)) for name in table.names)
    alike = np.full((len(table), len(table)), float(units))
    for rows, (part,) in blocks(table):
        words = _words(part)
        for cols, (others,) in blocks(table):
            there = _words(others)
            for i, row in enumerate(words, rows.start):
                alike[i, cols] -= ones_in(row ^ there).sum(1)
            if cols == rows:
                break
            alike[cols, rows] = alike[rows, cols].T
    return alike


def duplicates(table: Gates) -> np.ndarray:
    """Samples that have all gates in common with an earlier one.

    Args:
        table: hard gates of n samples, in memory or in a store.

    Returns:
        Their numbers, ascending: ``table.take(np.setdiff1d(np.arange(len(table)), duplicates))``
        is a table without them.

    Raises:
        DataError: no gate table, or one without samples or gate layers.
        OptionError: soft gates.
    """
    return _repeated(agreement(table))


def _repeated(alike: Floats) -> np.ndarray:
    return np.flatnonzero(np.tril(alike == alike[0, 0], -1).any(1))


def _words(part: GateTable) -> np.ndarray:
    """All layers of a sample in a row, ``(n, words)``."""
    return np.hstack([part.entries[name].data.reshape(len(part), -1) for name in part.names])


def _same_gates(table: Gates, alike: Floats, again: np.ndarray) -> str:
    """Which samples are alike, and which of them are dead."""
    firsts = (alike[again] == alike[0, 0]).argmax(1)
    pairs = [f"{j} as {i}" for i, j in zip(firsts, again, strict=True)]
    named = np.unique([firsts, again])
    dead = [i for i in named if not any(gates.any() for gates in table.take(slice(i, i + 1)))]
    off = f"; no gate is on for {_some(list(map(str, dead)))}" if dead else ""
    what = f"{len(again)} samples have all gates of an earlier one: {_some(pairs)}{off}"
    return f"NASWOT is log 0: {what}. Leave out those that npk.measures.duplicates(table) names."


def _some(words: list[str]) -> str:
    return ", ".join(words[:_NAMED]) + (", ..." if len(words) > _NAMED else "")
