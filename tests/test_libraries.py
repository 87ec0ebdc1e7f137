"""Networks by their names in timm and torchvision, and by the config.json beside weights.

The libraries are stood in for by small modules; where they are installed, they are tried too.
"""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import npk
from npk.checkpoint.configured import FAMILIES
from npk.cli.commands import app
from npk.errors import CheckpointError, MissingPackageError, OptionError


def small(num_classes=3, in_chans=1, width=4):
    return nn.Sequential(
        *(nn.Conv2d(in_chans, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(width, num_classes),
    )


def fake(monkeypatch, name, **content):
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def timm(monkeypatch):
    calls = []

    def create_model(model_name, pretrained=False, **options):
        calls.append((model_name, pretrained, options))
        return small(**options)

    names = ("resnet26", "resnet26d")
    fake(monkeypatch, "timm", create_model=create_model, list_models=lambda: names)
    return calls


@pytest.fixture
def torchvision(monkeypatch):
    calls = []

    def resnet18(*, weights="IMAGENET1K_V1", weights_backbone="IMAGENET1K_V1", **options):
        calls.append((weights, weights_backbone, options))
        return small(**options)

    models = SimpleNamespace(list_models=lambda: ["resnet18"], get_model_builder=lambda _: resnet18)
    fake(monkeypatch, "torchvision", models=models)
    fake(monkeypatch, "torchvision.models", **vars(models))
    return calls


@pytest.fixture
def missing(monkeypatch):
    for name in ("timm", "torchvision", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    net = small(num_classes=5).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    return net, tmp_path / "w.pth"


def assert_same(loaded, net, shape=(2, 1, 8, 8)):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))


# by name


def test_timm_by_name(timm, weights):
    net, path = weights
    assert_same(npk.load("timm:resnet26.bt_in1k", weights=path, num_classes=5), net)
    assert_same(npk.load(path, arch="timm:resnet26", arch_options={"num_classes": 5}), net)
    assert timm == [(n, False, {"num_classes": 5}) for n in ("resnet26.bt_in1k", "resnet26")]


def test_torchvision_by_name_fetches_no_weights(torchvision, weights):
    net, path = weights
    assert_same(npk.load("torchvision:resnet18", weights=path, num_classes=5), net)
    assert_same(
        npk.load(path, "torchvision:resnet18", arch_options={"pretrained": False}, num_classes=5),
        net,
    )
    assert torchvision == [(None, None, {"num_classes": 5})] * 2


def test_random_numbers_stay(timm, weights):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    npk.load("timm:resnet26", weights=weights[1], num_classes=5)
    assert torch.equal(torch.rand(3), expected)


def test_the_other_order_is_for_any_architecture(weights):
    net, path = weights
    assert_same(npk.load(small, weights=path, num_classes=5), net)


def test_by_name_on_the_command_line(timm, weights):
    words = ["inspect", str(weights[1]), "--arch", "timm:resnet26", "--arch-option"]
    shown = CliRunner().invoke(app, [*words, "num_classes=5", "--input-shape", "1,8,8"])
    assert shown.exit_code == 0, shown.output
    assert timm


def test_a_callable_of_the_library_is_one_of_the_users_own(timm, weights):
    options = {"model_name": "anything", "num_classes": 5}
    npk.load(weights[1], arch="timm:create_model", arch_options=options)
    assert timm == [("anything", False, {"num_classes": 5})]


def test_a_name_that_the_library_does_not_know(timm, weights):
    with pytest.raises(CheckpointError, match="timm has no network resnet62. Did you mean resnet2"):
        npk.load("timm:resnet62", weights=weights[1])


def test_a_missing_library(missing, weights):
    with pytest.raises(
        MissingPackageError,
        match=r"timm:resnet26 needs the package timm, which is not .* Run: pip install timm",
    ):
        npk.load("timm:resnet26", weights=weights[1])


def test_a_broken_library(tmp_path, monkeypatch, weights):
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError,
        match="importing timm failed with RuntimeError: operator nms .* that goes with this torch",
    ):
        npk.load("timm:resnet26", weights=weights[1])


def test_weights_are_never_fetched(timm, weights):
    with pytest.raises(OptionError, match="pretrained=True has timm fetch weights, and npk"):
        npk.load("timm:resnet26", weights=weights[1], pretrained=True)
    with pytest.raises(CheckpointError, match="timm:resnet26 names a network, and npk downloads"):
        npk.load("timm:resnet26")
    assert timm == []


def test_two_architectures(weights):
    with pytest.raises(OptionError, match="the first argument says what makes the network, and"):
        npk.load(small, arch="timm:resnet26", weights=weights[1])


# by the configuration beside the weights


@pytest.fixture
def transformers(monkeypatch):
    """One family, whose configuration is the options of the network above."""

    class Classifier(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.body = nn.ModuleList(small(config.num_labels, width=w) for w in config.depths)

        def forward(self, x):
            return self.body[0](x)

    content = {"ResNetConfig": SimpleNamespace, "ResNetForImageClassification": Classifier}
    fake(monkeypatch, "transformers", **content)
    return Classifier


@pytest.fixture
def folder(tmp_path):
    """A folder with weights of the fake family, and what writes another configuration there."""
    net = nn.Module()
    torch.manual_seed(2)
    net.body = nn.ModuleList([small(5, width=4)])
    save_file(net.state_dict(), tmp_path / "model.safetensors")

    def configure(**values):
        (tmp_path / "config.json").write_text(json.dumps(values))
        return tmp_path

    return net.body[0].eval(), configure


LABELS = {"id2label": {str(i): f"name {i}" for i in range(5)}}
RESNET = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}


