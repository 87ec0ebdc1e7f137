"""Random networks: each is read exactly, or refused; never another error, never a wrong number."""

import io

import pytest
from fuzz import Case, case_of, count, examine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import random_network

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
SETTINGS = settings(
    derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@st.composite
def drawn_cases(draw):
    """A small random network, which hypothesis makes smaller still where it finds something."""
    net, shape = random_network(lambda options: draw(st.sampled_from(list(options))))
    return Case(net, shape, draw(st.integers(0, 2**16)))


@settings(SETTINGS, max_examples=12)
@given(drawn_cases())
def test_small_networks_are_read_exactly_or_refused(case):
    examine(case)


def test_networks_of_many_operators_are_read_exactly_or_refused():
    for seed in range(4):
        examine(case_of(seed))


@pytest.mark.slow
@settings(SETTINGS, max_examples=100)
@given(drawn_cases())
def test_many_small_networks_are_read_exactly_or_refused(case):
    examine(case)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, 50))
def test_five_hundred_networks_are_read_exactly_or_refused(first):
    """And most are read: a reader that refuses everything would pass otherwise. One of them:
    ``python tests/fuzz.py SEED``.
    """
    told = io.StringIO()
    found = count(range(first, first + 50), told)
    assert found["wrong"] == found["other errors"] == 0, told.getvalue()
    assert found["read"] >= 25, told.getvalue()
