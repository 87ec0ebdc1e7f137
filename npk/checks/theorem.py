r"""The lesion theorem, measured: random weights, gates held, one block left out.

.. math:: \frac{E\,|f - f_{\text{without block } k}|^2}{E\,|f|^2} = \text{share of } K \text{ that passes block } k .
"""

import numpy as np

from npk.checks.ensemble import through_blocks
from npk.checks.tangent import limit_of
from npk.definition.value_network import ValueNetwork, random_weights
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import KernelOptions
from npk.graph.parts import blocks_of, without_block
from npk.progress import Progress, Silent
from npk.results import RandomLesion

_GROUPS = 20  # of draws: their means have lighter tails than the draws


def lesion_theorem(
    table: GateTable, draws: int = 400, seed: int = 0, progress: Progress | None = None
) -> tuple[tuple[RandomLesion, ...], float]:
    """Draw weights, and leave out what each block adds.

    Args:
        table: gates of a few samples in a network with additions.
        draws: random weights, at least 40.
        seed: of the draws.
        progress: where it is told.

    Returns:
        A lesion a block, from the input on; and how many standard errors the worst one of right
        lesions exceeds once in 100,000 runs. Nothing for samples without any active path.
    """
    blocks, rng = len(blocks_of(table.graph)), np.random.default_rng(seed)
    asked = KernelOptions(dtype="float64", bias="ignore")  # no bias is drawn
    whole = NeuralPathKernel(None, dtype="float64", bias="ignore", progress=False)(table)
    if not blocks or not np.trace(whole) > 0:
        return (), 0.0
    predicted = np.array([np.trace(part) for part in through_blocks(table, asked, whole)])
    predicted /= np.trace(whole)
    networks = [ValueNetwork(table), *(_left(table, block + 1) for block in range(blocks))]
    squares = np.zeros((_GROUPS, 1 + blocks))
    with (progress or Silent()).task("random weights", draws) as advance:
        for draw in range(draws):
            weights = random_weights(table.graph, rng)
            f, *left = (network(weights) for network in networks)
            squares[draw % _GROUPS] += [np.square(f - g).sum() for g in (0 * f, *left)]
            advance(1)
    measured = squares[:, 1:].sum(0) / squares[:, 0].sum()
    # of a ratio of two means
    off = squares[:, 1:] - measured * squares[:, :1]
    error = off.std(0, ddof=1) / _GROUPS**0.5 / squares[:, 0].mean()
    rows = zip(predicted.tolist(), measured.tolist(), error.tolist(), strict=True)
    found = tuple(RandomLesion(block, *row) for block, row in enumerate(rows, 1))
    return found, limit_of(blocks, _GROUPS)


def _left(table: GateTable, block: int) -> ValueNetwork:
    graph = without_block(table.graph, block)
    return ValueNetwork(GateTable(graph, table.inputs, table.entries))
