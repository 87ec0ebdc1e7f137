"""What every kind of checkpoint file is checked for."""

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path

from npk.checkpoint.archives import Archive
from npk.errors import CheckpointError

# Libraries whose networks are named as "timm:resnet26", and the modules that make them.
LIBRARIES = {"timm": "timm", "torchvision": "torchvision.models"}
WORKING = ".safetensors (weights and architecture), .pt2 (torch.export), .pt or .pth (state dict)"


def written_suffix(path: Path) -> str:
    """The suffix in lower case, if npk writes such files."""
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", ".pt2", ".pt", ".pth"):
        raise CheckpointError(
            f"{path}: {suffix or 'a name without suffix'} is no kind of "
            f"checkpoint that npk writes. Use {WORKING}."
        )
    return suffix


def check_file(path: Path) -> None:
    """Refuse what is no file or empty."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder. Name the checkpoint file inside it.")
    if not path.exists() and is_of_a_library(str(path)):
        raise CheckpointError(
            f"{path} names a network, and npk downloads no weights for it. Give the file of its "
            f"weights: npk.load({str(path)!r}, weights=FILE), on the command line FILE --arch "
            f"{path}."
        )
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        raise CheckpointError(
            f"there is no file {path}. "
            f"{f'Did you mean {near[0]}?' if near else 'Check its name and folder.'}"
        )
    if path.stat().st_size == 0:
        raise CheckpointError(
            f"{path} is empty. Was the disk full when it was written? Save it again."
        )


def is_of_a_library(name: str) -> bool:
    """Whether a text names a network of timm or torchvision, as ``"timm:resnet26"`` does."""
    library, colon, rest = name.partition(":")
    return library in LIBRARIES and bool(colon and rest)


def check_archive(path: Path) -> None:
    """Compare a zip archive's check sums, which torch does not; two readings are refused."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return  # torch's older format has none
    with Archive(path) as archive:
        archive.check_sums()


def first_line(error: Exception) -> str:
    """The error in a line; torch writes pages."""
    return (
        f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:200]}"
    )


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Hold back what torch says of files that npk refuses in a sentence; one thread at a time."""
    from npk.reading.apart import alone_with_torch

    with alone_with_torch():
        yield
