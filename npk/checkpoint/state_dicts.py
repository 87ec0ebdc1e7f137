"""The dictionaries of tensors in what a checkpoint holds, and the one that is meant."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# Under these names training scripts put the state dict, in the order in which they are looked for.
WRAPPERS = [
    *"state_dict model_state_dict model net network module weights params".split(),
    *"checkpoint ema model_ema".split(),
]
DEEPEST = 16  # dictionaries inside one another
SHOWN = 8


@dataclass(frozen=True)
class StateDict:
    """A dictionary of tensors in a file.

    ``place``: the keys and numbers that lead to it. ``tensors``: what is a tensor in it, by name.
    """

    place: tuple[str, ...]
    tensors: "dict[str, Tensor]"

    @property
    def name(self) -> str:
        """As ``key=`` names it."""
        return ".".join(self.place)

    @property
    def rank(self) -> tuple[int, ...] | None:
        """Its turn among those under the usual names; nothing for one under another name."""
        usual = [
            WRAPPERS.index(key) if key in WRAPPERS else -1
            for key in self.place
            if not key.isdigit()
        ]
        return None if -1 in usual or (self.place and not usual) else tuple(usual)


def state_dicts(content: Any, path: Path) -> list[StateDict]:
    """All dictionaries of tensors in what a file holds, those under the usual names first.

    Args:
        content: dictionaries, lists and tuples, inside one another.
        path: of the file, for the message.

    Returns:
        One or more. States of optimizers are none, and what is no tensor beside tensors (epoch,
        options) is left out.

    Raises:
        CheckpointError: there is none.
    """
    dictionaries = sorted(
        _search(content, (), set()), key=lambda one: (one.rank is None, one.rank or ())
    )
    if dictionaries:
        return dictionaries
    if not isinstance(content, dict | list | tuple) or not content:
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a state dict with "
            f"weights. Save net.state_dict()."
        )
    raise CheckpointError(
        f"{path} holds no weights: it has {keys_of(content)}. Save "
        f"net.state_dict() alone, or as 'state_dict'."
    )


def _search(content: Any, place: tuple[str, ...], seen: set[int]) -> Iterator[StateDict]:
    import torch

    is_optimizer = isinstance(content, dict) and {"state", "param_groups"} <= content.keys()
    if (
        id(content) in seen
        or len(place) > DEEPEST
        or is_optimizer
        or not isinstance(content, dict | list | tuple)
    ):
        return
    seen.add(id(content))
    entries = content if isinstance(content, dict) else dict(enumerate(content))
    if isinstance(content, dict):
        tensors = {
            name: value
            for name, value in entries.items()
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }
        if tensors:
            yield StateDict(place, tensors)
    for key, value in entries.items():
        yield from _search(value, (*place, str(key)), seen)


def part_of(content: Any, key: str, path: Path) -> Any:
    """The part of what a file holds that ``key`` names.

    Args:
        content: dictionaries, lists and tuples, inside one another.
        key: a key, or the number of an entry of a list; several of them with dots between; or the
            beginning of the names of tensors.
        path: of the file, for the message.

    Returns:
        The entry; for the beginning of names the tensors that have it, without it.

    Raises:
        CheckpointError: there is no such part.
    """
    part: Any = _entry(content, key.removesuffix("."))
    if part is None:
        names = [f"{one.name or 'no key'}" for one in _search(content, (), set())][:SHOWN]
        if names:
            told = f"Its dictionaries of tensors are under {', '.join(names)}"
        else:
            told = f"It has {keys_of(content)}"
        raise CheckpointError(f"{path} has nothing under key={key!r}. {told}.")
    return part


def _entry(content: Any, key: str) -> Any:
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return None
    entries = {str(name): value for name, value in content.items()}
    if key in entries:
        return entries[key]
    for name, value in entries.items():
        inside = _entry(value, key[len(name) + 1 :]) if key.startswith(f"{name}.") else None
        if inside is not None:
            return inside
    return {
        name[len(key) + 1 :]: value for name, value in entries.items() if name.startswith(f"{key}.")
    } or None


def keys_of(content: Any) -> str:
    """The first keys of a dictionary, or the kinds in a list."""
    if isinstance(content, dict):
        told = [repr(key) for key in content]
    else:
        told = [f"a {type(entry).__name__}" for entry in content]
    return ", ".join([*told[:SHOWN], *(["..."] if len(told) > SHOWN else [])])
