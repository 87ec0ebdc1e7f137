"""Samples as people have them: tables of text, tensors, arrays under usual names, labels that are
names; and machines and pictures from what is on disk already.
"""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import npk
from npk import cli, data
from npk.data.tables import read_labels
from npk.errors import DataError

X = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
Y = np.array([0, 2, 1, 1])


@pytest.mark.parametrize(
    ("text", "values", "labels", "classes"),
    [
        ("1,2.5\n3,4\n", [[1, 2.5], [3, 4]], None, ()),
        ("a,b\n1,2.5\n3,4\n", [[1, 2.5], [3, 4]], None, ()),
        ("label,p0,p1\n2,0,9\n0,1,7\n", [[0, 9], [1, 7]], [2, 0], ("0", "1", "2")),
        ("w;h;Species\n1.5;2;cat\n3;4;ant\n", [[1.5, 2], [3, 4]], [1, 0], ("ant", "cat")),
        ("1.5\t2\tcat\n3\t4\tant\n", [[1.5, 2], [3, 4]], [1, 0], ("ant", "cat")),
        ("\ufeffy,v\n1.0,5\n\n0.0,6\n", [[5], [6]], [1, 0], ("0", "1")),
        ('"y","v, w"\n0,5\n0,6\n', [[5], [6]], [0, 0], ("0",)),
    ],
)
def test_tables_of_text(tmp_path, text, values, labels, classes):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = data.load(tmp_path / "t.csv")
    np.testing.assert_array_equal(found.X, np.array(values, np.float32))
    assert (found.y if found.y is None else found.y.tolist()) == labels
    assert found.classes == classes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty"),
        (b"a,b\n", "a line of names and nothing below it"),
        (b"1,2\n3\n", "line 2 has 1 columns and line 1 has 2"),
        (b"a,b,c\n1,x,2\n", "line 2 has 'x', which is no number. Leave out columns of text"),
        (b"label\n1\n2\n", "one column, and it holds labels"),
        (b"\xff\xfe\x00", "is no table of text"),
        (b'"' + b"x" * 200_000, "is no table of text"),
        (b"label,v\n-1,2\n0,3\n", "labels go from -1 to 0"),
        (b"v,label\n1,0.5\n2,1\n", ""),
    ],
)
def test_tables_that_are_none(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    if message:
        with pytest.raises(DataError, match=message):
            data.load(tmp_path / "t.csv")
    else:  # labels that are no whole numbers are names
        assert data.load(tmp_path / "t.csv").classes == ("0.5", "1")


def test_pixels_in_a_table_are_whole_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("label,a,b\n1,0,255\n0,7,9\n")
    with pytest.warns(npk.errors.DataWarning, match="whole numbers from 0 to 255"):
        data.load(tmp_path / "t.csv")
    scaled = data.load(tmp_path / "t.csv", scale_pixels=255).X
    np.testing.assert_array_equal(scaled, np.array([[0, 255], [7, 9]], np.float32) / 255)


@pytest.mark.parametrize(
    ("content", "labelled"),
    [
        (torch.tensor(X), False),
        ((torch.tensor(X), torch.tensor(Y)), True),
        ({"images": torch.tensor(X), "labels": torch.tensor(Y), "epoch": 3}, True),
        ({"x_train": torch.tensor(X), "y_train": torch.tensor(Y)}, True),
    ],
)
def test_tensors(tmp_path, content, labelled):
    torch.save(content, tmp_path / "t.pt")
    found = data.load(tmp_path / "t.pt")
    np.testing.assert_array_equal(found.X, X)
    assert (found.y is None) != labelled
    assert not labelled or found.y.tolist() == Y.tolist()


def test_tensors_with_names_and_a_test_part(tmp_path):
    content = {"X": torch.zeros(3, 2), "y": torch.tensor([0, 1, 1]), "classes": ["no", "yes"]}
    content |= {"x_test": torch.tensor(X), "y_test": torch.tensor(Y)}
    torch.save(content, tmp_path / "t.pt")
    assert data.load(tmp_path / "t.pt").classes == ("no", "yes")
    torch.save({k: v for k, v in content.items() if k != "classes"}, tmp_path / "t.pt")
    np.testing.assert_array_equal(data.load(f"{tmp_path}/t.pt/test[1:]").X, X[1:])


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_tensors_never_run_code(tmp_path, capsys):
    torch.save({"X": Evil()}, tmp_path / "t.pt")
    (tmp_path / "u.pt").write_bytes(pickle.dumps(Evil()))
    for name in "tu":
        with pytest.raises(DataError, match=f"{name}.pt cannot be read as tensors"):
            data.load(tmp_path / f"{name}.pt")
    assert capsys.readouterr().out == ""


def test_tensors_that_are_none(tmp_path):
    torch.save([1, 2, 3], tmp_path / "t.pt")
    with pytest.raises(DataError, match="holds no tensor of samples, no pair"):
        data.load(tmp_path / "t.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "t.pt")
    with pytest.raises(DataError, match="no array of samples under a usual name .* but weight"):
        data.load(tmp_path / "t.pt")


def test_tensors_that_unpack_to_far_more(tmp_path):
    torch.save(torch.zeros(1).expand(1 << 20, 1 << 10), tmp_path / "t.pt")
    with pytest.raises(DataError, match="unpacks to 4,294,967,296"):
        data.load(tmp_path / "t.pt")
    with zipfile.ZipFile(tmp_path / "t.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t/data.pkl", b"\0" * (1 << 27))
    with pytest.raises(DataError, match="unpacks to 134,217,728"):
        data.load(tmp_path / "t.pt")


@pytest.mark.parametrize(("X_name", "y_name"), [("x_train", "y_train"), ("images", "labels")])
def test_arrays_under_usual_names(tmp_path, X_name, y_name):
    np.savez(tmp_path / "t.npz", **{X_name: X, y_name: Y, "x_test": X[:1], "y_test": Y[:1]})
    found = data.load(tmp_path / "t.npz")
    np.testing.assert_array_equal(found.X, X)
    assert found.y.tolist() == Y.tolist()
    np.testing.assert_array_equal(data.load(f"{tmp_path}/t.npz/test").X, X[:1])
    np.savez(tmp_path / "u.npz", X=X)
    with pytest.raises(DataError, match="u.npz has no array of test samples under a usual name"):
        data.load(f"{tmp_path}/u.npz/test")


def test_labels_that_are_names(tmp_path):
    np.savez(tmp_path / "t.npz", X=X, y=["cat", "ant", "cat", "bee"])
    found = data.load(tmp_path / "t.npz")
    assert (found.y.tolist(), found.classes) == ([2, 0, 2, 1], ("ant", "bee", "cat"))
    np.savez(tmp_path / "t.npz", X=X, y=np.array([b"b", b"a", b"b", b"a"]))
    assert data.load(tmp_path / "t.npz").classes == ("a", "b")


# Folders of pictures as Hugging Face has them.


@pytest.fixture
def folder(tmp_path):
    for name in ("1.png", "2.png", "3.png"):
        Image.new("L", (4, 4), 50 * int(name[0])).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,dog\n2.png,cat\n3.png,dog\n")
    return tmp_path


def test_a_table_beside_pictures_names_their_classes(folder):
    found = data.load(folder)
    assert found.classes == ("cat", "dog")
    told = {
        round(float(x.max() * 255)): found.classes[y] for x, y in zip(found.X, found.y, strict=True)
    }
    assert told == {50: "dog", 100: "cat", 150: "dog"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\n../x.png,a\n", "names ../x.png, which is not in its folder"),
        ("file_name,label\n/etc/x.png,a\n", "names /etc/x.png, which is not in its folder"),
        ("name,label\n1.png,a\n", "Give file_name and label"),
        ("file_name,label\n9.png,a\n", "9.png is no plain file"),
    ],
)
def test_tables_beside_pictures_that_cannot_be_followed(folder, text, message):
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        data.load(folder)


def test_a_folder_of_parts_says_which_to_name(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "train" / "cat" / "1.png")
    with pytest.raises(DataError, match=f"Name a part of it, such as {tmp_path}/train"):
        data.load(tmp_path)
    assert data.load(tmp_path / "train").classes == ("cat",)


# Sequences and volumes.


def test_sequences_and_volumes(tmp_path, rng):
    X = rng.random((5, 2, 9), dtype=np.float32)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "v.npy", rng.random((5, 1, 2, 3, 4)))
    assert data.load(tmp_path / "x.npy").X.shape == (5, 1, 2, 9)
    np.testing.assert_array_equal(data.load(tmp_path / "x.npy", sequences=True).X, X)
    assert data.load(tmp_path / "v.npy").X.shape == (5, 1, 2, 3, 4)


