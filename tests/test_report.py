"""Figures and page of a run: the numbers are those of the run, nothing is loaded from elsewhere,
missing parts are survived.
"""

import dataclasses
import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import npk
from npk.errors import StoreError
from npk.report import write_figures, write_page
from npk.results import (
    DETAILS,
    Accuracy,
    Case,
    CheckResult,
    DualityDetails,
    EnsembleDetails,
    InvarianceCase,
    InvarianceDetails,
    KernelSummary,
    Moved,
    NetworkSummary,
    RunResult,
    Shares,
    TangentDetails,
    TangentEntry,
)

ROOT = Path(npk.__file__).parent
GROUPS = {"conv-gap": "shift-invariant", "conv-flat": "position-keeping"}
DESCRIPTION = {
    "conv-gap": "4 conv 3x3 x 96, circular, global average pool, linear",
    "conv-flat": "3 conv 3x3 x 64, stride 2, flatten, linear 128",
}
NETWORK = {
    "conv-gap": {"dnn": 0.9333, "dgn": 0.9361, "dlgn": 0.9278},
    "conv-flat": {"dnn": 0.9833, "dgn": 0.9778, "dlgn": 0.9694},
}


def _networks():
    for group, family in GROUPS.items():
        for kind in ("dnn", "dgn", "dlgn"):
            epochs = np.arange(60)
            speed = {"dnn": 7, "dgn": 9, "dlgn": 12}[kind]
            loss = 2.3 * np.exp(-epochs / speed) + 0.02 + 0.004 * np.cos(epochs)
            top = NETWORK[group][kind]
            yield NetworkSummary(
                name=f"{group} {kind}",
                family=family,
                kind=kind,
                description=DESCRIPTION[group]
                + ("; a linear gating network beside it" if kind == "dlgn" else ""),
                parameters=251_146 * (1 if kind == "dnn" else 2),
                checkpoint=f"{group}-{kind}.safetensors",
                curve_train=list(loss),
                curve_validation=list(top - 0.8 * np.exp(-epochs / speed)),
                reused=kind == "dgn",
            )


def _accuracies():
    for group in GROUPS:
        for kind, top in NETWORK[group].items():
            name = f"{group} {kind}"
            yield Accuracy(name, "network", top, 31.4, {"epochs": 60, "best_epoch": 52})
            yield Accuracy(name, "NPK-SVM", top + 0.0056, 2.13, {"C": 10.0})
            yield Accuracy(name, "NPK-ridge", top + 0.0028, 1.92, {"alpha": 0.001})
            yield Accuracy(name, "NPK-SVM at random initialisation", top - 0.0211, 2.2, {"C": 10.0})
    yield Accuracy("pixels", "logistic regression", 0.9556, 0.11, {"C": 1.0})
    yield Accuracy("pixels", "RBF-SVM", 0.9917, 0.42, {"C": 10.0, "gamma": 0.01})


def _kernels(rng):
    for summary in _networks():
        labels = np.repeat(np.arange(10), 12)
        features = rng.normal(size=(10, 40))[labels] + 0.8 * rng.normal(size=(120, 40)) + 1.5
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        spectrum = (
            np.exp(-np.arange(300) / (60 if summary.family == "shift-invariant" else 200))
            * np.arange(1, 301) ** -{"dnn": 1.1, "dgn": 1.2, "dlgn": 1.35}[summary.kind]
        )
        layers = len(DESCRIPTION[summary.name.split()[0]]) % 3 + 3
        depth = np.arange(layers)
        level = {"dnn": 0.31, "dgn": 0.39, "dlgn": 0.46}[summary.kind]
        yield KernelSummary(
            network=summary.name,
            scale="fan_in",
            data="train.npz",
            samples=1437,
            seconds=4.21,
            heat=(features @ features.T).tolist(),
            heat_labels=labels.tolist(),
            spectrum=(spectrum / spectrum.sum()).tolist(),
            effective_rank=31.7,
            layers=[f"relu{i + 1}" for i in range(layers)],
            overlap_same=list(level - 0.02 * depth),
            overlap_different=list(level - 0.05 - 0.03 * depth),
            dead_inputs=0,
        )


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
    run = RunResult(
        version="0.1.0",
        data="digits",
        classes=[str(i) for i in range(10)],
        samples_train=1437,
        samples_test=360,
        seed=7,
        seconds=171.3,
        machine="2 cores, x86_64, Linux; torch 2.13.0, numpy 2.3.1",
        networks=tuple(_networks()),
        accuracies=tuple(_accuracies()),
        kernels=tuple(_kernels(rng)),
        checks=tuple(_checks(rng)),
    )
    return dataclasses.replace(run, **changes)


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
        self._skip = 0
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
    """A run of one network, without anything that is slow to draw."""
    run = build_run()
    first = run.networks[:1]
    name = first[0].name
    changes = {"kernels": (), "checks": (), **changes}
    return dataclasses.replace(
        run,
        networks=first,
        accuracies=tuple(a for a in run.accuracies if a.network == name),
        **changes,
    )


