"""NVIDIA's compiler by ctypes, out of its wheel: no GPU, no driver, no CuPy."""

import ctypes
import functools
import re
import sys
from pathlib import Path

from emu.cache import kept

_PLACES = ("nvidia/cuda_nvrtc/lib/libnvrtc.so.*", "nvidia/cu1*/lib/libnvrtc.so.*")


@functools.cache
def compilers():
    """The compilers of the wheels that are installed, by major version."""
    found = [
        path
        for base in sys.path
        for place in _PLACES
        for path in Path(base or ".").glob(place)
        if "alt" not in path.name
    ]
    return {int(path.suffix[1:]): Nvrtc(path) for path in sorted(found)}


class Nvrtc:
    """One libnvrtc.

    Args:
        path: of the library.
    """

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = (major.value, minor.value)
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        known = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(known))
        self.architectures = tuple(known)

    def ptx(self, source, arch, options=()):
        """The text of PTX for an architecture such as 80, with the lines of the source."""
        path = kept(
            ("ptx", self.version, source, arch, options),
            lambda path: path.write_bytes(self._ptx(source, arch, options)),
        )
        return path.read_text()

    def _ptx(self, source, arch, options):
        return self._compile(source, f"compute_{arch}", ("-lineinfo", *options), "PTX")[0]

    def cubin(self, source, arch, options=()):
        """Machine code for an architecture such as 80, and what the compiler says."""
        folder = ("cubin", self.version, source, arch, options)
        image = kept(folder, lambda path: path.write_bytes(self._cubin(source, arch, options)[0]))
        log = kept(
            (*folder, "log"), lambda path: path.write_text(self._cubin(source, arch, options)[1])
        )
        return image.read_bytes(), log.read_text()

    @functools.lru_cache(1)  # noqa: B019 (image and log are asked for one after the other, by objects that live as long as the tests)
    def _cubin(self, source, arch, options):
        return self._compile(source, f"sm_{arch}", ("--ptxas-options=-v", *options), "CUBIN")

    def _compile(self, source, arch, options, kind):
        program, library = ctypes.c_void_p(), self._library
        self._check(
            library.nvrtcCreateProgram(
                ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
            )
        )
        options = [option.encode() for option in ("-std=c++17", f"-arch={arch}", *options)]
        code = library.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*options)
        )
        log = self._read(program, "nvrtcGetProgramLog").decode().rstrip("\0")
        if code:
            raise RuntimeError(f"{library.nvrtcGetErrorString(code).decode()}\n{log}")
        image = self._read(program, f"nvrtcGet{kind}")
        library.nvrtcDestroyProgram(ctypes.byref(program))
        return image, log

    def _read(self, program, name):
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"{name}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, name)(program, text))
        return text.raw

    def _check(self, code):
        if code:
            raise RuntimeError(self._library.nvrtcGetErrorString(code).decode())


def resources(log):
    """What each kernel takes, out of the compiler's log: registers, shared memory, stack and
    spills.
    """
    found, last = {}, {}
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            last = found.setdefault(
                entry[1], {"registers": 0, "shared": 0, "stack": 0, "spills": 0}
            )
        elif stack := re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes "
            r"spill loads",
            line,
        ):
            last |= {"stack": int(stack[1]), "spills": int(stack[2]) + int(stack[3])}
        elif used := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            last |= {"registers": int(used[1]), "shared": int(shared[1]) if shared else 0}
    return found
