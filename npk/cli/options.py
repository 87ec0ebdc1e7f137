"""Arguments and options that commands share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from npk import choices

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="Checkpoint: .safetensors, .pt2, .onnx, TorchScript, or a state dict or folder of "
        "weights with --arch.",
        show_default=False,
    ),
]
CheckpointOrGates = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT", help="Checkpoint, or a folder that `npk gates` wrote.", show_default=False
    ),
]
CheckpointOrStore = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="Checkpoint, or a folder that `npk gates` or `npk kernel` wrote.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        metavar="DATA",
        help="digits, mnist5k, FILE.npz, FILE.npy, a folder of pictures, idx:DIR, cifar10:DIR; a "
        "slice may follow.",
        show_default=False,
    ),
]
MaybeData = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Samples: digits, mnist5k, FILE.npz, FILE.npy, a folder, "
        "idx:DIR, cifar10:DIR, with a slice.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:CALLABLE",
        help="What makes the network, for files that do not say; or FILE.py:CALLABLE, timm:NAME, "
        "torchvision:NAME.",
    ),
]
ArchOption = Annotated[
    list[str],
    typer.Option(
        "--arch-option",
        metavar="KEY=VALUE",
        help="Keyword argument of --arch, a Python literal or text; may be repeated.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", help="Which dictionary of tensors is meant, where a file holds several."
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Number or key of an output of the network, or a module whose output is taken.",
    ),
]
Fixed = Annotated[
    list[str],
    typer.Option(
        "--fixed",
        metavar="NAME",
        help="Parameters or buffers that are fixed coefficients and no weights, such as 'blur.*'; "
        "may be repeated.",
    ),
]
Layout = Annotated[
    choices.LayoutName, typer.Option(help="nhwc where the network takes samples as (H, W, C).")
]
FirstSamples = Annotated[
    int, typer.Option(min=1, help="How many samples of DATA are used, from the first on.")
]
QuarterTest = Annotated[
    str | None, typer.Option(metavar="DATA", help="Test samples; a quarter of --data if left out.")
]
HalfTest = Annotated[
    str | None, typer.Option(metavar="DATA", help="Test samples; half of --data if left out.")
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Labels of a store or of --data: a file, or DATA; those that it has if left out.",
    ),
]
LabelsOfData = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Labels of --data, a .npy file.")
]
Seen = Annotated[
    bool | None,
    typer.Option(
        "--seen/--fresh", help="Whether the networks were trained on these samples; not known."
    ),
]
Splits = Annotated[int, typer.Option(min=1, help="Draws of fresh samples.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what it will take, write nothing.")]


def _names_a_file(given: Path | None) -> Path | None:
    """Refuse an option in the place of the file that ``--json`` names."""
    if given is not None and str(given).startswith("-"):
        raise typer.BadParameter(f"{given} is no file. {JSON_IS_A_FILE}")
    return given


JSON_IS_A_FILE = (
    "--json names the file that the result is written to as JSON; `npk kernel --events` tells plan, "
    "progress and result line by line"
)
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the result as JSON too.", callback=_names_a_file
    ),
]
Events = Annotated[
    bool, typer.Option("--events", help="Tell plan, progress and result as a JSON object a line.")
]
Seed = Annotated[
    int, typer.Option(min=0, help="Of the stratified split (and of all that is drawn).")
]
Scale = Annotated[
    choices.ScaleName,
    typer.Option(help="Layers divide by their fan-in, nothing does, or K(x, x) is 1."),
]
Dtype = Annotated[choices.DtypeName, typer.Option(help="Of the arithmetic and of the result.")]
Gates = Annotated[choices.GatesName, typer.Option(help="auto: as the network evaluates.")]
MaybeGates = Annotated[choices.GatesName | None, typer.Option(help="auto: as it evaluates.")]
MaybeValueInput = Annotated[
    choices.ValueInputName | None, typer.Option(help="auto: as the network has it.")
]
Shifts = Annotated[
    str | None,
    typer.Option(
        metavar="SHIFTS", help='auto, all, how many to draw, or a list such as "0,1;2,2".'
    ),
]
Group = Annotated[
    choices.GroupName | None, typer.Option(help="Of `invariance`; dihedral: turns and reflections.")
]
ValueInput = Annotated[
    choices.ValueInputName, typer.Option(help="What paths start from; auto: as the network has it.")
]
Bias = Annotated[choices.BiasName, typer.Option(help="auto: paths where there are biases.")]
Of = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="What is asked of the paths: paths, tangent, depth=8, without=block:3 and others.",
    ),
]
Backend = Annotated[choices.BackendName, typer.Option(help="auto: the CPU.")]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Budget of the whole process, such as 8GB.")
]
MemoryOfKernels = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Budget of each kernel, such as 8GB, beside what the process holds."
    ),
]

Given = Annotated[Any, "what the network was given, an Asked; its options come from `prepares`"]
# What a network was given; the commands of a network get them in one, by :func:`prepares`.
_PREPARATION = {
    "mean": Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Mean that the network's samples had subtracted: a number, one a channel with "
            "commas, imagenet, cifar10 or mnist; none: samples as they are.",
        ),
    ],
    "std": Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="What was divided by; that of a named --mean."),
    ],
    "resize": Annotated[
        str | None,
        typer.Option(
            metavar="SIDE|H,W", help="Shorter side of pictures (the middle is kept), or both."
        ),
    ],
    "crop": Annotated[
        str | None, typer.Option(metavar="SIDE|H,W", help="The middle that is kept of pictures.")
    ],
    "scale_pixels": Annotated[
        str | None, typer.Option(metavar="NUMBER", help="What pixels are divided by; bytes by 255.")
    ],
    "sequences": Annotated[
        bool,
        typer.Option(
            "--sequences", help="Arrays of 3 dimensions are (n, channels, length), not pictures."
        ),
    ],
}


def prepares(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what a network was given.

    Args:
        command: takes them as ``given``, an :class:`npk.cli.reading.Asked`.

    Returns:
        The command as typer sees it.
    """

    @functools.wraps(command)
    def prepared(**options: Any) -> Any:
        from npk.cli.reading import Asked

        texts = {name: options.pop(name) for name in _PREPARATION}
        return command(**options, given=Asked(**texts))

    own = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(
            name, kind, default=False if name == "sequences" else None, annotation=annotation
        )
        for name, annotation in _PREPARATION.items()
    ]
    both = [*(p.replace(kind=kind) for p in own), *added]
    vars(prepared)["__signature__"] = inspect.Signature(both)
    prepared.__annotations__ = {p.name: p.annotation for p in both}
    return prepared
