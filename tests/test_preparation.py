"""What a network was given: said by options, kept by checkpoints and stores, read beside weights;
and what npk says where the samples are others.
"""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import npk
from npk import cli, data
from npk.checkpoint import preparation_of
from npk.checkpoint.given import given_to
from npk.cli.reading import Asked
from npk.data import Dataset, Preparation, preparation
from npk.errors import (
    CheckpointError,
    CheckpointWarning,
    DataError,
    DataWarning,
    MissingPackageError,
    OptionError,
)
from npk.gates.store import GateStore
from npk.gram.store import GramStore
from npk.samples import as_samples
from npk.studies.subjects import own_accuracy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def colors(tmp_path, rng):
    """Bytes of pictures, as a file has them."""
    X = rng.integers(0, 256, (6, 3, 9, 14), dtype=np.uint8)
    np.savez(tmp_path / "colors.npz", X=X, y=np.arange(6) % 2)
    return tmp_path / "colors.npz", X


def normalized(X, mean=MEAN, std=STD):
    """As torchvision's ``ToTensor`` and ``Normalize`` do it, by torch."""
    pixels = torch.from_numpy(X).to(torch.float32).div(255)
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (mean, std))
    return pixels.sub_(mean).div_(std).numpy()


def test_normalizing_is_torchs_to_the_bit(colors):
    path, X = colors
    by_name = data.load(path, mean="imagenet")
    np.testing.assert_array_equal(by_name.X, normalized(X))
    np.testing.assert_array_equal(data.load(path, mean=MEAN, std=list(STD)).X, by_name.X)
    np.testing.assert_array_equal(data.load(path, preparation=by_name.preparation).X, by_name.X)
    one_for_all = data.load(path, mean=0.5, std=0.25).X
    np.testing.assert_array_equal(one_for_all, normalized(X, (0.5,), (0.25,)))


def test_pixels_are_divided_by_what_is_said(colors):
    path, X = colors
    np.testing.assert_array_equal(data.load(path, scale_pixels=1).X, X.astype(np.float32))
    np.testing.assert_array_equal(
        data.load(path, scale_pixels=127.5, mean=1).X, X / np.float32(127.5) - np.float32(1)
    )


def test_features_have_a_mean_each(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1.0, 20.0], [3.0, 40.0]]))
    prepared = data.load(tmp_path / "x.npy", mean=[2, 30], std=[1, 10])
    np.testing.assert_array_equal(prepared.X, [[-1, -1], [1, 1]])
    with pytest.raises(DataError, match="x.npy: X has 2 features, and mean or std has 3 numbers"):
        data.load(tmp_path / "x.npy", mean=[1, 2, 3])
    with pytest.raises(DataError, match="only pictures .* can be resized"):
        data.load(tmp_path / "x.npy", resize=4)


