"""Exported programs that were made for one batch size, the default of ``torch.export.export``,
become free in it.

In such a program the size of the batch stands as a number in the shapes that values are given.
There it is replaced by the size of the batch that comes. Then the program must give each sample the
output that it has in the program as it was; else it is refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint.files import first_line, quiet_torch
from npk.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, fx
    from torch.export import ExportedProgram

SHAPED = ("view", "reshape", "_unsafe_view", "expand")  # operators that are given a whole shape
MOST_CELLS = 1 << 28  # that a program makes of the samples it is tried on
BATCHES = 3  # that it is tried on


def free_in_batch(program: "ExportedProgram", path: Path) -> "fx.GraphModule":
    """The program as a network that takes every batch size.

    Args:
        program: as torch loads it.
        path: of the file, for the message.

    Returns:
        The network; it knows its ``input_shape`` where that is fixed.

    Raises:
        CheckpointError: it was made for one batch size, and is another function for others.
    """
    example = _only_input(program)
    sides: list[Any] = [] if example is None else list(example.shape)
    if not sides or not isinstance(sides[0], int):
        net = program.module()
    else:
        net = _freed(program, path, example)
    if len(sides) > 1 and all(isinstance(side, int) for side in sides[1:]):
        net.input_shape = tuple(sides[1:])  # type: ignore[assignment]
    return net  # type: ignore[return-value]


def _only_input(program: "ExportedProgram") -> Any:
    """The tensor that the program was made with, if it has one input that is a tensor."""
    names = program.graph_signature.user_inputs
    inputs = [
        node for node in program.graph.nodes if node.op == "placeholder" and node.name in names
    ]
    shown = [node.meta.get("val") for node in inputs]
    return shown[0] if len(names) == 1 and len(shown) == 1 and hasattr(shown[0], "shape") else None


def _freed(program: "ExportedProgram", path: Path, example: Any) -> "fx.GraphModule":
    net: Any = program.module(check_guards=False)
    batch = example.shape[0]
    net._forward_pre_hooks.clear()  # torch's own, which compares the shape of the input
    try:
        with quiet_torch():
            _free_shapes(net, batch)
            why = _difference(program, net, example)
    except Exception as error:  # operators raise many kinds for shapes that do not fit
        why = first_line(error)
    if why:
        raise CheckpointError(
            f"{path} was exported for batch size {batch}: export with dynamic_shapes=({{0: "
            f"Dim.DYNAMIC}},). It is another function for other batches ({why})."
        )
    return net


def _free_shapes(net: "fx.GraphModule", batch: int) -> None:
    """Put the size of the batch that comes where a value of the samples is given a shape."""
    import torch

    source = next(node for node in net.graph.nodes if node.op == "placeholder")
    of_samples = {source}
    for node in net.graph.nodes:
        if node.op == "placeholder" or not any(
            before in of_samples for before in node.all_input_nodes
        ):
            continue
        of_samples.add(node)
        name = str(getattr(node.target, "_opname", ""))
        if (
            name not in SHAPED
            or node.args[0] not in of_samples
            or not node.args[1]
            or node.args[1][0] != batch
        ):
            continue
        with net.graph.inserting_before(node):
            size = net.graph.call_function(torch.ops.aten.sym_size.int, (source, 0))
        node.args = (node.args[0], [size, *node.args[1][1:]], *node.args[2:])
    net.recompile()


def _difference(program: "ExportedProgram", net: "fx.GraphModule", example: Any) -> str:
    """Where the freed program differs from the given one, on random samples; nothing if nowhere."""
    import torch

    batch, sides = example.shape[0], example.shape[1:]
    _check_size(net, torch.Size((BATCHES * batch, *sides)), example.dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((BATCHES * batch, *sides), generator=generator).to(example.dtype)
    with torch.no_grad():
        parts = [_outputs(program.module()(part)) for part in x.split(batch)]
        together, first = _outputs(net(x)), _outputs(net(x[:1]))
    for i, whole in enumerate(together):
        apart = [part[i] for part in parts]
        if any(part.dim() == 0 or part.shape[0] != batch for part in apart):
            return f"an output has shape {tuple(apart[0].shape)}, without the batch"
        expected = torch.cat(apart)
        limit = 1e-5 * float(expected.abs().max()) if expected.is_floating_point() else 0.0
        for given, wanted in ((whole, expected), (first[i], expected[:1])):
            if given.shape != wanted.shape or not torch.allclose(
                given, wanted, 1e-4, limit, equal_nan=True
            ):
                return "samples change one another's outputs"
    return ""


def _outputs(result: Any) -> "list[Tensor]":
    from torch.utils._pytree import tree_leaves

    return [value for value in tree_leaves(result) if hasattr(value, "shape")]


def _check_size(net: "fx.GraphModule", shape: Any, dtype: Any) -> None:
    """Follow the program without values: what it makes of the samples must have an end."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    cells = shape.numel()

    class Counted(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            nonlocal cells
            result = super().run_node(n)
            cells += sum(value.numel() for value in _outputs(result))
            if cells > MOST_CELLS:
                raise ValueError(
                    f"its values for {shape[0]} samples have more than {MOST_CELLS:,} cells"
                )
            return result

    if cells > MOST_CELLS:
        raise ValueError(f"{shape[0]} samples of it have more than {MOST_CELLS:,} cells")
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        Counted(net).run(torch.empty(shape, dtype=dtype))
