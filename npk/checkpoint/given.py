"""What a network was given, as its file says or a configuration that lies beside it.

npk's own has the arguments of :func:`npk.data.preparation` under ``"preparation"``; what is wrong in
it is refused. Others are those of Hugging Face's image processors, of timm and of torchvision's presets.
They are plain JSON of which known entries are read. One that asks for what npk does not do is not
followed in part: npk says so, and takes the samples as they are.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npk.checkpoint import folders
from npk.checkpoint.files import check_file, first_line
from npk.checkpoint.kinds import ONNX, SAFETENSORS, kind_of
from npk.checkpoint.weights import read_description
from npk.data import Preparation, preparation
from npk.errors import CheckpointError, CheckpointWarning, MissingPackageError, NpkError, warn
from npk.typed import parse_object

_MOST_BYTES = 1 << 20  # of a configuration
_NAMES = ("preprocessor_config.json", "config.json")
_PILLOW = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
# What the metadata of ONNX call the range of pixels.
_RANGES = {
    "NominalRange_0_255": Preparation(scale_pixels=1.0),
    "Normalized_0_1": Preparation(),
    "Normalized_1_1": Preparation(mean=(0.5,), std=(0.5,)),
}
# Switches of Hugging Face's processors that change nothing in what npk does.
_IDLE = ("do_convert_rgb", "do_reduce_labels")
_NOT_CUT = 384  # pixels
_UNLIKE_255 = 1e-6  # relative


@dataclass(frozen=True)
class Given:
    """What a network was given.

    Args:
        preparation: what was done to its samples.
        source: the file that says so.
        own: whether it is npk's way of saying it; a configuration from elsewhere speaks of pictures
            alone.
    """

    preparation: Preparation
    source: Path
    own: bool = False


def preparation_of(path: str | os.PathLike) -> Preparation | None:
    """What was done to the samples that a network was trained on.

    Args:
        path: a checkpoint, or a folder of weights, as :func:`npk.load` takes it.

    Returns:
        As the file says, else a configuration beside it; ``None`` where nothing does.
        ``npk.data.load(..., preparation=...)`` takes it.

    Raises:
        CheckpointError: no such file, or a damaged description.
    """
    found = given_to(Path(path))
    return None if found is None else found.preparation


def given_to(path: Path) -> Given | None:
    """As :func:`preparation_of`, with the file that says so."""
    if path.is_dir():
        path = folders.weights_in(path)
    check_file(path)
    kind = kind_of(path)
    if kind == SAFETENSORS and (own := _described(path)) is not None:
        return Given(own, path, own=True)
    if kind == ONNX and (said := _in_metadata(path)) is not None:
        return Given(said, path)
    for file in (path.with_suffix(".json"), *(path.parent / name for name in _NAMES)):
        if file == path or not file.is_file() or (values := _values(file)) is None:
            continue
        if _is_object(values, "preparation"):
            return Given(_own(file, values["preparation"]), file, own=True)
        if (said := _configured(file, values)) is not None:
            return Given(said, file)
    return None


def _own(file: Path, values: dict[str, Any]) -> Preparation:
    """What somebody who knows npk wrote beside the weights."""
    given = {name: value for name, value in values.items() if value not in (None, [])}
    how = given.pop("interpolation", Preparation().interpolation)
    try:
        return replace(preparation(**given), interpolation=how)
    except (NpkError, TypeError) as error:
        raise CheckpointError(
            f"{file}: its preparation cannot be followed ({first_line(error)}). Give the arguments "
            f'of npk.data.preparation, such as {{"mean": "cifar10"}}.'
        ) from error


def _described(path: Path) -> Preparation | None:
    """What npk wrote into the file."""
    try:
        said = read_description(path).get("preparation")
    except CheckpointError:  # not npk's, or damaged: loading says so
        return None
    if said is None:
        return None
    try:
        return Preparation.from_values(said)
    except NpkError as error:
        raise CheckpointError(
            f"{path}: its description is damaged ({first_line(error)}). Copy it again from where "
            f"it was made."
        ) from error


def _in_metadata(path: Path) -> Preparation | None:
    """The range of pixels that an ONNX file names."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            "reading ONNX files needs the package onnx. Run: pip install '.[onnx]'"
        ) from error
    try:
        properties = onnx.load(path, load_external_data=False).metadata_props
    except Exception:  # of protobuf: of any kind; loading the network says what is wrong
        return None
    said = {entry.key: entry.value for entry in properties}.get("Image.NominalPixelRange")
    if said is not None and said not in _RANGES:
        _not_followed(path, f"pixels in the range {said[:40]!r}")
    return None if said is None else _RANGES.get(said)