def test_resizing_is_pillows_and_cuts_the_middle(colors):
    path, X = colors
    picture = Image.fromarray(X[0].transpose(1, 2, 0))
    whole = np.asarray(picture.resize((8, 4), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(
        data.load(path, resize=(4, 8)).X[0], whole.astype(np.float32) / np.float32(255)
    )
    # the shorter side becomes 6, the longer int(6 * 14 / 9) = 9; 9 - 6 = 3, half of it is 2 (even)
    longer = np.asarray(picture.resize((9, 6), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    middle = longer[:, :, 2:8].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(data.load(path, resize=6).X[0], middle)
    np.testing.assert_array_equal(data.load(path, resize=6, crop=4).X[0], middle[:, 1:5, :4])
    np.testing.assert_array_equal(data.load(path, crop=(9, 14)).X, data.load(path).X)


def test_floats_are_resized_without_rounding(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float32))
    resized = data.load(tmp_path / "x.npy", resize=(1, 1)).X
    np.testing.assert_allclose(resized, [[[[0.5]]]], atol=1e-7)


def test_pictures_of_unequal_size_become_equal(tmp_path, rng):
    (tmp_path / "cat").mkdir()
    for k, size in enumerate([(9, 14), (20, 7), (6, 6)]):
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "cat" / f"{k}.png")
    with pytest.raises(DataError, match="to one size, with resize= or --resize"):
        data.load(tmp_path)
    assert data.load(tmp_path, resize=6, mean=0.5).X.shape == (3, 1, 6, 6)
    assert data.load(tmp_path, resize=8, crop=5).X.shape == (3, 1, 5, 5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"mean": "imagenette"},
            "mean 'imagenette' is not known. Give numbers, or one of imagenet",
        ),
        ({"mean": [0.1, 0.2], "std": [1, 1, 1]}, "mean has 2 numbers and std 3"),
        ({"std": 0}, r"std is \(0.0,\). Give standard deviations above 0"),
        ({"mean": [0.1, float("nan")]}, "mean has nan in it. Give finite numbers"),
        ({"mean": []}, r"mean is \[\]. Give a number for each channel"),
        ({"resize": "32"}, "resize is '32'. Give one side, or height and width"),
        ({"resize": [1, 2, 3]}, r"resize is \[1, 2, 3\]"),
        ({"resize": 0}, r"resize is \(0,\). Give one side, .* from 1 to 4096"),
        ({"crop": 5000}, "crop is .*from 1 to 4096"),
        ({"scale_pixels": 0}, "scale_pixels is 0.0. Give what pixels are divided by"),
        ({"scale_pixels": "255"}, "scale_pixels has '255' in it"),
        ({"preparation": 3}, "preparation is of type int"),
        ({"preparation": Preparation(), "mean": 1}, "beside mean. Give what npk.data.preparation"),
    ],
)
def test_what_is_no_preparation_is_refused(asked, message):
    with pytest.raises(OptionError, match=message):
        data.load("digits", **asked)


def test_a_crop_that_a_picture_does_not_hold():
    with pytest.raises(DataError, match="a picture of 8 x 8 pixels has no middle of 9 x 9"):
        data.load("digits[:2]", crop=9)
    thin = np.zeros((1, 1, 1, 2000), np.uint8)
    with pytest.raises(DataError, match="a picture of 1 x 2000 pixels would become 1000 x 2000000"):
        preparation(resize=1000)(thin)


def test_a_preparation_travels_and_tells_itself():
    asked = preparation("imagenet", resize=256, crop=224, scale_pixels=1)
    assert Preparation.from_values(json.loads(json.dumps(asked.to_values()))) == asked
    assert str(asked) == (
        "resize 256 (bilinear), crop 224, 224, divided by 1, mean 0.485, 0.456, 0.406, std 0.229, "
        "0.224, 0.225"
    )
    assert str(Preparation()) == "as they are"


def test_a_slice_keeps_what_was_done():
    half = data.load("digits[:20]", mean=0.5)[:10]
    assert (half.preparation, len(half.y)) == (preparation(0.5), 10)