def test_page_shows_every_accuracy_with_its_standard_error(run, full):
    for accuracy in run.accuracies:
        error = 100 * (accuracy.accuracy * (1 - accuracy.accuracy) / run.samples_test) ** 0.5
        assert (f"{100 * accuracy.accuracy:.1f} ± {error:.1f}").replace(
            " ", ""
        ) in full.text.replace("\xa0", " ").replace(" ", "")


def test_summary_has_best_network_its_machine_the_ratios_and_the_verdict(full):
    text = full.text.replace("\xa0", " ")
    assert "the best of 6 networks, conv-flat dnn, classifies 98.3 % of the test samples" in text
    assert (
        "An NPK-SVM that is given nothing but the network's neural path kernel reaches 98.9 %, "
        "and 96.2 %"
    ) in text
    assert (
        "keeps 99.4 % (conv-gap) and 98.6 % (conv-flat) of the accuracy of its DNN; the paper "
        "reports at least 83.5 %"
    ) in text
    assert "RBF-SVM 99.2 % and logistic regression 95.6 %" in text
    assert "3 of 4 checks of the theory passed; not passed: duality of fc dnn." in text


def test_page_shows_checks_commands_and_how_it_was_made(run, full):
    text = full.text.replace("\xa0", " ")
    for check in run.checks:
        assert check.statement in text
    assert "3.2 \N{MULTIPLICATION SIGN} 10⁻¹⁵" in text
    assert "1.0 \N{MULTIPLICATION SIGN} 10⁻¹¹" in text
    assert text.count("✓ passed") == 3
    assert text.count("✗ not passed") == 1
    for network in run.networks:
        stem = network.checkpoint.removesuffix(".safetensors")
        assert f"npk kernel {network.checkpoint} --data train.npz --out {stem}.zarr" in text
    assert "conv-gap dgn and conv-flat dgn, from an earlier run" in text
    assert run.machine in text
    assert "2 min 51 s" in text
    assert "npk 0.1.0" in text
    assert "digits, 10 classes" in text


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
    assert len(pictures) == 16
    assert all(p.get("role") == "img" and len(p["aria-label"]) > 20 for p in pictures)
    assert set(full.targets) <= set(full.ids)
    assert len(full.ids) == len(set(full.ids))
    assert full.tags.count("table") == 6
    assert full.tags.count("h1") == 1


def test_plotly_is_inlined_once(full_text):
    assert full_text.count("plotly.js v") == 1
    assert full_text.count("</script>") == 3


def test_interactive_plots_hold_the_kernels_and_spectra(run):
    from npk.report.plots import interactive

    plots = interactive(run)
    assert [variant["name"] for variant in plots["heat"]] == [n.name for n in run.networks]
    np.testing.assert_allclose(plots["heat"][2]["data"][0]["z"], run.kernels[2].heat, atol=5.1e-4)
    np.testing.assert_allclose(
        plots["spectrum"][0]["data"][4]["y"], run.kernels[4].spectrum, rtol=1e-3
    )


