"""Checkpoints come back as they were saved; whatever is wrong with a file is said in a sentence."""

import argparse
import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import npk
from npk import checkpoint
from npk.errors import CheckpointError, OptionError, StoreError

CHOICES = [
    ("fc", "dnn", {"input_shape": [6], "hidden": [5, 4]}),
    ("fc", "dlgn-sf", {"input_shape": [6], "hidden": [5, 5]}),
    ("conv", "dgn", {"input_shape": [1, 8, 8], "channels": [3, 3], "batch_norm": True}),
    ("conv", "dlgn", {"input_shape": [1, 8, 8], "channels": [3, 3]}),
]


@pytest.fixture
def net():
    return npk.networks.build(
        "conv", kind="dlgn", input_shape=(1, 8, 8), classes=3, channels=(4, 4), seed=1
    )


@pytest.fixture
def plain():
    """A network that npk did not build, with batch norm statistics that are not the initial ones."""
    net = small(width=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return net.eval()


def small(width=5):
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def inputs(shape, n=4):
    return torch.from_numpy(np.random.default_rng(2).random((n, *shape), dtype=np.float32))


def assert_same_network(actual, expected, x):
    assert not actual.training
    with torch.no_grad():
        torch.testing.assert_close(actual(x), expected(x), rtol=0, atol=0)


def one_sentence(error):
    return len(str(error.value)) < 600 and "\n" not in str(error.value)


# round trips


@pytest.mark.parametrize(("arch", "kind", "options"), CHOICES)
def test_safetensors_rebuilds_networks_of_npk(tmp_path, arch, kind, options):
    net = npk.networks.build(arch, kind=kind, classes=3, seed=3, **options)
    npk.save(net, tmp_path / "x.safetensors")
    loaded = npk.load(tmp_path / "x.safetensors")
    assert type(loaded) is type(net)
    assert loaded.architecture == net.architecture
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(net)
    assert_same_network(loaded, net, inputs(options["input_shape"]))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".PT"])
def test_other_networks_come_back_through_arch(tmp_path, plain, suffix):
    path = tmp_path / f"x{suffix}"
    npk.save(plain, path)
    loaded = npk.load(path, arch=small, arch_options={"width": 5})
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(plain)
    assert_same_network(loaded, plain, inputs([6]))


def test_details_travel_with_the_weights(tmp_path, net):
    npk.save(net, tmp_path / "x.safetensors", accuracy=0.975, data="digits", curve=(1, 2))
    assert checkpoint.read_details(tmp_path / "x.safetensors") == {
        "accuracy": 0.975,
        "data": "digits",
        "curve": [1, 2],
    }


def test_the_file_says_who_wrote_it(tmp_path, net):
    npk.save(net, tmp_path / "x.safetensors")
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        described = json.loads(file.metadata()["npk"])
    assert described == {
        "format": 1,
        "version": npk.__version__,
        "architecture": net.architecture,
        "details": {},
    }


def test_double_precision_and_tied_weights_survive(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x))

    net = Tied().double().eval()
    npk.save(net, tmp_path / "x.safetensors")
    loaded = npk.load(tmp_path / "x.safetensors", arch=Tied)
    assert loaded.one.weight.dtype == torch.float64
    assert loaded.one.weight is loaded.two.weight
    assert_same_network(loaded, net, inputs([3]).double())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_half_precision_becomes_float32(tmp_path, plain, suffix, half):
    state = {
        name: t.to(half) if t.is_floating_point() else t for name, t in plain.state_dict().items()
    }
    path = tmp_path / f"x{suffix}"
    (torch.save if suffix == ".pt" else safetensors.torch.save_file)(state, path)
    loaded = npk.load(path, arch=lambda: small().to(half))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded[0].weight, plain[0].weight.to(half).float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {"module." + name: t for name, t in state.items()},
        lambda state: {"state_dict": {"module._orig_mod." + name: t for name, t in state.items()}},
        lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
        lambda state: {
            "epoch": 3,
            "lr": np.float64(0.1),
            "options": argparse.Namespace(a=1),
            "checkpoint": {"net": state},
        },
        lambda state: {**state, "epoch": 3},
        lambda state: {"ema": {"teacher." + name: t for name, t in state.items()}},
    ],
)
def test_wrapped_state_dicts(tmp_path, plain, wrap):
    torch.save(wrap(dict(plain.state_dict())), tmp_path / "x.pt")
    assert_same_network(npk.load(tmp_path / "x.pt", arch=small), plain, inputs([6]))


