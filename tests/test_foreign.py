"""Checkpoints of other projects, where their packages are installed:
docs/guide/foreign-checkpoints.md names them.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import npk

FOLDER = Path(__file__).parents[1] / "benchmarks/foreign"
NEEDS = {
    "wake_word": ("openwakeword", "onnx", "onnxruntime"),
    "faces": ("facenet_pytorch", "skimage"),
    "text_direction": ("rapidocr_onnxruntime", "onnx", "onnxruntime"),
}


@pytest.fixture
def script(monkeypatch, request):
    """A script of benchmarks/foreign, imported as it is when it runs: from its own folder."""
    missing = [name for name in NEEDS[request.param] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(FOLDER)
    for name in (request.param, "installed"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["wake_word"], indirect=True)
def test_the_wake_word_network_is_an_mlp_and_has_its_kernel(script, rng):
    X = rng.normal(scale=16, size=(7, 16, 96)).astype(np.float32)
    net = npk.load(script.model(script.CHECKPOINT), output="Gemm_5")
    hear = script.session(script.CHECKPOINT)
    logits = net(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(
        1 / (1 + np.exp(-logits)), np.stack([hear(x[None])[0] for x in X]), rtol=1e-4, atol=1e-6
    )
    table = npk.record_gates(net, X)
    overlaps = [(g := table[layer].reshape(7, -1).astype(float)) @ g.T for layer in range(2)]
    flat = X.reshape(7, -1).astype(float)
    np.testing.assert_allclose(
        npk.kernel(net, X, scale="count", bias="ignore", dtype="float64"),
        flat @ flat.T * overlaps[0] * overlaps[1],
        rtol=1e-9,
    )


@pytest.mark.parametrize("script", ["faces"], indirect=True)
def test_the_face_network_is_read_with_its_second_output(script):
    X = script.samples(np.array([0, 50, 100, 150]))[0]
    net = npk.load(
        script.file_of("facenet_pytorch", "data/rnet.pt"), arch="faces:RNet", output="dense5_1"
    )
    assert net(torch.from_numpy(X)).argmax(1).tolist() == [1, 1, 0, 0]
    assert npk.check_duality(net, X).passed


@pytest.mark.slow
@pytest.mark.parametrize("script", ["text_direction"], indirect=True)
def test_the_text_network_is_read_up_to_its_softmax(script, rng):
    import onnxruntime

    X, y = script.samples(8, rng)
    path = script.file_of("rapidocr_onnxruntime", script.CHECKPOINT)
    net = npk.load(path, output="Add_43")
    ours = net(torch.from_numpy(X)).softmax(1).detach().numpy()
    np.testing.assert_allclose(
        ours, onnxruntime.InferenceSession(str(path)).run(None, {"x": X})[0], rtol=1e-3, atol=1e-5
    )
    assert np.mean(ours.argmax(1) == y) > 0.5
    assert npk.check_duality(net, X[:2], draws=20).passed
