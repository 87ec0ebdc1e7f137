"""Whether the architecture that a file describes is that of its weights, before any of it is built."""

from pathlib import Path
from typing import Any

from npk.errors import CheckpointError

# options that say how often a part is made; the others are sizes
_REPEATED = ("blocks", "block_layers")


def check_described(path: Path, architecture: Any) -> None:
    """Build the architecture without memory, and compare the shapes with those in the file.

    Args:
        path: a ``.safetensors`` file; of the weights only the table is read.
        architecture: arguments of :func:`npk.networks.build`.

    Raises:
        CheckpointError: the architecture has other weights than the file.
    """
    import torch

    from npk.networks import build

    shapes = _shapes(path)
    if not isinstance(architecture, dict):
        raise CheckpointError(
            f"{path} describes its architecture as {str(architecture)[:60]!r}. "
            f"Give arch='module:callable'."
        )
    often = max(
        value if isinstance(value := architecture.get(name), int) else 0 for name in _REPEATED
    )
    if often > len(shapes) or _entries(architecture) > 1000 + 20 * len(shapes):
        raise CheckpointError(
            _other(
                path, f"it repeats parts {often:,} times, and the file has {len(shapes):,} tensors"
            )
        )
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        expected = {
            name: list(tensor.shape) for name, tensor in build(**architecture).state_dict().items()
        }
    reasons = (
        ("missing", [name for name in expected if name not in shapes]),
        ("unknown", [name for name in shapes if name not in expected]),
        (
            "of another shape",
            [
                f"{n} is {tuple(shapes[n])}, not {tuple(expected[n])}"
                for n in expected
                if n in shapes and shapes[n] != expected[n]
            ],
        ),
    )
    told = [
        f"{len(names)} {what} ({'; '.join(names[:3])}{'; ...' if len(names) > 3 else ''})"
        for what, names in reasons
        if names
    ]
    if told:
        raise CheckpointError(_other(path, ", ".join(told)))


def _other(path: Path, why: str) -> str:
    return (
        f"{path} does not fit the architecture described in it: {why}. Copy it again from where it "
        f"was made."
    )


def _shapes(path: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}


def _entries(value: Any) -> int:
    """How many numbers and texts there are in lists and dictionaries."""
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 1 if inner is None else sum(map(_entries, inner))
