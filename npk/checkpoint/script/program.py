"""TorchScript files: the state dict in them, or their code as a network that ``torch.export`` can
trace.

``torch.export`` does not trace a ScriptModule, and ``torch.jit.load`` runs code of the file. So an
archive is read here: its objects from its pickles (``pickle``), its code as a tree of known
parts (``code``), which is followed operator by operator when the network meets a sample
(``follow``). Nothing in the file runs while it is loaded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from npk.checkpoint.archives import Archive
from npk.checkpoint.script.code import Code, RunsWhileLoaded, StrangeCode
from npk.checkpoint.script.follow import Follower, Placed
from npk.checkpoint.script.pickle import Pickled, ScriptObject, Strange
from npk.errors import CheckpointError, UnsupportedGraphError

_DEEPEST = 60  # modules within modules


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a TorchScript archive.

    Raises:
        CheckpointError: a damaged archive, or one that holds what npk does not know.
    """
    return {name: value for name, value, _ in _tensors(*_read(path)[:2])}


def read_script(path: Path) -> nn.Module:
    """The network of a TorchScript archive, in evaluation mode, float64 if one of its parameters
    is, else float32.

    Raises:
        CheckpointError: a damaged archive, or one that holds what npk does not know.
    """
    code, top, constants = _read(path)
    net = ScriptNetwork(code, top, constants)
    return net.double() if any(p.dtype == torch.float64 for p in net.parameters()) else net.float()


def _read(path: Path) -> tuple[Code, ScriptObject, tuple[Any, ...]]:
    """The code, the network's own object, and the constants of the code."""
    with Archive(path) as archive:
        root = archive.names[0].partition("/")[0] + "/"
        try:
            code, pickled = Code(archive, root), Pickled(archive, root)
            if (
                f"{root}byteorder" in archive.names
                and archive.read(f"{root}byteorder") != b"little"
            ):
                raise Strange("its numbers are in another order of bytes")
            top, constants = pickled.read("data"), pickled.read("constants")
            _check_objects(top, code)
        except RunsWhileLoaded as error:
            raise CheckpointError(
                f"{path} holds code that runs while it is loaded ({error}), which npk refuses. "
                "Where it was made, write torch.save(script.state_dict(), 'weights.pt'), and load "
                "that with arch=."
            ) from error
        except (Strange, StrangeCode) as error:
            raise CheckpointError(
                f"{path} is damaged or holds what npk does not know: {error}. "
                f"Copy or save it again."
            ) from error
    return code, top, constants if isinstance(constants, tuple) else ()


def _check_objects(top: Any, code: Code) -> None:
    """The network has a method ``forward``, each object in it a class, and none holds itself."""
    kind = code.classes.get(top.kind) if isinstance(top, ScriptObject) else None
    if kind is None or "forward" not in kind.methods or len(kind.methods["forward"].names) < 2:
        raise Strange("it holds no network with a method forward")
    waiting: list[tuple[ScriptObject, int]] = [(top, 0)]
    seen = 0
    while waiting:
        target, depth = waiting.pop()
        seen += 1
        if target.kind not in code.classes:
            raise Strange(f"it has no code of the class {target.kind}")
        if depth > _DEEPEST or seen > 100_000:
            raise Strange("its modules are within each other without end")
        waiting.extend(
            (value, depth + 1)
            for value in target.values.values()
            if isinstance(value, ScriptObject)
        )


def _tensors(
    code: Code, top: ScriptObject, path: str = ""
) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Path, tensor, and whether it is a parameter, of all parameters and buffers."""
    kind = code.classes[top.kind]
    for name in (*kind.parameters, *kind.buffers):
        if isinstance(top.values.get(name), torch.Tensor):
            yield path + name, top.values[name], name in kind.parameters
    for name, value in top.values.items():
        if isinstance(value, ScriptObject):
            yield from _tensors(code, value, f"{path}{name}.")


class ScriptNetwork(nn.Module):
    """The code of a TorchScript archive, followed step by step; tensors keep their names."""

    def __init__(self, code: Code, top: ScriptObject, constants: tuple[Any, ...]) -> None:
        super().__init__()
        self._code, self._top = code, Shared(top)
        self._constants = [self._kept(f"constant_{i}", value) for i, value in enumerate(constants)]
        self._register()
        self.eval()

    def _kept(self, name: str, value: Any) -> Any:
        """A constant: a tensor becomes a buffer."""
        if isinstance(value, torch.Tensor):
            self.register_buffer(name, value)
            return None
        return value

    def _register(self) -> None:
        """Tensors under their names; other tensors that a module holds are buffers too."""
        top = self._top.value
        seen: dict[tuple[Any, ...], nn.Parameter] = {}
        for path, tensor, is_parameter in _tensors(self._code, top):
            head, _, name = path.rpartition(".")
            if is_parameter and tensor.is_floating_point():
                key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
                _descend(self, head).register_parameter(
                    name, seen.setdefault(key, nn.Parameter(tensor))
                )
            else:
                _descend(self, head).register_buffer(name, tensor)
        _prepare(self, top, "")

    def forward(self, x: torch.Tensor) -> Any:
        """The output for a batch."""
        top = self._top.value
        follower = Follower(self._code, self._constant, lambda path: _found(self, path))
        function = follower.method(Placed(top, ""), "forward")
        assert function is not None  # checked when the file was read
        try:
            return follower.call(function, [Placed(top, ""), x], {})
        except RecursionError as error:
            raise UnsupportedGraphError(
                "the code of the TorchScript file is nested too deeply. Export it to .pt2."
            ) from error

    def _constant(self, number: int) -> Any:
        name = f"constant_{number}"
        return self._buffers[name] if name in self._buffers else self._constants[number]


class Shared:
    """What copies of a network have in common, because it is never changed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: object) -> "Shared":
        return self


def _prepare(net: nn.Module, target: ScriptObject, path: str) -> None:
    """Evaluation mode for an object and those below it; its tensors that are neither parameters nor
    buffers become buffers.
    """
    for name, value in target.values.items():
        whole = f"{path}.{name}".removeprefix(".")
        if name == "training":
            target.values[name] = False
        elif isinstance(value, ScriptObject):
            _prepare(net, value, whole)
        elif (
            isinstance(value, torch.Tensor)
            and name not in (holder := _descend(net, path))._parameters | holder._buffers
        ):
            holder.register_buffer(name, value, persistent=False)


def _descend(root: nn.Module, path: str) -> nn.Module:
    """The module at a path, made where there is none."""
    for name in path.split(".") if path else ():
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _found(root: nn.Module, path: str) -> torch.Tensor:
    head, _, name = path.rpartition(".")
    return getattr(root.get_submodule(head), name)
