"""State dicts of other hands: whatever the file is called, however the weights are wrapped, and
whatever lies beside them.
"""

import argparse
import collections
import datetime
import decimal
import json
import os
import pathlib
import pickle
import sys
import threading
import types
import uuid

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import npk
from npk import cli
from npk.errors import CheckpointError, CheckpointWarning, OptionError


def small(width=5, bias=True):
    return nn.Sequential(nn.Linear(6, width, bias=bias), nn.ReLU(), nn.Linear(width, 3))


def drawn(make=small):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return make().eval()


@pytest.fixture
def state():
    return dict(drawn().state_dict())


@pytest.fixture
def read(tmp_path):
    """Writes something with torch.save and reads it as the small network; gives its weights."""

    def write_and_read(content, arch=small, **options):
        torch.save(content, tmp_path / "x.pt")
        return npk.load(tmp_path / "x.pt", arch=arch, **options).state_dict()

    return write_and_read


def assert_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0)


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


# what a file is, its bytes say


@pytest.mark.parametrize(
    "name",
    [
        "x.pth.tar",
        "x.pkl",
        "x.model",
        "x.th",
        "weights",
        "X.BIN",
        "x.safetensors",
        "x.onnx",
        "x.pt2",
        "x.npz",
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_under_any_name(tmp_path, state, name, zipped):
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_state(npk.load(tmp_path / name, arch=small).state_dict(), state)


@pytest.mark.parametrize("name", ["x.pt", "x.onnx", "weights"])
def test_safetensors_under_any_name(tmp_path, state, name):
    safetensors.torch.save_file(state, tmp_path / name)
    assert_state(npk.load(tmp_path / name, arch=small).state_dict(), state)


@pytest.mark.parametrize("start", [b"PK", b"\x80\x02", b"\x1f\x8b"])
def test_a_safetensors_header_whose_size_looks_like_another_file(tmp_path, state, start):
    """The size of the header comes first, and its bytes are those that archives begin with."""
    content = safetensors.torch.save(state)
    old, size = int.from_bytes(content[:8], "little"), int.from_bytes(start, "little")
    (tmp_path / "x").write_bytes(
        size.to_bytes(8, "little") + content[8 : 8 + old].ljust(size) + content[8 + old :]
    )
    assert_state(npk.load(tmp_path / "x", arch=small).state_dict(), state)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_and_a_script_under_other_names(tmp_path):
    net, x = drawn(), torch.ones(3, 6)
    npk.save(net, tmp_path / "x.pt2", example=x)
    (tmp_path / "x.pt2").rename(tmp_path / "x.pt")
    torch.testing.assert_close(npk.load(tmp_path / "x.pt")(x), net(x))
    torch.jit.save(torch.jit.script(net), tmp_path / "x.safetensors")
    torch.testing.assert_close(npk.load(tmp_path / "x.safetensors")(x), net(x))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"\x89HDF\r\n\x1a\n....",
            "is an HDF5 file, as Keras writes them. Export the network to ONNX",
        ),
        (b"\x1f\x8b\x08\x00....", "is a file that gzip packed. Unpack it first"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS .* git lfs pull",
        ),
        (b"<!DOCTYPE html><html>", "is a web page. Download the file itself"),
        (b"x" * 257 + b"ustar\x00", "is a tar archive. Unpack it"),
        (b"\x18\x00\x00\x00TFL3", "is a TensorFlow Lite file"),
        (
            b"dear reader",
            r"is no kind of checkpoint that npk knows: it begins with b'dear rea', "
            r"and is neither",
        ),
        (b"P", r"it begins with b'P'"),
        (b"\x08", r"it begins with b'\\x08'"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "x.weights").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        npk.load(tmp_path / "x.weights", arch=small)


def test_archives_of_other_things_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(
        CheckpointError,
        match=r"is a NumPy archive \(\.npz\) with a\.npy, and no "
        r"checkpoint",
    ):
        npk.load(tmp_path / "x.npz", arch=small)
    (tmp_path / "x.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(
        CheckpointError, match="is a zip archive with nothing in it, and no checkpoint"
    ):
        npk.load(tmp_path / "x.zip", arch=small)


# which dictionary


@pytest.mark.parametrize("key", ["state_dict_ema", "model_state", "generator", "encoder", "my net"])
def test_the_only_dictionary_of_tensors_is_taken(read, state, key):
    assert_state(
        read(
            {
                key: state,
                "epoch": 3,
                "opt": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
            }
        ),
        state,
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: [state],
        lambda state: (3, state),
        lambda state: {"state_dict": [state], "err": 0.4},
        lambda state: {"acc": torch.tensor(960), "state_dict": [state]},
        lambda state: {"run": {"fold": [{"best": state}]}},
        lambda state: {"a": state, "b": state},  # one dictionary under two names
        # in the order of the guide
        lambda state: {
            "state_dict": state,
            "ema": {name: tensor + 1 for name, tensor in state.items()},
        },
        lambda state: {"state_dict": {"features": torch.ones(2)}, "other": state},
    ],
)
@pytest.mark.filterwarnings("ignore::npk.errors.CheckpointWarning")
def test_dictionaries_and_lists_around_a_state_dict(read, state, wrap):
    assert_state(read(wrap(state)), state)


