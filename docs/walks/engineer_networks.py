"""Two MLPs as ONNX files, one from scikit-learn and one from PyTorch, and samples that no weight has
seen: ``python engineer_networks.py`` writes sklearn.onnx, torch.onnx and fresh.npz.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from torch import nn


def by_hand(layers, path, classes=None):
    """Write ``relu(x W + b)`` for each layer, the last one without ReLU; with classes, as
    converters do, the label and probabilities behind it too.
    """
    nodes, weights, value = [], [], "x"
    for number, (W, b) in enumerate(layers):
        weights += [numpy_helper.from_array(np.float32(W), f"W{number}")]
        weights += [numpy_helper.from_array(np.float32(b), f"b{number}")]
        name, last = f"scores{number}", number == len(layers) - 1
        nodes.append(helper.make_node("Gemm", [value, f"W{number}", f"b{number}"], [name], name))
        value = name if last else f"relu{number}"
        nodes += [] if last else [helper.make_node("Relu", [name], [value], value)]
    ends = [(value, TensorProto.FLOAT)]
    if classes is not None:
        weights.append(numpy_helper.from_array(np.int64(classes), "classes"))
        nodes += [
            helper.make_node("Softmax", [value], ["probabilities"], "probabilities", axis=1),
            helper.make_node("ArgMax", [value], ["place"], "place", axis=1, keepdims=0),
            helper.make_node("Gather", ["classes", "place"], ["label"], "label"),
        ]
        ends = [("label", TensorProto.INT64), ("probabilities", TensorProto.FLOAT)]
    start = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(layers[0][0])])
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in ends]
    graph = helper.make_graph(nodes, "mlp", [start], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def from_sklearn(X, y, path):
    """By skl2onnx where it is installed, else by hand."""
    net = MLPClassifier((64, 64), max_iter=60, random_state=0, early_stopping=True).fit(X, y)
    try:
        from skl2onnx import to_onnx
    except ImportError:
        by_hand(list(zip(net.coefs_, net.intercepts_, strict=True)), path, net.classes_)
        return net, "by hand"
    onnx.save(to_onnx(net, X[:1], options={"zipmap": False}, target_opset=17), path)
    return net, "by skl2onnx"


def from_torch(X, y, path):
    """By torch.onnx.export where its packages are installed, else by hand."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.tensor(X)), torch.tensor(y)).backward()
        optimizer.step()
    try:
        torch.onnx.export(net.eval(), (torch.tensor(X[:1]),), path, dynamo=True, verbose=False)
    except ImportError:
        layers = [(m.weight.detach().T, m.bias.detach()) for m in net if isinstance(m, nn.Linear)]
        by_hand(layers, path)
        return net, "by hand"
    return net, "by torch.onnx.export"


if __name__ == "__main__":
    X, y = load_digits(return_X_y=True)
    X, y = (X / 16).astype(np.float32), y.astype(np.int64)
    X_train, X_fresh, y_train, y_fresh = train_test_split(
        X, y, test_size=0.5, stratify=y, random_state=0
    )
    net, how = from_sklearn(X_train, y_train, "sklearn.onnx")
    print(f"sklearn.onnx, {how}: {net.score(X_fresh, y_fresh):.1%} of fresh digits right")
    net, how = from_torch(X_train, y_train, "torch.onnx")
    with torch.no_grad():
        right = net(torch.tensor(X_fresh)).argmax(1).numpy() == y_fresh
    print(f"torch.onnx, {how}: {right.mean():.1%} of fresh digits right")
    np.savez("fresh.npz", X=X_fresh)  # as a service meets them: without labels
    np.save("labels.npy", y_fresh)
