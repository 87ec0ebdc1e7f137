"""What the options of the command line name: data, networks, places to write, settings."""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from npk.checkpoint.folders import holds_weights
from npk.checkpoint.given import Given, given_to
from npk.data import Dataset, Preparation, as_labels, load, preparation, split
from npk.data.preparation import NAMED
from npk.data.tables import as_numbered, read_labels
from npk.errors import DataError, OptionError, StoreError
from npk.files import put_back
from npk.gram.options import check_folder_around, is_folder
from npk.stores.manifests import content_of

if TYPE_CHECKING:
    from torch import nn

    from npk.gates.store import GateStore
    from npk.gates.table import GateTable
    from npk.results import Result
    from npk.studies.subjects import OwnAccuracy

_BEYOND = 0.25  # of the range of pixels: as much as resizing may overshoot
_NONE = ("mean", "none")  # as it is, whatever the checkpoint says
_OWN_SAMPLES = 1_000  # that the network itself is tried on beside other work
SHARE = 0.25  # of the samples that go to the test set, here and in the demo
Samples = Union[np.ndarray, Dataset, "GateTable", "GateStore"]


@dataclass(frozen=True)
class Asked:
    """What the command line says of the samples that a network was given: texts, as they came."""

    mean: str | None = None
    std: str | None = None
    resize: str | None = None
    crop: str | None = None
    scale_pixels: str | None = None
    sequences: bool = False

    def loading(self, *ckpts: Path) -> "Loading":
        """How DATA is loaded for checkpoints: as the options say, else as the files do.

        Raises:
            OptionError: options that are no numbers, or checkpoints that were given different
                samples.
        """
        given = {**vars(self), "sequences": None}
        texts = {name: text for name, text in given.items() if text is not None}
        if texts == {"mean": "none"} and not self.sequences:
            return Loading()
        if texts or self.sequences:
            parsed: Any = {n: _numbers(n, t) for n, t in texts.items() if (n, t) != _NONE}
            return Loading(preparation(**parsed, sequences=self.sequences))
        found = [given_to(path) for path in ckpts]
        first = found[0] if found else None
        for path, other in zip(ckpts, found, strict=True):
            if (other and other.preparation) != (first and first.preparation):
                raise OptionError(
                    f"{ckpts[0]} and {path} were given different samples ({_words(first)}; "
                    f"{_words(other)}). Name them in commands of their own, or say --mean and --std."
                )
        return Loading() if first is None else Loading(first.preparation, first)


def _words(found: Given | None) -> str:
    return "as they are" if found is None else str(found.preparation)


