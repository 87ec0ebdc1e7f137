"""A kernel on two hosts that this machine pretends to be: network namespaces joined by a virtual
cable, a worker in each.

python benchmarks/two_hosts.py                  as root

Scheduler, client and a worker are on the first host, another worker on the second; they share the
disk. While the kernel is computed, the worker of the second host is killed, and a new one is
started there. The result is compared, bit for bit, with the kernel that one process computes. Exit
code 0: the same; 1: another; 2: namespaces cannot be made here. They are removed in any case.
"""

import argparse
import collections
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import distributed
import numpy as np

import npk
from npk.gram import tiles
from npk.gram.cluster import connect
from npk.progress import Silent

PORT, ADDRESSES = 8786, ("10.213.7.1", "10.213.7.2")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=4000, help="samples")
    parser.add_argument("--side", type=int, default=128, help="of the tiles")
    # the script calls itself on the first host
    parser.add_argument("--hosts", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hosts:
        return compare(options.hosts, options.n, options.side)
    try:
        with two_hosts() as hosts:
            command = [
                sys.executable,
                __file__,
                f"--n={options.n}",
                f"--side={options.side}",
                "--hosts",
                *hosts,
            ]
            return subprocess.run(on(hosts[0], command), check=False).returncode
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        print(
            f"two_hosts: network namespaces cannot be made here ({why}). Run it as root on Linux "
            f"with iproute2.",
            file=sys.stderr,
        )
        return 2


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Namespaces with an address each, and a cable between them."""
    hosts = (f"npk-{os.getpid()}-a", f"npk-{os.getpid()}-b")
    ends = (f"npka{os.getpid()}", f"npkb{os.getpid()}")
    with contextlib.ExitStack() as stack:
        for host in hosts:
            ip("netns", "add", host)
            stack.callback(ip, "netns", "delete", host)
        ip(
            "link",
            "add",
            ends[0],
            "netns",
            hosts[0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            hosts[1],
        )
        for host, end, address in zip(hosts, ends, ADDRESSES, strict=True):
            ip("-n", host, "address", "add", f"{address}/24", "dev", end)
            ip("-n", host, "link", "set", end, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield hosts


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def on(host: str, command: list[str]) -> list[str]:
    return ["ip", "netns", "exec", host, *command]


def compare(hosts: list[str], n: int, side: int) -> int:
    """Compute on both hosts and in this process."""
    net = npk.networks.build(
        "conv", input_shape=(1, 8, 8), classes=10, channels=[32, 32], seed=0
    ).eval()
    table = npk.record_gates(
        net, np.random.default_rng(0).standard_normal((n, 1, 8, 8)).astype(np.float32)
    )
    expected = npk.kernel(table, bias="ignore", progress=False)
    with (
        tempfile.TemporaryDirectory(prefix="npk-two-hosts-") as folder,
        contextlib.ExitStack() as stack,
    ):
        log = stack.enter_context((Path(folder) / "log").open("w"))

        def start(host: int, program: str, *words: str) -> subprocess.Popen:
            command = [
                sys.executable,
                "-m",
                f"distributed.cli.dask_{program}",
                f"--host={ADDRESSES[host]}",
                "--no-dashboard",
                *words,
            ]
            process = subprocess.Popen(
                on(hosts[host], command), stdout=log, stderr=log, cwd=folder, env=with_this_npk()
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        file = Path(folder, "scheduler.json")
        worker = (
            "worker",
            f"--scheduler-file={file}",
            "--nthreads=1",
            "--no-nanny",
            f"--local-directory={folder}",
        )
        start(0, "scheduler", f"--port={PORT}", f"--scheduler-file={file}")
        start(0, *worker)
        lost = start(1, *worker)
        wait_for(file)
        with connect(str(file)) as client:
            client.wait_for_workers(2)
            watch = Watch(lost, lambda: start(1, *worker))
            begin = time.perf_counter()
            with distributed.get_task_stream(client) as tasks:
                tiles._LARGEST = side
                npk.kernel(
                    table, bias="ignore", out=Path(folder, "K.zarr"), client=client, progress=watch
                )
            seconds = time.perf_counter() - begin
        gram = npk.Gram.load(Path(folder, "K.zarr"))
        same = np.array_equal(np.asarray(gram), expected)
    done = collections.Counter(task["worker"].split("//")[1].split(":")[0] for task in tasks.data)
    plan, (first, second) = gram.store.plan, ADDRESSES
    print(
        f"two hosts: kernel of {n} x {n} in {len(plan)} tiles of at most {plan.side} x "
        f"{plan.side}, {seconds:.1f} s"
    )
    print(
        f"tasks: {done[first]} on the first host, {done[second]} on the second; its worker was "
        f"killed after {watch.killed} tiles"
    )
    print("the same bits as in one process" if same else "OTHER BITS THAN IN ONE PROCESS")
    return 0 if same else 1


def with_this_npk() -> dict[str, str]:
    """Workers import the npk that this script does."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(npk.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        ),
    }


def wait_for(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)
    raise SystemExit("two_hosts: the scheduler did not start within a minute")


class Watch(Silent):
    """Kills a worker when a fifth of the tiles is done, and starts another."""

    def __init__(self, worker: subprocess.Popen, start: Callable[[], object]) -> None:
        self.worker, self.start, self.killed = worker, start, 0

    @contextlib.contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        so_far = done

        def advance(steps: int) -> None:
            nonlocal so_far
            so_far += steps
            if description == "kernel tiles" and not self.killed and so_far >= total / 5:
                self.worker.kill()
                self.killed = so_far
                self.start()

        yield advance


if __name__ == "__main__":
    raise SystemExit(main())
