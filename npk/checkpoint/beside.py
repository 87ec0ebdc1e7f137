"""Stand-ins for what training scripts keep beside the weights: options, paths, dates, NumPy
numbers.

torch's safe reader refuses every object whose name it does not know, and the weights with it. Under
the names below it is given an empty stand-in: nothing is imported, nothing is called, and what the
file says about the object is thrown away. Not even NumPy's own types are taken: a dtype in a pickle
can be forged.
"""

from collections import OrderedDict
from typing import Any


class Beside:
    """An object that is no weight, without anything in it."""

    def __new__(cls, *_: Any) -> "Beside":
        """Whatever the arguments are."""
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""


class Dictionary:
    """A dictionary of another class, read as a plain one."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """An empty dictionary, which the reader fills."""
        return OrderedDict()


class Sequence:
    """A sequence of another class, read as a list."""

    def __new__(cls, *items: Any) -> list[Any]:  # type: ignore[misc]
        """The list of the first argument, if it is one."""
        return list(items[0]) if items and isinstance(items[0], list | tuple) else []


_SETTINGS = ("AttributeDict", "AttrDict")
DICTIONARIES: dict[str, tuple[str, ...]] = {
    "collections": ("defaultdict",),
    "addict.addict": ("Dict",),
    "box.box": ("Box",),
    "easydict": ("EasyDict",),
    "fvcore.common.config": ("CfgNode",),
    "lightning.fabric.utilities.data": _SETTINGS,
    "lightning.pytorch.utilities.parsing": _SETTINGS,
    "lightning_fabric.utilities.data": _SETTINGS,
    "mmcv.utils.config": ("ConfigDict",),
    "mmengine.config.config": ("ConfigDict",),
    "munch": ("Munch",),
    "pytorch_lightning.utilities.parsing": _SETTINGS,
    "yacs.config": ("CfgNode",),
}
SEQUENCES: dict[str, tuple[str, ...]] = {
    "collections": ("deque", "UserList"),
    "builtins": ("list", "tuple", "frozenset"),
}
_NUMPY = ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
_NODES = "Any Boolean Bytes Enum Float Integer Path String"
_PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
OBJECTS: dict[str, tuple[str, ...]] = {
    "argparse": ("Namespace",),
    "builtins": ("int", "float", "str", "bool", "dict", "bytes", "object", "range", "slice"),
    "collections": ("ChainMap", "UserDict", "UserString"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "ml_collections.config_dict.config_dict": ("ConfigDict", "FrozenConfigDict"),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "numpy": (
        *"dtype ndarray bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split(),
        *("float16", "float32", "float64", "str_"),
    ),
    "numpy.core": _NUMPY,
    "numpy._core": _NUMPY,
    "numpy.random._mt19937": ("MT19937",),
    "numpy.random._pcg64": ("PCG64",),
    "numpy.random._pickle": ("__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": tuple(f"{kind}Node" for kind in _NODES.split()),
    **dict.fromkeys(("pathlib", "pathlib._local"), _PATHS),
    "torch.torch_version": ("TorchVersion",),
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "uuid": ("SafeUUID", "UUID"),
}


def stand_ins() -> list[Any]:
    """Each name that may stand in a file, after what it becomes, as ``safe_globals`` takes them."""
    kinds = ((Dictionary, DICTIONARIES), (Sequence, SEQUENCES), (Beside, OBJECTS))
    return [
        (kind, f"{module}.{name}")
        for kind, modules in kinds
        for module, names in modules.items()
        for name in names
    ]
