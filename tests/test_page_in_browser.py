"""The page in a browser, where one is installed: no error, nothing wider than the screen, and what a
reader does with mouse and keyboard has an effect.
"""

import html
import re
import shutil
import subprocess

import pytest
from test_report import build_run

from npk.report import write_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, and there is none here")

# Added to the page: notes every error, acts as a reader does, and writes down what came of it.
BEFORE = (
    "<script>window.wrong = []; addEventListener('error', (e) => wrong.push(e.message));</script>"
)
AFTER = """<script>
addEventListener("load", () => {
  const part = (name) => document.getElementById(name);
  const told = part("heat-entry"), canvas = part("heat"), choice = part("heat-choice");
  const rows = [...document.querySelectorAll("canvas.row")];
  const pixel = (one) => one.getContext("2d").getImageData(1, 0, 1, 1).data[0];
  const say = (name, value) => { document.body.dataset[name] = value; };
  say("first", told.textContent);
  const press = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
  ["ArrowRight", "ArrowRight", "ArrowDown"].forEach(press);
  say("moved", told.textContent);
  choice.selectedIndex = 1;
  choice.dispatchEvent(new Event("change"));
  say("chosen", told.textContent);
  const box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 1, clientY: box.top + 1 }));
  say("pointed", told.textContent);
  setTimeout(() => say("shown", rows.map(pixel).join(" ")), 500);
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const free = [...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, pre, svg, .strip"));
  const wide = free.filter((one) => one.getBoundingClientRect().right > innerWidth + 1);
  say("wide", wide.map((one) => one.tagName + "." + one.className).join(" "));
  say("broken", [...document.images].filter((image) => image.complete && !image.naturalWidth).length);
  say("paper", getComputedStyle(document.body).backgroundColor);
  say("wrong", wrong.join("; "));
});
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_page(build_run(), path)
    text = path.read_text(encoding="utf-8")
    text = text.replace('<html lang="en">', f'<html lang="en">{BEFORE}').replace("</body>", AFTER)
    path.write_text(text, encoding="utf-8")
    return path


def seen(page, size, *options):
    """What the page wrote down, and what the browser's console said."""
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    words += [f"--window-size={size}", f"--user-data-dir={page.parent / 'profile'}", *options]
    words += ["--virtual-time-budget=4000", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=True)
    body = re.search(r"<body[^>]*>", done.stdout)[0]
    said = {name: html.unescape(value) for name, value in re.findall(r'data-(\w+)="([^"]*)"', body)}
    return said, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("size", ["1280,900", "390,844"], ids=["desk", "phone"])
def test_nothing_goes_wrong_and_nothing_is_too_wide(page, size):
    said, console = seen(page, size)
    assert console == []
    assert (said["wrong"], said["wide"], said["broken"]) == ("", "", "0")
    assert said["first"].startswith("Point at an entry")
    assert re.fullmatch(r"class 0, no\. 2 and class 0, no\. 2: 1\.00", said["moved"])
    assert re.fullmatch(r"class 0, no\. 2 and class 0, no\. 2: 1\.00", said["chosen"])
    assert re.fullmatch(r"class 0, no\. 1 and class 9, no\. 12: -?\d\.\d\d", said["pointed"])
    assert said["shown"] == "101 220"  # the second pixels of pictures 100 and 219


def test_the_page_is_dark_where_the_reader_is(page):
    light = seen(page, "800,600")[0]["paper"]
    dark = seen(page, "800,600", "--blink-settings=preferredColorScheme=0")[0]["paper"]
    assert (light, dark) == ("rgb(253, 253, 252)", "rgb(21, 24, 27)")
