"""The operating envelope: memory as the solvers hold it, times that grow as they must."""

import tracemalloc

import numpy as np
import pytest

from npk.errors import OptionError
from npk.machines import conjugate_gradients, ridge
from npk.machines.needs import Speed, envelope, measured_speed

SPEED = Speed(product=1e-11, eigenvalues=1e-10, cholesky=2e-11)


def needs(n, **options):
    return {need.machine: need for need in envelope(n, speed=SPEED, **options)}


def test_how_needs_grow():
    small, large = needs(10_000), needs(20_000)
    for name, power in [
        ("ridge, every alpha", 3),
        ("ridge, one alpha", 3),
        ("conjugate gradients in memory", 2),
        ("conjugate gradients on disk", 2),
        ("landmarks", 1),
        ("features", 1),
    ]:
        assert large[name].seconds / small[name].seconds == pytest.approx(2**power, rel=0.1)
    assert large["conjugate gradients on disk"].memory < 2e9
    assert large["conjugate gradients on disk"].disk == 2 * 20_000**2
    assert large["ridge, every alpha"].memory == 4 * 8 * 20_000**2
    assert "on disk" in str(large["conjugate gradients on disk"])


@pytest.mark.parametrize("alpha", ["auto", 0.1])
def test_memory_is_what_ridge_takes(rng, alpha):
    n = 400
    F = rng.normal(size=(n, 20))
    K, y = F @ F.T + np.eye(n), rng.normal(size=(n, 10))
    tracemalloc.start()
    ridge.fit(K, y, alpha)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    promised = needs(n)["ridge, every alpha" if alpha == "auto" else "ridge, one alpha"].memory
    assert K.nbytes + most < 1.3 * promised


def test_memory_is_what_conjugate_gradients_take(rng):
    n = 400
    F = rng.normal(size=(n, 20))
    K, y = F @ F.T + np.eye(n), rng.normal(size=(n, 10))
    tracemalloc.start()
    conjugate_gradients.solve(K, y, 1.0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert K.nbytes + most < 1.3 * needs(n)["conjugate gradients in memory"].memory


def test_speed_is_measured_once():
    assert measured_speed() is measured_speed()
    assert all(0 < value < 1e-6 for value in vars(measured_speed()).values())


@pytest.mark.parametrize("name", ["n", "outputs", "components", "steps"])
def test_what_is_refused(name):
    with pytest.raises(OptionError, match=f"{name} is 0. Give a whole number"):
        envelope(**{"n": 10, name: 0})