# Bytes and whole numbers, in files and arrays alike.


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.int16, bool, np.float16])
def test_files_and_arrays_are_treated_alike(tmp_path, kind):
    X = np.array([[0, 1], [100, 90]]).astype(kind)
    np.save(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(data.load(tmp_path / "x.npy").X, as_samples(X))


def test_whole_numbers_that_may_be_pixels_are_taken_with_a_word(tmp_path):
    X = np.array([[0, 255], [3, 90]])
    np.save(tmp_path / "x.npy", X)
    words = "whole numbers from 0 to 255 .int64., taken as they are. If they are pixels"
    with pytest.warns(DataWarning, match=words):
        as_samples(X)
    with pytest.warns(DataWarning, match=words):
        data.load(tmp_path / "x.npy")
    for scale in (1, 255):
        prepared = data.load(tmp_path / "x.npy", scale_pixels=scale).X
        np.testing.assert_array_equal(prepared, X.astype(np.float32) / np.float32(scale))


def test_estimators_take_bytes_as_pixels(rng):
    X = rng.integers(0, 256, (12, 5), dtype=np.uint8)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    machine = npk.NPKRidgeClassifier(net, alpha=1.0, bias="paths").fit(X, np.arange(12) % 2)
    np.testing.assert_array_equal(machine.gates_.inputs, X / np.float32(255))


# What a checkpoint was given: kept by npk, or read beside the weights of others.


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


def test_a_checkpoint_keeps_what_the_network_was_given(tmp_path, net):
    asked = preparation("cifar10", resize=8)
    npk.save(net, tmp_path / "net.safetensors", preparation=asked, epoch=3)
    assert preparation_of(tmp_path / "net.safetensors") == asked
    assert npk.checkpoint.read_details(tmp_path / "net.safetensors") == {"epoch": 3}
    npk.save(net, tmp_path / "bare.safetensors")
    assert preparation_of(tmp_path / "bare.safetensors") is None
    with pytest.raises(OptionError, match="a .pt file has no room for preparation"):
        npk.save(net, tmp_path / "net.pt", preparation=asked)
    with pytest.raises(OptionError, match="preparation is of type dict"):
        npk.save(net, tmp_path / "net.safetensors", preparation={"mean": [1]})


def test_a_damaged_preparation_is_refused(tmp_path, net, monkeypatch):
    monkeypatch.setattr(Preparation, "to_values", lambda self: {"mean": [1.0], "std": [0.0]})
    npk.save(net, tmp_path / "net.safetensors", preparation=Preparation())
    with pytest.raises(CheckpointError, match="its description is damaged"):
        preparation_of(tmp_path / "net.safetensors")


RESNET = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "size": {"shortest_edge": 224},
}
VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
MOBILE = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": False,
    "do_rescale": False,
    "do_resize": True,
    "image_processor_type": "MobileNetV2ImageProcessor",
    "resample": 2,
    "size": {"shortest_edge": 256},
}
TIMM = {
    "architecture": "resnet18",
    "pretrained_cfg": {
        "crop_mode": "center",
        "crop_pct": 0.95,
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
    },
}
PRESET = {
    "crop_size": [224],
    "interpolation": "InterpolationMode.BILINEAR",
    "mean": MEAN,
    "resize_size": [232],
    "std": STD,
}
IMAGENET = {"mean": MEAN, "std": STD}
CUT = {"crop": (224, 224)}
READ = {
    "ResNet of Hugging Face": (
        RESNET,
        Preparation(**IMAGENET, **CUT, resize=(256,), interpolation="bicubic"),
    ),
    "large ConvNeXt": (
        RESNET | {"size": {"shortest_edge": 384}},
        Preparation(**IMAGENET, resize=(384, 384), interpolation="bicubic"),
    ),
    "ViT": (VIT, Preparation(mean=(0.5,) * 3, std=(0.5,) * 3, resize=(224, 224))),
    "an older ViT": (
        {**VIT, "size": 224},
        Preparation(mean=(0.5,) * 3, std=(0.5,) * 3, resize=(224, 224)),
    ),
    "pixels from 0 to 255": (MOBILE, Preparation(**CUT, resize=(256,), scale_pixels=1.0)),
    "sides as numbers": (
        MOBILE | {"size": 256, "crop_size": 224},
        Preparation(**CUT, resize=(256,), scale_pixels=1.0),
    ),
    "not resized": (VIT | {"do_resize": False}, Preparation(mean=(0.5,) * 3, std=(0.5,) * 3)),
    "timm": (TIMM, Preparation(**IMAGENET, **CUT, resize=(235,), interpolation="bicubic")),
    "torchvision": (PRESET, Preparation(**IMAGENET, **CUT, resize=(232,))),
    "a configuration of something else": ({"hidden_size": 3}, None),
    "no object": ([1, 2], None),
}


@pytest.mark.parametrize(("written", "expected"), READ.values(), ids=READ)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "net.json"])
def test_configurations_beside_the_weights_are_read(tmp_path, net, written, expected, name):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    (tmp_path / name).write_text(json.dumps(written))
    found = given_to(tmp_path / "net.pth")
    assert (found and found.preparation) == expected
    if found is not None:
        assert (found.source, found.own) == (tmp_path / name, False)
        assert preparation_of(tmp_path) == expected  # of the folder