def test_a_folder_of_transformers(transformers, folder):
    net, configure = folder
    path = configure(**RESNET, **LABELS, depths=[4], auto_map={"AutoModel": "code.py"})
    assert_same(npk.load(path), net)
    assert_same(npk.load(path / "model.safetensors"), net)


def test_a_folder_of_timm(timm, tmp_path, weights):
    net, _ = weights
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "w.pth").unlink()
    values = {"architecture": "resnet26", "num_classes": 5, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert_same(npk.load(tmp_path), net)
    values["pretrained_cfg"] = {"input_size": [1, 8, 8], "num_classes": 7}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert_same(npk.load(tmp_path), net)
    assert timm[-1] == ("resnet26", False, {"num_classes": 5, "in_chans": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "vit"}, "describes a vit; without arch=, npk makes image classifiers of"),
        ({"model_type": 3}, "describes a 3; without arch=, npk makes"),
        (
            {**RESNET, "architectures": ["ResNetBackbone"]},
            r"describes a \['ResNetBackbone'\]; without arch=, npk",
        ),
        ({**RESNET, "depths": [10**9]}, r"has depths=\[1000000000\], and the largest dimension"),
        ({**RESNET, "num_labels": 10**9}, "has num_labels=1000000000, and the largest dimension"),
        ({**RESNET, "depths": [-1]}, r"has depths=\[-1\], and the largest dimension"),
        ({**RESNET, "depths": [0] * 5}, "describes a network of 5 blocks, and its weights are 4 t"),
        ({**RESNET, "depths": [2, 2], **LABELS}, "describes a network of 70 numbers, .* are 65"),
        ({**RESNET, "depths": "three"}, "does not make a network .*Give arch='module:callable'"),
        ({"architecture": "resnet62"}, "timm has no network resnet62. Did you mean"),
        ({"architecture": "create_model"}, "names 'create_model', which is no network of timm"),
        (
            {"architecture": "resnet26", "model_args": {"checkpoint_path": "x.pth"}},
            r"asks for model_args that npk does not follow \(checkpoint_path\)",
        ),
        ({"architecture": "resnet26", "model_args": 3}, "does not make a network"),
        ({"architecture": "resnet26", "num_classes": 10**9}, "has num_classes=1000000000, and"),
        ({"hidden": 3}, "does not describe its architecture"),
    ],
    ids=[
        *("family", "number", "backbone", "depth", "labels", "negative", "blocks", "size", "text"),
        *("name", "callable", "arguments", "malformed", "classes", "nothing"),
    ],
)
def test_configurations_that_are_not_followed(transformers, timm, folder, values, message):
    with pytest.raises(CheckpointError, match=message):
        npk.load(folder[1](**values))


def test_no_configuration(folder, tmp_path):
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match="arch='module:callable', or the name of one"):
        npk.load(tmp_path)


def test_a_folder_without_the_library(missing, folder):
    with pytest.raises(MissingPackageError, match="needs the package transformers, which is not"):
        npk.load(folder[1](**RESNET))


# the libraries themselves


def installed(name):
    """Skip without the library, or where it does not go with this torch."""
    return pytest.importorskip(name, exc_type=Exception)


def shown(path, *words):
    return CliRunner().invoke(app, ["inspect", str(path), *words, "--input-shape", "3,32,32"])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvision(tmp_path, name):
    net = installed("torchvision").models.get_model(name, num_classes=10).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    loaded = npk.load(f"torchvision:{name}", weights=tmp_path / "w.pth", num_classes=10)
    assert_same(loaded, net, (1, 3, 32, 32))


def test_torchvision_fetches_no_backbone(tmp_path, monkeypatch):
    models = installed("torchvision").models
    net = models.get_model("fcn_resnet50", weights=None, weights_backbone=None).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("fetched")
    )
    npk.load("torchvision:fcn_resnet50", weights=tmp_path / "w.pth")


def test_timm(tmp_path):
    net = installed("timm").create_model("resnet26", num_classes=10).eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    loaded = npk.load("timm:resnet26", weights=path, num_classes=10)
    assert_same(loaded, net, (1, 3, 32, 32))
    seen = shown(path, "--arch", "timm:resnet26", "--arch-option", "num_classes=10")
    assert seen.exit_code == 0, seen.output
    values = {"architecture": "resnet26", "num_classes": 10, "pretrained_cfg": net.pretrained_cfg}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert_same(npk.load(tmp_path), net, (1, 3, 32, 32))


TINY = {
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "regnet": {"hidden_sizes": [16, 32], "depths": [1, 2], "groups_width": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers(tmp_path, family):
    library = installed("transformers")
    prefix, _ = FAMILIES[family]
    config = getattr(library, f"{prefix}Config")(num_labels=10, **TINY[family])
    torch.manual_seed(0)
    net = getattr(library, f"{prefix}ForImageClassification")(config).eval()
    net.save_pretrained(tmp_path)
    loaded = npk.load(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x).logits, net(x).logits)
    assert npk.kernel(loaded, x).shape == (2, 2)
    assert shown(tmp_path).exit_code == 0