def test_names_are_escaped(tmp_path):
    """Whatever a run holds is text: in the page, in its figures, and in what Plotly draws."""
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
        Accuracy(network.name, "network", 0.9, 1.0, {}),
        Accuracy(network.name, evil, 0.8, 1.0, {evil: evil}),
        Accuracy("pixels", evil, 0.7, 1.0, {}),
    )
    kernel = dataclasses.replace(
        run.kernels[0],
        network=network.name,
        scale=evil,
        data=evil,
        layers=[evil] * len(run.kernels[0].layers),
    )
    details = DualityDetails((Case(evil, 0.0),), "agrees", 1.0, 0.1, 0.2, 1, 1.0)
    text = page_of(
        build_run(
            version=evil,
            data=evil,
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
    assert text.count("<script") == text.count("</script>") == 3
    assert "&lt;script&gt;alert" in text
    assert "a &amp; b, $x^$" in text
    page = _Page(text)
    assert page.tags.count("script") == 3
    assert "alert('x')" in page.text  # as words


def test_dollar_signs_are_no_mathematics(tmp_path):
    network = dataclasses.replace(build_run().networks[0], name="$x^ dnn$")
    accuracies = (Accuracy("$x^ dnn$", "network", 0.9, 1.0, {}),)
    run = build_run(networks=(network,), accuracies=accuracies, kernels=(), checks=())
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
    """What is no text is marked where it is made: SVG, Plotly's program, and what templates gave."""
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
        "accuracy",
        "kernels",
        "spectra",
        "overlaps",
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


def test_drawing_leaves_no_global_state(run, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_figures(one_network(), tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_empty_run_gives_a_page_and_no_figures(tmp_path):
    empty = build_run(networks=(), accuracies=(), kernels=(), checks=())
    page = _Page(page_of(empty, tmp_path))
    assert "This run holds no accuracies and no checks yet." in page.text
    assert "Glossary" in page.text
    assert "Kernels" not in page.text
    assert "table" not in page.tags
    assert write_figures(empty, tmp_path) == ()


def test_one_network_without_kernels_checks_and_baselines(tmp_path):
    page = _Page(page_of(one_network(), tmp_path))
    assert "the network conv-gap dnn classifies 93.3" in page.text
    assert "DLGN" in page.text  # in the glossary
    assert "keeps" not in page.text.split("Glossary")[0]
    assert [p.name for p in write_figures(one_network(), tmp_path)] == [
        "accuracy.png",
        "training.png",
    ]


@pytest.mark.parametrize("part", ["networks", "accuracies"])
def test_one_missing_part_is_survived(part, tmp_path):
    changes = {part: (), "kernels": (), "checks": ()}
    page = _Page(page_of(build_run(**changes), tmp_path))
    assert "Glossary" in page.text
    assert ("npk kernel" in page.text) == (part != "networks")
    assert ("98.9" in page.text) == (part != "accuracies")


def test_a_network_without_accuracies_has_no_panel(tmp_path):
    full = build_run()
    some = tuple(a for a in full.accuracies if a.network.startswith("conv-gap"))
    assert "accuracy.png" in [
        p.name for p in write_figures(build_run(accuracies=some, kernels=(), checks=()), tmp_path)
    ]


def test_only_kernels_and_baselines(tmp_path):
    full = build_run()
    kernel = dataclasses.replace(
        full.kernels[0], layers=[], overlap_same=[], overlap_different=[], spectrum=[]
    )
    bare = build_run(networks=(), accuracies=full.accuracies[-2:], kernels=(kernel,), checks=())
    page = _Page(page_of(bare, tmp_path))
    assert "RBF-SVM" in page.text
    assert [p.name for p in write_figures(bare, tmp_path)] == ["accuracy.png", "kernels.png"]


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
    run = build_run(networks=(), accuracies=(), kernels=(), checks=checks)
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
    kernel = build_run().kernels[0]
    kernels = (
        dataclasses.replace(
            kernel,
            network="one sample",
            heat=[[1.0]],
            heat_labels=[0],
            spectrum=[1.0],
            overlap_same=[0.2],
            overlap_different=[0.1],
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
            overlap_same=[None, None],
            overlap_different=[0.2, 0.3],
        ),
    )
    page = _Page(
        page_of(build_run(networks=(), accuracies=(), kernels=kernels, checks=()), tmp_path)
    )
    assert "one sample" in page.text


def test_long_class_names_and_many_classes(tmp_path):
    few = build_run(
        classes=[
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ],
        checks=(),
        accuracies=(),
    )
    write_figures(dataclasses.replace(few, kernels=few.kernels[:1], networks=()), tmp_path)
    labels = list(range(60))
    many = dataclasses.replace(few.kernels[0], heat=np.eye(60).tolist(), heat_labels=labels)
    assert len(write_figures(dataclasses.replace(few, kernels=(many,), networks=()), tmp_path)) == 3


def test_comparison_of_families_follows_the_numbers():
    from npk.report.words import families

    run = build_run()
    assert "position-keeping networks are ahead by 4.4 points" in " ".join(families(run))
    swapped = {"conv-gap": "conv-flat", "conv-flat": "conv-gap"}
    turned = [
        a if a.network == "pixels" else dataclasses.replace(a, network=_swap(a.network, swapped))
        for a in run.accuracies
    ]
    text = " ".join(families(dataclasses.replace(run, accuracies=tuple(turned))))
    assert "shift-invariant networks are ahead by 4.4 points" in text
    assert "it helps to forget where a pattern lies" in text
    assert ("does not tell which is better") in " ".join(
        families(dataclasses.replace(run, samples_test=30))
    )


def _swap(name, names):
    group, kind = name.split()
    return f"{names[group]} {kind}"


def test_commands_quote_and_name_the_scale():
    from npk.report.words import commands

    run = one_network()
    kernel = dataclasses.replace(build_run().kernels[0], scale="count", data="my data.npz")
    network = dataclasses.replace(run.networks[0], checkpoint="my net.safetensors")
    assert commands(
        dataclasses.replace(run, networks=(network,), kernels=(kernel,), data="idx:my data")
    ) == ("npk kernel 'my net.safetensors' --data 'my data.npz' --out 'my net.zarr' --scale count",)


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
    assert steps == {"figures": [9, 9], "page": [8, 8]}


def test_report_needs_no_torch_and_loads_matplotlib_late():
    import subprocess
    import sys

    code = (
        "import sys, npk.report; sys.exit(any(name in sys.modules for name in ('torch', "
        "'matplotlib', 'plotly', 'numpy')))"
    )
    if (
        subprocess.run(
            [sys.executable, "-c", "import sys, npk; sys.exit('numpy' in sys.modules)"], check=False
        ).returncode
        == 0
    ):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
