"""How values look in a line and in a notebook: escaped, bounded, and read lightly."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from test_matrix import CutPlan, Held

import npk
from npk import shown
from npk.checks.spectrum import DepthSpectrum
from npk.gram.matrix import Gram
from npk.graph.path_graph import PathGraph
from npk.measures.pairs import SharedGates
from npk.results import CheckResult, LesionTable
from npk.results.base import Case
from npk.results.checks import EnsembleDetails, Lesion, Shares
from npk.shown import Shown
from npk.typed import Typed

HOSTILE = "</td><script>alert('x')</script>&\n"
LARGEST = 200_000  # characters of HTML, whatever is shown


class Tags(HTMLParser):
    """Tags that HTML opens, and whether each is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags_of(value):
    text = value._repr_html_()
    assert len(text) < LARGEST
    return set(Tags(text).seen)


def lesions(count, source="net.py:1"):
    each = tuple(Lesion(i, source, 0.5, 0.25, None, 0.9) for i in range(count))
    return LesionTable("net", 20, "paths", 0.95, each)


def check():
    details = EnsembleDetails((Case(HOSTILE, 1e-9),), Shares((1, 2), (0.25, 0.75), (1.0,)))
    return CheckResult("ensemble", HOSTILE, "sums are K", True, 1e-9, 1e-6, details)


def test_a_result_is_one_line_without_what_it_holds():
    assert repr(lesions(3)) == (
        "<npk.LesionTable network='net', samples=20, bias='paths', accuracy=0.95, lesions: 3>"
    )
    assert repr(lesions(2, HOSTILE).lesions[0]).count("\n") == 0


def test_arrays_are_told_by_shape():
    found = DepthSpectrum("n", "count", "paths", np.arange(3), np.ones((9, 3)), np.ones(9))
    assert "shares: 9x3 float64, kernel: 9 float64>" in repr(found)
    pair = SharedGates(("a",), *np.full((4, 1), 0.25))
    assert "both: 1 float64" in repr(pair)
    assert "<td" in pair._repr_html_()
    assert "0.25" in pair._repr_html_()


def test_every_result_is_shown():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    made = [one for one in below(Typed) if dataclasses.is_dataclass(one)]
    assert len(made) > 20
    for one in made:  # none has the one of dataclasses, which prints all of its fields
        assert "__create_fn__" not in one.__repr__.__qualname__, one
        assert issubclass(one, Shown)


def test_a_result_is_tables_in_a_notebook_and_escaped():
    text = check()._repr_html_()
    assert "sums are K" in text
    assert tags_of(check()) <= {"table", "caption", "thead", "tbody", "tr", "th", "td"} | {
        "details",
        "summary",
    }
    assert "&lt;script&gt;" in text
    assert "<script" not in text


def test_tables_are_bounded():
    text = lesions(5000, "x" * 5000)._repr_html_()
    assert "the first 30 of 5000" in text
    assert len(text) < LARGEST
    long = dataclasses.make_dataclass("Long", [("a", list)], bases=(Shown,))
    for many in (
        ["y" * 10_000] * 1000,
        [list(range(1000))] * 1000,
        {i: "z" * 999 for i in range(999)},
    ):
        value = long(many)
        tags_of(value)
        assert len(repr(value)) < 400


def test_a_graph_is_the_table_of_inspect(hostile_graph):
    graph = hostile_graph
    assert "<script" not in graph._repr_html_()
    assert tags_of(graph) == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "\n" not in repr(graph)


def test_a_graph_of_many_nodes_is_cut():
    rows = [(str(i), HOSTILE) for i in range(600)]
    text = shown.table(("node", "module"), rows, most=500)
    assert "the first 500 of 600" in text
    assert len(text) < LARGEST


@pytest.fixture
def hostile_graph():
    net = npk.networks.build("fc", kind="dnn", input_shape=(4,), classes=2, hidden=[3, 3], seed=0)
    graph = npk.trace(net, (4,))
    first, *rest = graph.nodes
    return PathGraph((dataclasses.replace(first, source=HOSTILE), *rest), graph.input_shape)


def test_a_gate_table_tells_the_gates_of_each_layer_and_reads_none(rng, monkeypatch):
    net = npk.networks.build("fc", kind="dnn", input_shape=(4,), classes=2, hidden=[5, 7], seed=0)
    table = npk.record_gates(net, rng.standard_normal((6, 4), dtype=np.float32))
    for name, entry in table.entries.items():  # a table that cannot be read any more
        table.entries[name] = dataclasses.replace(entry, data=None)
    monkeypatch.setattr(type(table), "nbytes", 0)
    text = table._repr_html_()
    assert [int(n) for n in re.findall(r">(\d+)</td></tr>", text)] == [5, 7]
    assert "6 samples, 2 gate layers" in text
    tags_of(table)


def pixels_of(text):
    data = re.search(r'base64,([^"]+)"', text)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_small_gram_is_a_picture_of_all():
    values = np.array([[0.0, 1.0], [2.0, 4.0], [3.0, 0.5]])
    gram = Gram(Held(values, CutPlan([0, 2, 3], [0, 2])))
    text = gram._repr_html_()
    np.testing.assert_array_equal(pixels_of(text), (255 - 255 * values / 4).astype(np.uint8))
    assert "white 0, black 4" in text
    assert gram.store.seen == [(0, 0), (1, 0)]
    assert tags_of(gram) == {"div", "br", "img"}


def test_of_a_large_gram_one_tile_is_read():
    cuts = list(range(0, 601, 20))
    gram = Gram(Held(np.ones((600, 600)), CutPlan(cuts, cuts)))
    text = gram._repr_html_()
    assert "its first 20 x 20 entries" in text
    assert gram.store.seen == [(0, 0)]
    assert pixels_of(text).shape == (20, 20)
    assert (pixels_of(text) == 255).all()  # all alike


def test_a_gram_that_is_not_complete_says_so():
    gram = Gram(Held(np.ones((4, 4)), CutPlan([0, 2, 4]), missing=[(0, 1)]))
    assert "1 of 3 tiles are not computed yet" in gram._repr_html_()
    assert gram.store.seen == []
    assert tags_of(gram) == {"div"}


def test_a_picture_has_few_pixels():
    text = shown.picture(np.arange(1_000_000.0).reshape(1000, 1000), "K")
    assert max(pixels_of(text).shape) <= 128
    assert "every 8th entry" in text