def test_older_format_of_torch(tmp_path, plain):
    torch.save(plain.state_dict(), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert_same_network(npk.load(tmp_path / "x.pt", arch=small), plain, inputs([6]))


def test_saving_and_loading_leave_the_world_alone(tmp_path, net, plain):
    plain.train()
    plain[1].eval()
    state, path_before = torch.random.get_rng_state(), list(sys.path)
    npk.save(plain, tmp_path / "x.safetensors")
    npk.save(net, tmp_path / "y.safetensors")
    npk.load(tmp_path / "x.safetensors", arch=small)
    npk.load(tmp_path / "y.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sys.path == path_before
    assert [module.training for module in plain.modules()] == [True, True, False, True, True]
    assert sorted(os.listdir(tmp_path)) == ["x.safetensors", "y.safetensors"]


def test_torch_stays_out_until_it_is_needed():
    code = "import sys, npk.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# exported programs


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A DLGN with batch norm, exported once; the file and the network."""
    net = npk.networks.build(
        "conv",
        kind="dlgn",
        input_shape=(1, 8, 8),
        classes=3,
        channels=(4,),
        batch_norm=True,
        gates="hard",
        seed=1,
    )
    path = tmp_path_factory.mktemp("exported") / "x.pt2"
    npk.save(net.train(), path, example=inputs([1, 8, 8], n=1).numpy().astype(float))
    assert net.training
    return path, net.eval()


def test_exported_program_takes_every_batch_size(exported):
    path, net = exported
    loaded = npk.load(path)
    assert isinstance(loaded, nn.Module)
    for n in (1, 2, 5):
        assert_same_network(loaded, net, inputs([1, 8, 8], n=n))
    assert loaded.eval() is loaded
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(npk.load(path))


@pytest.mark.slow  # a new process imports torch
def test_exported_program_keeps_the_gate_operator_whole(exported):
    path, _ = exported
    # a fresh process: npk::gate is not registered yet
    code = f"import npk, torch; print(npk.load({str(path)!r}).graph)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert "npk.gate" in done.stdout


def test_loaded_program_can_be_exported_again(exported):
    loaded = npk.load(exported[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        again = torch.export.export(
            loaded, (inputs([1, 8, 8]),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
    assert "npk.gate" in str(again.graph)


def test_loaded_program_can_be_copied_and_cast(exported):
    loaded = npk.load(exported[0])
    double = copy.deepcopy(loaded).double().eval()
    assert double(inputs([1, 8, 8]).double()).dtype == torch.float64
    assert loaded.eval()(inputs([1, 8, 8])).dtype == torch.float32


def test_network_that_cannot_be_exported(tmp_path):
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(
        CheckpointError,
        match=r"torch\.export cannot export this "
        r"Branching",
    ) as error:
        npk.save(Branching(), tmp_path / "x.pt2", example=inputs([3]))
    assert one_sentence(error)
    assert not (tmp_path / "x.pt2").exists()


@pytest.mark.parametrize("shape", [(3,), (0, 3)])
def test_example_without_samples(tmp_path, plain, shape):
    with pytest.raises(OptionError, match="example has shape"):
        npk.save(plain, tmp_path / "x.pt2", example=torch.ones(shape))


def test_arch_for_a_program_is_refused(exported):
    with pytest.raises(OptionError, match="holds its own graph and has no use for arch='a:b'"):
        npk.load(exported[0], arch="a:b")


def rezip(source, target, change):
    """Copy an archive; ``change(name, content)`` gives the new content of a member, None to leave
    it as it is.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(name, content) or content)
    return target


def test_program_with_pickled_weights_is_refused(exported, tmp_path):
    path = rezip(
        exported[0],
        tmp_path / "x.pt2",
        lambda name, old: old.replace(b'"use_pickle": false', b'"use_pickle": true'),
    )
    with pytest.raises(
        CheckpointError,
        match=r"pickled or compiled code.*weights_config\.json\), "
        r"which npk never runs: .* is pickled",
    ):
        npk.load(path)


def test_program_with_a_trap_in_its_example_is_refused(exported, tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "made"))
    path = rezip(
        exported[0], tmp_path / "x.pt2", lambda name, old: trap if name.endswith(".pt") else None
    )
    with pytest.raises(CheckpointError, match=r"sample_inputs/model\.pt\), which npk never runs"):
        npk.load(path)
    assert not (tmp_path / "made").exists()


