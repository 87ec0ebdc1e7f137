"""Data files from strangers: nothing in them runs, and none unpacks to far more than it holds."""

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from npk import data
from npk.errors import DataError


def npz(path, members, packed=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packed, compresslevel=9) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return str(path)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


X = np.random.default_rng(0).random((3, 2)).astype(np.float32)


def test_npz_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("npk.data.limits.ALWAYS_ALLOWED", 1 << 20)
    path = npz(tmp_path / "x.npz", [("X.npy", npy(np.zeros((4_000, 500), np.float32)))])
    with pytest.raises(DataError, match=r"bytes and unpacks to 8,000,128"):
        data.load(path)


def test_members_of_an_npz_that_are_not_needed_are_not_read(tmp_path):
    damaged = [
        ("X.npy", npy(X)),
        ("other.npy", b"no array"),
        ("objects.npy", npy(X)[:20]),
        ("note.txt", bytes(1 << 20)),
    ]
    assert data.load(npz(tmp_path / "x.npz", damaged)).X.tolist() == X.tolist()


def test_npz_whose_header_tells_another_size(tmp_path):
    header = npy(X).replace(b"(3, 2)", b"(9, 2)")
    assert len(header) == len(npy(X))
    huge = npy(X).replace(b"(3, 2), }   ", b"(3, 99999999), }")[: len(npy(X))]
    for content in (header, huge, npy(X) + b"more"):
        with pytest.raises(DataError, match="is truncated or was not written by NumPy"):
            data.load(npz(tmp_path / "x.npz", [("X.npy", content)]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_with_two_arrays_of_one_name(tmp_path):
    with pytest.raises(DataError, match="has 2 arrays X"):
        data.load(npz(tmp_path / "x.npz", [("X.npy", npy(X)), ("X.npy", npy(X))]))


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, ",
        b"((((",
        b"\xff" * 40,
        b"{" * 5000,
        b"print('x')",
    ],
)
def test_npy_with_a_damaged_header(tmp_path, header):
    (tmp_path / "x.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + X.tobytes()
    )
    with pytest.raises(DataError, match="is truncated or was not written by NumPy"):
        data.load(str(tmp_path / "x.npy"))


def test_npy_larger_than_its_file(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy(X).replace(b"(3, 2), }          ", b"(30000000000, 2), }"))
    with pytest.raises(DataError, match="is truncated or was not written by NumPy"):
        data.load(str(tmp_path / "x.npy"))


# idx


def idx(folder, shape, content, packed=True):
    folder.mkdir(exist_ok=True)
    head = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
    name = f"train-{'images' if len(shape) == 3 else 'labels'}-idx{len(shape)}-ubyte"
    (folder / f"{name}.gz").write_bytes(gzip.compress(head + content, 1)) if packed else (
        folder / name
    ).write_bytes(head + content)


@pytest.mark.parametrize(
    ("shape", "content", "told"),
    [
        ((10_000, 100, 100), bytes(1 << 20), "unpacks to 100,000,000|is truncated or no idx file"),
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), b"", "unpacks to"),
        ((2, 2, 2), bytes(1 << 20), "is truncated or no idx file"),
        ((2, 2, 2), bytes(7), "is truncated or no idx file"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_idx_that_unpacks_without_end(tmp_path, shape, content, told, packed):
    idx(tmp_path, shape, content, packed)
    idx(tmp_path, (2,), bytes(2), packed)
    with pytest.raises(DataError, match=told):
        data.load(f"idx:{tmp_path}")


# pictures


def png(width, height):
    """A picture that claims to be so large, and is nearly empty."""

    def part(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")
    )


def pictures(folder, *contents):
    (folder / "a").mkdir()
    for i, content in enumerate(contents):
        (folder / "a" / f"{i}.png").write_bytes(content)
    return str(folder)


@pytest.mark.parametrize("size", [(30_000, 30_000), (4097, 4097), (10**5, 10**4)])
def test_a_picture_with_very_many_pixels(tmp_path, size):
    with pytest.raises(
        DataError, match="pixels, npk reads up to 16,777,216|is truncated or no picture"
    ):
        data.load(pictures(tmp_path, png(*size)))


def test_many_pictures_far_larger_than_their_files(tmp_path):
    with pytest.raises(DataError, match="bytes and unpacks to"):
        data.load(pictures(tmp_path, *[png(4000, 4000)] * 5))


def test_a_picture_of_a_kind_that_other_programs_read(tmp_path, monkeypatch):
    eps = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(made) (w) file "
        b"closefile\n%%EOF\n"
    )
    monkeypatch.setattr(
        "PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript is started")
    )
    Image.init()
    with pytest.raises(DataError, match="is truncated or no picture"):
        data.load(pictures(tmp_path, eps))


def test_a_picture_that_is_no_plain_file(tmp_path):
    folder = pictures(tmp_path)
    os.mkfifo(tmp_path / "a" / "x.png")
    with pytest.raises(DataError, match="is no plain file"):
        data.load(folder)


# CIFAR


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def cifar(folder, content):
    (folder / "test_batch").write_bytes(content)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}, protocol=2))
    return f"cifar10:{folder}/test"


def forged(state):
    """A pickle of an array whose state is this."""

    class Array:
        def __reduce__(self):
            return np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state

    return pickle.dumps({"data": Array(), "labels": [0, 1]}, protocol=4)


def test_cifar_is_read(tmp_path):
    pixels = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    content = pickle.dumps({b"data": pixels, b"labels": [0, 1]}, protocol=4)
    assert data.load(cifar(tmp_path, content)).X.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # asks for room for 2 ** 31 entries
        b"\x80\x04\x8e\xff\xff\xff\xff\x0f\x00\x00\x00x.",  # bytes without end
        forged((1, (10**10,), np.dtype("u1"), False, b"x")),
        forged((1, (2, 3072), np.dtype("O"), False, [None] * 6144)),
        forged((1, (2, -3072), np.dtype("u1"), False, b"x")),
    ],
)
def test_a_forged_pickle_of_cifar(tmp_path, content):
    with pytest.raises(DataError, match="is truncated or damaged"):
        data.load(cifar(tmp_path, content))


def test_code_in_a_pickle_of_cifar_does_not_run(tmp_path):
    content = pickle.dumps({"data": Evil(tmp_path / "made"), "labels": [0]}, protocol=2)
    with pytest.raises(DataError, match="npk never runs pickled code"):
        data.load(cifar(tmp_path, content))
    assert not (tmp_path / "made").exists()