@pytest.mark.parametrize(
    ("wrap", "keys"),
    [
        (lambda one, two: {"student": one, "teacher": two}, ["student", "teacher"]),
        (lambda one, two: [one, two], ["0", "1"]),
        (lambda one, two: {"state_dict": [one, two]}, ["state_dict.0", "state_dict.1"]),
        (lambda one, two: {"nets": {"a.b": one, "c": two}}, ["nets.a.b", "nets.c"]),
        (
            lambda one, two: under("student.", one) | under("teacher.net.", two),
            ["student", "teacher.net"],
        ),
    ],
)
def test_several_dictionaries_need_a_key(read, state, wrap, keys):
    two = {name: tensor + 1 for name, tensor in state.items()}
    with pytest.raises(
        CheckpointError,
        match=f"2 dictionaries of tensors that fit small: {keys[0]}, {keys[1]}. "
        f"Choose one: key='{keys[0]}'",
    ):
        read(wrap(state, two))
    assert_state(read(wrap(state, two), key=keys[0]), state)
    assert_state(read(wrap(state, two), key=keys[1]), two)


def test_the_only_one_that_fits_is_taken_and_the_others_are_named(read, state):
    with pytest.warns(
        CheckpointWarning,
        match=r"the weights under two are all of small; not "
        r"loaded: one\.",
    ):
        assert_state(read({"one": {"0.weight": torch.ones(2)}, "two": state}), state)


def test_keys_that_lead_nowhere(read, state):
    with pytest.raises(
        CheckpointError, match="nothing under key='c'. Its dictionaries of tensors are under a, b"
    ):
        read({"a": state, "b": {"x": torch.ones(1)}}, key="c")
    with pytest.raises(CheckpointError, match="nothing under key='0.c'. It has a int"):
        read([1], key="0.c")
    with pytest.raises(CheckpointError, match="holds a int, not a state dict"):
        read([1], key=0)
    for key in (True, 1.5):
        with pytest.raises(
            OptionError, match="Give the name or number under which the file has the weights"
        ):
            read(state, key=key)


def test_no_dictionary_fits(read, state):
    with pytest.raises(
        CheckpointError,
        match=r"two does not fit small: 1 missing \(0\.bias\).* or "
        r"choose another .* by key: one\.",
    ):
        read(
            {
                "one": {"x": torch.ones(1)},
                "two": {name: tensor for name, tensor in state.items() if name != "0.bias"},
            }
        )


def test_a_list_in_itself_ends(read, state):
    content = [state]
    for _ in range(40):
        content = [content, content]
    content.append(content)
    with pytest.raises(CheckpointError, match="holds no weights"):
        read(content)


# which prefix


@pytest.mark.parametrize(
    ("wrap", "left"),
    [
        (
            lambda state: {
                "state_dict": {**under("model.", state), "criterion.weight": torch.ones(2)}
            },
            "criterion.weight",
        ),
        (
            lambda state: {"state_dict": {**under("net.", state), "val_acc.tp": torch.zeros(1)}},
            "val_acc.tp",
        ),
        (
            lambda state: {
                **under("module.model.", state),
                "module.normalizer.mean": torch.zeros(4),
            },
            "module.normalizer.mean",
        ),
        (lambda state: {**under("a.b.c.", state), "0.weight": torch.ones(2)}, "0.weight"),
        (lambda state: {**under("module._orig_mod.", state), "n": torch.ones(1)}, "n"),
    ],
)
def test_what_is_left_beside_a_prefix_is_named(read, state, wrap, left):
    with pytest.warns(CheckpointWarning, match=rf"are all of small; not loaded: {left}\."):
        assert_state(read(wrap(state)), state)


def test_averaged_models(read, state):
    with pytest.warns(CheckpointWarning, match="not loaded: n_averaged"):
        assert_state(read(torch.optim.swa_utils.AveragedModel(drawn()).state_dict()), state)