def test_compiled_program_is_refused(exported, tmp_path):
    path = rezip(exported[0], tmp_path / "x.pt2", lambda name, old: None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/aotinductor/model/model.so", b"code")
    with pytest.raises(CheckpointError, match=r"model\.so\), which npk never runs"):
        npk.load(path)


@pytest.mark.filterwarnings("ignore")
def test_program_of_another_schema(exported, tmp_path):
    path = rezip(
        exported[0],
        tmp_path / "x.pt2",
        lambda name, old: b"999" if name.endswith("archive_version") else None,
    )
    with pytest.raises(CheckpointError, match=r"cannot be read by torch .*999"):
        npk.load(path)


def test_text_called_pt2(tmp_path):
    (tmp_path / "x.pt2").write_text("hello world")
    with pytest.raises(
        CheckpointError,
        match=r"truncated or was not written by "
        r"torch\.export\.save",
    ):
        npk.load(tmp_path / "x.pt2")


# damaged, missing, foreign


@pytest.fixture(params=[".safetensors", ".pt", ".pt2"])
def saved(request, tmp_path, net, exported):
    """A good file of each kind and the arguments that load it."""
    path = tmp_path / f"x{request.param}"
    if request.param == ".pt2":
        path.write_bytes(exported[0].read_bytes())
    else:
        npk.save(net, path)
    return path, {
        "arch": lambda: npk.networks.build(**net.architecture)
    } if request.param == ".pt" else {}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_truncated_files(saved, share):
    path, arguments = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="is truncated|is empty") as error:
        npk.load(path, **arguments)
    assert one_sentence(error)


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_damaged_table_of_contents(tmp_path, plain, suffix):
    npk.save(plain, tmp_path / "x.pt")
    path = tmp_path / f"y{suffix}"
    path.write_bytes((tmp_path / "x.pt").read_bytes().replace(b"PK\x01\x02", b"PK\x01\x09"))
    with pytest.raises(CheckpointError, match=r"is truncated or damaged \(BadZipFile") as error:
        npk.load(path, **({"arch": small} if suffix == ".pt" else {}))
    assert one_sentence(error)


def test_any_changed_weight_is_noticed(saved, net):
    path, arguments = saved
    content = bytearray(path.read_bytes())
    weights = next(net.parameters()).detach().numpy().tobytes() if path.suffix != ".pt2" else None
    start = (
        content.find(weights)
        if weights
        else zipfile.ZipFile(path).getinfo("archive/data/weights/weight_0").header_offset + 130
    )
    assert start > 0
    content[start + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=r"was changed after it was saved|is truncated or "
        r"damaged",
    ) as error:
        npk.load(path, **arguments)
    assert one_sentence(error)


def test_no_changed_byte_of_safetensors_goes_unnoticed(tmp_path):
    net = npk.networks.build("fc", input_shape=[2], classes=2, hidden=[2], seed=0)
    path = tmp_path / "x.safetensors"
    npk.save(net, path, accuracy=0.5)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    padding = header - len(content[:header].rstrip(b" "))
    for k in [k for k in range(0, len(content), 7) if not header - padding <= k < header]:
        path.write_bytes(content[:k] + bytes((content[k] ^ 1,)) + content[k + 1 :])
        with pytest.raises(CheckpointError):
            npk.load(path)


def test_missing_file_suggests_its_neighbor(saved):
    path, _ = saved
    with pytest.raises(CheckpointError, match=f"there is no file .*Did you mean x{path.suffix}"):
        npk.load(path.with_name(f"xx{path.suffix}"))
    with pytest.raises(CheckpointError, match="Check its name and folder"):
        npk.load(path.parent / "no" / f"such{path.suffix}")


def test_a_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "x.pt").mkdir()
    with pytest.raises(CheckpointError, match="is a folder"):
        npk.load(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "x.h5",
            r"\.h5 is no kind of checkpoint that npk writes. Use \.safetensors .*\.pt2 "
            r".*\.pth",
        ),
        ("x", "a name without suffix is no kind"),
    ],
)
def test_suffixes_that_are_not_written(tmp_path, plain, name, message):
    with pytest.raises(CheckpointError, match=message):
        npk.save(plain, tmp_path / name)


