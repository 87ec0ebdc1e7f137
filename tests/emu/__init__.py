"""Two emulators of CUDA kernels: their PTX on NumPy, and their source as C++ with a fiber for each
thread.
"""


class Violation(AssertionError):
    """A kernel broke a rule of the device: bounds, order of accesses, barriers, memory never
    written.
    """
