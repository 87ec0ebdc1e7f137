"""The kernel of a checkpoint, its samples sorted by class, before training and after: squares along
the diagonal are classes whose samples let the same paths through.
"""

import tempfile
from pathlib import Path

import npk
from npk.report.style import blank, house_style

HERE = Path(__file__).parent

train, fresh = npk.data.split(npk.data.load("digits"), test=0.3, seed=0)
net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, hidden=[64] * 4, seed=0)
trained = npk.networks.train(
    net, train.X, train.y, epochs=20, snapshots=[0, 20], seed=0, progress=False
)
with tempfile.TemporaryDirectory() as folder, house_style():
    figure = blank(6.8, 3.4)
    for place, (epoch, when) in enumerate(((0, "before"), (20, "after"))):
        npk.save(trained.snapshots[epoch], Path(folder) / "net.safetensors")
        checkpoint = npk.load(Path(folder) / "net.safetensors")  # or your own, in its place
        options = {"scale": "cosine", "value_input": "ones", "progress": False}
        K = npk.kernel(checkpoint, fresh.X[:200], **options)  # of the gates alone
        aligned = npk.measures.alignment(K, fresh.y[:200])
        ax = npk.plot.kernel(K, fresh.y[:200], ax=figure.add_subplot(1, 2, place + 1))
        ax.set_title(f"{when} training: alignment {aligned:.2f}")
        print(f"{when} training: alignment with the classes {aligned:.3f}")
    figure.savefig(HERE / "your_checkpoints_kernel.png", dpi=110)
