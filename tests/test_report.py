"""Figures and page of a study: the numbers are those of the study, nothing is loaded from elsewhere,
missing parts are survived.
"""

import base64
import dataclasses
import io
import math
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import npk
from npk.errors import StoreError
from npk.report import write_figures, write_page
from npk.report.figures import _limits
from npk.results import (
    DETAILS,
    MODELS,
    Accuracy,
    Case,
    CheckResult,
    Comparison,
    Difference,
    DualityDetails,
    EnsembleDetails,
    InvarianceCase,
    InvarianceDetails,
    KernelSummary,
    Measure,
    Mistake,
    Moved,
    Neighbors,
    NetworkSummary,
    Picture,
    Shares,
    StudyResult,
    TangentDetails,
    TangentEntry,
)

ROOT = Path(npk.__file__).parent
GROUPS = {"conv-gap": "shift-invariant", "conv-flat": "position-keeping"}
DESCRIPTION = {
    "conv-gap": "4 conv 3x3 x 96, circular, global average pool, linear",
    "conv-flat": "3 conv 3x3 x 64, stride 2, flatten, linear 128",
}
NAMES = [f"{group} {kind}" for group in GROUPS for kind in ("dnn", "dgn", "dlgn")]
SIZES = (30, 100, 300)
# accuracy with 30 fresh samples, and how much 300 add
LEVEL = {
    "penultimate": (0.85, 0.1),
    "trained": (0.8, 0.12),
    "untrained": (0.6, 0.2),
    "random gates": (0.55, 0.2),
    "RBF": (0.62, 0.2),
    "logistic": (0.61, 0.18),
}


def _networks():
    for group, family in GROUPS.items():
        for kind in ("dnn", "dgn", "dlgn"):
            epochs = np.arange(60)
            speed = {"dnn": 7, "dgn": 9, "dlgn": 12}[kind]
            loss = 2.3 * np.exp(-epochs / speed) + 0.02 + 0.004 * np.cos(epochs)
            yield NetworkSummary(
                name=f"{group} {kind}",
                family=family,
                kind=kind,
                description=DESCRIPTION[group]
                + ("; a linear gating network beside it" if kind == "dlgn" else ""),
                parameters=251_146 * (1 if kind == "dnn" else 2),
                checkpoint=f"{group}-{kind}.safetensors",
                bias="paths",
                untrained="built anew from its description",
                curve_train=list(loss),
                curve_validation=list(0.98 - 0.8 * np.exp(-epochs / speed)),
                reused=kind == "dgn",
            )


def accuracy(network, model, samples, share, **changes):
    found = Accuracy(network, model, samples, share, 0.012, (share,) * 3, 0.4, {"alpha": 0.1}, "")
    return dataclasses.replace(found, **changes)


def _accuracies():
    for place, name in enumerate(NAMES):
        yield accuracy(name, "network", 0, 0.97 + 0.001 * place, by_split=(0.97,))
        for model in ("penultimate", "trained", "untrained", "random gates"):
            yield from _curve(name, model, 0.003 * place)
    for model in ("RBF", "logistic"):
        yield from _curve("", model, 0.0)


def _curve(name, model, more):
    low, gain = LEVEL[model]
    for step, n in enumerate(SIZES):
        command = f"npk fit {name} -n {n}" if model == "trained" else "npk study"
        yield accuracy(name, model, n, low + more + gain * step / 2, command=command)


def _differences():
    for against in ("untrained", "penultimate", "RBF"):
        for place, name in enumerate(["", *NAMES]):
            for step, n in enumerate(SIZES):
                gap = LEVEL["trained"][0] - LEVEL[against][0] + 0.01 * place - 0.03 * step
                yield Difference(name, "trained", against, n, gap, 0.009, "npk study")


def measure(name, gates, what, value, layer="", note=""):
    error = None if value is None else 0.01
    return Measure(name, gates, what, layer, value, error, 300, note, "npk gates a.safetensors")


