"""An exported program in operators with rules: other spellings are made plain, in this order."""

from torch import fx

from npk.reading.plain.constants import fold
from npk.reading.plain.products import as_layers
from npk.reading.plain.rewriting import in_evaluation, in_plain_names
from npk.reading.plain.spellings import spell_out
from npk.reading.plain.value_starts import repeat_starts


def in_plain_operators(program: fx.GraphModule, read: set[str]) -> dict[str, frozenset[str]]:
    """Rewrite a program; it computes what it did.

    Args:
        program: exported; it is changed.
        read: takes the names of the tensors whose values are now in the program.

    Returns:
        For the name of each tensor that is computed from parameters alone, which ones.
    """
    in_plain_names(program)
    in_evaluation(program)
    repeat_starts(program)
    as_layers(program)
    leaves = fold(program, read)
    spell_out(program, leaves, read)
    program.graph.eliminate_dead_code(_stays)
    program.recompile()
    return leaves


def _stays(node: fx.Node) -> bool:
    """Also a tensor that nothing reads: it may be the first name of a tied one."""
    return node.op == "get_attr" or node.is_impure()