KEPT = {
    "a name": ({"mean": "cifar10", "resize": 32}, preparation("cifar10", resize=32)),
    "numbers": (
        {"mean": [0.5], "std": [0.25], "crop": [4, 6]},
        preparation(0.5, 0.25, crop=(4, 6)),
    ),
    "as npk tells it": (
        Preparation((0.5,), (0.25,), (8,), (6, 6), 255.0, "bicubic").to_values(),
        Preparation((0.5,), (0.25,), (8,), (6, 6), 255.0, "bicubic"),
    ),
    "nothing": ({}, Preparation()),
}


@pytest.mark.parametrize(("written", "expected"), KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("name", ["net.json", "config.json"])
def test_what_is_said_once_beside_a_state_dict(tmp_path, net, written, expected, name):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    (tmp_path / name).write_text(json.dumps({"preparation": written}))
    found = given_to(tmp_path / "net.pth")
    assert found is not None
    assert (found.preparation, found.source, found.own) == (expected, tmp_path / name, True)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({"means": 0.5}, "unexpected keyword argument 'means'"),
        ({"mean": "cifar"}, "mean 'cifar' is not known"),
        ({"interpolation": "cubic"}, "interpolation of a Preparation is 'cubic'"),
    ],
)
def test_what_is_said_beside_a_state_dict_and_cannot_be_followed(tmp_path, net, written, why):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.json").write_text(json.dumps({"preparation": written}))
    with pytest.raises(CheckpointError, match=f"net.json: its preparation cannot.*{why}"):
        preparation_of(tmp_path / "net.pth")


NOT_FOLLOWED = {
    "another step": (VIT | {"do_flip_channel_order": True}, "asks for do_flip_channel_order"),
    "a crop of timm": (
        {"pretrained_cfg": TIMM["pretrained_cfg"] | {"crop_mode": "border"}},
        "asks for crop_mode border",
    ),
    "no square": (
        {"pretrained_cfg": TIMM["pretrained_cfg"] | {"input_size": [3, 100, 200]}},
        "100 x 200 pixels",
    ),
    "sizes of another kind": (VIT | {"size": {"longest_edge": 5}}, "asks for the size"),
    "an interpolation": (VIT | {"resample": 9}, "interpolation of a Preparation is 9"),
    "a std of 0": (VIT | {"image_std": [0, 0, 0]}, "std is"),
    "a mean that is text": (VIT | {"image_mean": "half"}, "could not convert"),
    "a size of millions": (VIT | {"size": {"height": 10**9, "width": 3}}, "resize is"),
    "means of anything": (PRESET | {"mean": [1.0] * 70_000}, "mean has 70000 numbers"),
}


@pytest.mark.parametrize(("written", "why"), NOT_FOLLOWED.values(), ids=NOT_FOLLOWED)
def test_configurations_that_ask_for_more_are_not_followed_in_part(tmp_path, net, written, why):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.json").write_text(json.dumps(written))
    with pytest.warns(CheckpointWarning, match=f"npk does not follow it .*{why}"):
        assert preparation_of(tmp_path / "net.pth") is None


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"size": NaN}', " " * (1 << 20) + "{}"])
def test_what_is_no_configuration_is_left_alone(tmp_path, net, text):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.json").write_text(text)
    assert preparation_of(tmp_path / "net.pth") is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("NominalRange_0_255", Preparation(scale_pixels=1.0)),
        ("Normalized_1_1", preparation(0.5, 0.5)),
        ("Normalized_0_1", Preparation()),
        (None, None),
    ],
)
def test_the_range_of_pixels_that_an_onnx_file_names(tmp_path, said, expected):
    _write_onnx(tmp_path / "net.onnx", said)
    assert preparation_of(tmp_path / "net.onnx") == expected


def test_a_range_that_npk_does_not_know(tmp_path):
    _write_onnx(tmp_path / "net.onnx", "NominalRange_16_235")
    with pytest.warns(CheckpointWarning, match="pixels in the range 'NominalRange_16_235'"):
        assert preparation_of(tmp_path / "net.onnx") is None


