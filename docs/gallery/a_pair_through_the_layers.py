"""Pairs of pictures through the layers of a trained network: which gates are on for both, for one of
them, for none. Two of one class, and two of different classes.
"""

from pathlib import Path

import numpy as np

import npk
from npk.report.style import blank, house_style

HERE = Path(__file__).parent

train, fresh = npk.data.split(npk.data.load("digits"), test=0.3, seed=0)
net = npk.networks.build(
    "conv", input_shape=(1, 8, 8), classes=10, channels=[16, 16, 16], batch_norm=True, seed=0
)
npk.networks.train(net, train.X, train.y, epochs=8, seed=0, progress=False)
first, second = np.flatnonzero(fresh.y == 3)[:2]
other = np.flatnonzero(fresh.y == 4)[0]
table = npk.record_gates(net, fresh.X[[first, second, other]])
with house_style():
    figure = blank(6.8, 3.8)
    for place, pair in enumerate(((0, 1), (0, 2))):
        ax = npk.plot.shared_gates(table, *pair, ax=figure.add_subplot(1, 2, place + 1))
        found = npk.measures.shared_gates(table, *pair)
        print(("one class", "two classes")[place], np.round(found.both, 3))
    figure.savefig(HERE / "a_pair_through_the_layers.png", dpi=110)
