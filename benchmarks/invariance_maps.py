"""The suite of invariance, and the picture of its maps: which shifts leave the kernel of which
network alone.

python benchmarks/invariance_maps.py --out run --picture docs/img/invariance_maps.png
python benchmarks/invariance_maps.py --data digits --out run

Prints a row a network. A run that was stopped goes on; one that is finished is only drawn again.
"""

import argparse
from pathlib import Path

import numpy as np

import npk
from npk.bench import invariance
from npk.bench.kinds import pictures
from npk.report import invariance_figures
from npk.report.style import house_style


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="DATA; smooth noise of 1 x 16 x 16 if left out")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the run")
    parser.add_argument("--picture", type=Path, default=Path("invariance_maps.png"))
    parser.add_argument("--levels", type=Path, help="picture of all levels against distance")
    options = parser.parse_args()
    suite = invariance.run(options.out, samples(options), data=options.data or "smooth noise")
    for _, case in suite.cases():
        print(f"{case.label}: {case.summary}")
    with house_style():
        cases = [case for _, case in suite.cases()]
        shown = [case for case in cases if invariance_figures.has_map(case)]
        invariance_figures.maps(shown).savefig(options.picture, dpi=150)
        if options.levels:
            curved = [case for case in cases if case.curves]
            invariance_figures.levels(curved).savefig(options.levels, dpi=150)


def samples(options: argparse.Namespace) -> np.ndarray:
    """Those of the data, or noise."""
    if options.data:
        return npk.data.load(options.data).X[: options.samples]
    return pictures(options.samples, 0)


if __name__ == "__main__":
    main()