def test_newer_format_names_both(tmp_path, net, monkeypatch):
    monkeypatch.setattr(checkpoint.weights, "FORMAT", 7)
    npk.save(net, tmp_path / "x.safetensors")
    monkeypatch.undo()
    with pytest.raises(
        CheckpointError,
        match=rf"format 7, written by npk {npk.__version__}; .* "
        rf"formats up to 1. Update npk",
    ):
        npk.load(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="format 7"):
        checkpoint.read_details(tmp_path / "x.safetensors")


def test_damaged_description(tmp_path, plain):
    safetensors.torch.save_file(
        plain.state_dict(), tmp_path / "x.safetensors", metadata={"npk": "{}", "sha256": "0"}
    )
    with pytest.raises(CheckpointError, match="its description is damaged"):
        npk.load(tmp_path / "x.safetensors")


def test_architecture_that_cannot_be_built_any_more(tmp_path, net):
    net.architecture = {**net.architecture, "arch": "perceiver"}
    npk.save(net, tmp_path / "x.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"npk\.networks\.build cannot make the architecture "
        r"described in it .*perceiver",
    ):
        npk.load(tmp_path / "x.safetensors")


def test_foreign_files_need_arch(tmp_path, plain):
    safetensors.torch.save_file(plain.state_dict(), tmp_path / "x.safetensors")
    torch.save(plain.state_dict(), tmp_path / "x.pt")
    for name in ("x.safetensors", "x.pt"):
        with pytest.raises(
            CheckpointError, match="does not describe its architecture. .*arch='module:callable'"
        ):
            npk.load(tmp_path / name)
    assert_same_network(npk.load(tmp_path / "x.safetensors", arch=small), plain, inputs([6]))
    with pytest.raises(CheckpointError, match="was not written by npk and has no details"):
        checkpoint.read_details(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"only \.safetensors files do"):
        checkpoint.read_details(tmp_path / "x.pt")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_networks_are_refused_with_the_way_out(tmp_path, plain):
    torch.save(plain, tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError,
        match=r"pickled code \(.*Sequential\), which npk never "
        r"runs.*torch\.save\(net\.state_dict\(\)",
    ) as error:
        npk.load(tmp_path / "x.pt", arch=small)
    assert one_sentence(error)


def test_pickled_code_is_not_run(tmp_path, plain):
    torch.save(
        {"state_dict": plain.state_dict(), "hook": Trap(tmp_path / "made")}, tmp_path / "x.pt"
    )
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Trap(tmp_path / "made")))
    for name in ("x.pt", "y.pt"):
        with pytest.raises(CheckpointError, match="never runs|was not written by torch"):
            npk.load(tmp_path / name, arch=small)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights: it has a int, a int"),
        ({}, "holds a dict, not a state dict"),
        ({0: torch.ones(1)}, "holds no weights: it has 0"),
        (
            {"epoch": 3, "generator": {"a": torch.ones(1)}},
            "generator does not fit small: 8 missing",
        ),
    ],
)
def test_no_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        npk.load(tmp_path / "x.pt", arch=small)


# weights that do not fit, and arch


def test_names_and_shapes_that_do_not_fit_are_listed(tmp_path, plain):
    state = dict(plain.state_dict())
    state["0.weihgt"] = state.pop("0.weight")
    state |= {f"extra{k}": torch.ones(1) for k in range(4)}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as error:
        npk.load(tmp_path / "x.pt", arch=small, arch_options={"width": 7})
    told = str(error.value)
    assert (
        "does not fit small: 1 missing (0.weight, near 0.weihgt), 5 unknown (0.weihgt, near "
        "0.weight; extra0; extra1; ...)"
    ) in told
    assert "6 of another shape (0.bias is (5,), not (7,);" in told


def test_wrong_architecture_in_the_file(tmp_path, net):
    net.architecture = {**net.architecture, "channels": [8, 8]}
    npk.save(net, tmp_path / "x.safetensors")
    with pytest.raises(
        CheckpointError, match="does not fit the architecture described in it: .* of another shape"
    ):
        npk.load(tmp_path / "x.safetensors")


