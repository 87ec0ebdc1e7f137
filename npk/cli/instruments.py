"""Depth spectra for a command: which samples, and the figure."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.cli.reading import Asked, How, about_samples, check_place, gate_table
from npk.errors import OptionError
from npk.files import put_back, written_whole

if TYPE_CHECKING:
    from npk.checks.spectrum import DepthSpectrum

_PICTURES = (".png", ".svg", ".pdf")


def check_figure(place: Path | None) -> None:
    """Refuse a place where no picture can be written, before any work.

    Args:
        place: the file; ``None``: no picture.

    Raises:
        OptionError: another kind of file.
        StoreError: a place that cannot be written.
    """
    if place is not None and place.suffix.lower() not in _PICTURES:
        kinds = ", ".join(_PICTURES)
        raise OptionError(f"--figure {place} is no picture. Give a file that ends in {kinds}.")
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
    net: Any, X: Any, name: str, figure: Path | None, of: dict[str, str]
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

    found = depth_spectrum(net, X, progress=True, name=name, **of)
    if figure is not None:
        from npk import plot

        with written_whole(figure) as temporary:
            drawn: Any = plot.depth_spectrum({name: found}).figure
            drawn.savefig(temporary, format=figure.suffix[1:].lower())
    return found