def _measures():
    for name in NAMES:
        for gates, more in (("trained", 0.4), ("untrained", 0.0)):
            yield measure(name, gates, "alignment", 0.3 + more)
            yield measure(name, gates, "effective rank", 1.7 + 10 * more)
            yield measure(name, gates, "NASWOT", None, note="soft gates have none")
            for depth in range(2, 8):  # a network with skips
                share = math.exp(-((depth - 3 - 3 * more) ** 2) / 4) / 3
                yield measure(name, gates, "depth share", share, str(depth))
            for layer in range(3):
                place = f"relu{layer + 1}"
                yield measure(name, gates, "class overlap", 1.05 + more * layer, place)
                yield measure(name, gates, "activity", 0.45 + 0.02 * layer, place)
                yield measure(name, gates, "dead", 0.01, place)
                yield measure(name, gates, "always on", 0.02 * more, place)


def comparison(first, second, gates, flips):
    return Comparison(
        first,
        second,
        gates,
        0.6,
        0.55,
        0.64,
        0.93,
        0.88,
        0.99,
        0.95,
        flips,
        flips and 0.01,
        300,
        "",
    )


def _comparisons():
    for name in NAMES:
        yield comparison(name, name, "untrained", 0.31)
    yield comparison(NAMES[0], NAMES[1], "trained", None)


def _kernels(rng):
    for name in NAMES:
        for gates, spread in (("trained", 0.8), ("untrained", 3.0)):
            labels = np.repeat(np.arange(10), 12)
            features = rng.normal(size=(10, 40))[labels] + spread * rng.normal(size=(120, 40)) + 1.5
            features /= np.linalg.norm(features, axis=1, keepdims=True)
            spectrum = np.exp(-np.arange(300) / 60) * np.arange(1, 301) ** -1.2
            yield KernelSummary(
                network=name,
                gates=gates,
                scale="cosine",
                samples=300,
                heat=(features @ features.T).round(3).tolist(),
                heat_labels=labels.tolist(),
                heat_pictures=list(range(100, 220)),
                spectrum=(spectrum / spectrum.sum()).tolist(),
                spectrum_error=(0.1 * spectrum / spectrum.sum()).tolist(),
                dead_inputs=2 if name == NAMES[0] else 0,
            )


def picture(number, label=1, shape=(8, 8)):
    pixels = bytes((number + i) % 256 for i in range(int(np.prod(shape))))
    return Picture(number, shape, base64.b64encode(pixels).decode(), label)


def _neighbors():
    for gates, near in (("untrained", (2, 3)), ("trained", (3, 2))):
        yield Neighbors(NAMES[0], gates, 1, near, (0.91, 0.72))


def moved(by, deviation, predicted=True, **more):
    """One element of a group; the levels beside the kernel are of no matter here."""
    values = {"name": str(by), "by": by, "distance": float(sum(by)), "input": 0.5, "gates": (0.1,)}
    values |= {"output": 0.1, "labels": 1.0, **more}
    return Moved(predicted=predicted, kernel=deviation, **values)


def invariance_case(label, elements, **more):
    """A case whose counts are those of its elements."""
    inside = [one for one in elements if one.predicted]
    beyond = [one.kernel for one in elements if not one.predicted]
    values = {
        "group": "circular shifts",
        "size": len(elements),
        "predicted": "all shifts" if not beyond else "the identity alone",
        "reasons": (),
        "layers": ("relu",),
        "curves": (),
        "inside": len(inside),
        "holds": len(inside),
        "worst_inside": max((one.kernel or 0.0 for one in inside), default=0.0),
        "outside": len(beyond),
        "also": 0,
        "outside_median": beyond[0] if beyond else None,
        "outside_worst": max(b or 0.0 for b in beyond) if beyond else None,
        "flips": 0,
        "rounding": 0,
        "gates": 393_216,
        "summary": "predicted and measured",
    }
    return InvarianceCase(label=label, moved=tuple(elements), **{**values, **more})


def _invariance(rng):
    def case(label, promised, scale, flips):
        elements = [
            moved(
                (dy, dx),
                scale * rng.uniform(0.3, 1) if dy or dx else 0.0,
                promised or dy == dx == 0,
            )
            for dy in range(8)
            for dx in range(8)
        ]
        return invariance_case(label, elements, flips=flips)

    cases = (
        case("circular + global pool", True, 6e-15, 3),
        case("zero padding + global pool", False, 0.08, 0),
        case("circular + flatten", False, 0.7, 0),
        case("circular + global pool, DLGN", True, 4e-15, 0),
    )
    statement = "K(g x, x') = K(x, x') for circular shifts g."
    details = InvarianceDetails(cases)
    return CheckResult(
        "invariance", "conv-gap dnn", statement, True, cases[0].worst_inside, 1e-12, details
    )


