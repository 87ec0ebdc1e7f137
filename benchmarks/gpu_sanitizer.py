"""NVIDIA's compute-sanitizer on the script that launches every kernel of npk: where it is, how it
is called, what it found.
"""

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SCRIPT = Path(__file__).with_name("gpu_launches.py")
DONE = "all kernels of npk have run"  # the last line of the script
MISSING = (
    "compute-sanitizer is not installed. It is part of the CUDA toolkit; "
    "pip install 'cuda-toolkit[sanitizer]==12.*' (drivers for CUDA 13: 13.*) brings it alone"
)


@dataclass(frozen=True)
class Finding:
    """What a tool found: a number of errors, or ``None`` where it did not get to the end; the last
    lines of what it said.
    """

    tool: str
    errors: int | None
    output: str

    @property
    def passed(self) -> bool:
        """Whether it ran to the end and found nothing."""
        return self.errors == 0


def find_sanitizer() -> Path | None:
    """The program: on the path, or in a package of this Python."""
    on_path = shutil.which("compute-sanitizer")
    found = (
        [Path(on_path)]
        if on_path
        else sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/compute-sanitizer"))
    )
    return found[-1] if found else None


def command(sanitizer: Path, tool: str) -> list[str]:
    """The command line: npk's kernels alone, gaps between all arrays, and a code of its own for
    errors.
    """
    # the package for CUDA 12 does not find them by itself
    libraries = sanitizer.parent.parent / "lib"
    injection = (
        ["--injection-path", str(libraries)]
        if (libraries / "libsanitizer-collection.so").exists()
        else []
    )
    gaps = ["--padding", "64"] if tool == "memcheck" else []
    options = [
        "--tool",
        tool,
        *injection,
        *gaps,
        "--kernel-name",
        "kernel_substring=npk_",
        "--print-limit",
        "20",
        "--error-exitcode",
        "9",
    ]
    return [str(sanitizer), *options, sys.executable, str(SCRIPT)]


def errors_in(output: str) -> int | None:
    """The number in a tool's last summary, such as ``ERROR SUMMARY: 3 errors``; ``None`` without
    one.

    Of ``RACECHECK SUMMARY: 2 hazards displayed (0 errors, 2 warnings)`` hazards count, whatever
    they are called.
    """
    found = None
    for line in output.splitlines():
        words = line.partition(" SUMMARY: ")[2].split()
        found = int(words[0]) if words and words[0].isdigit() else found
    return found


def judged(tool: str, output: str, code: int) -> Finding:
    """What an output says: a run that did not get to its end, or ended with a code that its summary
    does not explain, found nothing out.
    """
    errors, tail = errors_in(output), "\n".join(output.splitlines()[-40:])
    whole = DONE in output and (code == 0) == (errors == 0)
    return Finding(tool, errors if whole or errors else None, tail)


def run_tool(sanitizer: Path, tool: str) -> Finding:
    """Run one tool; it takes minutes."""
    done = subprocess.run(
        command(sanitizer, tool),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return judged(tool, done.stdout, done.returncode)
