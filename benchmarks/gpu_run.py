"""What only a GPU can show: the tests marked ``gpu``, every kernel under compute-sanitizer, and the
benchmarks beside their peers.

python benchmarks/gpu_run.py [--only tests sanitizer benchmarks]

Results go to benchmarks/results/. Exit codes: 0 all is well, 1 a test, the sanitizer or a benchmark
failed, 2 there is no GPU to run on.
"""

import argparse
import ctypes
import datetime
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_compare
import gpu_sanitizer
import gpu_table
import torch
from timing import machine

import npk
from npk.backends.cuda.launcher import CupyLauncher, find_launcher
from npk.errors import BackendError

STEPS = ("tests", "sanitizer", "benchmarks")
ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Run the steps, write the results."""
    options = parsed(arguments)
    if why := missing():
        print(f"npk: {why}", file=sys.stderr)
        return 2
    launcher = find_launcher()
    tests, tests_passed = run_tests() if "tests" in options.only else ("not run", True)
    findings, clean = run_sanitizer() if "sanitizer" in options.only else ([], True)
    place = gpu_compare.Place(launcher, launcher.xp.cuda.runtime.deviceSynchronize)
    comparisons = (
        gpu_compare.compare_all(place, gpu_compare.LARGE, options.repeat)
        if "benchmarks" in options.only
        else []
    )
    results = gpu_table.results_of(about(launcher), tests, findings, comparisons)
    gpu_table.write(results, options.out)
    print(gpu_table.page(results))
    return 0 if tests_passed and clean else 1


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="steps to run")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--out", type=Path, default=gpu_table.FOLDER, help="folder for the results")
    return parser.parse_args(arguments)


def missing() -> str:
    """Why nothing can be run here; nothing if it can."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (
            "make gpu needs an NVIDIA GPU, and there is no NVIDIA driver on this machine. Run "
            "it where nvidia-smi lists a GPU."
        )
    try:
        find_launcher()
    except BackendError as error:
        advice = (
            ""
            if "CuPy" not in str(error)
            else " Here: .venv/bin/pip install -e '.[cuda12]' "
            "'cuda-toolkit[cublas,cusolver,sanitizer]==12.*'."
        )
        return (
            f"make gpu cannot run: "
            f"{str(error).partition(', or use backend=')[0].rstrip('.')}.{advice}"
        )
    if not torch.cuda.is_available():
        return (
            f"make gpu needs a PyTorch for CUDA, and {torch.__version__} finds no device. "
            f"Install one from pytorch.org into .venv."
        )
    return ""


def run_tests() -> tuple[str, bool]:
    """The last line of pytest, and whether all tests passed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "--no-header",
        str(ROOT / "tests"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout)
    return summary(done.stdout), done.returncode == 0


def summary(output: str) -> str:
    """The last line that is not empty, without what frames it."""
    lines = [line.strip("= ") for line in output.splitlines() if line.strip("= ")]
    return lines[-1] if lines else "no output"


def run_sanitizer() -> tuple[list[gpu_sanitizer.Finding], bool]:
    """What the tools found, and whether they all ran and found nothing."""
    sanitizer = gpu_sanitizer.find_sanitizer()
    if sanitizer is None:
        print(f"npk: {gpu_sanitizer.MISSING}.", file=sys.stderr)
        return [], False
    findings = [gpu_sanitizer.run_tool(sanitizer, tool) for tool in gpu_sanitizer.TOOLS]
    for finding in findings:
        print(
            f"{finding.tool}: "
            f"{gpu_table.outcome(finding.errors)}"
            + ("" if finding.passed else f"\n{finding.output}")
        )
    return findings, all(finding.passed for finding in findings)


def about(launcher: CupyLauncher) -> dict[str, str]:
    """Device, driver, versions and date."""
    cupy: Any = launcher.xp
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(launcher.device.id)
    return {
        "device": f"{properties['name'].decode()}, sm_{launcher.capability}, "
        f"{properties['totalGlobalMem'] / 1e9:.0f} GB",
        "driver": f"{driver()}, CUDA {runtime.driverGetVersion()}; runtime "
        f"{runtime.runtimeGetVersion()}",
        "versions": f"npk {npk.__version__}, CuPy {cupy.__version__}",
        "host": machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def driver() -> str:
    """Version of the driver, as nvidia-smi tells it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "version not known (no nvidia-smi)"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return (done.stdout.split() or ["version not known"])[0]


if __name__ == "__main__":
    sys.exit(main())