def test_onnx_that_is_not_there(tmp_path, monkeypatch):
    _write_onnx(tmp_path / "net.onnx", None)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingPackageError, match="needs the package onnx"):
        preparation_of(tmp_path / "net.onnx")


def _write_onnx(path, pixels):
    onnx = pytest.importorskip("onnx")
    value = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", *([one] for one in value)
    )
    model = onnx.helper.make_model(graph)
    if pixels is not None:
        onnx.helper.set_model_props(model, {"Image.NominalPixelRange": pixels})
    onnx.save(model, path)


# The command line: the wrong-input trap.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that was trained on normalized digits, with and without a word of it."""
    folder = tmp_path_factory.mktemp("trained")
    train = data.split(data.load("digits", mean=0.9, std=0.1))[0]
    net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, hidden=[32], seed=0)
    npk.networks.train(net, train.X, train.y, epochs=6, seed=0, progress=False)
    npk.save(net, folder / "silent.safetensors")
    npk.save(net, folder / "told.safetensors", preparation=train.preparation)
    return folder


@pytest.fixture
def npk_command(capsys, monkeypatch, trained):
    monkeypatch.chdir(trained)

    def call(*arguments):
        code = cli.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return call


CHANCE = "not far from chance: are these the samples that it was trained on? Give npk what you gave"


def own(text):
    """The network's own accuracy in per cent."""
    return float(text.split("the network itself: ")[1].split(" %")[0])


def test_fit_on_other_samples_than_those_of_the_training(npk_command):
    """The trap: the machine does well on samples that the network does not know."""
    wrong = npk_command("fit", "silent.safetensors", "--data", "digits")
    machine = float(wrong.split("test accuracy ")[1].split(" %")[0])
    assert machine > 90
    assert own(wrong) < 30
    assert CHANCE in wrong
    right = npk_command(
        "fit", "silent.safetensors", "--data", "digits", "--mean", 0.9, "--std", 0.1
    )
    assert own(right) > 75
    assert CHANCE not in right
    assert "450 samples right (10 classes)" in right


