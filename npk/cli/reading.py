"""What the options of the command line name: data, networks, places to write, settings."""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from npk.checkpoint.folders import holds_weights
from npk.data import Dataset, load, split
from npk.errors import OptionError, StoreError
from npk.files import put_back
from npk.gram.options import check_folder_around, is_folder
from npk.stores.manifests import content_of

if TYPE_CHECKING:
    from torch import nn

    from npk.gates.store import GateStore
    from npk.gates.table import GateTable

SHARE = 0.25  # of the samples that go to the test set, here and in the demo
Samples = Union[np.ndarray, "GateTable", "GateStore"]


def dataset(notation: str, subset: str | None = None, seed: int = 0) -> Dataset:
    """The data set, or one side of its stratified split.

    Raises:
        OptionError: a subset other than train and test.
    """
    if subset not in (None, "train", "test"):
        raise OptionError(
            f"subset {subset!r} is not known. Choose train or test, or leave it out "
            f"for all samples."
        )
    whole = load(notation)
    return whole if subset is None else split(whole, test=SHARE, seed=seed)[subset == "test"]


def training_and_test(data: str, test: str | None, seed: int) -> tuple[Dataset, Dataset]:
    """Two data sets, or the two sides of one."""
    return split(load(data), test=SHARE, seed=seed) if test is None else (load(data), load(test))


@dataclass(frozen=True)
class How:
    """How a checkpoint becomes a network: the options of the command line, as :func:`npk.load`
    takes them.

    Args:
        arch: what makes the network around the weights.
        arch_option: its keyword arguments, each ``key=value``.
        output: number or key of an output, or name of a module.
        layout: "nchw" or "nhwc".
        key: which dictionary of tensors is meant.
        fixed: which tensors are coefficients and no weights; for what traces the network.
    """

    arch: str | None = None
    arch_option: Sequence[str] = ()
    output: str | None = None
    layout: str = "nchw"
    key: str | None = None
    fixed: Sequence[str] = ()

    @property
    def said(self) -> bool:
        """Whether any of the options was given."""
        texts = (self.arch, self.arch_option, self.output, self.key, self.fixed)
        return any(texts) or self.layout != "nchw"

    def network(self, path: Path) -> "nn.Module":
        """The network of a checkpoint."""
        from npk.checkpoint import load as load_network

        options = literals(self.arch_option)
        return load_network(
            path,
            arch=self.arch,
            arch_options=options,
            key=self.key,
            output=self.output,
            layout=self.layout,
        )


def network(path: Path) -> "nn.Module":
    """The network of a checkpoint that describes itself."""
    return How().network(path)


def literals(pairs: Sequence[str]) -> dict[str, Any]:
    """The values of ``--arch-option key=value``: Python literals, else texts.

    Raises:
        OptionError: no ``=``, or a key that is no name.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise OptionError(
                f"--arch-option {pair!r} is not understood. Write a keyword argument "
                f"as key=value, such as width=64."
            )
        try:
            values[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[key] = value
    return values


def gate_table(path: Path | str) -> "GateStore":
    """A gate table that `npk gates` wrote, read as it is needed."""
    from npk.gates.store import GateStore

    return GateStore.open(path)


def kernel_sides(
    path: Path,
    how: How,
    rows: tuple[str | None, str | None],
    cols: tuple[str | None, str | None],
    seed: int,
) -> "tuple[nn.Module | None, Samples, Samples | None]":
    """Network, row samples and column samples; gate tables need no network.

    Args:
        path: checkpoint, or gate table of the rows.
        how: the checkpoint is read.
        rows: DATA and subset of the rows; nothing with a gate table.
        cols: DATA and subset of the columns, or a gate table.
        seed: of the splits.

    Returns:
        What :func:`npk.kernel` takes.

    Raises:
        OptionError: data and gate table both, or neither.
    """
    put_back(path)
    if path.is_dir() and not holds_weights(path):
        table = gate_table(path)
        if rows != (None, None) or cols[1] is not None or how.said:
            message = (
                f"{path} is a gate table and holds its samples already. Leave out --data, "
                f"--subset, --arch and --fixed;"
            )
            raise OptionError(f"{message} --against may name another gate table.")
        return None, table, None if cols[0] is None else gate_table(cols[0])
    if rows[0] is None:
        raise OptionError(
            "--data is missing: it names the samples of the kernel. Add for instance --data digits."
        )
    if cols[0] is None and cols[1] is not None:
        raise OptionError(
            f"--against-subset {cols[1]} needs --against, which is missing. Add --against DATA."
        )
    X = dataset(rows[0], rows[1], seed).X
    return how.network(path), X, None if cols[0] is None else dataset(cols[0], cols[1], seed).X


def example(net: "nn.Module", data: str | None, input_shape: str | None, most: int) -> np.ndarray:
    """Some samples for a network: of the data, else random ones of the shape that is given or
    known.

    Raises:
        OptionError: the shape is not known, or not written as whole numbers.
    """
    if data is not None:
        return load(data).X[:most]
    known = getattr(net, "architecture", {}).get("input_shape") or getattr(net, "input_shape", None)
    if input_shape is not None:
        known = [int(side) if side.strip().isdigit() else 0 for side in input_shape.split(",")]
    if known is None:
        raise OptionError(
            "the checkpoint does not say the shape of a sample. Give --input-shape, "
            "such as 1,8,8, or --data."
        )
    if min(known) < 1:
        raise OptionError(
            f"--input-shape {input_shape} is no shape. Write whole numbers with "
            f"commas, such as 1,8,8."
        )
    return np.random.default_rng(0).standard_normal((min(most, 64), *known), dtype=np.float32)


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """The values of ``--option key=json``; ``64,64`` is a list too, what is no JSON is text.

    Raises:
        OptionError: no ``=``, or an option that the command has itself.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (equals and key) or key in ("arch", "kind", "input_shape", "classes", "seed"):
            raise OptionError(
                f"--option {pair!r} is not understood. Write an option of the architecture as "
                f"key=value, such as channels=[64,64]."
            )
        options[key] = _json(
            f"[{value}]" if "," in value and not value.startswith("[") else value, value
        )
    return options


def _json(text: str, otherwise: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return otherwise


def check_place(*paths: Path | None) -> None:
    """Refuse a place for a file that cannot be written, before any long work.

    Raises:
        StoreError: a folder is there, or the folder around it is missing or read-only.
    """
    for path in (path for path in paths if path is not None):
        if is_folder(path):
            raise StoreError(f"cannot write {path}: it is a folder. Name the file in it.")
        check_folder_around(path)


def check_folder(path: Path | None, content: str | None = None) -> None:
    """Refuse a place for a folder that cannot be written, before any long work.

    Args:
        path: of the folder; nothing for ``None``.
        content: what npk will put in its place; whatever else is in a folder there would be lost.

    Raises:
        StoreError: a file or another folder is there, or the folder around it is missing or
            read-only.
    """
    if path is None:
        return
    if is_folder(path):
        if content is not None and content_of(path) != content and any(path.iterdir()):
            raise StoreError(
                f"cannot write {path}: it is a folder with something else in it. "
                f"Choose another name."
            )
        return
    if path.exists():
        raise StoreError(f"cannot write {path}: it is a file. Name a folder.")
    check_folder_around(path)


def check_page(path: Path) -> None:
    """Refuse a page under a name that says it is something else.

    Raises:
        OptionError: not .html.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(
            f"--out {path} is no .html file, and the report is one. Give for "
            f"instance --out {path.stem or 'report'}.html."
        )