def _numbers(name: str, text: str) -> Any:
    """A name that stands for numbers, a number, or several with commas."""
    if text in NAMED and name in ("mean", "std"):
        return text
    sides = name in ("resize", "crop")
    try:
        numbers = [int(part) if sides else float(part) for part in text.split(",")]
    except ValueError:
        named = f", or one of {', '.join(NAMED)}" if name in ("mean", "std") else ""
        raise OptionError(
            f"--{name.replace('_', '-')} {text} is not understood. Write numbers with commas{named}."
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


@dataclass(frozen=True)
class Loading:
    """How DATA becomes samples.

    Args:
        preparation: what is done to them; ``None``: nothing but the usual.
        found: the file that says so, where no option did.
    """

    preparation: Preparation | None = None
    found: Given | None = None

    def load(self, notation: str) -> Dataset:
        """The data set, prepared.

        What a configuration from elsewhere says is for pixels: values that are outside of 0 to 1
        without it are prepared already.

        Raises:
            DataError: as :func:`npk.data.load`; a file that asks for it is named.
        """
        try:
            given = load(notation, preparation=self.preparation)
        except DataError as error:
            if self.found is None:
                raise
            load(notation)  # where these samples cannot be used at all, that is what is wrong
            raise DataError(
                f"{error} {self.found.source} says that samples are prepared so: "
                f"{self.preparation}; --mean none takes them as they are."
            ) from error
        if self.found is None or self.found.own or _were_pixels(given):
            return given
        return load(notation)

    def told(self, *sets: Dataset) -> str:
        """What was done to data sets, where a file said so; else nothing."""
        if self.found is None:
            return ""
        if any(given.preparation is None for given in sets):
            return (
                f"samples as they are: they have values outside of 0 to 1, so that what "
                f"{self.found.source} says ({self.preparation}) is taken for done"
            )
        return f"samples: {self.preparation}, as {self.found.source} says"


def about_samples(
    loading: Loading, net: "nn.Module | None", *sets: Dataset, most: int | None = _OWN_SAMPLES
) -> list[str]:
    """What is to be said of data sets: what was done to them, and how the network itself does.

    Args:
        loading: how they were loaded.
        net: the network; ``None``: there is none.
        sets: the first one with labels tells the accuracy.
        most: samples that it is tried on, evenly from all of the set; ``None``: all.

    Returns:
        Lines.
    """
    from npk.studies.subjects import own_accuracy

    lines = [loading.told(*sets)]
    labelled = [given for given in sets if given.y is not None]
    if net is not None and labelled:
        lines.append(str(own_accuracy(net, labelled[0], most) or ""))
    return [line for line in lines if line]


def own(net: "nn.Module", given: Dataset) -> "OwnAccuracy | None":
    """The accuracy of the network itself on labelled samples, if it tells their classes apart."""
    from npk.studies.subjects import own_accuracy

    return own_accuracy(net, given)


def _were_pixels(given: Dataset) -> bool:
    """Whether samples were between 0 and 1 before mean and std; a little more where resizing went
    beyond.
    """
    what = given.preparation
    if what is None or what.scale_pixels is not None:
        return True
    shape = (-1, *(1,) * (given.X.ndim - 2))
    before = given.X * np.reshape(what.std or (1,), shape) + np.reshape(what.mean or (0,), shape)
    return bool(before.min() > -_BEYOND and before.max() < 1 + _BEYOND)


def dataset(
    notation: str, subset: str | None = None, seed: int = 0, loading: Loading | None = None
) -> Dataset:
    """The data set, or one side of its stratified split: "train" or "test"."""
    whole = (loading or Loading()).load(notation)
    return whole if subset is None else split(whole, test=SHARE, seed=seed)[subset == "test"]


def training_and_test(
    data: str,
    test: str | None,
    seed: int,
    loading: Loading | None = None,
    labels: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Two data sets, or the two sides of one; ``labels`` names those of ``data``."""
    how = loading or Loading()
    whole = how.load(data)
    if labels is not None:
        whole = whole.with_labels(labels_named(labels))
    return split(whole, test=SHARE, seed=seed) if test is None else (whole, how.load(test))


def labels_named(notation: str) -> np.ndarray:
    """The labels of a file of labels alone, else of DATA."""
    path = Path(notation)
    if path.is_file() and path.suffix.lower() in (".npy", ".txt", ".csv", ".tsv", ".pt", ".pth"):
        numbers, _ = as_numbered(read_labels(path))
        assert numbers is not None
        return as_labels(numbers, notation)
    return load(notation).require_labels()


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
    given: Asked | None = None,
) -> "tuple[nn.Module | None, Samples, Samples | None]":
    """Network, row samples and column samples; gate tables need no network.

    Args:
        path: checkpoint, or gate table of the rows.
        how: the checkpoint is read.
        rows: DATA and subset of the rows; nothing with a gate table.
        cols: DATA and subset of the columns, or a gate table.
        seed: of the splits.
        given: what the network was given, where options say so.

    Returns:
        What :func:`npk.kernel` takes.

    Raises:
        OptionError: data and gate table both, or neither.
    """
    put_back(path)
    if path.is_dir() and not holds_weights(path):
        table = gate_table(path)
        asked = given not in (None, Asked())
        if rows != (None, None) or cols[1] is not None or how.said or asked:
            message = (
                f"{path} is a gate table and holds its samples already. Leave out --data, "
                f"--subset, --arch, --fixed and --mean;"
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
    loading = (given or Asked()).loading(path)
    X = dataset(rows[0], rows[1], seed, loading)
    Y = None if cols[0] is None else dataset(cols[0], cols[1], seed, loading)
    return how.network(path), X, Y


def example(
    net: "nn.Module", given: Dataset | None, input_shape: str | None, most: int
) -> np.ndarray:
    """Some samples for a network: those given, else random ones of the shape that is given or
    known.

    Raises:
        OptionError: the shape is not known, or not written as whole numbers.
    """
    if given is not None:
        return given.X[:most]
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


def save(found: "Result", json: Path | None) -> None:
    """Write a result where ``--json`` says, if it says so."""
    if json is not None:
        found.save(json)


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