@pytest.mark.parametrize(
    "command",
    [
        ["gates", "--statistics"],
        ["kernel", "--dry-run"],
        ["inspect"],
        ["check", "duality", "--samples", "2"],
        ["spectrum", "--samples", "2"],
        ["bench", "invariance", "--no-kinds", "--samples", "1", "--shifts", "2"],
        ["study", "--seen", "-n", "20", "--splits", "1", "--checks", "none", "--baselines", "none"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_with_labels_tells_the_accuracy_of_the_network(
    npk_command, command, tmp_path
):
    name, *words = command
    if name in ("check", "bench"):
        name = [name, words.pop(0)]
    else:
        name = [name]
    out = ["--out", tmp_path / "out"] if name[0] in ("bench", "study") else []
    wrong = npk_command(*name, "silent.safetensors", "--data", "digits[:200]", *words, *out)
    assert own(wrong) < 30
    assert CHANCE in wrong
    out = ["--out", tmp_path / "other"] if out else []
    right = npk_command(*name, "told.safetensors", "--data", "digits[:200]", *words, *out)
    assert own(right) > 75
    assert "samples: mean 0.9, std 0.1, as told.safetensors says" in right


def test_lesions_tell_it_too(npk_command, tmp_path):
    net = npk.networks.build(
        "residual", input_shape=(1, 8, 8), classes=10, flavor="fc", widths=[8, 8], seed=0
    )
    npk.save(net, tmp_path / "net.safetensors", preparation=preparation(0.5))
    out = npk_command("lesions", tmp_path / "net.safetensors", "--data", "digits[:20]")
    assert "samples: mean 0.5, as " in out
    assert CHANCE in out


def test_what_a_checkpoint_says_is_followed_unless_options_say_otherwise(npk_command):
    words = ["kernel", "told.safetensors", "--data", "digits[:9]", "--out"]
    net, X = npk.load("told.safetensors"), data.load("digits[:9]").X
    npk_command(*words, "a.npy")
    prepared = preparation(0.9, 0.1)(X)
    np.testing.assert_array_equal(np.load("a.npy"), npk.kernel(net, prepared))
    assert "samples: " not in npk_command(*words, "b.npy", "--mean", "none")
    np.testing.assert_array_equal(np.load("b.npy"), npk.kernel(net, X))
    npk_command(*words, "c.npy", "--mean", "0.5")
    np.testing.assert_array_equal(np.load("c.npy"), npk.kernel(net, X - np.float32(0.5)))


def test_what_is_said_once_beside_a_state_dict_is_followed(npk_command, tmp_path):
    make = "import torch\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), "
    make += "torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))\n"
    (tmp_path / "arch.py").write_text(make)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.json").write_text('{"preparation": {"mean": 0.9, "std": 0.1}}')
    words = [tmp_path / "net.pth", "--arch", f"{tmp_path}/arch.py:make", "--data", "digits[:9]"]
    told = npk_command("inspect", *words)
    assert f"samples: mean 0.9, std 0.1, as {tmp_path / 'net.json'} says" in " ".join(told.split())
    npk_command("kernel", *words, "--out", tmp_path / "K.npy")
    prepared = preparation(0.9, 0.1)(data.load("digits[:9]").X)
    np.testing.assert_array_equal(np.load(tmp_path / "K.npy"), npk.kernel(net, prepared))


def test_train_keeps_what_it_was_told(npk_command, tmp_path):
    out = tmp_path / "net.safetensors"
    words = ["--data", "digits[:100]", "--epochs", 1, "--option", "hidden=[4]", "--snapshots", "1"]
    npk_command("train", "fc", *words, "--mean", "mnist", "--resize", "6,6", "--out", out)
    expected = preparation("mnist", resize=(6, 6))
    assert preparation_of(out) == expected
    assert preparation_of(tmp_path / "net-epochs" / "epoch-1.safetensors") == expected
    assert npk.load(out).architecture["input_shape"] == [1, 6, 6]


def test_gates_and_stores_keep_what_was_done(npk_command, tmp_path):
    gates, store = tmp_path / "digits.gates", tmp_path / "K.zarr"
    words = ["told.safetensors", "--data", "digits[:9]"]
    npk_command("gates", *words, "--out", gates)
    npk_command("kernel", *words, "--out", store)
    npk_command("kernel", gates, "--out", tmp_path / "L.zarr")
    digits = data.load("digits[:9]")
    expected = {
        "data": "digits[:9]",
        "preparation": preparation(0.9, 0.1).to_values(),
        "labels": digits.y.tolist(),
        "classes": list(digits.classes),
    }
    assert GateStore.open(gates).about == json.loads(json.dumps(expected))
    for path in (store, tmp_path / "L.zarr"):
        assert GramStore.open(path).about["given"] == json.loads(json.dumps(expected))


def test_a_store_goes_on_whatever_its_samples_are_called(npk_command, tmp_path):
    """The samples are compared, not what is told of them."""
    store = tmp_path / "K.zarr"
    words = ["kernel", "silent.safetensors", "--out", store, "--data"]
    npk_command(*words, "digits[:9]")
    assert "1 of 1 tiles from an earlier run" in npk_command(*words, "digits[0:9]")


def test_kernel_tells_events(npk_command, tmp_path):
    words = ["silent.safetensors", "--data", "digits[:40]", "--events", "--out", tmp_path / "K.npy"]
    told = [json.loads(line) for line in npk_command("kernel", *words).splitlines()]
    (samples,) = (event for event in told if event["event"] == "samples")
    assert CHANCE in samples["text"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--mean", "0.5;0.5"], "--mean 0.5;0.5 is not understood. Write numbers with commas, or"),
        (["--resize", "8.5"], "--resize 8.5 is not understood"),
        (["--scale-pixels", "x"], "--scale-pixels x is not understood"),
        (["--std", "none"], "--std none is not understood"),
    ],
)
def test_options_that_are_no_numbers(trained, capsys, asked, message):
    words = ["inspect", trained / "silent.safetensors", "--data", "digits[:9]", *asked]
    assert cli.run([str(word) for word in words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["kernel", "gates", "spectrum"])
def test_gate_tables_hold_their_samples(trained, tmp_path, capsys, command):
    net, X = npk.load(trained / "silent.safetensors"), data.load("digits[:5]").X
    npk.record_gates(net, X).save(tmp_path / "gates")
    assert (
        cli.run(
            [command, str(tmp_path / "gates"), "--mean", "0.5", "--out", "K"][
                : 4 if command == "spectrum" else 6
            ]
        )
        == 2
    )
    assert "--mean" in capsys.readouterr().err


def test_checkpoints_that_were_given_different_samples(trained):
    with pytest.raises(OptionError, match="were given different samples .as they are; mean 0.9"):
        Asked().loading(trained / "silent.safetensors", trained / "told.safetensors")


# What a configuration from elsewhere says is for pixels.


@pytest.fixture
def foreign(tmp_path, net, rng):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    config = PRESET | {"mean": [0.5] * 3, "std": [0.25] * 3, "crop_size": 2, "resize_size": 2}
    (tmp_path / "net.json").write_text(json.dumps(config))
    X = rng.random((5, 3, 2, 2), dtype=np.float32)
    np.savez(tmp_path / "pixels.npz", X=X, y=np.arange(5) % 2)
    np.savez(tmp_path / "done.npz", X=(X - 0.5) * 4, y=np.arange(5) % 2)
    np.savez(tmp_path / "grey.npz", X=X[:, :2], y=np.arange(5) % 2)
    return tmp_path


def test_what_is_prepared_already_is_not_prepared_again(foreign):
    loading = Asked().loading(foreign / "net.pth")
    pixels, done = (loading.load(foreign / f"{name}.npz") for name in ("pixels", "done"))
    np.testing.assert_array_equal(pixels.X, done.X)
    assert loading.told(pixels).startswith("samples: resize 2 (bilinear), crop 2, 2, mean 0.5")
    assert "is taken for done" in loading.told(done)


def test_a_configuration_that_does_not_fit_the_samples_is_named(foreign):
    loading = Asked().loading(foreign / "net.pth")
    with pytest.raises(
        DataError, match="net.json says that .*; --mean none takes them as they are"
    ):
        loading.load(foreign / "grey.npz")
    with pytest.raises(DataError, match="no file called '[^']*none.npz'"):
        loading.load(foreign / "none.npz")


# The network's own accuracy.


class Fixed(nn.Module):
    """Always the same outputs."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        return torch.arange(self.width, dtype=x.dtype).expand(len(x), -1)


def labelled(y, classes):
    return Dataset(
        np.zeros((len(y), 3), np.float32), np.array(y), tuple("abcdefghij"[:classes]), "s"
    )


def test_the_accuracy_of_a_network_and_of_who_guesses():
    found = own_accuracy(Fixed(4), labelled([3, 3, 1, 0], 4))
    assert (found.accuracy, found.samples, found.classes, found.chance) == (0.5, 4, 4, 0.5)
    assert found.near_chance
    assert not own_accuracy(
        Fixed(4), labelled([3, 3], 4)
    ).near_chance  # one class: nothing to guess
    assert own_accuracy(Fixed(4), labelled([3] * 9 + [1] * 11, 4), most=2).samples == 2


@pytest.mark.parametrize(
    ("net", "given"),
    [
        (Fixed(5), labelled([0, 1], 2)),
        (Fixed(2), Dataset(np.zeros((2, 3), np.float32), None, (), "s")),
        (nn.Linear(7, 2), labelled([0, 1], 2)),
        (Fixed(1), labelled([0, 0], 1)),
    ],
)
def test_accuracies_that_are_not_known(net, given):
    assert own_accuracy(net, given) is None


def test_one_output_tells_two_classes_apart():
    assert own_accuracy(Fixed(1), labelled([0, 1], 2)).accuracy == 0.5


def test_nothing_is_warned_of_for_floats():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_samples(np.full((2, 2), 200.0))