def test_a_network_of_sequences_from_the_shell(tmp_path, rng, capsys):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    X = rng.random((8, 2, 9), dtype=np.float32)
    npk.save(net.eval(), tmp_path / "net.pt2", example=X[:2])
    np.savez(tmp_path / "x.npz", X=X, y=np.arange(8) % 2)
    words = ["kernel", tmp_path / "net.pt2", "--data", tmp_path / "x.npz", "--sequences"]
    words += ["--out", tmp_path / "K.npy"]
    assert cli.run([str(word) for word in words]) == 0, capsys.readouterr().err
    np.testing.assert_array_equal(np.load(tmp_path / "K.npy"), npk.kernel(net, X))


# Labels alone.


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("y.txt", "0\n2\n1\n", [0, 2, 1]),
        ("y.csv", "label\nb\na\n", ["b", "a"]),
        ("y.csv", "id,label\n7,1\n8,0\n", [1, 0]),
    ],
)
def test_labels_in_text(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name).tolist() == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("y.csv", b"1,2\n3,4\n", "has 2 columns and no line of names"),
        ("y.npy", b"nonsense", "cannot read numbers from"),
        ("z.npy", None, "there is no file of labels"),
    ],
)
def test_labels_that_are_none(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / name)


def test_labels_of_another_kind(tmp_path):
    np.save(tmp_path / "y.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match="holds no labels, which are whole numbers or names"):
        read_labels(tmp_path / "y.npy")
    np.savez(tmp_path / "z.npz", y=Y)
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    with pytest.raises(DataError, match="an .npz file under another name"):
        read_labels(tmp_path / "z.npy")


# From stores and gates to machines and pictures.


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, hidden=[24], seed=1)
    npk.save(net, folder / "net.safetensors")
    digits = data.load("digits[:160]")
    npk.kernel(net, digits, out=folder / "K.zarr", progress=False)
    npk.kernel(net, digits.X, out=folder / "bare.zarr", progress=False)
    npk.kernel(net, digits.X[:4], digits.X[4:9], out=folder / "wide.zarr", progress=False)
    npk.record_gates(net, digits.X).save(folder / "bare.gates")
    np.save(folder / "y.npy", digits.y)
    np.save(folder / "K.npy", npk.kernel(net, digits.X[:20], progress=False))
    return folder


