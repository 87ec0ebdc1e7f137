"""What the gates have learnt: machines on few fresh samples, with the kernel of trained networks, of
the same networks before training, and with what is known without a kernel of paths.
"""

import shutil
import tempfile
from pathlib import Path

import npk

HERE = Path(__file__).parent

train, fresh = npk.data.split(npk.data.load("mnist5k"), test=0.5, seed=0)
nets = {}
for seed in range(3):
    net = npk.networks.build("fc", input_shape=(1, 28, 28), classes=10, hidden=[128] * 4, seed=seed)
    npk.networks.train(net, train.X, train.y, epochs=15, seed=seed, progress=False)
    nets[f"seed {seed}"] = net
with tempfile.TemporaryDirectory() as folder:
    result = npk.study(
        nets,
        fresh,
        seen=False,
        n=[10, 30, 100, 300],
        baselines=["untrained", "penultimate", "RBF"],
        checks=[],
        out=folder,
        progress=False,
    )
    shutil.copy(Path(folder) / "figures" / "curves.png", HERE / "what_gates_learn.png")
for one in result.differences:
    if not one.network:  # the mean over the three
        difference, error = 100 * one.difference, 100 * one.error
        print(f"{one.samples} samples: trained - {one.against}: {difference:+.1f} ± {error:.1f}")
