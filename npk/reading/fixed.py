"""Which tensors of a network are fixed coefficients of its paths, and no weights: those that the
user says.

A blur filter in a buffer is a tensor like any other: npk cannot know that it never learns. Declared
as fixed, it enters the kernel with the values that it has.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import fx

from npk.errors import OptionError
from npk.graph.node import PathNode
from npk.reading.memory import is_one

_SHOWN = 12  # names that a message lists
_REMEDY = "Name filters of depthwise convolutions, or tensors that values are multiplied by"


class Fixed:
    """The declared tensors of one program.

    Args:
        patterns: as :func:`npk.choices.as_patterns` gives them.
        program: whose tensors they name.
        leaves: for the name of each computed tensor, what it is computed from.

    Raises:
        OptionError: a pattern that fits no name.
    """

    def __init__(
        self,
        patterns: tuple[str, ...],
        program: fx.GraphModule,
        leaves: Mapping[str, frozenset[str]],
    ) -> None:
        self.patterns, self.leaves = patterns, leaves
        self.used: set[str] = set()  # names of coefficients that a rule has read
        self.tensors = dict(
            [
                *program.named_parameters(remove_duplicate=False),
                *program.named_buffers(remove_duplicate=False),
            ]
        )
        own = sorted(self.tensors.keys() - leaves.keys())
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in own):
                more = ", …" if len(own) > _SHOWN else ""
                raise OptionError(
                    f"fixed={pattern!r} fits no parameter or buffer of the network. It has "
                    f"{', '.join(own[:_SHOWN]) or 'none'}{more}."
                )

    def holds(self, name: str) -> bool:
        """Whether a tensor is declared, or computed of nothing but declared ones; under any of its
        names.
        """
        if name in self.leaves:
            return all(map(self.holds, self.leaves[name]))
        tensor = self.tensors.get(name)
        names = [n for n, other in self.tensors.items() if n == name or is_same(tensor, other)]
        return any(fnmatchcase(n, pattern) for n in names for pattern in self.patterns)

    def use(self, name: str) -> None:
        """Note that a rule took the values of a tensor."""
        self.used |= {name, *self.leaves.get(name, ())}

    def refuse_others(self, nodes: Sequence[PathNode]) -> None:
        """See that every declared tensor became a coefficient.

        Args:
            nodes: of the path graph.

        Raises:
            OptionError: a weight or a bias of the graph is declared, or a pattern names nothing
                that values are multiplied by.
        """
        for node in nodes:
            for name in (*node.operator.parameters, *node.operator.biases):
                if self.patterns and self.holds(name):
                    raise OptionError(
                        f"fixed= names {name}, which node {node.name} ({node.source}) has for a "
                        f"{node.operator.words(node.positions)[0]}. {_REMEDY}."
                    )
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in self._names_used()):
                raise OptionError(f"fixed={pattern!r} names nothing on a path. {_REMEDY}.")

    def _names_used(self) -> list[str]:
        used = [self.tensors[name] for name in self.used if name in self.tensors]
        return [n for n, t in self.tensors.items() if any(is_same(t, one) for one in used)]


def is_same(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    """Whether two names stand for one tensor."""
    return one is other or (one is not None and is_one(one, other))
