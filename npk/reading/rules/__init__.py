"""How each exported operator is read: one rule an operator, from a traced node to nodes of the path
graph, or a refusal.

To teach npk an operator, write its rule and add it to ``RULES``. Those that gate have a table of their
own in ``gates.py``.
"""

from collections.abc import Callable
from typing import Any

from torch import fx

from npk.reading.builder import Builder
from npk.reading.exported import CASTS, NUMBER, ORDERED, SAME, constant_behind, is_tensor, name_of
from npk.reading.rules import gates, layers, pools, sums
from npk.reading.rules.moves import MAX_POOLS, MOVES, ONES, ZEROS, move, tensors_among, unpadded
from npk.reading.units import Layout

Value = Layout | tuple[Layout, ...]
Rule = Callable[[Builder, fx.Node, list[Any]], Value]
_SUMS = ("add", "add_", "sub", "sub_", "rsub")
_PRODUCTS = ("mul", "mul_", "div", "div_")
_DROPOUTS = "dropout native_dropout feature_dropout alpha_dropout feature_alpha_dropout".split()


def carriers_of(node: fx.Node) -> list[fx.Node]:
    """The arguments of a node that carry paths."""
    name = "input" if node.op == "placeholder" else name_of(node)
    if name in ("input", "get_attr", *ONES, *ZEROS) or NUMBER in node.meta:
        return []
    if name in (*MOVES, *ORDERED):
        return tensors_among(node)
    if name in (*_SUMS, *_PRODUCTS):
        factor = gates.factor_of(node) if name in _PRODUCTS else None
        return [
            a for a in node.args[:2] if is_tensor(a) and not constant_behind(a) and a is not factor
        ]  # type: ignore[misc]
    first = unpadded(node)[0] if name in MAX_POOLS else node.args[0] if node.args else None
    return [first] if isinstance(first, fx.Node) else []


def rule_of(node: fx.Node) -> Rule | None:
    """The rule by which a node is read; what is a number for every sample is read as one."""
    if NUMBER in node.meta:
        return layers.constant_number
    return RULES.get("input" if node.op == "placeholder" else name_of(node))


RULES: dict[str, Rule] = {
    "input": layers.input_values,
    "get_attr": layers.constant_tensor,
    **dict.fromkeys(ONES, layers.constant_number),
    **dict.fromkeys(ZEROS, layers.zeros),
    **dict.fromkeys(SAME, layers.same),
    **dict.fromkeys(CASTS, layers.cast),
    "getitem": layers.item,
    **dict.fromkeys(_DROPOUTS, layers.dropout),
    **dict.fromkeys((*ORDERED, *MOVES), move),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), layers.convolution),
    **dict.fromkeys((f"conv_transpose{rank}d" for rank in (1, 2, 3)), layers.transposed),
    "linear": layers.linear,
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "batch_norm"), layers.batch_norm),
    **gates.RULES,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), pools.average),
    **dict.fromkeys(MAX_POOLS, pools.maximum),
    **dict.fromkeys((f"adaptive_avg_pool{rank}d" for rank in (1, 2, 3)), pools.adaptive_average),
    **dict.fromkeys((f"adaptive_max_pool{rank}d" for rank in (1, 2, 3)), pools.adaptive_maximum),
    **dict.fromkeys(("mean", "sum", "amax", "max"), pools.reduction),
    **dict.fromkeys(_SUMS, sums.sum_of),
    **dict.fromkeys(_PRODUCTS, sums.product),
    "neg": sums.negative,
}
