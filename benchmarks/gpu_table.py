"""What a run on a GPU found, as a file of JSON and as a table."""

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_compare import Comparison
from gpu_sanitizer import Finding
from timing import duration

FOLDER = Path(__file__).with_name("results")
NOBODY = (
    "Nobody has run this on a GPU yet: there is no result, and no figure for a GPU anywhere "
    "in npk's pages is a measured one."
)
HEAD = """# On a GPU

Written by `make gpu`. It runs the tests that need a GPU, every kernel under compute-sanitizer, and npk's kernels and solvers beside their
peers: all in turns in one process, so that the ratio is the figure. `gpu.json` beside this file has the raw samples.
"""


def results_of(
    about: dict[str, str], tests: str, findings: list[Finding], comparisons: list[Comparison]
) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        "about": about,
        "tests": tests,
        "sanitizer": [{"tool": f.tool, "errors": f.errors} for f in findings],
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def page(results: dict[str, Any] | None) -> str:
    """The page; without results it says that there are none."""
    if results is None:
        return f"{HEAD}\n{NOBODY}\n\n{table([])}"
    about = "\n".join(f"- {name}: {value}" for name, value in results["about"].items())
    checked = (
        ", ".join(f"{f['tool']} {outcome(f['errors'])}" for f in results["sanitizer"]) or "not run"
    )
    notes = "".join(
        f"\n{note}.\n" for comparison in results["comparisons"] for note in comparison["notes"]
    )
    return (
        f"{HEAD}\n{about}\n- tests: {results['tests']}\n- compute-sanitizer: "
        f"{checked}\n\n{table(results['comparisons'])}{notes}"
    )


def outcome(errors: int | None) -> str:
    """Of one of the sanitizer's tools."""
    return "did not get to its end" if errors is None else f"{errors} error{'s' * (errors != 1)}"


def table(comparisons: list[dict[str, Any]]) -> str:
    """A row for each route: median, smallest and largest, and the median ratio to npk's first route
    in the same turn.
    """
    rows = ["| task | route | time | spread | ratio to npk |", "|---|---|---|---|---|"]
    for comparison in comparisons:
        sizes = ", ".join(f"{name} {size}" for name, size in comparison["sizes"].items())
        first = comparison["timings"][0]["seconds"]
        for timing in comparison["timings"]:
            seconds = timing["seconds"]
            ratio = statistics.median(own / npk for own, npk in zip(seconds, first, strict=True))
            spread = f"{duration(min(seconds))} .. {duration(max(seconds))}"
            time = f"{duration(statistics.median(seconds))} a {comparison['unit']}"
            rows.append(
                f"| {comparison['name']}: {sizes} | {timing['name']} | {time} | {spread} | "
                f"{ratio:.2f} |"
            )
    return "\n".join(rows) + "\n"


def read(folder: Path = FOLDER) -> dict[str, Any] | None:
    """The results that are there."""
    file = folder / "gpu.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def write(results: dict[str, Any] | None, folder: Path = FOLDER) -> None:
    """Write both files; without results the page alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if results:
        (folder / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(page(results), encoding="utf-8")
