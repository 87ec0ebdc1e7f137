"""Comparing two checkpoints: the same network trained from two seeds, and from one seed on more
epochs: CKA with intervals, and the gates that flip.
"""

from pathlib import Path

import npk
from npk.report.style import blank, house_style

HERE = Path(__file__).parent

train, fresh = npk.data.split(npk.data.load("digits"), test=0.3, seed=0)
X, nets = fresh.X[:200], {}
for seed in (0, 1):
    net = npk.networks.build(
        "conv", input_shape=(1, 8, 8), classes=10, channels=[16, 16], batch_norm=True, seed=seed
    )
    trained = npk.networks.train(
        net, train.X, train.y, epochs=8, snapshots=[0, 4, 8], seed=seed, progress=False
    )
    nets |= {(seed, epoch): past for epoch, past in trained.snapshots.items()}
pairs = {
    "epochs 4 and 8": ((0, 4), (0, 8)),
    "epochs 0 and 8": ((0, 0), (0, 8)),
    "seeds 0 and 1, epoch 8": ((0, 8), (1, 8)),
}
used = {key for pair in pairs.values() for key in pair}
kernels = {
    key: npk.kernel(nets[key], X, scale="cosine", bias="paths", progress=False) for key in used
}
gates = {key: npk.record_gates(nets[key], X) for key in used}
cka = {name: npk.measures.cka_interval(kernels[a], kernels[b]) for name, (a, b) in pairs.items()}
flips = {name: npk.measures.flips(gates[a], gates[b]) for name, (a, b) in pairs.items()}
with house_style():
    figure = blank(6.8, 2.6)
    npk.plot.cka_interval(cka, ax=figure.add_subplot(1, 2, 1))
    npk.plot.flips(flips, ax=figure.add_subplot(1, 2, 2)).set_ylim(0, 0.8)
    figure.savefig(HERE / "two_checkpoints.png", dpi=110)
for name, one in cka.items():
    print(f"{name}: CKA {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]")
