"""What may be in a ``.pt2`` file from a stranger, and a copy of it that holds nothing else.

``torch.export.load`` unpickles, evaluates expressions and guards of the graph as Python, and writes
its names into code that it runs. So every part is checked against a list of what may be there, and
torch gets an archive made anew of the parts that were checked.
"""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

from npk.checkpoint.archives import Archive
from npk.checkpoint.files import quiet_torch
from npk.checkpoint.program.graph import Refused, checked_graph, checked_weights, dumped, parsed
from npk.errors import CheckpointError

_FORMER = {  # of torch 2.6: parts beside each other, without a folder around them
    "version": "text",
    "serialized_exported_program.json": "graph",
    "serialized_state_dict.pt": "tensors",
    "serialized_constants.pt": "tensors",
    "serialized_example_inputs.pt": "tensors",
}
_RECORDS = {
    "archive_format": "text",
    "archive_version": "text",
    "byteorder": "text",
    "version": "text",
    ".data/version": "text",
    ".data/serialization_id": "left out",
    ".format_version": "left out",
    ".storage_alignment": "left out",
    "models/model.json": "graph",
    "data/sample_inputs/model.pt": "tensors",
    "data/weights/model.pt": "tensors",  # of torch 2.7 and 2.8; now one record a weight
    "data/constants/model.pt": "tensors",
    "data/weights/model_weights_config.json": "weights",
    "data/constants/model_constants_config.json": "weights",
}
_NUMBERED = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,6}")
_EXTRA = re.compile(r"extra(_files)?/.*")  # texts of the user's own; npk does not read them


def checked_copy(path: Path) -> io.BytesIO:
    """The program in ``path`` as an archive of parts that run no code.

    Raises:
        CheckpointError: a truncated or damaged archive, or a part that torch would run or that npk
            does not know.
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise CheckpointError(
                f"{path} is truncated or was not written by torch.export.save. "
                f"Copy or save it again."
            )
    with Archive(path) as archive:
        if "serialized_exported_program.json" in archive.names:
            root = ""
        else:
            root = f"{archive.names[0].partition('/')[0]}/"
        target, copy = "archive/" if root else "", io.BytesIO()
        with zipfile.ZipFile(copy, "w") as new:
            for name in archive.names:
                try:
                    content = _checked(archive, name, root)
                except Refused as error:
                    raise CheckpointError(
                        f"{path} holds pickled or compiled code, or what npk does not know "
                        f"({name}), which npk never runs: {error}. "
                        "Export a network of plain tensors."
                    ) from error
                if content is not None:
                    new.writestr(target + name.removeprefix(root), content)
    copy.seek(0)
    return copy


def _checked(archive: Archive, name: str, root: str) -> bytes | None:
    """A part as torch may have it; nothing for a part that it does not need."""
    if not name.startswith(root):
        raise Refused("it is not in the folder of the others")
    record = name.removeprefix(root)
    kind = (_RECORDS if root else _FORMER).get(record)
    if _EXTRA.fullmatch(record) or kind == "left out":
        return None
    if _NUMBERED.fullmatch(record) and root:
        return archive.read(name)
    if kind is None:
        raise Refused("npk knows no such part")
    content = archive.read(name)
    if kind == "graph":
        return dumped(checked_graph(parsed(content)))
    if kind == "weights":
        folder = name.rpartition("/")[0]
        sizes = {
            other.rpartition("/")[2]: archive.size(other)
            for other in archive.names
            if other.rpartition("/")[0] == folder
        }
        return dumped(checked_weights(parsed(content), sizes))
    return _checked_text(content) if kind == "text" else _tensors(content)


def _checked_text(content: bytes) -> bytes:
    if not re.fullmatch(rb"[\w.\n]{0,40}", content) or content == b"big":
        raise Refused("it is not what torch writes there")
    return content


def _tensors(content: bytes) -> bytes:
    """Tensors in plain containers, read without running code and written anew."""
    import torch

    if not content:
        return content
    try:
        with Archive(io.BytesIO(content)) as archive:
            archive.check_sums()
        with quiet_torch():
            loaded = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:
        raise Refused("it is no archive of tensors") from error
    buffer = io.BytesIO()
    torch.save(_plain(loaded), buffer)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(inner) for inner in value)
    if (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and not value.is_quantized
    ):
        return value
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise Refused(f"it holds a {type(value).__name__}")
