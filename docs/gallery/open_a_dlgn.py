"""Opening a deep linearly gated network on a set in the plane: its gates switch at straight lines, in
every layer. They begin at the origin, since biases begin at zero; training turns and shifts them.
"""

from pathlib import Path

import npk
from npk.report.style import blank, house_style

HERE = Path(__file__).parent

points = npk.data.toy("union", 600, seed=0)
net = npk.networks.build(
    "fc", "dlgn", input_shape=(2,), classes=2, hidden=[12, 12], value_input="x", seed=0
)
trained = npk.networks.train(
    net,
    points.X,
    points.y,
    epochs=60,
    snapshots=[0, 60],
    learning_rate=1e-2,
    seed=0,
    progress=False,
)
with house_style():
    figure = blank(6.8, 6.8)
    for row, (epoch, when) in enumerate(((0, "before"), (60, "after"))):
        for layer in range(2):
            ax = figure.add_subplot(2, 2, 2 * row + layer + 1)
            npk.plot.hyperplanes(trained.snapshots[epoch], points.X, points.y, layer=layer, ax=ax)
            ax.set_title(f"layer {layer + 1}, {when} training")
    figure.savefig(HERE / "open_a_dlgn.png", dpi=110)

print(f"validation accuracy {trained.curve_validation[-1]:.3f}")