def _values(file: Path) -> dict[str, Any] | None:
    """The entries of a configuration; ``None`` where it is none."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return None
        return parse_object(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _configured(file: Path, values: dict[str, Any]) -> Preparation | None:
    """What a configuration asks for; ``None`` where it is none of pictures, or not followed."""
    values = values["pretrained_cfg"] if _is_object(values, "pretrained_cfg") else values
    for reader, keys in _READERS:
        if any(key in values for key in keys):
            try:
                return reader(values)
            except (NpkError, ValueError, TypeError, KeyError, OverflowError) as error:
                _not_followed(file, str(error))
                return None
    return None


def _is_object(values: dict[str, Any], key: str) -> bool:
    return isinstance(values.get(key), dict)


def _not_followed(file: Path, why: str) -> None:
    warn(
        f"{file} says what the network was given, and npk does not follow it ({why}). Say it with "
        f"mean=, std= and resize=, on the command line --mean, --std and --resize.",
        CheckpointWarning,
    )


def _of_processor(values: dict[str, Any]) -> Preparation:
    """Hugging Face's image processors."""
    asked = {key for key, value in values.items() if key.startswith("do_") and value}
    known = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", *_IDLE}
    if asked - known:
        raise ValueError(f"it asks for {', '.join(sorted(asked - known))}")
    resize, crop = _sizes_of_processor(values)
    factor = float(values.get("rescale_factor", 1 / 255)) if _on(values, "do_rescale") else 1.0
    plain = abs(factor * 255 - 1) < _UNLIKE_255
    normalized = _on(values, "do_normalize")
    return Preparation(
        mean=_numbers(values, "image_mean") if normalized else (),
        std=_numbers(values, "image_std") if normalized else (),
        resize=resize,
        crop=crop,
        scale_pixels=None if plain else 1 / factor,
        interpolation=_interpolation(values.get("resample", 2)),
    )


def _on(values: dict[str, Any], key: str) -> bool:
    return bool(values.get(key, True))


def _sizes_of_processor(values: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sides that are resized to, and those of the middle."""
    if values.get("crop_pct") is not None:
        return _sizes_of_convnext(values)
    cut = bool(values.get("do_center_crop", False))
    crop = _both(values["crop_size"]) if cut else ()
    if not values.get("do_resize", False):
        return (), crop
    size = values["size"]
    if isinstance(size, int):
        return ((size,) if cut else (size, size)), crop
    if set(size) == {"shortest_edge"}:
        return (int(size["shortest_edge"]),), crop
    return _both(size), crop


def _sizes_of_convnext(values: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """As the processor of ConvNeXt and ResNet has them: large pictures are not cut."""
    side = int(values["size"]["shortest_edge"])
    if side >= _NOT_CUT:
        return (side, side), ()
    return (int(side / float(values["crop_pct"])),), (side, side)


def _both(size: Any) -> tuple[int, int]:
    """Height and width."""
    if isinstance(size, int):
        return size, size
    if set(size) != {"height", "width"}:
        raise ValueError(f"it asks for the size {str(size)[:60]}")
    return int(size["height"]), int(size["width"])


def _of_timm(values: dict[str, Any]) -> Preparation:
    """The configuration that timm keeps beside weights; its test-time crop."""
    _, height, width = (int(side) for side in values["input_size"])
    mode, share = values.get("crop_mode", "center"), float(values.get("crop_pct", 0.875))
    if height != width or mode not in ("center", "squash"):
        raise ValueError(f"it asks for crop_mode {str(mode)[:20]} and {height} x {width} pixels")
    side = math.floor(height / share)
    return Preparation(
        mean=_numbers(values, "mean"),
        std=_numbers(values, "std"),
        resize=(side,) if mode == "center" else (side, side),
        crop=(height, width),
        interpolation=_interpolation(values.get("interpolation", "bicubic")),
    )


def _of_preset(values: dict[str, Any]) -> Preparation:
    """The fields of torchvision's presets of classification."""
    crop, resize = (_listed(values[key]) for key in ("crop_size", "resize_size"))
    return Preparation(
        mean=_numbers(values, "mean"),
        std=_numbers(values, "std"),
        resize=resize,
        crop=crop * 2 if len(crop) == 1 else crop,
        interpolation=_interpolation(
            str(values.get("interpolation", "bilinear")).rpartition(".")[2].lower()
        ),
    )


def _listed(given: Any) -> tuple[int, ...]:
    return (int(given),) if isinstance(given, int) else tuple(int(side) for side in given)


def _numbers(values: dict[str, Any], key: str) -> tuple[float, ...]:
    given = values[key]
    parts = given if isinstance(given, list) else [given]
    return tuple(float(part) for part in parts)


def _interpolation(given: Any) -> Any:
    """Pillow's name; a Preparation refuses any other."""
    return _PILLOW[given] if isinstance(given, int) and 0 <= given < len(_PILLOW) else given


_READERS: tuple[tuple[Callable[[dict[str, Any]], Preparation], tuple[str, ...]], ...] = (
    (_of_processor, ("image_mean", "image_processor_type", "feature_extractor_type")),
    (_of_preset, ("resize_size",)),
    (_of_timm, ("input_size",)),
)
