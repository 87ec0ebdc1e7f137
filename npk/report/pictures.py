"""Samples on a page: pictures that are part of it, each with its class in words."""

import base64
import struct
import zlib
from dataclasses import dataclass

from npk.report.subjects import class_name
from npk.results import Mistake, Neighbors, StudyResult


@dataclass(frozen=True)
class Shown:
    """A picture as a page has it."""

    source: str  # a data URI
    words: str
    caption: str
    wrong: bool = False  # of another class than it is asked for


@dataclass(frozen=True)
class Asked:
    """A test sample, and what each kernel finds most like it."""

    sample: Shown
    rows: tuple[tuple[str, tuple[Shown, ...]], ...]  # "before training", the nearest first


def png(shape: tuple[int, ...], pixels: bytes) -> bytes:
    """A picture as a PNG file.

    Args:
        shape: (height, width), or (height, width, 3).
        pixels: bytes, row by row.

    Returns:
        The file.
    """
    height, width = shape[:2]
    line = width * (shape[2] if len(shape) == 3 else 1)
    rows = b"".join(b"\0" + pixels[y * line : (y + 1) * line] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if len(shape) == 3 else 0, 0, 0, 0)
    parts = (b"IHDR" + head, b"IDAT" + zlib.compress(rows, 9), b"IEND")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_source(shape: tuple[int, ...], pixels: bytes) -> str:
    """A picture as a data URI; arguments as of :func:`png`."""
    return f"data:image/png;base64,{base64.b64encode(png(shape, pixels)).decode()}"


def _class(run: StudyResult, label: int) -> str:
    return class_name(run, label) if label >= 0 else ""


class Album:
    """The pictures of a study by number."""

    def __init__(self, run: StudyResult) -> None:
        self.run = run
        self.known = {picture.number: picture for picture in run.pictures}
        shown = {one.sample for one in (*run.neighbors, *run.mistakes)}
        shown |= {number for one in run.neighbors for number in one.near}
        self.sources = {
            number: png_source(one.shape, base64.b64decode(one.pixels))
            for number, one in self.known.items()
            if number in shown
        }

    def neighbors(self) -> dict[str, tuple[Asked, ...]]:
        """By network, the samples that are asked for."""
        found: dict[str, dict[int, list[Neighbors]]] = {}
        for one in self.run.neighbors:
            found.setdefault(one.network, {}).setdefault(one.sample, []).append(one)
        return {
            name: tuple(self._asked(sample, rows) for sample, rows in by_sample.items())
            for name, by_sample in found.items()
        }

    def _asked(self, sample: int, rows: list[Neighbors]) -> Asked:
        label = self.known[sample].label
        word = _class(self.run, label)
        shown = Shown(self.sources[sample], f"test sample {word}".strip(), word)
        order = sorted(rows, key=lambda row: row.gates == "trained")
        when = {"untrained": "before", "trained": "after"}
        parts = tuple((when[row.gates], self._near(row, label)) for row in order)
        return Asked(shown, parts)

    def _near(self, row: Neighbors, label: int) -> tuple[Shown, ...]:
        found = []
        for number, cosine in zip(row.near, row.cosines, strict=True):
            own = self.known[number].label
            word = _class(self.run, own)
            wrong = own != label
            words = f"{word}, kernel {cosine:.2f}" + (", another class" if wrong else "")
            found.append(Shown(self.sources[number], words.lstrip(", "), word, wrong))
        return tuple(found)

    def mistakes(self) -> dict[str, tuple[Shown, ...]]:
        """By network, the test samples that the machine takes for others."""
        found: dict[str, list[Shown]] = {}
        for one in self.run.mistakes:
            found.setdefault(one.network, []).append(self._mistake(one))
        return {name: tuple(shown) for name, shown in found.items()}

    def _mistake(self, one: Mistake) -> Shown:
        own = _class(self.run, self.known[one.sample].label)
        said = _class(self.run, one.said)
        network = _class(self.run, one.network_said)
        caption = f"{own}, not {said}"
        also = f"; the network says {network}" if network else ""
        words = f"{own}, which the machine takes for {said}{also}"
        return Shown(
            self.sources[one.sample],
            words,
            caption,
            one.network_said == self.known[one.sample].label,
        )
