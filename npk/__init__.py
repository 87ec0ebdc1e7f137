"""A toolkit for the neural path kernel of networks with rectified linear units.

A checkpoint becomes a path graph, running it over data gives gate tables, a recursion planned from
the graph turns two gate tables into a tile of the kernel, tiles make a Gram matrix, and solvers,
checks and reports read that matrix.
"""

import importlib
from typing import TYPE_CHECKING

from npk import errors as _errors
from npk import forks as forks

__version__ = "0.1.0"

if TYPE_CHECKING:
    from npk import data as data
    from npk import errors as errors
    from npk import measures as measures
    from npk import networks as networks
    from npk import plot as plot
    from npk.checkpoint import load as load
    from npk.checkpoint import save as save
    from npk.checks.duality import check_duality as check_duality
    from npk.checks.ensemble import check_ensemble as check_ensemble
    from npk.checks.invariance import check_invariance as check_invariance
    from npk.checks.lesions import lesions as lesions
    from npk.checks.orbits import orbit_average as orbit_average
    from npk.checks.spectrum import depth_spectrum as depth_spectrum
    from npk.checks.tangent import check_tangent as check_tangent
    from npk.gates.recording import record_gates as record_gates
    from npk.gates.table import GateTable as GateTable
    from npk.gram.kernel import NeuralPathKernel as NeuralPathKernel
    from npk.gram.kernel import kernel as kernel
    from npk.gram.matrix import Gram as Gram
    from npk.graph.path_graph import PathGraph as PathGraph
    from npk.machines.approximate.nystroem import NPKNystroem as NPKNystroem
    from npk.machines.approximate.path_features import RandomPathFeatures as RandomPathFeatures
    from npk.machines.approximate.sketches import ProductSketch as ProductSketch
    from npk.machines.estimators import NPKSVC as NPKSVC
    from npk.machines.estimators import NPKGaussianProcessRegressor as NPKGaussianProcessRegressor
    from npk.machines.estimators import NPKRidge as NPKRidge
    from npk.machines.estimators import NPKRidgeClassifier as NPKRidgeClassifier
    from npk.machines.several import NPKMultiKernelRidgeClassifier as NPKMultiKernelRidgeClassifier
    from npk.networks.outputs import choose_output as choose_output
    from npk.reading.tracing import trace as trace
    from npk.recursion.instruments import Depth as Depth
    from npk.recursion.instruments import Tangent as Tangent
    from npk.recursion.instruments import Weighted as Weighted
    from npk.recursion.instruments import Without as Without
    from npk.studies.asking import study as study
    from npk.tracks import track as track

# Where each public name lives; a name's module is loaded when the name is first used (PEP 562), so
# that `import npk` stays light.
_HOME = {
    "Depth": "npk.recursion.instruments",
    "GateTable": "npk.gates.table",
    "Gram": "npk.gram.matrix",
    "NPKGaussianProcessRegressor": "npk.machines.estimators",
    "NPKMultiKernelRidgeClassifier": "npk.machines.several",
    "NPKNystroem": "npk.machines.approximate.nystroem",
    "NPKRidge": "npk.machines.estimators",
    "NPKRidgeClassifier": "npk.machines.estimators",
    "NPKSVC": "npk.machines.estimators",
    "NeuralPathKernel": "npk.gram.kernel",
    "PathGraph": "npk.graph.path_graph",
    "ProductSketch": "npk.machines.approximate.sketches",
    "RandomPathFeatures": "npk.machines.approximate.path_features",
    "Tangent": "npk.recursion.instruments",
    "Weighted": "npk.recursion.instruments",
    "Without": "npk.recursion.instruments",
    "check_duality": "npk.checks.duality",
    "check_ensemble": "npk.checks.ensemble",
    "check_invariance": "npk.checks.invariance",
    "check_tangent": "npk.checks.tangent",
    "choose_output": "npk.networks.outputs",
    "data": "npk",
    "depth_spectrum": "npk.checks.spectrum",
    "errors": "npk",
    "kernel": "npk.gram.kernel",
    "lesions": "npk.checks.lesions",
    "load": "npk.checkpoint",
    "measures": "npk",
    "networks": "npk",
    "orbit_average": "npk.checks.orbits",
    "plot": "npk",
    "record_gates": "npk.gates.recording",
    "save": "npk.checkpoint",
    "study": "npk.studies.asking",
    "trace": "npk.reading.tracing",
    "track": "npk.tracks",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(
            f"module 'npk' has no attribute {name!r}. Public names are: {', '.join(sorted(_HOME))}."
        )
    try:
        module = importlib.import_module(f"npk.{name}" if home == "npk" else home)
    except ModuleNotFoundError as error:  # a package that npk depends on
        raise _errors.missing(error) or error from error
    value = module if home == "npk" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
