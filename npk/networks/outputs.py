"""Another output, or another order of the input's axes, for a network that stays as it is."""

import difflib
import re
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from npk.errors import OptionError, UnsupportedGraphError
from npk.networks.given import as_network


class Around(nn.Module):
    """A module that shares all parameters, buffers and children of a network, by the names they
    have there.

    Args:
        net: the network; it is called by ``forward``, and left as it is.
    """

    net: nn.Module

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        # The very dictionaries of the network: torch.export and .to() put tensors into them, and
        # the network must see these.
        self._parameters, self._buffers, self._modules = net._parameters, net._buffers, net._modules
        self._non_persistent_buffers_set = net._non_persistent_buffers_set
        self.__dict__["net"] = net  # no child: names would begin with "net."
        self.training = net.training
        input_shape = getattr(net, "architecture", {}).get(
            "input_shape", getattr(net, "input_shape", None)
        )
        self.input_shape: tuple[int, ...] | None = (
            None if input_shape is None else tuple(input_shape)
        )

    def train(self, mode: bool = True) -> "Around":
        """Train or evaluation mode for the network too."""
        self.net.train() if mode else self.net.eval()  # an exported graph has eval() alone
        self.training = mode
        return self


class ChosenOutput(Around):
    """A network that returns one of its outputs, or the output of one of its modules."""

    def __init__(self, net: nn.Module, output: int | str) -> None:
        super().__init__(net)
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The chosen output for a batch."""
        module = _modules(self.net).get(self.output)
        if module is None:
            value = _entry(self.net, self.net(x), self.output)
        else:
            value = _caught(self.net, x, module, self.output)
        if not isinstance(value, torch.Tensor):
            raise UnsupportedGraphError(
                f"output {self.output!r} of {type(self.net).__name__} is a {type(value).__name__}, "
                f"not a tensor. Choose a part of it."
            )
        return value


class ChannelsFirst(Around):
    """A network for samples (H, W, C) that takes them as (C, H, W)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        if self.input_shape is not None:
            self.input_shape = (*self.input_shape[-1:], *self.input_shape[:-1])

    def forward(self, x: torch.Tensor) -> Any:
        """The output for a batch (n, C, H, W)."""
        return self.net(x.movedim(1, -1))


def choose_output(net: nn.Module, output: int | str) -> nn.Module:
    """A network that returns one tensor of what ``net`` computes: choose a head, or cut off what
    follows a module.

    Args:
        net: any network. It is shared, not copied, and its parameters keep their names.
        output: the number or key of an entry of the tuple, list or dict that ``net`` returns, or
            the name of a submodule (``"fc"``, ``"features.7"``) whose output is taken. A text is
            taken for a submodule if there is one of that name.

    Returns:
        The network with that output, in the mode that ``net`` is in.

    Raises:
        OptionError: ``output`` is neither a number nor a text, or names nothing. Calling the
            network raises :class:`~npk.errors.UnsupportedGraphError` where it has no such entry or
            calls the module never or more than once.
    """
    net = as_network(net)
    if isinstance(output, bool) or not isinstance(output, int | str) or output == "":
        raise OptionError(
            f"output is {output!r}. Give the number or key of an output, or the name "
            f"of a module such as 'fc'."
        )
    if (
        isinstance(output, str)
        and output not in _modules(net)
        and output.removeprefix("-").isdigit()
    ):
        output = int(output)
    # as the ONNX reader names the modules of its nodes
    plain = re.sub(r"\W+", "_", str(output)).strip("_")
    return ChosenOutput(
        net, plain if output not in _modules(net) and plain in _modules(net) else output
    )


def _modules(net: nn.Module) -> dict[int | str, nn.Module]:
    return {name: module for name, module in net.named_modules(remove_duplicate=False) if name}


def _caught(net: nn.Module, x: torch.Tensor, module: nn.Module, name: int | str) -> Any:
    """A copy of a module's output while the network runs: what follows may work in place on it."""
    caught: list[Any] = []
    hook = module.register_forward_hook(
        lambda _module, _inputs, result: caught.append(
            tree_map_only(torch.Tensor, torch.clone, result)
        )
    )
    try:
        net(x)
    finally:
        hook.remove()
    if len(caught) != 1:
        often = "never" if not caught else f"{len(caught)} times"
        raise UnsupportedGraphError(
            f"{type(net).__name__} calls the module {name!r} {often}; its output is not one "
            f"tensor. Choose a module that is called once."
        )
    return caught[0]


def _entry(net: nn.Module, result: Any, output: int | str) -> Any:
    """The entry of what a network returned."""
    entries: dict[Any, Any] = (
        result
        if isinstance(result, dict)
        else dict(enumerate(result))
        if isinstance(result, tuple | list)
        else {}
    )
    if output in entries:
        return entries[output]
    if isinstance(output, int) and len(entries) + output in entries:  # from the end
        return entries[len(entries) + output]
    near = difflib.get_close_matches(
        str(output), [*map(str, entries), *map(str, _modules(net))], n=3, cutoff=0.4
    )
    if entries:
        has = f"returns a {type(result).__name__} with {', '.join(map(repr, list(entries)[:8]))}"
    else:
        has = "returns a single tensor"
    remedy = f"Did you mean {' or '.join(near)}?" if near else "npk inspect shows its modules."
    raise UnsupportedGraphError(
        f"{type(net).__name__} has no output {output!r}: it {has}, and no "
        f"module of that name. {remedy}"
    )
