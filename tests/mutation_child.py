"""Reads mutated files as a user would, one after the other, and says in a line of JSON how each
went.

Run as ``python mutation_child.py KIND FOLDER FIRST LAST``; the folder has ``good`` files and
receives the mutated ones. It runs in a process of its own because a mutated file may end it, take
its memory, or never end.
"""

import json
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from mutations import mutate_file, mutate_folder, seed
from torch import nn

import npk
import npk.checkpoint
from npk.errors import NpkError

MEMORY, SECONDS = 2 << 30, 60
SUFFIXES = {
    "torchscript": ".ts",
    "torchscript weights": ".ts",
    "pt": ".pt",
    "pth": ".pth",
    "gates": "",
    "store": ".zarr",
}


def network():
    """A small convolutional network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


def samples():
    return np.random.default_rng(0).random((4, 1, 4, 4)).astype(np.float32)


def make(kind, path):
    """Write a good file."""
    net, X = network(), samples()
    if kind in ("pt", "safetensors", "pt2"):
        npk.save(net, path, **({"example": X[:1]} if kind == "pt2" else {}))
    elif kind == "safetensors of npk":
        npk.save(
            npk.networks.build("conv", input_shape=[1, 4, 4], classes=3, channels=[2], seed=0),
            path,
            note=[1, {"a": None}],
        )
    elif kind == "pth":
        torch.save({"epoch": 3, "state_dict": net.state_dict(), "best": 0.5}, path)
    elif kind == "legacy pt":
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    elif kind.startswith("torchscript"):
        torch.jit.save(torch.jit.trace(net, torch.from_numpy(X[:2])), path)
    elif kind == "onnx":
        write_onnx(net, path)
    elif kind == "npz":
        np.savez_compressed(path, X=X, y=np.arange(4))
    elif kind == "npy":
        np.save(path, X)
    elif kind == "gates":
        npk.record_gates(net, X).save(path)
    else:
        npk.kernel(net, X, out=path)


def write_onnx(net, path):
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["m"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["m", "t"], ["f"]),
        helper.make_node("Transpose", ["v"], ["vt"], perm=[1, 0]),
        helper.make_node("Gemm", ["f", "vt", "d"], ["y"]),
    ]
    state = {"w": net[0].weight, "b": net[0].bias, "v": net[5].weight, "d": net[5].bias}
    tensors = [
        numpy_helper.from_array(value.detach().numpy(), name) for name, value in state.items()
    ]
    tensors += [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in {"zero": [0], "rest": [8]}.items()
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 1, 4, 4]), ("y", ["n", 3]))
    )
    save(
        helper.make_model(
            helper.make_graph(nodes, "g", [x], [y], tensors),
            opset_imports=[helper.make_opsetid("", 17)],
        ),
        path,
    )


def read(kind, path):
    """What is in a file, as a dictionary of arrays."""
    if kind in ("npz", "npy"):
        found = npk.data.load(str(path))
        return {"X": found.X} | ({} if found.y is None else {"y": found.y})
    if kind == "gates":
        table = npk.GateTable.load(path)
        return {"inputs": table.inputs, "gates": np.concatenate([layer.ravel() for layer in table])}
    if kind == "store":
        return {"kernel": np.asarray(npk.Gram.load(path))}
    if kind == "safetensors of npk":
        npk.checkpoint.read_details(path)
    arch = (
        {"arch": network}
        if kind in ("pt", "pth", "legacy pt", "safetensors", "torchscript weights")
        else {}
    )
    net = npk.load(path, **arch)
    found = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    if not arch:
        npk.trace(net, (1, 4, 4))  # what npk understands can be computed
        with torch.no_grad():
            found["output"] = net(torch.from_numpy(samples())).numpy()
    return found


def same(found, expected, shapes=False):
    if found.keys() != expected.keys():
        return False
    pairs = [(np.asarray(found[name]), np.asarray(expected[name])) for name in expected]
    return all(
        a.shape == b.shape and (shapes or np.array_equal(a, b, equal_nan=True)) for a, b in pairs
    )


def outcome(kind, path, expected):
    """How reading went: refused, same, other (values of the same shapes), reshaped, or what is
    wrong.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = read(kind, path)
        except NpkError as error:
            text = str(error)
            how = "refused" if text and "\n" not in text else f"WRONG: no sentence: {text!r}"
        except MemoryError:
            how = f"WRONG: memory {traceback.format_exc()[-600:]}"
        except Exception:
            how = f"WRONG: {traceback.format_exc()[-1500:]}"
        else:
            finite = all(
                np.isfinite(value).all()
                for value in map(np.asarray, found.values())
                if value.dtype.kind == "f"
            )
            how = (
                "same"
                if same(found, expected)
                else "other"
                if same(found, expected, True)
                else "reshaped"
            )
            how = how if finite else "WRONG: values are not finite"
    foreign = [
        str(w.message)[:200] for w in told if not issubclass(w.category, npk.errors.KernelWarning)
    ]
    return f"WRONG: warning {foreign[0]}" if foreign and not how.startswith("WRONG") else how


def main(kind, folder, first, last):
    warnings.simplefilter("ignore")
    suffix = SUFFIXES.get(kind, f".{kind.split()[0]}")
    good = Path(folder) / f"good{suffix}"
    if not good.exists():
        make(kind, good)
    expected = read(kind, good)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    for number in range(int(first), int(last)):
        rng, path = np.random.default_rng(seed(kind, number)), Path(folder) / f"m{number}{suffix}"
        (mutate_folder if good.is_dir() else mutate_file)(rng, good, path)
        print(json.dumps({"number": number}), flush=True)
        start = time.monotonic()
        signal.alarm(SECONDS)
        how = outcome(kind, path, expected)
        signal.alarm(0)
        print(
            json.dumps(
                {"number": number, "how": how, "seconds": round(time.monotonic() - start, 2)}
            ),
            flush=True,
        )
        if not how.startswith("WRONG"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
