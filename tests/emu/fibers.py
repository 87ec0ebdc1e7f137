"""Run kernels compiled by g++: every thread is a fiber (``fibers.cpp``), CUDA's words are C++
(``cuda_as_cpp.h``).

"fast" gives results only; "check" looks at what ``ptx`` looks at, and at undefined behavior of C++,
by the compiler's own instrumentation, whose call-backs ``fibers.cpp`` defines.
"""

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from emu import Violation
from emu.cache import kept

_HERE = Path(__file__).parent
_COMMON = (
    "-std=gnu++17",
    "-fPIC",
    "-g",
    "-fno-omit-frame-pointer",
    "-fvisibility=hidden",
    "-fno-exceptions",
)
_UNDEFINED = "-fsanitize=undefined,bounds-strict,float-divide-by-zero"
_MODES = {
    "fast": (("-O2", "-mpopcnt", "-ffp-contract=off"), ()),
    "check": (
        ("-O1", "-fsanitize=thread", _UNDEFINED, "-fno-sanitize=vptr", "-ffp-contract=off"),
        ("-DNPK_EMU_CHECK=1",),
    ),
}
_ORDERS = {"forward": 0, "reverse": 1, "random": 2}
_RED = 1 << 16  # bytes around each buffer: a stray access does not reach Python's memory
_STACK = 1 << 16


def compiler_is_missing():
    """Whether there is no g++."""
    return shutil.which("g++") is None


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def _runtime(mode):
    source, checker, flags = (
        _HERE / "fibers.cpp",
        _HERE / "fiber_checker.h",
        ("-O2", *_COMMON, *_MODES[mode][1]),
    )
    return kept(
        ("runtime", source.read_text(), checker.read_text(), flags),
        lambda path: _run("g++", *flags, "-c", source, "-o", path),
    )


