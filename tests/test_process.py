"""The caller's process, network and threads are as they were after a kernel; and what he has set in
torch changes no kernel.
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import npk
from npk import forks
from npk.backends import jit as threads
from npk.errors import BackendError, UnsupportedGraphError
from npk.networks.copies import copied
from npk.reading import apart

X = np.random.default_rng(0).standard_normal((6, 4)).astype("f")


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@functools.cache
def right():
    return kernel(network())


def kernel(net):
    return npk.kernel(net, X, progress=False)


def console():
    return (
        sys.stdout,
        sys.stderr,
        logging.root.manager.disable,
        list(warnings.filters),
        [h.filters[:] for h in logging.root.handlers],
    )


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def in_threads(networks, workers, rounds):
    """Kernels that are not those that one thread gave."""
    right = [kernel(net) for net in networks]
    before, wrong = console(), 0
    for _ in range(rounds):
        with ThreadPoolExecutor(workers) as pool:
            refused = pool.submit(npk.trace, Branches(), (4,))
            wrong += sum(
                not np.array_equal(one, other)
                for one, other in zip(pool.map(kernel, networks), right, strict=True)
            )
            with pytest.raises(UnsupportedGraphError, match="values of its samples"):
                refused.result()
    assert console() == before
    return wrong


def test_threads_leave_the_console_and_get_their_kernels():
    assert in_threads([network(0), network(1)], workers=3, rounds=1) == 0


@pytest.mark.slow
def test_eight_networks_in_four_threads_a_hundred_times():
    assert in_threads([network(i) for i in range(8)], workers=4, rounds=100) == 0


def test_one_object_records_and_computes_in_threads():
    made = npk.NeuralPathKernel(network(), progress=False)
    right = made(X)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(found, right) for found in pool.map(made, [X] * 12))


def test_warnings_are_held_back_in_the_thread_of_torch_alone():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")

        def speak():
            warnings.warn("inside", UserWarning, stacklevel=1)
            pool.submit(warnings.warn, "outside").result()

        with ThreadPoolExecutor(1) as pool:
            apart.apart(speak)
        warnings.warn("after", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["outside", "after"]


def test_the_log_of_torch_is_held_back_in_the_thread_of_torch_alone(caplog):
    def speak():
        with apart.alone_with_torch():
            for name in ("torch.export", "users"):
                logging.getLogger(name).error("inside %s", name)
            pool.submit(logging.getLogger("torch.export").error, "outside").result()

    with ThreadPoolExecutor(1) as pool:
        apart.apart(speak)
    assert [record.getMessage() for record in caplog.records] == ["inside users", "outside"]


def test_a_failed_trace_writes_nothing(capfd):
    with pytest.raises(UnsupportedGraphError, match=r"values of its samples.*test_process\.py:"):
        npk.trace(Branches(), (4,))
    assert capfd.readouterr() == ("", "")


# hooks, attributes and buffers


class Keeps(nn.Module):
    """Keeps what it computes in an attribute, in a list and in a buffer, and counts."""

    def __init__(self):
        super().__init__()
        self.inner = network()
        self.seen, self.last, self.times, self.cache = [], None, 0, None
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("level", torch.ones(3))

    def forward(self, x):
        self.last = self.inner(x)
        self.seen.append(self.last)
        self.times += 1
        self.calls += 1
        self.level.mul_(1.5)
        if self.cache is None:
            self.cache = torch.ones(1) * x.shape[-1]
        return self.last


def test_what_forward_keeps_stays_as_it_was():
    net = Keeps().eval()
    net(torch.ones(2, 4))
    before = net.last, list(net.seen), net.times, net.calls.clone(), net.level.clone(), net.cache
    K = kernel(net)
    npk.check_duality(net, X, draws=5)
    assert net.last is before[0]
    assert net.seen == before[1]
    assert (net.times, int(net.calls), net.level.tolist()) == (
        before[2],
        int(before[3]),
        before[4].tolist(),
    )
    assert net.cache is before[5]
    np.testing.assert_array_equal(K, right())


@pytest.mark.parametrize("kind", ["forward", "pre", "everywhere", "gradient", "state"])
def test_hooks_see_no_tensors_of_the_tracer(kind):
    net, kept = network(), []
    put = {
        "forward": lambda: net[1].register_forward_hook(lambda m, i, o: kept.append(o)),
        "pre": lambda: net[1].register_forward_pre_hook(lambda m, i: kept.extend(i)),
        "everywhere": lambda: nn.modules.module.register_module_forward_hook(
            lambda m, i, o: kept.append(o)
        ),
        "gradient": lambda: net[1].register_full_backward_hook(lambda m, i, o: kept.extend(i)),
        "state": lambda: net[1].register_state_dict_pre_hook(
            lambda m, prefix, keep: kept.append(prefix)
        ),
    }[kind]
    handle = put()
    hooks = dict(net[1]._forward_hooks), dict(net[1]._forward_pre_hooks)
    try:
        np.testing.assert_array_equal(kernel(net), right())
    finally:
        handle.remove() if kind in ("everywhere",) else None
    assert {type(value) for value in kept} <= {torch.Tensor, str}
    assert (dict(net[1]._forward_hooks), dict(net[1]._forward_pre_hooks)) == hooks


class Collects(nn.Module):
    """Gives what a hook has put aside."""

    def __init__(self):
        super().__init__()
        self.inner, self.found = network(), {}
        self.inner[2].register_forward_hook(lambda m, i, o: self.found.__setitem__("out", o))

    def forward(self, x):
        self.inner(x)
        return self.found["out"]


def test_hooks_that_the_network_needs_belong_to_it():
    doubles = network()
    doubles[2].register_forward_hook(lambda m, i, o: 2 * o)
    np.testing.assert_allclose(np.diag(kernel(doubles)), 4 * np.diag(right()), rtol=1e-6)
    net = Collects().eval()
    np.testing.assert_array_equal(kernel(net), right())
    assert net.found == {}


def test_a_copy_has_the_tensors_and_not_the_modules():
    net = Keeps()
    inner = net.inner
    net.again, net.bound, net.closed = [inner], inner[0].forward, lambda x: inner(x) + 1
    made = copied(net)
    assert [id(p) for p in made.parameters()] == [id(p) for p in net.parameters()]
    assert made.again[0] is made.inner is not net.inner
    assert made.bound.__self__ is made.inner[0]
    assert made.closed.__closure__[0].cell_contents is made.inner


# wrappers


def test_wrappers_are_taken_off_without_being_run():
    net = network()
    averaged = torch.optim.swa_utils.AveragedModel(net)

    def never(*_):
        raise AssertionError("compiled")

    parts = nn.Sequential(torch.compile(net[0], backend=never), net[1], nn.DataParallel(net[2]))
    right = npk.trace(net, (4,))
    for wrapped in (
        nn.DataParallel(net),
        torch.compile(net, backend=never),
        averaged.eval(),
        parts.eval(),
    ):
        assert npk.trace(wrapped, (4,)) == right
    assert npk.check_duality(parts, X, draws=5).passed
    net.compile(backend=never)
    assert npk.trace(net, (4,)) == right


# what the user has set in torch


class Refuses(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        # sizes and types may be
        assert function is torch.device or function.__name__ == "__get__", (
            "npk's work is seen by the user's mode"
        )
        return function(*args)


@contextlib.contextmanager
def setting(name):
    with contextlib.ExitStack() as stack:
        if name == "float64 by default":
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        elif name == "deterministic":
            stack.callback(torch.use_deterministic_algorithms, False)
            torch.use_deterministic_algorithms(True)
        else:
            modes = {
                "gradients off": lambda: torch.set_grad_enabled(False),
                "inference": torch.inference_mode,
                "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
                "meta by default": lambda: torch.device("meta"),
                "a function mode": Refuses,
                "fake tensors": torch._subclasses.FakeTensorMode,
                "anomalies": torch.autograd.detect_anomaly,
            }
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stack.enter_context(modes[name]())
        yield


def settings():
    return (
        *(
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.is_autocast_enabled("cpu"),
        ),
        *(
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            torch.is_anomaly_enabled(),
        ),
    )


MODES = [
    "gradients off",
    "inference",
    "autocast",
    "meta by default",
    "a function mode",
    "fake tensors",
    "anomalies",
]


@pytest.mark.parametrize("name", [*MODES, "float64 by default", "deterministic"])
def test_settings_of_torch_change_no_kernel(name):
    net, expected = network(), right()
    net[0].weight.grad = torch.ones(8, 4)
    net[2].bias.requires_grad_(False)
    before = settings()
    with setting(name):
        inside = settings()
        found = kernel(net)
        assert settings() == inside
    assert settings() == before
    np.testing.assert_array_equal(found, expected)
    assert net[0].weight.grad.sum() == 32
    assert [p.requires_grad for p in net.parameters()] == [True, True, True, False]


def test_a_network_made_in_inference_mode():
    with torch.inference_mode():
        net = network()
        net.append(nn.BatchNorm1d(3)).eval()
    assert net[0].weight.is_inference()
    assert npk.check_duality(net, X, draws=5).passed


class Draws(nn.Module):
    def forward(self, x):
        np.random.rand(), random.random(), torch.rand(3)  # noqa: NPY002
        return x.relu()


def test_random_states_stay():
    before = np.random.get_state()[1:3], random.getstate(), torch.get_rng_state()  # noqa: NPY002
    npk.trace(Draws(), (4,))
    after = np.random.get_state()[1:3], random.getstate(), torch.get_rng_state()  # noqa: NPY002
    assert (before[0][0].tolist(), before[0][1], before[1]) == (
        after[0][0].tolist(),
        after[0][1],
        after[1],
    )
    assert torch.equal(before[2], after[2])


# forked processes


def _in_child(queue):
    try:
        queue.put(float(kernel(network()).sum()))
    except BackendError as error:
        queue.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_the_kernel_or_says_what_to_do():
    expected = float(right().sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    found = queue.get(timeout=120)
    child.join(60)
    assert child.exitcode == 0
    if forks.running_layer() in threads._FORK_SAFE:
        assert found == expected
    else:
        assert found.startswith("this process was forked from one that has computed kernels")
        assert '"spawn" or "forkserver"' in found


# here Numba has not run in parallel before the fork, and torch has
_AFTER_TORCH = """
import multiprocessing, os, torch, npk
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
torch.set_num_threads(2)
net(torch.randn(200_000, 8)).sum().backward()

def found(queue):
    queue.put(float(npk.kernel(net, torch.ones(40, 8), progress=False).sum()))

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=found, args=(queue,))
    child.start()
    try:
        print(queue.get(timeout=60))
    finally:
        child.kill()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_was_forked_beside_threads_of_torch_does_not_wait_for_them():
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "NUMBA_NUM"))}
    command = [sys.executable, "-W", "ignore", "-c", _AFTER_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0


def test_parallel_code_is_refused_without_its_threads(monkeypatch):
    monkeypatch.setattr(forks, "_lost", ["omp"])
    with pytest.raises(BackendError, match="forked.*spawn"):
        kernel(network())
    monkeypatch.setattr(forks, "_lost", ["workqueue"])
    kernel(network())