@pytest.fixture
def command(stored, monkeypatch, capsys):
    monkeypatch.chdir(stored)

    def call(*words, code=0):
        assert cli.run([str(word) for word in words]) == code
        out, err = capsys.readouterr()
        return out if code == 0 else err

    return call


@pytest.mark.parametrize("solver", ["ridge", "svm"])
def test_a_machine_from_a_store_is_that_from_the_network(command, solver, tmp_path):
    """The same split, kernel and labels: from a checkpoint, from gates, from a kernel on disk."""
    command("gates", "net.safetensors", "--data", "digits[:160]", "--out", tmp_path / "g.gates")
    whole = ["--solver", solver, "--json"]
    command("fit", "net.safetensors", "--data", "digits[:160]", *whole, tmp_path / "net.json")
    np.save(tmp_path / "x.npy", npk.data.load("digits[:160]").X)
    labels = ["--data", tmp_path / "x.npy", "--labels", "y.npy"]
    command("fit", "net.safetensors", *labels, *whole, tmp_path / "labels.json")
    command("fit", "K.zarr", *whole, tmp_path / "K.json")
    command("fit", "bare.zarr", "--labels", "y.npy", *whole, tmp_path / "bare.json")
    command("fit", tmp_path / "g.gates", *whole, tmp_path / "g.json")
    command("fit", "bare.gates", "--labels", "digits[:160]", *whole, tmp_path / "of.json")
    found = [
        json.loads((tmp_path / f"{n}.json").read_text())["accuracies"][0]
        for n in ("net", "labels", "K", "bare", "g", "of")
    ]
    for one in found:
        assert one["accuracy"] == found[0]["accuracy"] > 0.5
        assert one["parameters"] == found[0]["parameters"]
        assert one["samples"] == 120


