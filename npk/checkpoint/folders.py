"""Folders of weights, as Hugging Face has them: one file, or several with an index beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint.files import check_file, first_line
from npk.checkpoint.kinds import BY_SUFFIX
from npk.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# In this order: who saves both kinds means the same weights.
NAMES = (
    *(
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
)


def holds_weights(folder: Path) -> bool:
    """Whether a folder has a file of weights in it, and is no store of npk's own."""
    return folder.is_dir() and not (folder / "zarr.json").exists() and bool(_files(folder))


def weights_in(folder: Path) -> Path:
    """The file of weights in a folder, or the index of several.

    Raises:
        CheckpointError: there is none, or more than one that could be meant.
    """
    files = checkpoints_in(folder)
    if len(files) == 1:
        return files[0]
    names = ", ".join(file.name for file in files[:5])
    raise CheckpointError(
        f"{folder} is a folder with {len(files)} checkpoints ({names}). Name the file."
    )


def checkpoints_in(folder: Path) -> list[Path]:
    """The files of weights in a folder: the usual one where it is there, else all.

    Args:
        folder: to look into.

    Returns:
        The files, by name.

    Raises:
        CheckpointError: there is none.
    """
    if files := _files(folder):
        return files
    raise CheckpointError(
        f"{folder} is a folder without weights. Name a checkpoint file, or a folder with "
        f"{NAMES[0]}, {NAMES[2]} or their index in it."
    )


def _files(folder: Path) -> list[Path]:
    usual = [folder / name for name in NAMES if (folder / name).is_file()]
    return usual[:1] or sorted(
        file for file in folder.iterdir() if file.suffix.lower() in BY_SUFFIX and file.is_file()
    )


def read_shards(index: Path, read: "Callable[[Path], dict[str, Tensor]]") -> "dict[str, Tensor]":
    """The tensors of all files that an index names, each once.

    Args:
        index: a JSON file whose ``weight_map`` says which file beside it holds which tensor.
        read: gives the tensors of one file.

    Returns:
        The tensors by name.

    Raises:
        CheckpointError: a damaged index, a file that is missing or elsewhere, or a tensor that is
            not where the index says.
    """
    places = _weight_map(index)
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        check_file(index.parent / name)
        held: dict[str, Any] = read(index.parent / name)
        wanted = [tensor for tensor, place in places.items() if place == name]
        lost = [tensor for tensor in wanted if tensor not in held]
        if lost:
            raise CheckpointError(
                f"{index} says that {lost[0]} is in {name}, and it is not. Copy "
                f"all files of the folder again."
            )
        state |= {tensor: held[tensor] for tensor in wanted}
    return state


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is no index of weights ({first_line(error)}). Name the file with the weights."
        ) from error
    places = {str(name): str(place) for name, place in found.items()}
    outside = [
        place
        for place in places.values()
        if place != Path(place).name or place in ("", "..") or "\\" in place
    ]
    if outside or not places:
        raise CheckpointError(
            f"{index} names {outside[:1] or 'nothing'} as a file of weights. "
            f"Only files beside it are read."
        )
    return places
