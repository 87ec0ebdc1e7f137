"""A kernel by the workers of a Dask cluster, here three processes of one machine: one is killed on the
way, another takes its place, and the matrix has the same bits as without a cluster.
"""

import contextlib
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from matplotlib.colors import ListedColormap

import npk
from npk.report.style import blank, house_style

HERE = Path(__file__).parent


class Accident(npk.progress.Silent):
    """Kills the worker that wrote the first tile, when a third of the tiles are done."""

    def __init__(self, client):
        self.client, self.processes, self.worker = client, client.run(os.getpid), None

    @contextlib.contextmanager
    def task(self, description, total, done=0):
        """Count tiles alone."""
        count = [done]

        def advance(steps):
            count[0] += steps
            if description == "kernel tiles" and not self.worker and count[0] >= total / 3:
                self.worker = self.client.get_events("npk-tiles")[0][1]["worker"]
                os.kill(self.processes[self.worker], signal.SIGKILL)

        yield advance


def on_a_cluster(gates, out):
    """A kernel; who wrote which tile when, and which worker was killed."""
    options = {"n_workers": 3, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        accident = Accident(client)
        # little memory: many small tiles
        npk.kernel(gates, out=out, memory="24MB", client=client, progress=accident)
        return client.get_events("npk-tiles"), accident.worker


def draw(told, killed):
    """The tiles by worker, and how many each has written by when."""
    workers = list(dict.fromkeys(event["worker"] for _, event in told))
    side = 1 + max(event["col"] for _, event in told)
    triangle, figure = np.full((side, side), np.nan), blank(6.8, 3.2)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for place, worker in enumerate(workers):
        mine = [(when - told[0][0], event) for when, event in told if event["worker"] == worker]
        for _, event in mine:
            triangle[event["row"], event["col"]] = place
        label = f"worker {place + 1}" + ", killed" * (worker == killed)
        look = {"where": "post", "marker": ".", "color": npk.plot.COLORS[place], "label": label}
        right.step([when for when, _ in mine], range(1, 1 + len(mine)), **look)
    colors = ListedColormap(npk.plot.COLORS[: len(workers)])
    left.imshow(triangle, cmap=colors, vmin=-0.5, vmax=len(workers) - 0.5)
    left.set(title="who computed which tile", xlabel="columns", ylabel="rows", xticks=[], yticks=[])
    right.set(title="tiles of each worker", xlabel="seconds", ylim=(0, None))
    right.legend()
    figure.savefig(HERE / "a_cluster.png", dpi=110)


if __name__ == "__main__":  # workers are new processes that import this file
    X = npk.data.load("digits").X
    net = npk.networks.build("conv", input_shape=(1, 8, 8), classes=10, channels=[16, 16], seed=0)
    gates = npk.record_gates(net, np.concatenate([X, X[..., ::-1]]))  # and mirrored ones
    with tempfile.TemporaryDirectory() as folder, house_style():
        told, killed = on_a_cluster(gates, Path(folder) / "K")
        K = np.asarray(npk.Gram.load(Path(folder) / "K"))
        draw(told, killed)
    same = np.array_equal(K, npk.kernel(gates, progress=False))
    print(f"{len(told)} tiles; the same bits as without a cluster: {same}")
