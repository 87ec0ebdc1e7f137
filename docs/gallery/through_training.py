"""Kernel and gates through a training: `npk.track` on snapshots, with samples that no weight has
seen.
"""

import shutil
import tempfile
from pathlib import Path

import npk

HERE = Path(__file__).parent

train, fresh = npk.data.split(npk.data.load("digits"), test=0.5, seed=0)
net = npk.networks.build(
    "conv", input_shape=(1, 8, 8), classes=10, channels=[16, 16, 16], batch_norm=True, seed=0
)
trained = npk.networks.train(
    net, train.X, train.y, epochs=8, snapshots=[0, 1, 2, 4, 8], seed=0, progress=False
)
with tempfile.TemporaryDirectory() as folder:
    result = npk.track(trained, fresh, seen=False, n=60, out=folder, progress=False)
    for name in ("accuracy", "movement", "layers"):
        shutil.copy(Path(folder) / "figures" / f"{name}.png", HERE / f"through_training_{name}.png")
for move in result.from_start:
    print(move.epoch, round(move.angle, 3), [round(share, 3) for share in move.flips])
print(f"gain {100 * result.gain:.1f} ± {100 * result.gain_error:.1f} points")
