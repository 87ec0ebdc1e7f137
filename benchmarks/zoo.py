"""Every classification model of torchvision (or timm) with random weights: traced or refused and
why, gates, masks, time a pair.

python benchmarks/zoo.py --out zoo --only 'resnet|vgg'

Each model runs in a process of its own with limits on time and memory. Results go to OUT.json after
each model, and what stands there is not run again; OUT.md is the table.

torchvision's wheel is built for CUDA. Beside a torch for CPUs its own C++ operators are not loaded,
and its import then fails for want of two of them, ``nms`` and ``qnms``, that no classification
model uses. Here they are declared, without a kernel: a model that called one would fail.
"""

import argparse
import functools
import importlib
import importlib.util
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# the first that a model accepts is taken
SIZES = (64, 75, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512, 518)
SAMPLES = 16  # whose kernel is timed
_PLAN = (("planned", "s"), ("gigabytes", "GB"))


def main() -> None:
    """Run the models that are missing in the JSON file, then write the table."""
    options = parsed()
    if options.one:
        resource.setrlimit(resource.RLIMIT_DATA, (int(options.memory * 1e9),) * 2)
        measure_one(options.library, options.one, options.until)
        return
    file = options.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(file.read_text())["models"] if file.exists() else {}
    for name in chosen(options.library, options.only):
        if name not in found:
            found[name] = in_own_process(name, options)
            file.write_text(
                json.dumps({"about": about(options.library), "models": found}, indent=1)
            )
            print(f"{name}: {status(found[name])}", flush=True)
    options.out.with_suffix(".md").write_text(table(found))
    traced = sum(bool(row.get("traced")) for row in found.values())
    print(f"{traced} of {len(found)} models traced; see {options.out.with_suffix('.md')}")


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", choices=("torchvision", "timm"), default="torchvision")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="models whose name it matches from the start"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("zoo"), help="files to write, without suffix"
    )
    parser.add_argument("--seconds", type=float, default=600, help="limit for a model")
    parser.add_argument("--memory", type=float, default=8, help="limit for a model, in GB")
    parser.add_argument(
        "--until",
        choices=("traced", "masks", "planned", "measured"),
        default="measured",
        help="the last to find",
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(library: str, only: str) -> list[str]:
    """Names of the classification models."""
    if library == "timm":
        names = importlib.import_module("timm").list_models()
    else:
        declare_operators()
        models = importlib.import_module("torchvision.models")
        names = models.list_models(module=models)
    return [name for name in names if re.match(only, name)]


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What :func:`measure_one` finds, and why it stopped where it did."""
    command = [
        sys.executable,
        __file__,
        "--library",
        options.library,
        "--memory",
        str(options.memory),
    ]
    command += ["--until", options.until, "--one", name]
    start, failed = time.perf_counter(), ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=options.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            failed = f"not ready after {options.seconds:g} s"
    if process.returncode and not failed:
        failed = (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:300]
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    found = {key: value for row in rows for key, value in row.items()} | {
        "seconds": time.perf_counter() - start
    }
    return found | ({"failed": failed} if failed else {})


def measure_one(library: str, name: str, until: str) -> None:
    """One model, in this process; prints a JSON object after each step, so that what was found
    stays if a limit is reached.
    """
    import torch

    from npk.errors import NpkError

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    net = model(library, name)
    size = accepted_size(net)
    tell({"size": size, "parameters": sum(p.numel() for p in net.parameters())})
    try:
        for row in steps(net, size):
            tell(row)
            if until in row:
                break
    except NpkError as error:
        tell({"traced": False, "why": str(error).splitlines()[0]})


def tell(row: dict[str, Any]) -> None:
    """A line for the process above."""
    print(json.dumps(row), flush=True)


def steps(net: Any, size: int) -> Iterator[dict[str, Any]]:
    """Trace, gates, plan; seconds until the plan is compiled, and of a pair."""
    import numpy as np

    from npk.gram.kernel import NeuralPathKernel
    from npk.gram.pace import measure
    from npk.recursion.planning import plan
    from npk.structure.effort import effort

    start = time.perf_counter()
    kernel = NeuralPathKernel(net, bias="ignore", progress=False)
    table = kernel.record(
        np.random.default_rng(0).standard_normal((SAMPLES, 3, size, size), dtype=np.float32)
    )
    gates = sum(int(np.prod(table.entries[name].shape)) for name in table.names)
    paths = math.log10(table.graph.path_count())
    yield {
        "traced": True,
        "seconds_trace": time.perf_counter() - start,
        "gates": gates,
        "layers": table.layers,
        "paths": f"10^{paths:.1f}",
    }
    recursion = plan(table.graph, bias="ignore")
    yield {"masks": len(recursion.masks)}
    counts = effort(recursion, [mask.is_hard(table) for mask in recursion.masks])
    yield {"position_pairs": counts.cells, "operations": counts.operations}
    start = time.process_time()  # of the processor: others may be at work
    kernel.engine.prepare(table)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    yield {"planned": time.process_time() - start, "gigabytes": held}
    yield {"measured": measure(kernel, table).seconds_a_pair}


def model(library: str, name: str) -> Any:
    """A model with random weights in eval mode."""
    if library == "timm":
        return importlib.import_module("timm").create_model(name, pretrained=False).eval()
    declare_operators()
    slow_start = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return (
        importlib.import_module("torchvision.models")
        .get_model(name, weights=None, **slow_start)
        .eval()
    )


@functools.cache  # an operator is declared once
def declare_operators() -> None:
    """Have torchvision imported beside a torch that cannot load its C++ operators."""
    import torch

    package = Path(importlib.util.find_spec("torchvision").origin).parent
    try:
        torch.ops.load_library(str(package / "_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )


def accepted_size(net: Any) -> int:
    """Side of the smallest picture that the model takes; the last one if it takes none."""
    import torch

    for size in SIZES:
        try:
            with torch.no_grad():
                net(torch.zeros(2, 3, size, size))
        except Exception:  # whatever the model says to a size that it was not made for
            continue
        return size
    return SIZES[-1]


def about(library: str) -> dict[str, str]:
    """Versions and machine."""
    import torch

    return {
        "library": f"{library} {importlib.import_module(library).__version__}",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}",
    }


def status(row: dict[str, Any]) -> str:
    """One model in a few words."""
    if "why" in row:
        return f"refused: {row['why']}"
    said = "traced" if row.get("traced") else ""
    return f"{said} ({row['failed']})".strip() if "failed" in row else said


def table(found: dict[str, Any]) -> str:
    """The results in Markdown: models that were read, then the others with the reason."""
    head = (
        "model",
        "side",
        "gates",
        "paths",
        "masks",
        "position pairs",
        "planned",
        "memory",
        "a pair",
    )
    read = [(name, *cells(row)) for name, row in found.items() if row.get("traced")]
    others = [
        (name, str(row.get("size", "")), status(row).replace("|", "\\|"))
        for name, row in found.items()
        if not row.get("traced")
    ]
    return markdown(head, read) + (
        "\n" + markdown(("model", "side", "result"), others) if others else ""
    )


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table."""
    rule = ("---", *("---" if name == "result" else "--:" for name in head[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)) + "\n"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Columns of the table after the name; a limit that was reached stands in the place of a time."""
    counts = [f"{row[key]:,}" if key in row else "" for key in ("gates", "masks", "position_pairs")]
    planned, held = (f"{row[key]:.2g} {unit}" if key in row else "" for key, unit in _PLAN)
    pair = f"{1e3 * row['measured']:.3g} ms" if "measured" in row else row.get("failed", "")
    size, paths = str(row.get("size", "")), row.get("paths", "")
    return (size, counts[0], paths, *counts[1:], planned, held, pair)


if __name__ == "__main__":
    main()