def duality_of(network, passed, *cases):
    statement = "f(x) is the inner product of path features and path values."
    measured = max((case.deviation or 0.0 for case in cases), default=None)
    details = DualityDetails(cases, "agrees", 1.2, 0.04, 0.3, 200, 5e6)
    return CheckResult("duality", network, statement, passed, measured, 1e-11, details)


def _checks(rng):
    own, value_network = Case("the network itself", 3.2e-15), Case("its value network", 0.0)
    yield duality_of("conv-flat dnn", True, own, value_network)
    yield _invariance(rng)
    shares = Shares(
        depth=(2, 4, 6, 8, 10),
        share=(0.082, 0.291, 0.364, 0.207, 0.056),
        blocks=(0.42, 0.38, 0.47, 0.51),
    )
    cases = (
        Case("ungated skips: product form", 1.1e-15),
        Case("gated skips: product form", 0.37),
        Case("gated skips: cumulative masks", 2.4e-15),
    )
    statement, details = "The kernels of all sub-networks add up.", EnsembleDetails(cases, shares)
    yield CheckResult("ensemble", "residual dnn", statement, True, 2.4e-15, 1e-11, details)
    yield duality_of("fc dnn", False, Case("own weights", 3.4))


def build_run(seed=0, **changes):
    rng = np.random.default_rng(seed)
    run = StudyResult(
        version="0.1.0",
        command="npk demo",
        data="digits",
        test="digits",
        classes=[str(i) for i in range(10)],
        seen="fresh",
        samples_train=898,
        samples_fresh=900,
        samples_test=449,
        sizes=SIZES,
        splits=3,
        disjoint=True,
        scale="cosine",
        seed=7,
        seconds=171.3,
        machine="2 cores, x86_64, Linux; torch 2.13.0, numpy 2.3.1",
        networks=tuple(_networks()),
        accuracies=tuple(_accuracies()),
        differences=tuple(_differences()),
        measures=tuple(_measures()),
        comparisons=tuple(_comparisons()),
        kernels=tuple(_kernels(rng)),
        pictures=(
            *(picture(1), picture(2, 4), picture(3), picture(4, 7, (8, 8, 3))),
            *(picture(100 + row, row // 12) for row in range(120)),
        ),
        neighbors=tuple(_neighbors()),
        mistakes=(Mistake(NAMES[0], 4, 1, 7),),
        checks=tuple(_checks(rng)),
        notes=("check of ensemble left out for conv-gap dnn: no skip connections",),
    )
    return dataclasses.replace(run, **changes)


NOTHING = {
    "networks": (),
    "accuracies": (),
    "differences": (),
    "measures": (),
    "comparisons": (),
    "kernels": (),
    "pictures": (),
    "neighbors": (),
    "mistakes": (),
    "checks": (),
    "notes": (),
}


def bare_run(**changes):
    """A study that found nothing but what is given."""
    return build_run(**{**NOTHING, **changes})


class _Page(HTMLParser):
    """What a page says, what it loads, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.words, self.loads, self.pictures, self.ids, self.targets, self.tags = (
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self._skip, self.samples = 0, []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self._skip += tag in ("script", "style")
        self.loads += [
            attrs[name]
            for name in ("src", "href", "xlink:href", "data", "action", "poster")
            if attrs.get(name)
        ]
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.targets += [attrs["href"][1:]] if tag == "a" else []
        self.pictures += [attrs] if tag == "svg" else []
        self.samples += [attrs] if tag == "img" else []

    def handle_endtag(self, tag):
        self._skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._skip:
            self.words.append(data)


def page_of(run, tmp_path):
    path = tmp_path / "report.html"
    write_page(run, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run():
    return build_run()


@pytest.fixture(scope="module")
def full_text(run, tmp_path_factory):
    return page_of(run, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def full(full_text):
    return _Page(full_text)


@pytest.fixture(scope="module")
def figures(run, tmp_path_factory):
    return write_figures(run, tmp_path_factory.mktemp("run") / "figures")


def one_network(**changes):
    """A study of one network, without anything that is slow to draw."""
    run = build_run()
    name = run.networks[0].name
    return bare_run(
        networks=run.networks[:1],
        accuracies=tuple(a for a in run.accuracies if a.network in (name, "")),
        differences=tuple(d for d in run.differences if d.network == name),
        **changes,
    )


def plain(text):
    return text.replace("\xa0", " ")


def test_page_shows_every_accuracy_with_its_standard_error(run, full):
    text = plain(full.text).replace(" ", "")
    for found in run.accuracies:
        assert f"{100 * found.accuracy:.1f}±{100 * found.error:.1f}" in text
    for model in MODELS.values():
        assert model.replace(" ", "") in text


def test_first_sentence_counts_every_size_and_every_network(full):
    text = plain(full.text)
    assert (
        "After 30, 100 and 300 fresh samples, ridge regression with the kernel of the trained "
        "gates classifies +20.0 ± 0.9, +17.0 ± 0.9 and +14.0 ± 0.9 points more of the test "
        "samples correctly than with that of the same networks before training (mean over 6 "
        "networks; single ones from +15.0 to +26.0)."
    ) in text
    assert (
        "Trained gates stand at \N{MINUS SIGN}5.0 ± 0.9, \N{MINUS SIGN}8.0 ± 0.9 and "
        "\N{MINUS SIGN}11.0 ± 0.9 points beside ridge on the network's penultimate features, "
        "and at +18.0 ± 0.9"
    ) in text
    assert "No weight of the networks has seen these samples." in text
    assert "3 of 4 checks of the theory passed; not passed: duality of fc dnn." in text


@pytest.mark.parametrize(
    ("seen", "said"),
    [("seen", "The network was trained on these samples"), ("not known", "if it has, all numbers")],
)
def test_whether_samples_were_seen_is_said(seen, said, tmp_path):
    assert said in page_of(one_network(seen=seen), tmp_path)


def test_one_network_is_called_the_network(tmp_path):
    text = plain(_Page(page_of(one_network(), tmp_path)).text)
    assert "than with that of the same network before training." in text
    assert "mean over" not in text


def test_without_labels_nothing_is_said_of_accuracy(tmp_path):
    found = tuple(m for m in build_run().measures if m.network == NAMES[0])
    run = bare_run(classes=[], networks=build_run().networks[:1], measures=found)
    text = plain(_Page(page_of(run, tmp_path)).text)
    assert "Without labels nothing is said of accuracy." in text
    assert "effective rank of the kernel is 5.7 (conv-gap dnn)" in text


def test_without_the_networks_before_training_the_gates_are_told_alone(tmp_path):
    run = dataclasses.replace(one_network(), differences=())
    text = plain(_Page(page_of(run, tmp_path)).text)
    assert "kernel of the trained gates reaches 92.0 % (conv-gap dnn) with 300 fresh" in text


def test_page_shows_checks_commands_and_how_it_was_made(run, full):
    text = plain(full.text)
    for check in run.checks:
        assert check.statement in text
    assert "3.2 \N{MULTIPLICATION SIGN} 10⁻¹⁵" in text
    assert "1.0 \N{MULTIPLICATION SIGN} 10⁻¹¹" in text
    assert text.count("✓ passed") == 3
    assert text.count("✗ not passed") == 1
    assert "npk fit conv-flat dlgn -n 300" in text
    assert "npk gates a.safetensors" in text
    assert "conv-gap dgn and conv-flat dgn, from an earlier run" in text
    assert run.machine in text
    assert "2 min 51 s" in text
    assert "npk 0.1.0" in text
    assert "digits, 10 classes" in text
    assert "898 for training; 30, 100 and 300 fresh samples in 3 draws, no sample in two" in text
    assert "left out for conv-gap dnn: no skip connections" in text


def test_measures_stand_beside_those_before_training(full):
    text = plain(full.text)
    assert "conv-gap dnn 0.300 ± 0.010 0.700 ± 0.010 1.7 ± 0.0 5.7 ± 0.0" in text
    assert "NASWOT: soft gates have none" in text
    assert "conv-gap dnn: 2 samples have no active path." in text


def test_samples_are_shown_in_words_too(full):
    words = [sample["alt"] for sample in full.samples]
    assert words == [
        "test sample 1",
        "4, kernel 0.91, another class",
        "1, kernel 0.72",
        "1, kernel 0.91",
        "4, kernel 0.72, another class",
        "7, which the machine takes for 1; the network says 7",
    ]


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 3)])
def test_pictures_are_png_files(shape):
    from PIL import Image

    from npk.report.pictures import png

    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    with Image.open(io.BytesIO(png(shape, values.tobytes()))) as found:
        np.testing.assert_array_equal(np.asarray(found), values)


def test_glossary_keeps_apart_what_has_one_name(full):
    assert "It is not a turn by an angle" in full.text
    assert "logic" in full.text
    assert "Domingos" in full.text


def test_page_loads_nothing_from_elsewhere(full, full_text):
    assert full.loads
    assert not [address for address in full.loads if not address.startswith(("#", "data:"))]
    css = "".join(re.findall(r"<style>(.*?)</style>", full_text, flags=re.DOTALL))
    assert "http" not in css
    assert "@import" not in css
    assert "default-src 'none'" in full_text


def test_page_is_accessible(full):
    pictures = [p for p in full.pictures if "viewbox" in p]
    assert len(pictures) == 22
    assert all(p.get("role") == "img" and len(p["aria-label"]) > 20 for p in pictures)
    assert set(full.targets) <= set(full.ids)
    assert len(full.ids) == len(set(full.ids))
    assert full.tags.count("table") == 3
    assert all(sample["alt"] for sample in full.samples)
    assert full.tags.count("h1") == 1


def test_page_is_small(full_text):
    assert len(full_text) < 3_000_000
    assert full_text.count("</script>") == 2


def test_pictures_in_figures_lose_nothing_but_size(rng):
    from matplotlib.figure import Figure
    from PIL import Image

    from npk.report.plots import inline_svg

    few, many = rng.random((90, 90)), rng.random((90, 90, 3))
    for values, look in ((few, {"cmap": "cividis"}), (many, {})):
        figure = Figure()
        figure.add_subplot().imshow(values, interpolation="none", **look)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg")
        pattern = r"data:image/png;base64,([^\"]*)"
        before = re.search(pattern, stream.getvalue().decode())[1]
        after = re.search(pattern, str(inline_svg(figure, "a picture of numbers", "k")))[1]
        shown = [
            Image.open(io.BytesIO(base64.b64decode(x))).convert("RGB") for x in (before, after)
        ]
        np.testing.assert_array_equal(*map(np.asarray, shown))
        assert (len(after) < 0.6 * len(before)) == (values is few)


def test_kernels_to_look_into_are_those_of_the_study(run):
    from npk.report.plots import interactive

    found = interactive(run)["kernels"]
    assert [kernel["name"] for kernel in found[:2]] == [
        "conv-gap dnn, after training",
        "conv-gap dnn, before training",
    ]
    values = np.frombuffer(base64.b64decode(found[2]["values"]), np.uint8) / 255
    heat = np.array(run.kernels[2].heat)
    shown = found[2]["low"] + values.reshape(heat.shape) * (found[2]["high"] - found[2]["low"])
    np.testing.assert_allclose(shown, heat, atol=np.ptp(heat) / 500)


def test_the_samples_of_a_kernel_are_one_picture_below_the_other(run):
    from PIL import Image

    from npk.report.plots import interactive

    found = interactive(run)
    assert (found["pictures"]["width"], found["pictures"]["height"]) == (8, 8)
    data = base64.b64decode(found["pictures"]["source"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        sheet = np.asarray(image).reshape(120, 64)
    known = {one.number: base64.b64decode(one.pixels) for one in run.pictures}
    for kernel, made in zip(run.kernels, found["kernels"], strict=True):
        for row in (0, 7, 119):
            expected = known[kernel.heat_pictures[row]]
            assert sheet[made["pictures"][row]].tobytes() == expected


@pytest.mark.parametrize("change", [{"pictures": ()}, {"kernels": "one of them"}])
def test_kernels_of_samples_that_are_no_pictures_show_none(run, change):
    from npk.report.plots import interactive

    if "kernels" in change:
        bare = dataclasses.replace(run.kernels[0], heat_pictures=[])
        change = {"kernels": (bare, *run.kernels[1:])}
    found = interactive(dataclasses.replace(run, **change))
    assert found["pictures"] is None
    assert all(not kernel["pictures"] for kernel in found["kernels"])


def test_names_are_escaped(tmp_path):
    """Whatever a run holds is text: in the page, in its figures, and in its data."""
    evil = "<script>alert('x')</script>"
    run = build_run()
    network = dataclasses.replace(
        run.networks[0],
        name=f"{evil} dnn",
        family=evil,
        description=evil,
        checkpoint=f"{evil}.safetensors",
    )
    accuracies = (
        accuracy(network.name, "network", 0, 0.9),
        accuracy(network.name, "trained", 30, 0.8, command=evil),
    )
    kernel = dataclasses.replace(run.kernels[0], network=network.name, scale=evil)
    details = DualityDetails((Case(evil, 0.0),), "agrees", 1.0, 0.1, 0.2, 1, 1.0)
    text = page_of(
        bare_run(
            version=evil,
            data=evil,
            command=evil,
            notes=(evil,),
            measures=(measure(network.name, "trained", "alignment", None, evil, evil),),
            comparisons=(comparison(network.name, evil, "trained", 0.5),),
            pictures=(picture(1, 3),),
            neighbors=(Neighbors(network.name, "trained", 1, (1,), (1.0,)),),
            mistakes=(Mistake(network.name, 1, 3, 3),),
            classes=[f"{i} </script>" for i in range(10)],
            machine="a & b, $x^$",
            networks=(network,),
            accuracies=accuracies,
            kernels=(kernel,),
            checks=(CheckResult("duality", evil, evil, True, 0.0, 1.0, details),),
        ),
        tmp_path,
    )
    assert "<script>alert" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "&lt;script&gt;alert" in text
    assert "a &amp; b, $x^$" in text
    page = _Page(text)
    assert page.tags.count("script") == 2
    assert "alert('x')" in page.text  # as words


def test_dollar_signs_are_no_mathematics(tmp_path):
    network = dataclasses.replace(build_run().networks[0], name="$x^ dnn$")
    accuracies = (accuracy("$x^ dnn$", "trained", 30, 0.9),)
    run = bare_run(networks=(network,), accuracies=accuracies)
    assert "$x^ dnn$" in page_of(run, tmp_path)


def test_templates_are_escaped_and_take_nothing_that_they_are_not_given():
    from jinja2 import UndefinedError

    from npk.report.page import _environment

    environment = _environment()
    template = environment.from_string("{{ name }}{{ name|tojson }}")
    text = template.render(name="<b>&</b>")
    assert text == "&lt;b&gt;&amp;&lt;/b&gt;" + '"\\u003cb\\u003e\\u0026\\u003c/b\\u003e"'
    with pytest.raises(UndefinedError):
        template.render()


def test_no_template_says_what_is_safe():
    """What is no text is marked where it is made: SVG, and what templates gave."""
    templates = sorted((ROOT / "report" / "templates").iterdir())
    assert len(templates) > 10
    assert not [
        path.name for path in templates if re.search(r"\|\s*safe", path.read_text(encoding="utf-8"))
    ]
    sources = (path for path in (ROOT / "report").glob("*.py") if path.name != "plots.py")
    assert re.findall(r"[\"']<[a-z/]", "".join(path.read_text() for path in sources)) == []


def test_everything_that_is_no_code_is_packaged():
    """A folder without ``__init__.py`` is a package to setuptools too, so a suffix is enough."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    names = {path.name for path in ROOT.rglob("*") if path.is_file()}
    data = {name for name in names if not name.endswith((".py", ".pyc", ".nbi", ".nbc"))}
    assert {"page.html", "page.css", "page.js"} <= data
    assert {
        name for name in data if not any(fnmatch(name, pattern) for pattern in patterns)
    } == set()


def test_every_figure_is_a_png_of_sensible_size(figures):
    names = [
        "curves",
        "kernels",
        "layers",
        "gates",
        "depths",
        "spectra",
        "likeness",
        "training",
        "duality",
        "invariance",
        "ensemble",
    ]
    assert [path.name for path in figures] == [f"{name}.png" for name in names]
    for path in figures:
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        assert 600 <= width <= 2000
        assert 200 <= height <= 2500
        assert 10_000 < len(content) < 1_000_000


def test_the_same_results_are_the_same_bytes(tmp_path):
    """In processes whose hashes and addresses differ."""
    one_network().save(tmp_path / "results.json")
    code = (
        "import sys; from pathlib import Path; from npk.report import write_page; from npk.results "
        "import StudyResult; here = Path(sys.argv[1]); "
        "write_page(StudyResult.load(here / 'results.json'), here / sys.argv[2])"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(tmp_path), f"{seed}.html"]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_drawing_leaves_no_global_state(run, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_figures(one_network(), tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_empty_study_gives_a_page_and_no_figures(tmp_path):
    page = _Page(page_of(bare_run(), tmp_path))
    assert "This study holds no accuracies." in page.text
    assert "Glossary" in page.text
    assert "Kernels before" not in page.text
    assert "table" not in page.tags
    assert write_figures(bare_run(), tmp_path) == ()


def test_learning_curves_have_room_for_their_error_bars():
    run = one_network()
    lowest = min(run.accuracies, key=lambda a: a.accuracy)
    wide = dataclasses.replace(lowest, error=lowest.accuracy - 0.02)
    low, _ = _limits(dataclasses.replace(run, accuracies=(*run.accuracies, wide)))
    assert low <= 2


def test_one_network_has_the_figures_that_there_is_material_for(tmp_path):
    names = [path.name for path in write_figures(one_network(), tmp_path)]
    assert names == ["curves.png", "training.png"]


@pytest.mark.parametrize("part", NOTHING)
def test_one_missing_part_is_survived(part, run, tmp_path):
    few = one_network(kernels=run.kernels[:1], comparisons=run.comparisons[:1])
    few = dataclasses.replace(few, neighbors=run.neighbors, pictures=run.pictures)
    gone = {"pictures": ("pictures", "neighbors", "mistakes")}.get(part, (part,))
    page = _Page(page_of(dataclasses.replace(few, **dict.fromkeys(gone, ())), tmp_path))
    assert "Glossary" in page.text


NO_SHARES = Shares((), (), ())
STRANGE = {
    "nothing": [
        DualityDetails((), "undecided", None, None, None, 1, None),
        InvarianceDetails(()),
        EnsembleDetails((), NO_SHARES),
        TangentDetails("ntk", 400, None, ()),
    ],
    "not finite": [
        DualityDetails((Case("a", None), Case("", 0.0)), "deviates", None, None, None, 1, None),
        InvarianceDetails(
            (invariance_case("a", [], worst_inside=None, inside=2), invariance_case("b", []))
        ),
        EnsembleDetails((Case("a", None),), Shares((1,), (0.5,), ())),
    ],
    "far too large": [
        DualityDetails((Case("a", 1e7), Case("b", 1e300)), "deviates", 1e9, 1e9, 1e9, 1, 1e300),
        InvarianceDetails((invariance_case("a", [moved((1,), 1e7, False)], flips=1),)),
        EnsembleDetails((), Shares((), (), (0.5,))),
        TangentDetails(
            "ntk",
            400,
            3.0,
            (TangentEntry(0, 0, 1e-300, 1e7, 1.0), TangentEntry(0, 1, 0.0, 1.0, 0.0)),
        ),
    ],
    "many, of one axis and of three": [
        InvarianceDetails(
            (
                invariance_case("row", [moved((0, i), 1e-3) for i in (1, 2)], flips=10**6),
                invariance_case("box", [moved((0, 1, i), None) for i in (1, 2)], flips=1),
            )
        ),
        EnsembleDetails((), Shares(tuple(range(60)), (1 / 60,) * 60, (0.0,) * 30)),
        TangentDetails("standard", 400, 3.0, (TangentEntry(0, 1, -2.0, -2.1, 0.1),)),
    ],
}


@pytest.mark.parametrize("details", STRANGE.values(), ids=STRANGE)
def test_strange_details_never_crash(details, tmp_path):
    names = {kind: name for name, kind in DETAILS.items()}
    checks = tuple(
        CheckResult(names[type(one)], "a network", "Equal.", False, None, 1e-9, one)
        for one in details
    )
    run = bare_run(checks=checks)
    page = _Page(page_of(run, tmp_path))
    assert page.text.count("not passed") >= len(checks)
    assert "not finite" in page.text


def test_a_failed_case_is_not_drawn_as_one_that_need_not_hold():
    from npk.report.figures import figures, house_style

    details = EnsembleDetails((Case("a", 0.4),), NO_SHARES)
    fills = {}
    for passed in (True, False):
        check = CheckResult("ensemble", "a network", "Sums.", passed, 0.4, 1e-9, details)
        with house_style():
            figure = figures()["ensemble"](build_run(checks=(check,)), 2)
        dots = [line for line in figure.subfigs[0].axes[0].lines if line.get_marker() == "o"]
        fills[passed] = dots[0].get_markerfacecolor()
    assert fills[True] != fills[False]


def test_degenerate_kernels_are_drawn(tmp_path):
    kernel = dataclasses.replace(build_run().kernels[0], heat_pictures=[], spectrum_error=[])
    kernels = (
        dataclasses.replace(
            kernel, network="one sample", heat=[[1.0]], heat_labels=[0], spectrum=[1.0]
        ),
        dataclasses.replace(
            kernel,
            network="constant dnn",
            heat=[[1.0] * 4] * 4,
            heat_labels=[0, 0, 99, 99],
            spectrum=[1.0, 0.0, -1e-17],
        ),
        dataclasses.replace(
            kernel,
            network="alone in its class",
            heat=[[1.0, 0.5], [0.5, 1.0]],
            heat_labels=[0, 1],
            spectrum=[],
        ),
    )
    page = _Page(page_of(bare_run(kernels=kernels), tmp_path))
    assert "one sample" in page.text


def test_long_class_names_and_many_classes(tmp_path):
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    few = bare_run(classes=names, kernels=build_run().kernels[:1])
    write_figures(few, tmp_path)
    labels = list(range(60))
    many = dataclasses.replace(
        few.kernels[0], heat=np.eye(60).tolist(), heat_labels=labels, heat_pictures=[]
    )
    assert len(write_figures(dataclasses.replace(few, kernels=(many,)), tmp_path)) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.14e-15, "3.1 \N{MULTIPLICATION SIGN} 10⁻¹⁵"),
        (0.0794, "0.0794"),
        (12.0, "12"),
        (1.5e6, "1.5 \N{MULTIPLICATION SIGN} 10⁶"),
        (None, "not finite"),
    ],
)
def test_scientific(value, text):
    from npk.report.style import scientific

    assert scientific(value).replace("\xa0", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (12.3, "12 s"), (171.3, "2 min 51 s"), (119.7, "2 min 0 s")],
)
def test_duration(seconds, text):
    from npk.report.style import duration

    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("difference", "error", "text"),
    [(0.095, 0.008, "+9.5 ± 0.8"), (-0.05, None, "\N{MINUS SIGN}5.0"), (0.0, 0.001, "+0.0 ± 0.1")],
)
def test_points(difference, error, text):
    from npk.report.style import points

    assert plain(points(difference, error)) == text


def test_figures_into_a_file_are_refused(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot make the folder .*taken for figures"):
        write_figures(one_network(), tmp_path / "taken")


def test_page_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"cannot write .*report\.html"):
        write_page(one_network(), tmp_path / "missing" / "report.html")


def test_progress_counts_every_figure_and_section(tmp_path):
    import contextlib

    steps = {}

    class Count:
        @contextlib.contextmanager
        def task(self, description, total):
            steps[description] = [total, 0]

            def advance(done):
                steps[description][1] += done

            yield advance

    write_figures(one_network(), tmp_path, progress=Count())
    write_page(one_network(), tmp_path / "report.html", progress=Count())
    assert steps == {"figures": [12, 12], "page": [10, 10]}


def test_report_needs_no_torch_and_loads_matplotlib_late():
    import subprocess
    import sys

    code = (
        "import sys, npk.report; sys.exit(any(name in sys.modules for name in ('torch', "
        "'matplotlib', 'numpy')))"
    )
    if (
        subprocess.run(
            [sys.executable, "-c", "import sys, npk; sys.exit('numpy' in sys.modules)"], check=False
        ).returncode
        == 0
    ):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
