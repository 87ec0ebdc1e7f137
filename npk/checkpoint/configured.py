"""Networks of the ``config.json`` beside weights, as Hugging Face has it: by transformers or timm.

Known entries of known families are read and nothing else, no code of the folder runs, and the
network is made without memory first: it must not be larger than the weights are.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint import libraries
from npk.checkpoint.architecture import without_drawing
from npk.checkpoint.files import first_line
from npk.checkpoint.state_dicts import state_dicts
from npk.errors import CheckpointError, MissingPackageError
from npk.typed import parse_object

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "config.json"
_MOST_BYTES = 1 << 20
_STAGES = (
    *("num_channels", "embedding_size", "hidden_sizes", "depths", "layer_type", "hidden_act"),
    "downsample_in_first_stage",
)
_MOBILE = ("num_channels", "depth_multiplier", "min_depth", "hidden_act", "tf_padding")
# Of each family of transformers: how its classes begin, and the entries that make its networks.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mobilenet_v1": ("MobileNetV1", _MOBILE),
    "mobilenet_v2": (
        "MobileNetV2",
        (
            *_MOBILE,
            *("depth_divisible_by", "expand_ratio", "output_stride"),
            *("first_layer_is_expansion", "finegrained_output"),
        ),
    ),
    "regnet": ("RegNet", (*_STAGES, "groups_width")),
    "resnet": ("ResNet", (*_STAGES, "downsample_in_bottleneck")),
}


def configured(path: Path, content: Any) -> "nn.Module | None":
    """The network that the configuration beside a file describes.

    Args:
        path: the file of weights.
        content: what it holds.

    Returns:
        The network with its initial weights; ``None`` where there is no configuration.

    Raises:
        CheckpointError: a configuration that npk does not follow, or of a larger network.
        MissingPackageError: the library that makes the network is not installed.
    """
    file = path.parent / NAME
    if not file.is_file() or (values := _read(file)) is None:
        return None
    tensors = _tensors(content, path)
    largest = max((max(tensor.shape, default=0) for tensor in tensors), default=0)
    try:
        make = _maker(file, values, largest)
        _check_size(file, make, values, tensors)
        return without_drawing(make, {})
    except (CheckpointError, MissingPackageError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"{file} does not make a network ({first_line(error)}). Give arch='module:callable'."
        ) from error


def _read(file: Path) -> dict[str, Any] | None:
    """The entries; ``None`` where they speak of no network."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return None
        values = parse_object(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if "model_type" in values or "architecture" in values else None


def _tensors(content: Any, path: Path) -> "list[Tensor]":
    """The weights: those of the largest dictionary in the file."""
    return list(max((one.tensors for one in state_dicts(content, path)), key=len).values())


def _maker(file: Path, values: dict[str, Any], largest: int) -> "Callable[[], nn.Module]":
    """What makes the network, from entries whose sizes are those of the weights."""
    if isinstance(name := values.get("architecture"), str):
        return _of_timm(file, name, values, largest)
    family = values["model_type"]
    prefix, known = FAMILIES.get(family, ("", ())) if isinstance(family, str) else ("", ())
    wanted = f"{prefix}ForImageClassification"
    if not prefix or wanted not in (values.get("architectures") or (wanted,)):
        raise CheckpointError(
            f"{file} describes a {str(values.get('architectures') or family)[:80]}; without arch=, "
            f"npk makes image classifiers of the types {', '.join(FAMILIES)}. Say what makes the "
            f"network: arch='module:callable'."
        )
    labels = values.get("id2label")
    count = len(labels) if isinstance(labels, dict) else values.get("num_labels", 2)
    options = {key: values[key] for key in known if key in values} | {"num_labels": count}
    _check_numbers(file, options, largest)
    transformers = libraries.imported("transformers", str(file))
    make = getattr(transformers, wanted)
    return lambda: make(getattr(transformers, f"{prefix}Config")(**options))


def _of_timm(
    file: Path, name: str, values: dict[str, Any], largest: int
) -> "Callable[[], nn.Module]":
    """What makes a network of timm, by the name in its configuration."""
    said = values.get("pretrained_cfg")
    cfg = said if isinstance(said, dict) else values
    options: dict[str, Any] = dict(values.get("model_args") or {})
    for key, value in (
        ("num_classes", values.get("num_classes", cfg.get("num_classes"))),
        ("in_chans", (cfg.get("input_size") or (None,))[0]),
    ):
        if value is not None:
            options.setdefault(key, value)
    if options.keys() - {"num_classes", "in_chans"}:
        raise CheckpointError(
            f"{file} asks for model_args that npk does not follow "
            f"({', '.join(sorted(options))[:80]}). Give arch='timm:{name[:60]}' with "
            f"arch_options."
        )
    _check_numbers(file, options, largest)
    make = libraries.named(f"timm:{name}")
    if make is None:
        raise CheckpointError(f"{file} names {name[:60]!r}, which is no network of timm.")
    return functools.partial(make, **options)


def _whole(value: Any) -> list[int]:
    """The whole numbers in an entry."""
    found = value if isinstance(value, list) else [value]
    return [each for each in found if isinstance(each, int)]


def _check_numbers(file: Path, options: dict[str, Any], largest: int) -> None:
    """Sizes are dimensions of the weights, or smaller."""
    for key, value in options.items():
        if any(not 0 <= number <= largest for number in _whole(value)):
            raise CheckpointError(
                f"{file} has {key}={str(value)[:40]}, and the largest dimension of its weights "
                f"is {largest}. Copy the folder again from where it was made."
            )


def _check_size(
    file: Path, make: "Callable[[], nn.Module]", values: dict[str, Any], tensors: "list[Tensor]"
) -> None:
    """Make the network without memory, and compare its size with that of the weights."""
    import torch

    blocks = sum(max(1, depth) for depth in _whole(values.get("depths")))
    if blocks > len(tensors):
        raise CheckpointError(_larger(file, f"{blocks:,} blocks", f"{len(tensors):,} tensors"))
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        asked = sum(parameter.numel() for parameter in make().parameters())
    held = sum(tensor.numel() for tensor in tensors)
    if asked > held:
        raise CheckpointError(_larger(file, f"{asked:,} numbers", f"{held:,}"))


def _larger(file: Path, asked: str, held: str) -> str:
    return (
        f"{file} describes a network of {asked}, and its weights are {held}. Copy the folder "
        f"again from where it was made."
    )