@pytest.mark.parametrize(
    "content",
    [
        lambda state: {**state, "4.weight": torch.ones(2, 3)},  # a layer that arch does not have
        lambda state: {**under("model.", state), "model.4.weight": torch.ones(2, 3)},
        lambda state: under("net.", state | {"2.extra": torch.ones(1)}),
    ],
)
def test_weights_that_the_network_lacks_are_refused(read, state, content):
    with pytest.raises(CheckpointError, match="does not fit small: 1 unknown"):
        read(content(state))


def test_a_bias_that_arch_leaves_out_is_refused(read, state):
    with pytest.raises(CheckpointError, match=r"1 unknown \(0\.bias"):
        read(under("model.", state), arch=lambda: small(bias=False))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it first compiles
def test_wrappers_inside_of_names_and_on_the_side_of_arch(read, state):
    inside = {
        name.replace("0.", "0._orig_mod.").replace("2.", "2.module."): tensor
        for name, tensor in state.items()
    }
    assert_state(read(inside), state)
    assert_state(read(state, arch=lambda: nn.DataParallel(small())), under("module.", state))
    assert_state(
        read(under("module.", state), arch=lambda: torch.compile(small())),
        under("_orig_mod.", state),
    )


# names that the network knows


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", ["a.weight", "b.weight"])
def test_one_name_of_a_tied_weight_is_enough(tmp_path, prefix, name):
    net = drawn(Tied)
    state = {key: tensor.clone() for key, tensor in net.state_dict().items() if key != name}
    safetensors.torch.save_file(under(prefix, state), tmp_path / "x.safetensors")
    loaded = npk.load(tmp_path / "x.safetensors", arch=Tied)
    assert loaded.a.weight is loaded.b.weight
    assert_state(loaded.state_dict(), net.state_dict())


def test_no_name_of_a_tied_weight_is_too_few(read):
    state = {
        key: tensor
        for key, tensor in drawn(Tied).state_dict().items()
        if key not in ("a.weight", "b.weight")
    }
    with pytest.raises(CheckpointError, match=r"2 missing \(a\.weight; b\.weight\)"):
        read(state, arch=Tied)


def test_a_tied_weight_with_two_values_is_refused(read):
    state = {key: tensor.clone() for key, tensor in drawn(Tied).state_dict().items()}
    assert_state(read(state, arch=Tied), state)
    state["b.weight"][0, 0] += 1
    with pytest.raises(
        CheckpointError,
        match=r"1 tied in it and different here \(a\.weight and "
        r"b\.weight\)",
    ):
        read(state, arch=Tied)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("prefix", ["", "module."])
def test_older_names_of_weight_norm(read, prefix):
    old = drawn(
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 3))
    )
    new = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 3)
    )
    found = read(under(prefix, old.state_dict()), arch=lambda: new)
    torch.testing.assert_close(
        found["0.parametrizations.weight.original1"], old[0].weight_v.detach(), rtol=0, atol=0
    )
    missing = {name: tensor for name, tensor in old.state_dict().items() if name != "0.weight_v"}
    with pytest.raises(CheckpointError, match=r"2 missing .*1 unknown \(0\.weight_g\)"):
        read(under(prefix, missing), arch=lambda: new)


def test_lazy_layers_take_the_shapes_of_the_file(read, state):
    assert_state(
        read(state, arch=lambda: nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3))),
        state,
    )


def test_whole_numbers_and_complex_ones_are_no_weights(read, state):
    for kind, told in ((torch.int8, "int8"), (torch.complex64, "complex64")):
        with pytest.raises(
            CheckpointError,
            match=rf"1 of another shape \(0\.weight is \(5, 6\) "
            rf"{told}, not \(5, 6\)\)",
        ):
            read({**state, "0.weight": state["0.weight"].to(kind)})


def test_a_network_with_hooks_that_raise_and_one_that_returns_nothing(read, state):
    class Own(nn.Sequential):
        def load_state_dict(self, state_dict, strict=True, assign=False):
            if len(state_dict) > 4:
                raise KeyError("too many")
            super().load_state_dict(state_dict, strict)

    def make():
        return Own(*small())

    assert_state(read(state, arch=make), state)
    with pytest.raises(CheckpointError, match="it cannot take them .KeyError: 'too many'"):
        read({**state, "more": torch.ones(1)}, arch=make)


# what lies beside the weights


