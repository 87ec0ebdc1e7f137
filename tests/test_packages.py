"""What is packed, what it needs, and what is said where something is missing."""

import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import npk
from npk.errors import MissingPackageError

ROOT = Path(npk.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOT_OURS = shutil.ignore_patterns(
    *(".git", ".venv", "site", "demo*", "*.egg-info", "build", "dist", "__pycache__", ".*_cache"),
    *(".hypothesis", ".coverage*", "htmlcov"),
)
BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A checkout, and the files of its source archive and of its wheel."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("packages") / "checkout"
    shutil.copytree(ROOT, folder, ignore=NOT_OURS)
    own = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True, capture_output=True)
    (archive,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    with tarfile.open(archive) as opened:
        source = {member.name.partition("/")[2] for member in opened if member.isfile()}
    with zipfile.ZipFile(wheel) as opened:
        return own, source, set(opened.namelist())


def test_the_source_archive_is_whole(packed):
    own, source, _ = packed
    assert sorted(own - source) == []


def test_the_wheel_is_the_package(packed):
    own, _, wheel = packed
    package = {name for name in own if name.startswith("npk/")}
    assert "npk/py.typed" in package
    assert {name for name in wheel if ".dist-info/" not in name} == package


def names_of(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_the_recipe_for_conda_needs_what_the_package_needs():
    recipe = (ROOT / "release/meta.yaml").read_text()
    (run,) = re.findall(r"  run:\n((?:    - .*\n)+)", recipe)
    asked = {tuple(line.split()) for line in re.findall(r"- (.*)", run)}
    elsewhere = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    wanted = {("python", PROJECT["requires-python"])}
    for requirement in PROJECT["dependencies"] + EXTRAS["report"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        wanted.add((elsewhere.get(name, name), bounds))
    assert asked == wanted


def test_pages_need_an_extra_that_the_others_hold():
    assert names_of(EXTRAS["report"]) == set(npk.errors.REPORT)
    assert not names_of(EXTRAS["report"]) & names_of(PROJECT["dependencies"])
    for name in ("demo", "dev"):
        assert set(EXTRAS["report"]) <= set(EXTRAS[name])


@pytest.mark.parametrize("file", ["CITATION.cff", "release/meta.yaml"])
def test_versions_agree(file):
    (version,) = re.findall(r'version(?:: | = ")([\d.]+)', (ROOT / file).read_text())[-1:]
    assert version == npk.__version__


def test_texts_name_extras_that_exist():
    """Packages are installed from a folder: no index has npk."""
    texts = [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "npk").rglob("*.py"),
        ROOT / "Dockerfile",
    ]
    for path in texts:
        text = path.read_text()
        assert not re.search(r"pip\s+install [^\n]*npk\[", text), path
        named = ",".join(re.findall(r"'\.\[([\w,]+)\]'", text))
        assert set(filter(None, named.split(","))) <= set(EXTRAS), path


def test_links_become_absolute():
    absolute = runpy.run_path(str(ROOT / "release/absolute_links.py"))["absolute"]
    text = "[a](docs/a.md#b) ![c](docs/c.png) [d](https://e) [f](#g) [![h](i.png)](j.md)"
    said = "[a](https://x/docs/a.md#b) ![c](https://y/docs/c.png) [d](https://e) [f](#g) "
    assert absolute(text, "https://x", "https://y/").startswith(said)
    readme = absolute((ROOT / "README.md").read_text(), "https://x", "https://y")
    assert re.findall(r"\]\((?!http|#)[^)]*\)", readme) == []


ABSENT = """import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def without(packages, code):
    """What a fresh interpreter prints where some packages are not installed."""
    done = subprocess.run(
        [sys.executable, "-c", ABSENT.format(packages) + code],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_without_torch_the_command_line_says_so():
    said = without(
        ("torch",),
        "from npk.cli import run\n"
        "print(run(['--version']), run(['train', 'fc', '--data', 'digits', '--out', 'x.pt']))",
    )
    assert said.splitlines()[0].startswith("npk 0")
    assert "0 2" in said
    assert "npk: npk needs the package torch for this, which is not installed here" in said
    assert "pip install '.' in npk's folder, or pip install torch." in said


def test_without_torch_python_says_so():
    said = without(
        ("torch",),
        "import npk\ntry: npk.networks.build\n"
        "except npk.errors.MissingPackageError as error: print(error)",
    )
    assert "needs the package torch" in said


def test_computing_needs_no_plotting(tmp_path):
    """A kernel and a machine by the command line; a page is refused before there is work."""
    said = without(
        ("matplotlib", "jinja2"),
        "import npk, torch\nfrom npk.cli import run\n"
        "net = npk.networks.build('fc', input_shape=(1, 8, 8), classes=10, hidden=[8], seed=0)\n"
        f"npk.save(net, {str(tmp_path / 'n.safetensors')!r})\n"
        f"net, data = {str(tmp_path / 'n.safetensors')!r}, ['--data', 'digits[:60]']\n"
        f"print(run(['fit', net, *data]), run(['study', net, *data, '--fresh', '--out', "
        f"{str(tmp_path / 's')!r}]))",
    )
    assert "0 2" in said
    assert "needs the package matplotlib for this" in said
    assert "pip install '.[report]'" in said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("package", npk.errors.REPORT)
def test_what_a_page_needs(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"{package} .* pip install '\.\[report\]'"):
        npk.errors.check_installed(*npk.errors.REPORT)


def test_a_module_of_npk_that_is_missing_is_a_mistake_in_npk():
    assert npk.errors.missing(ModuleNotFoundError("no", name="npk.nowhere")) is None
    assert npk.errors.missing(ModuleNotFoundError("no", name="x.y")) is not None
    assert "pillow" in str(npk.errors.missing(ModuleNotFoundError("no", name="PIL.Image")))
