"""The kernel of points on a circle in the order of their angles: before training it knows their angle
alone, afterwards which of them the network tells apart.
"""

from pathlib import Path

import npk
from npk.report.style import blank, house_style

HERE = Path(__file__).parent

points = npk.data.toy("union", 600, seed=0)
net = npk.networks.build("fc", input_shape=(2,), classes=2, hidden=[64, 64, 64], seed=0)
trained = npk.networks.train(
    net, points.X, points.y, epochs=40, snapshots=[0, 40], seed=0, progress=False
)
circle = npk.data.circle_points(180, radius=0.7)
with house_style():
    figure = blank(6.8, 3.3)
    for place, (epoch, when) in enumerate(((0, "before"), (40, "after"))):
        K = npk.kernel(
            trained.snapshots[epoch], circle.X, scale="cosine", value_input="ones", progress=False
        )
        ax = npk.plot.on_circle(K, ax=figure.add_subplot(1, 2, place + 1))
        ax.set_title(f"{when}: effective rank {npk.measures.effective_rank(K):.1f}")
    figure.savefig(HERE / "points_on_a_circle.png", dpi=110)