def test_landmarks_of_a_store_are_those_of_the_network(command, monkeypatch, tmp_path):
    """Of a kernel on disk nothing but their columns is read."""
    blocks = []
    read = npk.Gram.__getitem__

    def noted(gram, key):
        block = read(gram, key)
        blocks.append(block.shape)
        return block

    monkeypatch.setattr(npk.Gram, "__getitem__", noted)
    monkeypatch.setattr(npk.Gram, "__array__", None)
    command("gates", "net.safetensors", "--data", "digits[:160]", "--out", tmp_path / "g.gates")
    whole = ["--solver", "nystroem", "--components", 25, "--json"]
    command("fit", "net.safetensors", "--data", "digits[:160]", *whole, tmp_path / "net.json")
    command("fit", "K.zarr", *whole, tmp_path / "K.json")
    command("fit", tmp_path / "g.gates", *whole, tmp_path / "g.json")
    reports = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("net", "K", "g")]
    found = [report["accuracies"][0] for report in reports]
    for one in found:
        assert one["accuracy"] == found[0]["accuracy"] > 0.4
        assert one["parameters"] == pytest.approx(found[0]["parameters"], rel=1e-4)
    assert blocks[-1] == (40, 25)
    assert all(shape[1] == 120 and shape[0] <= 25 for shape in blocks[:-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bare.zarr"], "bare.zarr keeps no labels. Say which they are: --labels FILE.npy"),
        (["bare.zarr", "--labels", "digits[:9]"], "has 9 labels, and bare.zarr has 160 samples"),
        (["K.zarr", "--data", "digits"], "K.zarr holds its samples already. Leave out --data"),
        (["K.zarr", "--mean", "0.5"], "K.zarr holds its samples already"),
        (["K.zarr", "--baselines", "RBF"], "K.zarr holds no network, and --baselines needs one"),
        (
            ["K.zarr", "--bias", "ignore"],
            "is a kernel with bias paths, and --bias ignore was asked",
        ),
        (["K.zarr", "--scale", "count"], "has the scale fan_in, and --scale count was asked for"),
        (["wide.zarr", "--labels", "y.npy"], "a kernel of 4 rows with 5 other columns"),
        (["net.safetensors"], "--data is missing: it names the labelled samples"),
        (
            ["net.safetensors", "--data", "digits[:9]", "--labels", "y.npy"],
            "9 samples but y is int64 of shape (160,)",
        ),
        (
            ["K.zarr", "--solver", "features"],
            "K.zarr holds no network, and the solver features draws others like it. Name",
        ),
        (["bare.gates", "--solver", "features"], "bare.gates holds no network"),
    ],
)
def test_machines_that_cannot_be_fitted(command, words, message):
    assert message in command("fit", *words, code=2)


def test_a_store_on_its_own_scale(command):
    assert "NPK-ridge with alpha" in command("fit", "K.zarr", "--scale", "fan_in")


@pytest.mark.parametrize(
    "words",
    [
        ["K.zarr"],
        ["bare.zarr"],
        ["K.npy"],
        ["K.zarr", "--what", "alignment"],
        ["bare.zarr", "--what", "spectrum"],
        ["bare.gates"],
        ["bare.gates", "--what", "overlap", "--labels", "y.npy"],
    ],
)
def test_figures_of_what_is_on_disk(command, words, tmp_path):
    out = tmp_path / "figure.png"
    assert command("plot", *words, "--out", out) == f"{out}\n"
    with Image.open(out) as picture:
        assert np.asarray(picture).std() > 5  # something is drawn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["K.zarr", "--out", "x.gif"], "--out x.gif is no picture"),
        (["K.zarr", "--what", "overlap", "--out", "x.png"], "Choose kernel, alignment, spectrum"),
        (["bare.gates", "--what", "kernel", "--out", "x.png"], "Choose statistics, overlap"),
        (["bare.zarr", "--what", "alignment", "--out", "x.png"], "bare.zarr keeps no labels"),
        (["y.npy", "--out", "x.png"], r"y.npy holds int64 of shape (160,), no kernel"),
    ],
)
def test_figures_that_cannot_be_drawn(command, words, message):
    assert message in command("plot", *words, code=2)


def test_the_picture_of_a_kernel(stored):
    """Samples of a class side by side; of many, some evenly from all."""
    gram = npk.Gram.load(stored / "K.zarr")
    K, y = np.asarray(gram), np.load(stored / "y.npy")
    axes = npk.plot.kernel(gram, y)
    order = np.argsort(y, kind="stable")
    root = np.sqrt(np.diagonal(K))
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn, (K / root / root[:, None])[np.ix_(order, order)], atol=1e-6)
    many = npk.plot.kernel(np.eye(1000))
    assert many.images[0].get_array().shape == (400, 400)
    assert many.get_xlabel() == "400 of 1000 samples"
    with pytest.raises(npk.errors.ShapeError, match=r"K has shape \(2, 3\)"):
        npk.plot.kernel(np.ones((2, 3)))
