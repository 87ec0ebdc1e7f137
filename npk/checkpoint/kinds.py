"""What a file is, seen from its bytes; its suffix is asked only where they are nothing known."""

import zipfile
from pathlib import Path

from npk.checkpoint.files import WORKING, check_archive, first_line
from npk.errors import CheckpointError

SAFETENSORS = "safetensors"
TORCH = "torch.save"
SCRIPT = "torch.jit.save"
PROGRAM = "torch.export.save"
ONNX = "ONNX"
INDEX = "index"
# What a damaged file was meant to be: then the reader of that kind says what is wrong with it.
BY_SUFFIX = {
    ".safetensors": SAFETENSORS,
    ".pt2": PROGRAM,
    ".onnx": ONNX,
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".jit", ".ts"), TORCH),
}
PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"
LARGEST_HEADER = 100_000_000  # of a safetensors file, as its own library has it
# The first bytes of files that are taken for checkpoints and are none: what they are, and what to
# do.
OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them", "Export the network to ONNX"),
    (b"\x93NUMPY", "a NumPy array", f"Use {WORKING}, .onnx"),
    (b"\x1f\x8b", "a file that gzip packed", "Unpack it first"),
    (b"BZh", "a file that bzip2 packed", "Unpack it first"),
    (b"\xfd7zXZ\x00", "a file that xz packed", "Unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a file that zstd packed", "Unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first"),
    (b"GGUF", "a GGUF file", f"Use {WORKING}, .onnx"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS to the file, not the file",
        "Fetch it with git lfs pull",
    ),
    (b"<!doctype html", "a web page", "Download the file itself"),
    (b"<html", "a web page", "Download the file itself"),
)


def kind_of(path: Path) -> str:
    """What wrote the file: one of the names above.

    Raises:
        CheckpointError: a truncated archive, or no kind of checkpoint; it says what was seen.
    """
    with path.open("rb") as file:
        head = file.read(512)
    # First of all: the size that such a file begins with may look like the beginning of any other.
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER
    seen = (
        SAFETENSORS
        if is_safetensors
        else _archive(path)
        if head[:2] == b"PK"
        else _plain(path, head)
    )
    kind = seen or BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise CheckpointError(
            f"{path} is no kind of checkpoint that npk knows: it begins with {head[:8]!r}, and is "
            f"neither an archive or pickle of torch, "
            "a safetensors file nor ONNX. Was it written by something else, or changed?"
        )
    return kind


def _plain(path: Path, head: bytes) -> str | None:
    """The kind of a file that is no zip archive, if its beginning says so."""
    for start, what, remedy in OTHERS:
        if head[: len(start)].lower() == start.lower():
            raise CheckpointError(f"{path} is {what}. {remedy}.")
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{path} is a tar archive. Unpack it, and name the checkpoint in it.")
    if head[4:8] == b"TFL3":
        raise CheckpointError(f"{path} is a TensorFlow Lite file. Export the network to ONNX.")
    if head[:2] in PICKLES:
        return TORCH
    if path.suffix.lower() == ".json" and head.lstrip()[:1] == b"{":
        return INDEX
    # A message of ONNX begins with its version, a small number, and goes on with one of its next
    # fields.
    if len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in ONNX_FIELDS:
        return ONNX
    return None


def _archive(path: Path) -> str:
    """The kind of a zip archive, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
    # a damaged archive raises nearly anything; mostly the check of archives says it better
    except Exception as error:
        check_archive(path)
        raise CheckpointError(
            f"{path} is truncated or damaged ({first_line(error)}). Copy or save it again."
        ) from error
    ends = {name.rpartition("/")[2] for name in names}
    if "archive_format" in ends or "serialized_exported_program.json" in ends:
        return PROGRAM
    if "constants.pkl" in ends:
        return SCRIPT
    if "data.pkl" in ends:
        return TORCH
    if names and all(name.endswith(".npy") for name in names):
        what = "a NumPy archive (.npz)"
    else:
        what = "a zip archive"
    raise CheckpointError(
        f"{path} is {what} with {', '.join(names[:3]) or 'nothing in it'}, and no checkpoint. Use "
        f"{WORKING}, .onnx; or unpack it."
    )