class FiberModule:
    """A source compiled as C++.

    Args:
        source: text without includes.
        mode: "fast" or "check".
        options: macros.
    """

    def __init__(self, source, mode, options=()):
        self._runtime = _runtime(mode)
        self._flags = (*_COMMON, *_MODES[mode][0], *options, "-Wall", "-Wno-unknown-pragmas")
        pattern = r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\('
        exports = "".join(f"NPK_EMU_EXPORT({name})\n" for name in re.findall(pattern, source))
        self._text = f"{source}\n#line 100000\n{exports}"
        headers = tuple(path.read_text() for path in sorted(_HERE.glob("*.h")))
        self.path = kept(
            ("module", self._text, headers, self._runtime.name, self._flags), self._build
        )
        self.library = ctypes.CDLL(str(self.path))

    def _build(self, path):
        with tempfile.TemporaryDirectory() as folder:
            text, made = Path(folder) / "kernel.cu", Path(folder) / "kernel.o"
            text.write_text(self._text)
            names = (f"-fdebug-prefix-map={folder}/=", f"-fmacro-prefix-map={folder}/=")
            _run(
                "g++",
                *self._flags,
                *names,
                "-include",
                _HERE / "cuda_as_cpp.h",
                "-x",
                "c++",
                "-c",
                text,
                "-o",
                made,
            )
            # no sanitizer's library: the call-backs are our own
            _run("g++", "-shared", "-pthread", made, self._runtime, "-o", path)

    def where(self, text):
        """A message with lines of the source in place of addresses."""

        def line(found):
            place = _run("addr2line", "-e", self.path, found[1]).strip().rsplit("/", 1)[-1]
            return "at " + re.sub(r" \(disc.*", "", place)

        return re.sub(r"@pc=([0-9a-f]+)", line, text)


class FiberKernel:
    """A kernel that is called like one of CuPy.

    Args:
        module: that it is in.
        name: of the kernel.
    """

    def __init__(self, module, name):
        self.module, self._thunk = module, getattr(module.library, f"npk_emu_thunk_{name}")

    def __call__(self, grid, threads, args, written=(), blank=None, order="forward", profile=False):
        """Run ``grid`` blocks; ``args``, ``written`` and ``blank`` as for
        :class:`emu.ptx.PtxKernel`.

        Args:
            grid: number of blocks.
            threads: of a block.
            args: arrays and NumPy's scalars.
            written: numbers of the arrays that the kernel writes.
            blank: of those that hold nothing yet; ``None``: all that are written.
            order: of threads and blocks: "forward", "reverse" or "random".
            profile: whether to count the ways to memory; :meth:`counts` gives them.
        """
        library, pointers, buffers = self.module.library, [], []
        blank = written if blank is None else blank
        library.npk_emu_buffer(None, None, ctypes.c_size_t(0), 0, 0)
        for i, arg in enumerate(args):
            if isinstance(arg, np.ndarray):
                buffers.append(_Buffer(library, i, arg, i not in written, i in blank))
                pointers.append(ctypes.c_void_p(buffers[-1].address))
            else:
                pointers.append(ctypes.create_string_buffer(arg.tobytes(), arg.nbytes))
        addresses = (ctypes.c_void_p * len(pointers))(
            *(ctypes.addressof(pointer) for pointer in pointers)
        )
        sizes = [(ctypes.c_uint * 3)(size, 1, 1) for size in (grid, threads)]
        found = library.npk_emu_launch(
            self._thunk,
            *sizes,
            ctypes.c_size_t(0),
            addresses,
            _ORDERS[order],
            0,
            os.cpu_count(),
            ctypes.c_size_t(_STACK),
            int(profile),
        )
        wrong = [text for buffer in buffers for text in buffer.take_back()] + [
            self._error(i) for i in range(found)
        ]
        if wrong:
            raise Violation("\n".join(wrong))

    def _error(self, number):
        text = ctypes.create_string_buffer(2048)
        self.module.library.npk_emu_error(number, text, 2048)
        return self.module.where(text.value.decode())

    def counts(self):
        """Of each place in the source that reads or writes memory: ways that a warp's requests
        took, and the fewest possible.

        For shared memory passes (more where two threads need other words of one bank), else sectors
        of 32 bytes.
        """
        found, library = [], self.module.library
        place, shared, write, size, values = (
            ctypes.c_uint(),
            ctypes.c_int(),
            ctypes.c_int(),
            ctypes.c_uint(),
            (ctypes.c_ulonglong * 3)(),
        )
        out = [ctypes.byref(value) for value in (place, shared, write, size)]
        while library.npk_emu_profile(len(found), *out, values):
            where, kind = (
                self.module.where(f"@pc={place.value:x}"),
                "shared" if shared.value else "global",
            )
            found.append(
                {
                    "where": where,
                    "kind": kind,
                    "write": bool(write.value),
                    "fewest": values[1],
                    "taken": values[2],
                }
            )
        return found


class _Buffer:
    """A copy of an array in the middle of red zones."""

    def __init__(self, library, number, array, readonly, blank):
        self.number, self.array = number, array
        self.memory = np.full(array.nbytes + 2 * _RED, 0xA5, np.uint8)
        # allocations of a device begin at multiples of 256
        first = _RED - self.memory.ctypes.data % 256
        self.inside = slice(first, first + array.nbytes)
        if not blank:
            self.memory[self.inside] = array.reshape(-1).view(np.uint8)
        self.address = (
            self.memory[self.inside].ctypes.data
            if array.nbytes
            else self.memory.ctypes.data + first
        )
        size = ctypes.c_size_t(array.nbytes)
        library.npk_emu_buffer(
            f"arg{number}".encode(), ctypes.c_void_p(self.address), size, int(readonly), int(blank)
        )

    def take_back(self):
        """Copy the content back; say what was written outside."""
        self.array.reshape(-1).view(np.uint8)[:] = self.memory[self.inside]
        outside = np.concatenate(
            [self.memory[: self.inside.start], self.memory[self.inside.stop :]]
        )
        return [f"BOUNDS write outside arg{self.number}"] if (outside != 0xA5).any() else []