@pytest.fixture
def project(tmp_path, monkeypatch, plain):
    """A folder with the user's own code, which is the current directory; the file of weights in it."""
    name = f"own_models_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n"
        "def make(width=5):\n"
        "    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), "
        "nn.Linear(width, 3))\n"
        "def three():\n    return 3\n"
        "constant = 3\n"
    )
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    torch.save(plain.state_dict(), tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_arch_by_name_is_imported_from_the_current_directory(project, plain):
    before = list(sys.path)
    assert_same_network(npk.load("x.pt", arch=f"{project}:make"), plain, inputs([6]))
    assert_same_network(
        npk.load("x.pt", arch=f"{project}:make", arch_options={"width": 5}), plain, inputs([6])
    )
    assert sys.path == before


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("mak", "has no callable mak. Did you mean make"),
        ("constant", "has no callable constant. Did you mean"),
        ("three", "made a int. Name something that makes a torch.nn.Module"),
    ],
)
def test_arch_that_makes_no_network(project, attribute, message):
    with pytest.raises(CheckpointError, match=message):
        npk.load("x.pt", arch=f"{project}:{attribute}")


def test_arch_that_cannot_be_imported_or_called(project):
    with pytest.raises(
        CheckpointError, match="importing no_such_module failed with ModuleNotFoundError"
    ):
        npk.load("x.pt", arch="no_such_module:make")
    with pytest.raises(
        CheckpointError, match="importing broken_module failed with ZeroDivisionError"
    ):
        npk.load("x.pt", arch="broken_module:make")
    with pytest.raises(CheckpointError, match=r"failed with TypeError: .*depth"):
        npk.load("x.pt", arch=f"{project}:make", arch_options={"depth": 3})


@pytest.mark.parametrize("arch", ["models", "models:", ":make"])
def test_arch_that_is_no_notation(project, arch):
    with pytest.raises(OptionError, match="names no callable. Write 'module:callable'"):
        npk.load("x.pt", arch=arch)


def test_arch_of_the_wrong_type(project, plain):
    with pytest.raises(OptionError, match="arch is a Sequential. Give what makes the network"):
        npk.load("x.pt", arch=plain)
    with pytest.raises(OptionError, match="arch is a int"):
        npk.load("x.pt", arch=3)
    with pytest.raises(OptionError, match="width are arguments of arch=, which is not given"):
        npk.load("x.pt", arch_options={"width": 3})


# saving


def test_wrong_use_of_save(tmp_path, plain):
    with pytest.raises(OptionError, match="net is a dict"):
        npk.save(plain.state_dict().copy() and {}, tmp_path / "x.pt")
    with pytest.raises(OptionError, match=r"example is for \.pt2 files, and needed there"):
        npk.save(plain, tmp_path / "x.pt2")
    with pytest.raises(OptionError, match=r"example is for \.pt2 files"):
        npk.save(plain, tmp_path / "x.pt", example=inputs([6]))
    with pytest.raises(OptionError, match=r"a \.pt file has no room for accuracy"):
        npk.save(plain, tmp_path / "x.pt", accuracy=1)
    with pytest.raises(CheckpointError, match="details must be JSON values"):
        npk.save(plain, tmp_path / "x.safetensors", accuracy=np.ones(3))
    with pytest.raises(StoreError, match="cannot write"):
        npk.save(plain, tmp_path / "no" / "x.safetensors")
    assert os.listdir(tmp_path) == []


# fingerprint


def test_fingerprint_sees_every_weight_name_shape_and_dtype(plain):
    first = checkpoint.fingerprint(plain)
    assert first == checkpoint.fingerprint(plain)
    assert len(first) == 64
    seen = {first, checkpoint.fingerprint(small()), checkpoint.fingerprint(nn.Sequential(plain))}
    seen.add(checkpoint.fingerprint(nn.Sequential(*plain).double()))
    plain.float()
    plain[1].running_mean[3] += 1e-7
    seen.add(checkpoint.fingerprint(plain))
    plain.register_buffer("mask", torch.ones(2), persistent=False)
    seen.add(checkpoint.fingerprint(plain))
    plain.mask = plain.mask.reshape(2, 1)
    seen.add(checkpoint.fingerprint(plain))
    assert len(seen) == 7