def test_harmless_things_beside_the_weights(read, state):
    rich = collections.defaultdict(list, {"a": [1]})
    beside = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("run")),
        "paths": [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("b")],
        "history": rich,
        "counts": collections.Counter("aab"),
        "last": collections.deque([1, 2], maxlen=3),
        "lr": np.float32(0.1),
        "curve": np.arange(3.0),
        "rng": np.random.RandomState(0).get_state(),
        "when": datetime.datetime.now(tz=datetime.UTC),
        "price": decimal.Decimal("1.5"),
        "id": uuid.uuid4(),
        "space": types.SimpleNamespace(a=1),
        "version": torch.__version__,
        "set": {1, 2},
        "frozen": frozenset({1}),
    }
    assert_state(read({**beside, "model": collections.OrderedDict(state)}), state)
    assert_state(read({**beside, "model": collections.defaultdict(list, state)}), state)


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Unknown:
    pass


def test_other_things_beside_the_weights_are_named(read, state, tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"holds pickled code \(.*Unknown\), which npk never "
        r"runs. .*torch\.save\(net\.state_dict",
    ):
        read({"state_dict": state, "config": Unknown()})
    for wrap in (
        lambda trap: trap,
        lambda trap: pathlib.PurePosixPath("a") and collections.defaultdict(list, {"a": trap}),
    ):
        with pytest.raises(CheckpointError, match=r"\(posix\.mkdir\), which npk never runs"):
            read({"state_dict": state, "hook": wrap(Trap(tmp_path / "made"))})
    assert not (tmp_path / "made").exists()


