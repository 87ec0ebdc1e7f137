"""Depth spectra for a command: which samples, and the figure."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.cli.fitting import stored_labels
from npk.cli.reading import Asked, How, about_samples, check_place, gate_table
from npk.errors import REPORT, DataError, OptionError, check_installed
from npk.files import put_back, written_whole

if TYPE_CHECKING:
    from npk.checks.spectrum import DepthSpectrum

KERNEL_FIGURES, GATE_FIGURES = ("kernel", "alignment", "spectrum"), ("statistics", "overlap")
_PICTURES = (".png", ".svg", ".pdf")


def check_figure(place: Path | None, option: str = "--figure") -> None:
    """Refuse a place where no picture can be written, before any work.

    Args:
        place: the file; ``None``: no picture.
        option: that names it.

    Raises:
        OptionError: another kind of file.
        StoreError: a place that cannot be written.
    """
    if place is not None and place.suffix.lower() not in _PICTURES:
        kinds = ", ".join(_PICTURES)
        raise OptionError(f"{option} {place} is no picture. Give a file that ends in {kinds}.")
    check_place(place)


def few(
    path: Path,
    how: How,
    data: str | None,
    samples: int,
    given: Asked,
    tell: Callable[[list[str]], None],
) -> tuple[Any, Any]:
    """A network and its first samples; or no network, and the first of a gate table.

    Args:
        path: a checkpoint, or a folder of gates.
        how: the checkpoint is read.
        data: DATA notation; nothing with a folder of gates.
        samples: at most.
        given: what the network was given, where options say so.
        tell: is told of the samples.

    Returns:
        Network and samples, or ``None`` and gates.

    Raises:
        OptionError: no data, or data and a folder of gates.
    """
    from npk.checkpoint.folders import holds_weights

    put_back(path)
    if path.is_dir() and not holds_weights(path):
        if data is not None or how.said or given != Asked():
            what = f"{path} is a gate table and holds its samples already"
            raise OptionError(f"{what}. Leave out --data, --arch and --mean.")
        return None, gate_table(path).take(slice(0, samples))
    if data is None:
        raise OptionError(
            "--data is missing: it names the samples to look at. Add for instance --data digits."
        )
    loading, net = given.loading(path), how.network(path)
    whole = loading.load(data)
    tell(about_samples(loading, net, whole))
    return net, whole.X[:samples]


def spectrum(
    net: Any, X: Any, name: str, figure: Path | None, of: dict[str, Any]
) -> "DepthSpectrum":
    """The depth spectrum, drawn where a picture is asked for.

    Args:
        net: the network, or ``None``.
        X: samples, or gates.
        name: of the network.
        figure: file of the picture.
        of: options of the kernel.

    Returns:
        What was found.
    """
    from npk.checks.spectrum import depth_spectrum

    if figure is not None:
        check_installed(*REPORT)
    found = depth_spectrum(net, X, progress=True, name=name, **of)
    if figure is not None:
        from npk import plot

        _save(plot.depth_spectrum({name: found}), figure)
    return found


def _save(axes: Any, out: Path) -> None:
    with written_whole(out) as temporary:
        axes.figure.savefig(temporary, format=out.suffix[1:].lower())


def draw(path: Path, what: str | None, labels: str | None, out: Path) -> None:
    """A figure of a kernel or of gates.

    Args:
        path: a store, or a kernel in a .npy file.
        what: the figure; ``None``: the first of its kind.
        labels: file of labels, or DATA; ``None``: those of the store.
        out: file of the picture.

    Raises:
        OptionError: an unknown figure, or one that needs labels that are not known.
    """
    from npk.stores.manifests import content_of

    kinds = GATE_FIGURES if content_of(path) == "gate table" else KERNEL_FIGURES
    what = what or kinds[0]
    if what not in kinds:
        raise OptionError(f"--what {what} is no figure of {path}. Choose {', '.join(kinds)}.")
    if kinds is GATE_FIGURES:
        _save(_gates_drawn(path, what, labels), out)
    else:
        _save(_kernel_drawn(path, what, labels), out)


def _gates_drawn(path: Path, what: str, labels: str | None) -> Any:
    from npk import measures, plot

    store = gate_table(path)
    if what == "statistics":
        return plot.gate_statistics(measures.gate_statistics(store))
    y = stored_labels(path, labels, store.about, len(store))
    return plot.class_overlap(measures.class_overlap(store, y))


def _kernel_drawn(path: Path, what: str, labels: str | None) -> Any:
    from npk import plot

    K, about = _kernel_in(path)
    if what == "spectrum":
        return plot.spectrum(K)
    if what == "kernel" and labels is None and "labels" not in about:
        return plot.kernel(K)
    y = stored_labels(path, labels, about, len(K))
    return plot.kernel(K, y) if what == "kernel" else plot.alignment(K, y)


def _kernel_in(path: Path) -> tuple[Any, dict[str, Any]]:
    """A kernel, and what is known of its samples.

    Raises:
        DataError: a .npy file that is none.
    """
    import numpy as np

    from npk.data.tables import read_array
    from npk.gram.matrix import Gram
    from npk.gram.writing import GIVEN

    if path.suffix.lower() != ".npy":
        gram = Gram.load(path)
        return gram, gram.about.get(GIVEN, {})
    K = read_array(path)
    if K.ndim != 2 or K.dtype.kind != "f":
        raise DataError(f"{path} holds {K.dtype} of shape {K.shape}, no kernel. Name another file.")
    return np.asarray(K), {}