class Forged:
    """Calls something under a name that is read as a stand-in."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments

    def __reduce__(self):
        module, name = self.name.rsplit(".", 1)
        return getattr(sys.modules[module], name), self.arguments


def test_stand_ins_do_nothing(read, state, tmp_path):
    """Neither a factory that is called, nor NumPy's reader of forged arrays, nor a number of a size
    that fills the memory.
    """
    forged = [
        Forged("builtins.range", 10**12),
        Forged("collections.deque", [1], 2),
        Forged("numpy.dtype", "O"),
        Forged("pathlib.PurePosixPath", "a"),
    ]
    assert_state(read({"state_dict": state, "beside": forged}), state)


def test_threads_that_read_at_once(tmp_path, state):
    torch.save({"state_dict": state, "path": pathlib.Path("a")}, tmp_path / "x.pt")
    found, before = [], set(torch.serialization.get_safe_globals())

    def work():
        for _ in range(10):
            found.append(npk.load(tmp_path / "x.pt", arch=small))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_pickle_that_torch_did_not_write(tmp_path, state):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(state))
    with pytest.raises(CheckpointError, match=r"was not written by torch\.save"):
        npk.load(tmp_path / "x.pkl", arch=small)


# folders


def shards(folder, state, write=safetensors.torch.save_file, suffix="safetensors"):
    names = list(state)
    places = {name: f"part-{i % 2 + 1}-of-2.{suffix}" for i, name in enumerate(names)}
    for place in set(places.values()):
        write({name: state[name] for name in names if places[name] == place}, folder / place)
    return places


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "hub"
    found.mkdir()
    (found / "config.json").write_text('{"model_type": "mlp"}')
    return found


def test_folders_with_one_file(folder, state):
    torch.save(under("model.", state), folder / "pytorch_model.bin")
    assert_state(npk.load(folder, arch=small).state_dict(), state)
    safetensors.torch.save_file(
        {name: tensor + 1 for name, tensor in state.items()}, folder / "model.safetensors"
    )
    assert_state(
        npk.load(folder, arch=small).state_dict(),
        {name: tensor + 1 for name, tensor in state.items()},
    )
    with pytest.raises(CheckpointError, match="config.json describes a mlp; without arch="):
        npk.load(folder)


@pytest.mark.parametrize(
    ("write", "suffix"), [(safetensors.torch.save_file, "safetensors"), (torch.save, "bin")]
)
def test_folders_with_shards(folder, state, write, suffix):
    index = folder / (
        "model.safetensors.index.json"
        if suffix == "safetensors"
        else "pytorch_model.bin.index.json"
    )
    places = shards(folder, state, write, suffix)
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for path in (folder, index):
        assert_state(npk.load(path, arch=small).state_dict(), state)
    index.write_text(json.dumps({"weight_map": {**places, "more": places["0.bias"]}}))
    with pytest.raises(CheckpointError, match="says that more is in part-2-of-2.*, and it is not"):
        npk.load(folder, arch=small)
    (folder / places["0.bias"]).unlink()
    with pytest.raises(CheckpointError, match=f"there is no file .*{places['0.bias']}"):
        npk.load(folder, arch=small)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no index of weights"),
        ("{}", "is no index of weights"),
        ('{"weight_map": []}', "names nothing as a file of weights"),
        ('{"weight_map": 3}', "is no index of weights"),
        ('{"weight_map": {"a": 3}}', "there is no file .*3"),
        (
            '{"weight_map": {"a": "../x.bin"}}',
            r"names \['\.\./x\.bin'\] as a file of weights. Only files beside it are "
            r"read",
        ),
        ('{"weight_map": {"a": "/etc/x.bin"}}', "Only files beside it are read"),
    ],
)
def test_indexes_that_are_none(folder, content, message):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        npk.load(folder, arch=small)


def test_folders_without_weights_and_with_too_many(folder, state):
    with pytest.raises(
        CheckpointError, match="is a folder without weights. Name a checkpoint file"
    ):
        npk.load(folder, arch=small)
    torch.save(state, folder / "epoch1.pt")
    assert_state(npk.load(folder, arch=small).state_dict(), state)
    torch.save(state, folder / "epoch2.pt")
    with pytest.raises(
        CheckpointError,
        match=r"is a folder with 2 checkpoints \(epoch1\.pt, "
        r"epoch2\.pt\). Name the file",
    ):
        npk.load(folder, arch=small)


# arch in a file


@pytest.fixture
def code(tmp_path, monkeypatch, state):
    """A folder with code and weights, which is the current one."""
    before = dict(sys.modules)
    torch.save(state, tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


MAKE = (
    "from torch import nn\ndef make():\n    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), "
    "nn.Linear(5, 3))\n"
)


def test_arch_in_a_file(code, state):
    name = f"own_{os.getpid()}"
    (code / f"{name}.py").write_text(
        MAKE + "class Nets:\n    @staticmethod\n    def small():\n        return make()\n"
    )
    (code / "deep").mkdir()
    (code / "deep" / "with-dash.py").write_text(MAKE)
    (code / "deep" / "json.py").write_text(MAKE)  # the name of a module that is there already
    paths, before = (
        [
            f"{name}.py",
            f"./{name}.py",
            str(code / f"{name}.py"),
            "deep/with-dash.py",
            "deep/json.py",
        ],
        list(sys.path),
    )
    for path in paths:
        assert_state(npk.load("x.pt", arch=f"{path}:make").state_dict(), state)
    assert_state(npk.load("x.pt", arch=f"{name}.py:Nets.small").state_dict(), state)
    assert sys.modules["json"] is json
    assert sys.path == before


def test_arch_in_a_file_of_a_package(code, state):
    package = code / f"package_{os.getpid()}"
    (package / "models").mkdir(parents=True)
    for folder in (package, package / "models"):
        (folder / "__init__.py").touch()
    (package / "layers.py").write_text(MAKE)
    (package / "models" / "small.py").write_text("from ..layers import make\n")
    assert_state(npk.load("x.pt", arch=f"{package.name}/models/small.py:make").state_dict(), state)


def test_arch_in_a_file_that_does_not_work(code):
    (code / "broken-arch.py").write_text("1 / 0\n")
    (code / "empty-arch.py").write_text("")
    for path, message in {
        "none.py": "there is no file none.py",
        "broken-arch.py": "importing .*broken-arch.py failed with ZeroDivisionError",
        "empty-arch.py": "has no callable make. Did you mean another module",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            npk.load("x.pt", arch=f"{path}:make")
    with pytest.raises(OptionError, match="names no callable"):
        npk.load("x.pt", arch="empty-arch.py")


# the command line


def test_command_line_takes_key_folder_and_file(code, state, capsys):
    (code / f"own2_{os.getpid()}.py").write_text(MAKE)
    (code / "hub").mkdir()
    torch.save(
        {"student": {name: tensor + 1 for name, tensor in state.items()}, "teacher": state},
        code / "hub" / "pytorch_model.bin",
    )
    np.save("X.npy", np.random.default_rng(0).random((4, 6), dtype=np.float32))
    how = ["hub", "--arch", f"own2_{os.getpid()}.py:make", "--data", "X.npy"]
    assert (
        cli.run(["kernel", *how, "--key", "teacher", "--out", "K.npy", "--backend", "reference"])
        == 0
    ), capsys.readouterr().err
    np.testing.assert_array_equal(
        np.load("K.npy"), npk.kernel(drawn(), np.load("X.npy"), backend="reference")
    )
    assert cli.run(["kernel", *how, "--out", "L.npy"]) == 2
    assert "Choose one: --key" in capsys.readouterr().err
    npk.save(drawn(), "x.pt2", example=torch.ones(1, 6))
    assert cli.run(["inspect", "x.pt2", "--key", "a", "--input-shape", "6"]) == 2
    assert "holds its own graph and has no use for --key a" in capsys.readouterr().err
